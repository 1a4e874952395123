"""Load that does not wait, and latencies from when a task was due."""

from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest
import trio
from trio.testing import MockClock

from node.commands.load import LoadConfig, Outcome, drive
from node.devnet.accounting import purpose_of
from node.devnet.open_loop import Latencies, moments, rate_of
from wire.errors import InputError, Refused


@pytest.mark.parametrize(
    ("text", "rate"),
    [("10/s", 10.0), ("10", 10.0), ("90/min", 1.5), ("0.5 / s", 0.5), ("36/h", 0.01)],
)
def test_rates_are_read(text: str, rate: float) -> None:
    assert rate_of(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["0", "0/s", "-1/s", "x", "", "10/day", "1e9/s", "99999/s"])
def test_no_rate_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        rate_of(text)


def test_moments_come_at_the_rate_and_from_the_seed() -> None:
    drawn = list(moments(10, 100, Random(7)))
    assert 900 < len(drawn) < 1100
    assert drawn == sorted(drawn) == list(moments(10, 100, Random(7)))
    assert drawn[0] > 0
    assert drawn[-1] < 100


def test_percentiles_are_of_what_was_noted() -> None:
    latencies = Latencies()
    assert latencies.percentile_s(50) is None
    for value in range(100, 0, -1):
        latencies.note(value / 100)
    assert latencies.percentile_s(50) == 0.5
    assert latencies.percentile_s(99) == 0.99
    assert latencies.percentile_s(100) == 1.0
    assert [it["count"] for it in latencies.table()][-1] == 100


def load_config(rate: float, seconds: float, clients: int) -> LoadConfig:
    return LoadConfig(
        state=Path(),
        bootstraps=(),
        network="baton",
        model="hash",
        rate=rate,
        seconds=seconds,
        clients=clients,
        deadline_s=60,
        needed=2,
        verifiers=3,
    )


async def test_what_waits_for_a_client_counts_from_when_it_was_due(
    autojump_clock: MockClock,
) -> None:
    asked: list[Mapping[str, object]] = []

    async def stalls_at_first(arguments: Mapping[str, object]) -> None:
        asked.append(arguments)
        await trio.sleep(10 if len(asked) == 1 else 0.01)

    outcome = Outcome()
    await drive(load_config(2, 10, clients=1), stalls_at_first, outcome, Random(1))
    assert outcome.answered == outcome.due == len(asked) > 10
    # One answer was slow; all tasks that were due meanwhile had to wait, half of them for long.
    median_s = outcome.latencies.percentile_s(50)
    assert median_s is not None
    assert 3 < median_s < 7
    assert outcome.waited > 10
    assert len({str(it["text"]) for it in asked}) == len(asked)


async def test_errors_are_counted_by_what_they_say(autojump_clock: MockClock) -> None:
    async def refuses(arguments: Mapping[str, object]) -> None:
        raise Refused("too busy")

    outcome = Outcome()
    await drive(load_config(5, 4, clients=4), refuses, outcome, Random(1))
    assert outcome.errors == {"too busy": outcome.due}
    assert outcome.failed == outcome.due > 5
    assert not len(outcome.latencies)


@pytest.mark.parametrize(
    ("task", "purpose"),
    [
        ("p2p.neighbours.Neighbours.swap_forever", "gossip"),
        ("p2p.adverts.Herald.listen_forever", "gossip"),
        ("heartbeat[daemon=True]", "gossip"),
        ("p2p.framed_stream.Lane.run", "wire"),
        ("start[daemon=False]", "wire"),
        ("libp2p.network.swarm.Swarm.run", "wire"),
        ("node.asking.tasks.Path._run", "work"),
        ("p2p.blobs.Blobs.get", "work"),
        ("node.devnet.links.FaultyNetwork.run", "devnet"),
        ("tests.x", "other"),
    ],
)
def test_what_a_task_is_for_is_told_by_its_name(task: str, purpose: str) -> None:
    assert purpose_of(task) == purpose
