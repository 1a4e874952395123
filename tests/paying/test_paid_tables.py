"""Tables are paid within one cap: shown as it goes, stopped at in words, and nothing paid twice."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.commands import rows
from node.commands.rows import RowsAsked, ask_rows
from node.local.commands import LocalCommands
from node.peer import Node
from node.rows.job import JobFiles
from node.rows.journal import read_frames
from tests.local.test_rows import asked as bundle_asked
from tests.node.network import open_network
from tests.paying.test_priced_peers import priced, settled, started
from wire.errors import BatonError, InputError, TaskFailed
from wire.operations import EMBED, GENERATE

BASE = 100
ROWS = 160


def asked(folder: Path, cap: int, *, resume: bool = False, **other: Any) -> RowsAsked:
    arguments = {
        **dict.fromkeys(("model", "operation", "system", "schema")),
        "model": "hash",
        "operation": GENERATE,
        "parameters": {"tokens": 2},
        "level": "signed",
        "needed": 0,
        "verifiers": 0,
        "deadline_s": 30,
        "fresh": False,
        "price_max": cap,
        **other,
    }
    return RowsAsked(
        files=JobFiles(folder / "table.csv", folder / "out.jsonl"),
        column="text",
        tensors=(),
        one_by_one=False,
        keep=(),
        marks_bad=False,
        for_spreadsheets=False,
        resume=resume,
        force=False,
        arguments=arguments,
    )


def table(folder: Path, count: int = ROWS) -> None:
    (folder / "table.csv").write_text("text\n" + "".join(f"row {it}\n" for it in range(count)))


def answered_by(asker: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a peer of this process answer the command, as over the control socket."""
    commands = LocalCommands(asker).commands()

    async def call(_: Path, name: str, given: Any, hear: Any, *, deadline_s: float) -> Any:
        with trio.fail_after(deadline_s):
            return await commands[name](given, hear)

    monkeypatch.setattr(rows, "call", call)


def charged(asker: Node) -> int:
    assert asker.paying is not None
    return sum(it["charged"] for it in asker.paying.payer.channels.rows())


async def told(folder: Path, wanted: RowsAsked, capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    await ask_rows(folder, wanted, as_json=True)
    return json.loads(capsys.readouterr().out)


async def test_a_table_stops_at_its_cap_and_goes_on_with_a_higher_one(
    autojump_clock: MockClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table(tmp_path)
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=BASE))
        answered_by(asker, monkeypatch)
        with pytest.raises(BatonError) as stopped:
            await ask_rows(tmp_path, asked(tmp_path, 70 * BASE), as_json=True)
        assert "credits are left for this table" in stopped.value.message
        assert "0.007 credits were charged so far" in stopped.value.message
        assert "--resume --pay-max" in stopped.value.todo
        await settled(asker, worker)
        assert charged(asker) == 70 * BASE
        kept = list(read_frames(JobFiles(tmp_path, tmp_path / "out.jsonl").journal))[1:]
        assert sum(it["charged"] for it in kept) == sum(len(it["answered"]) for it in kept) * BASE

        # What was paid before counts, also what was answered of a bundle that is not whole.
        with pytest.raises(InputError, match="0 credits are left"):
            await ask_rows(tmp_path, asked(tmp_path, 70 * BASE, resume=True), as_json=True)
        end = await told(tmp_path, asked(tmp_path, 200 * BASE, resume=True), capsys)
        assert (end["rows"], end["charged"], end["price_max"]) == (ROWS, ROWS * BASE, 200 * BASE)
        await settled(asker, worker)
        assert charged(asker) == ROWS * BASE
        assert worker.leg_server.done == ROWS
        assert asker.paying.payer.channels.vouchers <= ROWS // 10  # type: ignore[union-attr]


async def test_rows_of_one_task_are_paid_as_one(
    autojump_clock: MockClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table(tmp_path)
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=BASE, given=1))
        answered_by(asker, monkeypatch)
        wanted = asked(tmp_path, 10_000, operation=EMBED)
        end = await told(tmp_path, wanted, capsys)
        assert end["charged"] == BASE + ROWS
        await settled(asker, worker)
        assert charged(asker) == BASE + ROWS


async def test_a_table_that_may_cost_nothing_is_told_what_it_costs(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(tmp_path, 3)
    async with open_network(tmp_path) as network:
        asker, _ = await started(network, priced(base=BASE))
        answered_by(asker, monkeypatch)
        with pytest.raises(InputError, match=r"costs up to 0.0001 credits") as refused:
            await ask_rows(tmp_path, asked(tmp_path, 0), as_json=True)
        assert "--pay-max" in refused.value.todo
        assert charged(asker) == 0


async def test_rows_that_are_alike_are_one_task_and_paid_once(
    autojump_clock: MockClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "table.csv").write_text("text\n" + "the same\n" * 20)
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=BASE))
        answered_by(asker, monkeypatch)
        end = await told(tmp_path, asked(tmp_path, 100 * BASE), capsys)
        await settled(asker, worker)
        assert end["charged"] == charged(asker)


async def test_a_task_that_fails_counts_for_what_it_was_charged(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_network(tmp_path) as network:
        asker, _ = await started(network, priced(base=BASE))

        async def fail(*_: Any) -> None:
            raise TaskFailed("nobody does it")

        monkeypatch.setattr(type(asker.tasks), "watch", fail)
        monkeypatch.setattr(type(asker.tasks), "cost_of", lambda *_: 7)
        wanted = bundle_asked(fresh=True, level="signed", price_max=1000)
        heard: list[Mapping[str, Any]] = []
        with pytest.raises(TaskFailed):
            await LocalCommands(asker).commands()["rows"](wanted, heard.append)
        # Of three tries.
        assert heard == [{"event": "charged", "amount": 7}] * 3
