"""Names that strangers gave: however slow one's are, others' are looked up."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
import trio

from p2p.lookup_turns import (
    EACH_MAX,
    EACH_WAITING_MAX,
    NETWORK_MAX,
    PLACES,
    WAITING_MAX,
    LookupTurns,
    Turn,
    TurnState,
)
from p2p.name_lookup import OF_STRANGERS


def states(turns: list[Turn]) -> list[str]:
    return [it.state.name for it in turns]


def test_one_has_few_places_and_the_latest_of_what_it_asks_for() -> None:
    line = LookupTurns()
    greedy = [line.ask("greedy", 1) for _ in range(EACH_MAX + EACH_WAITING_MAX + 3)]
    assert states(greedy[:EACH_MAX]) == ["AT_WORK"] * EACH_MAX
    assert states(greedy[EACH_MAX:][:3]) == ["DROPPED"] * 3
    assert states(greedy[EACH_MAX + 3 :]) == ["WAITING"] * EACH_WAITING_MAX
    # Nobody else waits for any of them.
    assert line.ask("other", 1).state is TurnState.AT_WORK
    # Whose turn comes is the oldest of those that wait.
    line.answered(greedy[0])
    assert greedy[EACH_MAX + 3].state is TurnState.AT_WORK


def test_what_is_free_goes_to_who_has_the_least() -> None:
    line = LookupTurns()
    greedy = [line.ask(it, it) for it in range(PLACES // EACH_MAX) for _ in range(2 * EACH_MAX)]
    late = line.ask("late", "late")
    assert late.state is TurnState.WAITING
    line.answered(greedy[0])
    assert late.state is TurnState.AT_WORK


def test_a_farm_of_keys_at_one_network_delays_nobody_elsewhere() -> None:
    line = LookupTurns()
    farm = [line.ask(number, "farm") for number in range(2 * WAITING_MAX) for _ in range(EACH_MAX)]
    other = line.ask("other", "elsewhere")
    assert other.state is TurnState.AT_WORK
    assert sum(it.state is TurnState.AT_WORK for it in farm) == NETWORK_MAX
    # Nor is one that waits, since all places are taken, dropped for them.
    for number in range(PLACES - NETWORK_MAX - 1):
        line.ask(f"home {number}", number)
    late = line.ask("late", "late")
    more = [line.ask(number, "farm") for number in range(2 * WAITING_MAX)]
    assert late.state is TurnState.WAITING
    assert any(it.state is TurnState.DROPPED for it in more)
    line.answered(other)
    assert late.state is TurnState.AT_WORK


def test_of_a_crowd_that_waits_the_greediest_lose() -> None:
    line = LookupTurns()
    for number in range(PLACES // EACH_MAX):
        for _ in range(EACH_MAX):
            line.ask(number, number)
    modest = line.ask("modest", "modest")
    crowd = [line.ask(it % 9, it % 9) for it in range(WAITING_MAX + 5)]
    assert modest.state is TurnState.WAITING
    assert sum(it.state is TurnState.WAITING for it in crowd) == WAITING_MAX - 1


def test_it_holds_its_bounds_whatever_happens() -> None:
    line, random = LookupTurns(), Random(7)
    known: list[Turn] = []
    for _ in range(800):
        known = [it for it in known if it.state is not TurnState.DROPPED]
        at_work = [it for it in known if it.state is TurnState.AT_WORK]
        waiting = [it for it in known if it.state is TurnState.WAITING]
        assert len(at_work) <= PLACES
        assert len(waiting) <= WAITING_MAX
        for asker in range(12):
            of_one = [it for it in known if it.asker == asker]
            assert sum(it.state is TurnState.AT_WORK for it in of_one) <= EACH_MAX
            assert sum(it.state is TurnState.WAITING for it in of_one) <= EACH_WAITING_MAX
        of_networks = Counter(it.network for it in at_work)
        assert all(it <= NETWORK_MAX for it in of_networks.values())
        # None waits for a place that is free.
        if len(at_work) < PLACES:
            assert all(
                sum(a.asker == it.asker for a in at_work) == EACH_MAX
                or of_networks[it.network] == NETWORK_MAX
                for it in waiting
            )
        match random.randrange(5):
            case 0 if at_work:
                known.remove(gone := random.choice(at_work))
                line.answered(gone)
            case 1 if known:
                known.remove(gone := random.choice(known))
                line.leave(gone)
            case _:
                known.append(line.ask(asker := random.randrange(12), asker % 3))
    for turn in known:
        line.leave(turn)
    assert line == LookupTurns()


@contextmanager
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A resolver that answers for no name with `slow` in it until the block ends."""
    asked, ended = list[str](), threading.Event()

    def answer(host: str, *_: object, **_more: object) -> list[Any]:
        asked.append(host)
        if "slow" in host:
            ended.wait()
        return [(0, 0, 0, "", ("192.0.2.7", 80))]

    monkeypatch.setattr("socket.getaddrinfo", answer)
    try:
        yield asked
    finally:
        ended.set()


async def test_a_stranger_with_slow_names_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def give_up(number: int) -> None:
        with trio.move_on_after(0.2):
            await OF_STRANGERS.look_up("slow", 1, f"slow{number}.example", 80)

    with slow_names(monkeypatch) as asked:
        # They were given up, and the resolver is at work for the first of them all the same.
        async with trio.open_nursery() as nursery:
            for number in range(EACH_MAX + EACH_WAITING_MAX):
                nursery.start_soon(give_up, number)
        assert len(asked) == EACH_MAX
        with trio.fail_after(5):
            found = await OF_STRANGERS.look_up("other", 1, "quick.example", 80)
        assert found == ["192.0.2.7"]
        await give_up(99)
        assert "slow99.example" not in asked
    # What was held comes back.
    with trio.fail_after(5):
        assert await OF_STRANGERS.look_up("slow", 1, "quick.example", 80) == ["192.0.2.7"]


async def test_who_asks_for_too_many_is_told_of_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    async def ask() -> None:
        try:
            await OF_STRANGERS.look_up("slow", 1, "slow.example", 80)
        except OSError as error:
            told.append(str(error))

    with slow_names(monkeypatch):
        async with trio.open_nursery() as nursery:
            for _ in range(EACH_MAX + EACH_WAITING_MAX + 2):
                nursery.start_soon(ask)
            with trio.fail_after(5):
                while len(told) < 2:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert told == ["its peer had too many others looked up meanwhile"] * 2
