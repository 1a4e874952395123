"""`verify` of an agreement: recounted from the receipts beside it; what was altered is found."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.commands.agreed import verify_agreement
from node.commands.ask import save_receipt
from node.peer import Node
from tests.ingest import test_attested
from tests.ingest.test_agreement import agreed, other_price
from tests.ingest.test_attested import LyingIngest, data_peer
from tests.ingest.test_bring import InProcess
from tests.node.network import S, open_network
from wire.content import ContentId
from wire.errors import InputError
from wire.fetch import FetchAgreement


async def kept(asker: Node, found: dict[str, Any], state: Path) -> Path:
    """The files that `sources fetch` writes."""
    state.mkdir()
    store = asker.dependencies.store
    for one in found["fetches"]:
        saved = save_receipt(state, {**one, "input_payload": found["input_payload"]})
        for suffix, name in ((".fetch", "record"), (".body", "body"), (".extracted", "extracted")):
            data = await store.get(ContentId.parse(one[name]))
            saved.with_suffix(suffix).write_bytes(data)
    path = state / "receipts" / f"{ContentId.of(found['agreement'])}.agreement"
    path.write_bytes(found["agreement"])
    return path


def altered(path: Path, **changes: Any) -> None:
    record = FetchAgreement.from_bytes(path.read_bytes())
    path.write_bytes(replace(record, **changes).to_bytes())


def beside(path: Path, suffix: str) -> Path:
    return min(path.parent.glob(f"*{suffix}"))


def another_body(path: Path) -> None:
    file = beside(path, ".body")
    file.write_bytes(file.read_bytes().replace(b"1.5", b"1.6"))


def swapped(path: Path) -> None:
    record = FetchAgreement.from_bytes(path.read_bytes())
    altered(path, agreeing=record.outliers, outliers=record.agreeing)


TRICKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "wider terms": (lambda path: altered(path, agree="median 90%"), "signed with these terms"),
    "another round": (lambda path: altered(path, round=bytes(16)), "signed with these terms"),
    "another source": (
        lambda path: altered(path, source=ContentId.of(b"a")),
        "signed with these terms",
    ),
    "another output": (lambda path: altered(path, output=ContentId.of(b"a")), "repeated, gives"),
    "others blamed": (swapped, "repeated, gives"),
    "a body altered": (another_body, "the fetch of receipt"),
    "a body gone": (lambda path: beside(path, ".body").unlink(), "the fetch of receipt"),
    "a receipt gone": (lambda path: beside(path, ".receipt").unlink(), "the fetch of receipt"),
    "an answer twice": (
        lambda path: altered(
            path, answers=(FetchAgreement.from_bytes(path.read_bytes()).answers[0],) * 3
        ),
        "another data peer",
    ),
}


async def test_an_agreement_is_recounted_and_what_was_altered_is_found(
    autojump_clock: MockClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(test_attested, "lie", other_price)
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        for _ in range(2):
            await data_peer(network, strangers="*")
        await data_peer(network, strangers="*", kind=LyingIngest)
        await network.settled()
        path = await kept(asker, await agreed(asker), tmp_path / "state")
    files = {it: it.read_bytes() for it in path.parent.iterdir()}

    def verified() -> dict[str, Any]:
        capsys.readouterr()
        verify_agreement(tmp_path / "state", path, InProcess().extract, as_json=True)
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    document = await trio.to_thread.run_sync(verified)
    assert document["holds"]
    assert (len(document["agreeing"]), len(document["outliers"])) == (2, 1)
    for trick, words in TRICKS.values():
        trick(path)
        with pytest.raises(InputError, match=words):
            await trio.to_thread.run_sync(verified)
        for file, data in files.items():
            file.write_bytes(data)
    assert (await trio.to_thread.run_sync(verified))["holds"]


def test_what_is_no_agreement_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.agreement"
    path.write_bytes(b"no record")
    with pytest.raises(InputError, match="is not an agreement"):
        verify_agreement(tmp_path, path, as_json=False)
