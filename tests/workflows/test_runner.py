"""A workflow as it runs: each slot at its time, with one result, whatever happens."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.task.price_bound import PriceBound
from node.workflows.definition import SourceStep
from node.workflows.delivery import late_ms
from node.workflows.steps import BroughtInput, ModelAnswer
from store import Pin, Store, Table, open_memory_store
from tests.workflows.keeping import (
    SECOND,
    MadeSteps,
    always,
    entries,
    failing,
    keeping,
    result,
    seams,
    slots,
)
from wire.content import ContentId
from wire.errors import InputError, Refused, StoreFull, TaskFailed
from wire.feed import FIRST_ENTRY, FeedEntry
from wire.tensors import Tensor, Tensors


def check_chain(found: list[FeedEntry]) -> None:
    """Each entry names the one before it."""
    before = FIRST_ENTRY
    for number, entry in enumerate(found, 1):
        assert (entry.number, entry.previous) == (number, before)
        before = entry.digest


def check_once(found: list[FeedEntry], first: int, last: int) -> None:
    """Every second from `first` to `last` is in exactly one entry."""
    seen: list[int] = []
    for entry in found:
        assert entry.span.first_ms + (entry.span.slots - 1) * 1000 == entry.slot_ms
        seen += range(entry.span.first_ms // 1000, entry.slot_ms // 1000 + 1)
    assert seen == list(range(seen[0], seen[0] + len(seen)))
    assert (seen[0] - 1_800_000_000, seen[-1] - 1_800_000_000) == (first, last)


async def test_each_slot_is_run_at_its_time(autojump_clock: MockClock, tmp_path: Path) -> None:
    steps = MadeSteps()
    async with (
        open_memory_store(quota_bytes=1 << 30) as store,
        keeping(seams(store, tmp_path, steps)) as keeper,
    ):
        await keeper.add(SECOND, "w")
        await trio.sleep(10.5)
        found = entries(keeper)
        assert slots(found) == [(it, "done") for it in range(1, 11)]
        assert max(map(late_ms, found)) < 20
        check_chain(found)
        assert await result(keeper, found[0]) == {
            "workflow": "w",
            "slot_ms": found[0].slot_ms,
            "text": "said",
        }
        assert (steps.brought, steps.submitted) == (10, 10)
        assert found[0].answer in {it.id for it in store.pins()}


class TensorSteps(MadeSteps):
    """Sources and models that give as many numbers as a stranger pleases."""

    async def bring(
        self, source: SourceStep, deadline_s: int, bound: PriceBound, *, then: bool
    ) -> BroughtInput:
        numbers = Tensor(name="x", kind="int8", shape=(20_000,), data=bytes(20_000))
        output, fetch = Tensors(tensors=(numbers,)).to_bytes(), ContentId.of(b"fetch")
        await trio.lowlevel.checkpoint()
        return BroughtInput(output=output, tensor_of=fetch, answers=(fetch,))

    async def outcome(self, task: ContentId) -> ModelAnswer:
        found = await super().outcome(task)
        return replace(found, result={"outputs": {"x": [0] * 20_000}})


@pytest.mark.parametrize("has_model", [False, True])
async def test_numbers_of_strangers_are_not_written_on_the_loop(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_model: bool
) -> None:
    """Four million of them take it seconds, in which a peer answers nobody."""
    in_loop: list[bool] = []
    dumps = json.dumps

    def noted(value: Any, **options: Any) -> str:
        in_loop.append(threading.current_thread() is threading.main_thread())
        return dumps(value, **options)

    text = SECOND if has_model else SECOND[: SECOND.index("[model]")]
    steps = TensorSteps()
    async with (
        open_memory_store(quota_bytes=1 << 30) as store,
        keeping(seams(store, tmp_path, steps)) as keeper,
    ):
        await keeper.add(text, "w")
        monkeypatch.setattr(json, "dumps", noted)
        while not in_loop:
            await trio.sleep(0.5)
        monkeypatch.undo()
        while not entries(keeper):
            await trio.sleep(0.5)
        assert not any(in_loop)
        found = await result(keeper, entries(keeper)[0])
        told = found["outputs"]["x"]
        assert len(told if has_model else told["data"]) == 20_000


async def test_a_try_that_fails_is_followed_by_another(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    text = SECOND.replace("1s", "1m")
    steps = MadeSteps(on_bring=failing(1), on_outcome=failing(1))
    async with (
        open_memory_store(quota_bytes=1 << 30) as store,
        keeping(seams(store, tmp_path, steps)) as keeper,
    ):
        await keeper.add(text, "w")
        await trio.sleep(100)
        (one,) = entries(keeper)
        assert (one.end, one.tries, one.why) == ("done", 3, "")
        steps.on_bring = always(TaskFailed("the source is down", todo="wait"))
        await trio.sleep(60)
        two = entries(keeper)[-1]
        assert (two.end, two.tries, two.why) == ("failed", 3, "the source is down: wait")
        assert keeper.get("w").runner.history.begun is None


async def test_a_slot_costs_no_more_in_all_its_tries_than_it_may(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    text = 'pay_max = "0.0001"\n' + SECOND.replace("1s", "1m")
    steps = MadeSteps(on_outcome=failing(1), fetch_costs=10, model_costs=30)
    async with (
        open_memory_store(quota_bytes=1 << 30) as store,
        keeping(seams(store, tmp_path, steps)) as keeper,
    ):
        await keeper.add(text, "w")
        await trio.sleep(100)
        (one,) = entries(keeper)
        assert (one.end, one.tries) == ("done", 2)
        # A half for the fetch, the rest for the model; and of what the first try left over.
        assert steps.allowed == [50, 90, 30, 50]
        history = keeper.get("w").runner.history
        assert history.cost_of(one.number) == 10 + 30 + 10 + 30
        steps.fetch_costs, steps.model_costs = 1000, 1000
        steps.on_outcome = always(TaskFailed("no model", todo="wait"))
        await trio.sleep(60)
        two = entries(keeper)[-1]
        assert (two.end, two.tries) == ("failed", 3)
        # Made steps may charge more than is allowed: then nothing is left for what follows.
        assert steps.allowed[4:] == [50, 50, 0, 0, 0, 0]
        await history.forget_all()
        assert history.cost_of(one.number) == 0


async def test_a_run_that_never_ends_is_given_up(autojump_clock: MockClock, tmp_path: Path) -> None:
    text = 'every = "1h"\ndeadline = "10s"\ntries = 2\n[source]\nname = "a"\n'
    async with (
        open_memory_store(quota_bytes=1 << 30) as store,
        keeping(seams(store, tmp_path, MadeSteps(takes_s=1e6))) as keeper,
    ):
        await keeper.add(text, "w")
        await trio.sleep(3600 + 600)
        (one,) = entries(keeper)
        assert (one.end, one.tries) == ("failed", 2)
        assert "took longer than" in one.why


@pytest.mark.parametrize("overlap", ["skip", "queue"])
async def test_slots_that_come_during_a_run_have_an_entry_too(
    overlap: str, autojump_clock: MockClock, tmp_path: Path
) -> None:
    text = f'overlap = "{overlap}"\n{SECOND}'
    async with (
        open_memory_store(quota_bytes=1 << 30) as store,
        keeping(seams(store, tmp_path, MadeSteps(takes_s=2.4))) as keeper,
    ):
        await keeper.add(text, "w")
        await trio.sleep(12)
        found = entries(keeper)
        check_once(found, 1, (found[-1].slot_ms // 1000) - 1_800_000_000)
        ends = [it.end for it in found]
        assert ends[:3] == ["done", "skipped", "done"]
        if overlap == "queue":
            # Slot 3 waited for the run of slot 1, and began once that had ended.
            assert slots(found)[2] == (3, "done")
            assert 300 < late_ms(found[2]) < 500


async def test_killed_at_any_moment_every_slot_has_one_result(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    random, steps = Random(5), MadeSteps()
    async with open_memory_store(quota_bytes=1 << 30) as store:
        given = seams(store, tmp_path, steps)
        async with keeping(given) as keeper:
            await keeper.add(SECOND, "w")
        kills = 0
        while trio.current_time() < 120:
            with trio.move_on_after(random.uniform(0.05, 4)):
                async with keeping(given):
                    await trio.sleep_forever()
            kills += 1
            await trio.sleep(random.uniform(0, 3))
        async with keeping(given) as keeper:
            await trio.sleep(5)
            found = entries(keeper)
            last = found[-1].slot_ms // 1000 - 1_800_000_000
            check_once(found, 1, last)
            check_chain(found)
            assert last >= 120
            assert {it.end for it in found} <= {"done", "skipped"}
            assert kills > 30
            # A model that was asked is not asked again: the fetch before it may be.
            assert steps.submitted <= sum(it.end == "done" for it in found) + 2 * kills
            assert steps.submitted < steps.brought


async def test_a_task_that_was_asked_for_is_not_asked_for_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    steps = MadeSteps(takes_s=30)
    async with open_memory_store(quota_bytes=1 << 30) as store:
        given = seams(store, tmp_path, steps)
        async with keeping(given) as keeper:
            await keeper.add(SECOND.replace("1s", "1h"), "w")
            await trio.sleep(3600 + 25)
        assert steps.submitted == 1
        await trio.sleep(100)
        async with keeping(given) as keeper:
            await trio.sleep(1)
            (one,) = entries(keeper)
            assert (one.end, one.tries, steps.submitted) == ("done", 1, 1)


async def test_a_slot_that_kills_its_peer_is_given_up(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    steps = MadeSteps(takes_s=10)
    async with open_memory_store(quota_bytes=1 << 30) as store:
        given = seams(store, tmp_path, steps)
        async with keeping(given) as keeper:
            await keeper.add(SECOND.replace("1s", "1h"), "w")
            await trio.sleep(3600 + 1)
        for _ in range(5):
            async with keeping(given) as keeper:
                await trio.sleep(1)
        assert steps.brought == 3
        async with keeping(given) as keeper:
            await trio.sleep(1)
            assert [(it.end, it.tries) for it in entries(keeper)] == [("failed", 3)]


@pytest.mark.parametrize(
    ("missed", "ends"),
    [
        ("skip", [("missed", 9)]),
        ("latest", [("missed", 8), ("done", 1)]),
        ("all", [("missed", 6), ("done", 1), ("done", 1), ("done", 1)]),
    ],
)
async def test_what_was_missed_while_the_peer_was_off_goes_by_its_rule(
    missed: str, ends: list[tuple[str, int]], autojump_clock: MockClock, tmp_path: Path
) -> None:
    rules = f'missed = "{missed}"\nmissed_max = 3\nlate = "30s"\n'
    async with open_memory_store(quota_bytes=1 << 30) as store:
        given = seams(store, tmp_path, MadeSteps())
        async with keeping(given) as keeper:
            await keeper.add(rules + SECOND.replace("1s", "10m"), "w")
        await trio.sleep(9 * 600 + 120)
        async with keeping(given) as keeper:
            await trio.sleep(60)
            assert [(it.end, it.span.slots) for it in entries(keeper)] == ends


async def test_a_pause_begins_no_slot_and_is_told(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_memory_store(quota_bytes=1 << 30) as store:
        given = seams(store, tmp_path, MadeSteps())
        async with keeping(given) as keeper:
            await keeper.add('missed = "all"\n' + SECOND, "w")
            await trio.sleep(2.5)
            await keeper.set_paused("w", paused=True)
            await trio.sleep(10)
        # It stays paused over a restart.
        async with keeping(given) as keeper:
            await trio.sleep(10)
            await keeper.set_paused("w", paused=False)
            await trio.sleep(2)
            found = entries(keeper)
            check_once(found, 1, found[-1].slot_ms // 1000 - 1_800_000_000)
            paused = [it for it in found if it.end == "missed"]
            assert {it.why for it in paused} == {"it was paused"}
            assert sum(it.span.slots for it in paused) == 20
            assert [it.end for it in found][-2:] == ["done", "done"]


async def test_a_run_by_hand_moves_no_slot(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with (
        open_memory_store(quota_bytes=1 << 30) as store,
        keeping(seams(store, tmp_path, MadeSteps())) as keeper,
    ):
        found = await keeper.add(SECOND.replace("1s", "1m"), "w")
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.runner.run_now)
            await trio.sleep(0.1)
            with pytest.raises(Refused, match="under way"):
                await found.runner.run_now()
        await trio.sleep(60)
        by_hand, one = entries(keeper)
        assert (by_hand.by_hand, by_hand.end, by_hand.number) == (True, "done", 1)
        assert slots([one]) == [(60, "done")]
        # While it is paused too.
        await keeper.set_paused("w", paused=True)
        assert await found.runner.run_now() == 3


async def test_only_the_latest_results_are_kept(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with (
        open_memory_store(quota_bytes=1 << 30) as store,
        keeping(seams(store, tmp_path, MadeSteps())) as keeper,
    ):
        await keeper.add("keep = 3\n" + SECOND, "w")
        await trio.sleep(10.9)
        found = entries(keeper)
        assert [it.number for it in found] == [8, 9, 10]
        assert pins_of(store, "w") == {8, 9, 10}
        await keeper.remove("w")
        assert pins_of(store, "w") == set()
        assert store.scan(Table.WORKFLOWS) == []
        with pytest.raises(InputError, match="no workflow 'w' here"):
            keeper.get("w")


def pins_of(store: Store, name: str) -> set[int]:
    pins: list[Pin] = store.pins()
    return {int(it.why.split(":")[2]) for it in pins if it.why.startswith(f"workflow:{name}:")}


async def test_a_full_store_stops_a_workflow_for_a_while_and_loses_nothing(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_memory_store(quota_bytes=1 << 30) as store:
        given = seams(store, tmp_path, MadeSteps())
        async with keeping(given) as keeper:
            await keeper.add('missed = "all"\n' + SECOND, "w")
            await trio.sleep(2.5)

            async def full(_batch: object) -> None:
                raise StoreFull("no room")

            with monkeypatch.context() as patch:
                patch.setattr(type(store), "commit", lambda _store, batch: full(batch))
                await trio.sleep(20)
                assert keeper.get("w").runner.problem == "no room"
            await trio.sleep(30)
            assert keeper.get("w").runner.problem == ""
            found = entries(keeper)
            check_once(found, 1, found[-1].slot_ms // 1000 - 1_800_000_000)
            check_chain(found)


async def test_a_name_is_taken_once(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with (
        open_memory_store(quota_bytes=1 << 30) as store,
        keeping(seams(store, tmp_path, MadeSteps())) as keeper,
    ):
        first = await keeper.add(SECOND, "w")
        assert await keeper.add(SECOND, "w") is first
        with pytest.raises(InputError, match="another workflow 'w' already"):
            await keeper.add(SECOND.replace("1s", "2s"), "w")
        for number in range(63):
            await keeper.add(SECOND, f"w{number}")
        with pytest.raises(InputError, match="64 workflows already"):
            await keeper.add(SECOND, "more")
