"""An attested fetch from end to end: asked for, done by a data peer, and checked offline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.checking.audit import audit
from node.checking.report import AuditReport, Status
from node.commands.fetched import check_fetches
from node.ingest.bring import Brought, Ingest
from node.ingest.owned import OwnedSources
from node.ingest.source_file import read_source
from node.local.bundles import Fetch, export_receipt, open_bundle
from node.local.commands import LocalCommands
from node.peer import Node
from tests.ingest.servers import MadeUpNetwork, answering, reply
from tests.ingest.test_bring import InProcess, ingest_at
from tests.node.network import D, Network, S, open_network
from wire.content import ContentId, PeerId
from wire.errors import BatonError, InputError, Malformed
from wire.fetch import AttestedFetch
from wire.tree import name_of

PRICES = 'kind = "http"\nurl = "http://example.org/t"\nformat = "json"\nkeep_headers = ["etag"]\n'
TABLE = b'[{"t": 1, "price": 1.5}, {"t": 2, "price": 2.5}]'


def unheard(_: Mapping[str, Any]) -> None: ...


class LyingIngest(Ingest):
    """Signs for something else than it fetched: what `lie` makes of it."""

    async def _once(self, *arguments: Any, **settings: Any) -> Brought:
        return lie(await super()._once(*arguments, **settings))


def lie(brought: Brought) -> Brought:
    body = brought.body.replace(b"2.5", b"9.9")
    return Brought(replace(brought.record, body=ContentId.of(body)), body, brought.output)


async def data_peer(
    network: Network, *, strangers: str = "", body: bytes = TABLE, kind: type[Ingest] = Ingest
) -> Node:
    number = network.opened
    folder = network.folder / f"owner{number}"
    folder.mkdir()
    site = MadeUpNetwork(answer=answering(reply(body, headers={"etag": "seven"})))
    ingest = ingest_at(folder, site)
    if strangers:
        rules = folder / "fetching.toml"
        rules.write_text(f'strangers = ["{strangers}"]')
        rules.chmod(0o600)
    else:
        ingest.owned.add("prices", PRICES)
    wall_s = network.environment(number).wall_s
    own = kind(ingest.owned, ingest.fetcher, InProcess(), wall_s)
    return await network.start(D, S, alter=lambda it: replace(it, ingest=own))


async def data_peer_of(
    network: Network, site: MadeUpNetwork, lie: Callable[[Brought], Brought] | None = None
) -> Node:
    """A data peer that fetches from example.org for others, and signs what `lie` makes of it."""
    number = network.opened
    folder = network.folder / f"owner{number}"
    folder.mkdir()
    rules = folder / "fetching.toml"
    rules.write_text('strangers = ["example.org"]')
    rules.chmod(0o600)

    class Lying(Ingest):
        async def _once(self, *arguments: Any, **settings: Any) -> Brought:
            brought = await super()._once(*arguments, **settings)
            return brought if lie is None else lie(brought)

    own = Lying(OwnedSources(folder), site.fetcher, InProcess(), network.environment(number).wall_s)
    return await network.start(D, S, alter=lambda it: replace(it, ingest=own))


async def fetched(asker: Node, **arguments: Any) -> dict[str, Any]:
    asked = {"name": "prices", "deadline_s": 30, **arguments}
    with trio.fail_after(120):
        return await LocalCommands(asker).commands()["fetch"](asked, unheard)


@dataclass
class Kept:
    """A fetch as it is kept beside its receipt."""

    answer: bytes
    at_hand: dict[ContentId, bytes]
    record: AttestedFetch
    record_id: ContentId

    async def report(self) -> AuditReport:
        found = audit(self.answer, self.at_hand.get)
        await check_fetches(found, self.at_hand.get, InProcess().extract)
        return found

    def without(self, *content: ContentId) -> "Kept":
        left = {key: it for key, it in self.at_hand.items() if key not in content}
        return replace(self, at_hand=left)


async def kept_of(asker: Node, result: dict[str, Any]) -> Kept:
    store = asker.dependencies.store
    at_hand = {name_of(it): it for it in (result["payload"], result["input_payload"]) if it}
    for name in ("record", "body", "extracted"):
        content = ContentId.parse(result[name])
        at_hand[content] = await store.get(content)
    record_id = ContentId.parse(result["record"])
    record = AttestedFetch.from_bytes(at_hand[record_id])
    return Kept(result["answer"], at_hand, record, record_id)


def points(report: AuditReport, status: Status) -> str:
    return "\n".join(it.what for it in report.points if it.status is status)


async def test_a_fetch_by_name_is_checked_offline(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await data_peer(network)
        await network.settled()
        kept = await kept_of(asker, await fetched(asker))
    assert kept.record.urls == ("http://example.org/t",)
    assert kept.at_hand[kept.record.output] == b'["t","price"]\n[1,1.5]\n[2,2.5]\n'
    report = await kept.report()
    assert report.holds
    assert "repeated from the body" in points(report, Status.HOLDS)
    assert "the passages that were passed on" in points(report, Status.HOLDS)
    unknown = points(report, Status.UNKNOWN)
    assert "told everybody the same" in unknown
    assert "calls by the name" in unknown
    # What is not at hand is named, and nothing else fails by it.
    for missing, words in (
        (kept.record.body, "what came from the source"),
        (kept.record_id, "what was fetched"),
    ):
        report = await kept.without(missing).report()
        assert report.holds
        assert words in points(report, Status.UNKNOWN)


async def test_a_source_that_is_sent_is_the_one_that_was_fetched(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    source = read_source(PRICES)
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await data_peer(network, strangers="example.org")
        await network.settled()
        kept = await kept_of(asker, await fetched(asker, record=source.to_bytes()))
        assert kept.record.source == source.id
        report = await kept.report()
        assert report.holds
        assert "from where the source says" in points(report, Status.HOLDS)
        elsewhere = read_source(PRICES.replace("example.org", "other.org"))
        with pytest.raises(BatonError, match=r"does not fetch from other\.org:80 for others"):
            await fetched(asker, record=elsewhere.to_bytes())


async def test_a_body_that_was_not_what_was_made_of_it_is_found(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await data_peer(network, kind=LyingIngest)
        await network.settled()
        kept = await kept_of(asker, await fetched(asker))
    report = await kept.report()
    assert not report.holds
    assert "repeated from the body, gives the same output" in points(report, Status.FAILS)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "another output": ({"output": ContentId.of(b"other")}, "gives the same output"),
    "another length": ({"body_size_bytes": 7}, "the body that is kept"),
    "long before": ({"fetched_at_ms": 1_700_000_000_000}, "was fetched for this task"),
    "long after": ({"fetched_at_ms": 1_900_000_000_000}, "was fetched for this task"),
    "another source": ({"source": ContentId.of(b"other")}, "is the one that was sent"),
    "another place": ({"urls": ("http://other.org/",)}, "from where the source says"),
}


@pytest.mark.parametrize("case", CHANGES)
async def test_a_data_peer_that_says_something_else_is_found(
    case: str, autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, words = CHANGES[case]

    def change(brought: Brought) -> Brought:
        return replace(brought, record=replace(brought.record, **changes))

    source = read_source(PRICES)
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        data = await data_peer(network, strangers="*", kind=LyingIngest)
        monkeypatch.setitem(globals(), "lie", change)
        # What it then cannot give is no test of the audit.
        if "output" in changes:
            await data.dependencies.store.put(b"other")
        await network.settled()
        if case == "another source":
            with pytest.raises(Malformed, match="another source"):
                await fetched(asker, record=source.to_bytes())
            return
        kept = await kept_of(asker, await fetched(asker, record=source.to_bytes()))
    report = await kept.report()
    assert not report.holds
    assert words in points(report, Status.FAILS)


async def test_what_is_altered_beside_a_receipt_is_found(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await data_peer(network)
        await network.settled()
        kept = await kept_of(asker, await fetched(asker))
    for content, words in (
        (kept.record_id, "the record of the fetch"),
        (kept.record.body, "the body that is kept"),
    ):
        altered = {**kept.at_hand, content: kept.at_hand[content] + b" "}
        report = await replace(kept, at_hand=altered).report()
        assert not report.holds
        assert words in points(report, Status.FAILS)


async def test_text_that_a_peer_has_by_itself_is_no_fetch(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(D, S)
        await network.settled()
        with pytest.raises(InputError, match="nothing was fetched"):
            await fetched(asker, name="pydoc:try")
        with pytest.raises(BatonError, match="no source 'prices'"):
            await fetched(asker)


async def test_a_bundle_has_the_record_of_a_fetch_and_what_came(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await data_peer(network)
        await network.settled()
        result = await fetched(asker)
        path = tmp_path / "fetch.car"
        answer_id = ContentId.parse(result["receipt"])
        told = await export_receipt(asker.dependencies.store, answer_id, path, asker_fetch(asker))
        assert told["blobs"] >= 4
        bundle = open_bundle(path)
        report = audit(bundle.answer, bundle.have)
        signed_for = await check_fetches(report, bundle.have, InProcess().extract)
        assert ContentId.parse(result["record"]) in signed_for
        assert report.holds
        assert "not at hand" not in "\n".join(
            it.detail for it in report.points if it.status is Status.UNKNOWN
        )


def asker_fetch(asker: Node) -> Fetch:
    async def fetch(content_id: ContentId, sources: Sequence[PeerId]) -> None:
        await asker.blobs.fetch(content_id, sources, deadline_s=20)

    return fetch
