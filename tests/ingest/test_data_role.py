"""The data role with sources of its owner's, and with one that the task brings along."""

from pathlib import Path

import pytest

from node.serving.data_role import DataRole
from node.serving.role import Done, LegInput, nowhere
from node.serving.sources import Sources, passages_of
from store import Store, open_memory_store
from tests.ingest.servers import MadeUpNetwork, answering, reply
from tests.ingest.test_bring import SITE, ingest_at
from tests.ingest.test_parsing import extraction
from wire.content import ContentId
from wire.errors import Malformed, Refused
from wire.fetch import AttestedFetch
from wire.kinds import RefusalCode, Role
from wire.payload import Passages, Texts
from wire.task import Stage

TABLE = SITE.replace("/a", "/t") + 'format = "json"\n'


async def done(
    role: DataRole, name: str, data: bytes | None = None, operation: str = "fetch"
) -> Done:
    stage = Stage(role=Role.DATA, operation=operation, model=None, parameters={"source": name})
    given = None if data is None else ContentId.of(data)
    source = LegInput(id=given, data=data, holders=(), deadline_s=30)
    return await role.do(stage, source, nowhere)


def role_at(folder: Path, store: Store, body: bytes = b"one\n\ntwo") -> DataRole:
    ingest = ingest_at(folder, MadeUpNetwork(answer=answering(reply(body))))
    ingest.owned.add("site", SITE)
    ingest.owned.add("table", TABLE)
    return DataRole(Sources({}), store, ingest)


async def test_passages_commit_to_the_record_of_their_fetch(tmp_path: Path) -> None:
    async with open_memory_store(quota_bytes=1 << 30) as store:
        found = await done(role_at(tmp_path, store), "site")
        passages = Passages.from_bytes(found.data)
        assert (passages.source, passages.total) == ("site", 1)
        (attested,) = passages.attested
        record = AttestedFetch.from_bytes(found.blobs[-1])
        assert ContentId.of(found.blobs[-1]) == attested
        assert found.blobs[0] == b"one\n\ntwo"
        assert await store.get(record.body) == await store.get(record.output) == b"one\n\ntwo"


async def test_each_row_of_a_table_is_a_passage(tmp_path: Path) -> None:
    body = b'[{"a": 1, "b": "x"}, {"a": 2, "b": null}]'
    async with open_memory_store(quota_bytes=1 << 30) as store:
        found = await done(role_at(tmp_path, store, body), "table")
        assert found.blobs[:-1] == (b"a: 1\nb: x", b"a: 2")
        assert found.units == 2


async def test_the_names_of_all_sources_are_listed(tmp_path: Path) -> None:
    async with open_memory_store(quota_bytes=1 << 30) as store:
        found = await done(role_at(tmp_path, store), "", operation="list")
        assert Texts.from_bytes(found.data).texts == ("site", "table")


async def test_a_source_that_comes_with_the_task_is_fetched_as_its_owner_lets(
    tmp_path: Path,
) -> None:
    async with open_memory_store(quota_bytes=1 << 30) as store:
        role = role_at(tmp_path, store)
        assert role.ingest is not None
        own = role.ingest.owned.get("site")
        assert (await done(role, "mine", own.to_bytes())).units == 1
        role.ingest.owned.remove("site")
        with pytest.raises(Refused, match="for others") as caught:
            await done(role, "mine", own.to_bytes())
        assert caught.value.code is RefusalCode.NOT_WILLING
        with pytest.raises(Refused, match="mine is not brought in"):
            await done(role, "mine", b"no record")


@pytest.mark.parametrize(
    ("body", "words"), [(b"{", "not JSON"), (b"[]", "none from number 0"), (b"\xff", "not utf-8")]
)
async def test_what_cannot_be_brought_in_is_refused_in_words(
    tmp_path: Path, body: bytes, words: str
) -> None:
    async with open_memory_store(quota_bytes=1 << 30) as store:
        with pytest.raises(Refused, match=words):
            await done(role_at(tmp_path, store, body), "table")


def test_long_rows_and_binary_sources() -> None:
    rows = b'["a"]\n["' + b"word " * 400 + b'"]\n'
    assert len(passages_of(extraction("json"), rows)) > 2
    with pytest.raises(Malformed, match="no text"):
        passages_of(extraction("binary"), b"\x00")
