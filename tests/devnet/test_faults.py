"""Faults are read from words and drawn from a seed; the error for nonsense lists the faults."""

import math

import pytest

from node.devnet.faults import KINDS, Fault, FaultScope, parse, plan
from wire.errors import InputError

PEERS = range(100)
ASKERS = range(100, 108)


def planned(text: str, seed: int = 7, seconds: float = 60.0) -> tuple[Fault, ...]:
    return plan(parse(text), seed, seconds, PEERS, ASKERS)


def test_a_share_a_moment_and_a_duration_are_read() -> None:
    kill, loss, churn = parse("kill=0.3, loss=.05@10+20 ,churn=0.1/min")
    assert (kill.amount, kill.at_s, kill.for_s) == (0.3, None, None)
    assert (loss.amount, loss.at_s, loss.for_s) == (0.05, 10.0, 20.0)
    assert churn.amount == 0.1


def test_what_was_read_is_written_the_same() -> None:
    text = "kill=0.3,loss=0.05@10+20,churn=0.1/min,freeze=0.02@1.5"
    assert ",".join(map(str, parse(text))) == text


@pytest.mark.parametrize(
    "text",
    [
        *("kil=0.3", "kill", "kill=", "kill=x", "kill=0", "kill=1.5", "kill=0.3/min", "churn=0.1"),
        *("loss=1", "kill=0.3@", "kill=-1", "kill=0.1@99999999", "liar=0.1,liar=0.2", "💥=1"),
    ],
)
def test_nonsense_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError) as raised:
        parse(text)
    assert "\n" not in str(raised.value)


def test_an_unknown_fault_names_those_there_are() -> None:
    with pytest.raises(InputError) as raised:
        parse("explode=1")
    assert all(name in str(raised.value) for name in KINDS)


def test_the_same_seed_gives_the_same_records_and_another_gives_others() -> None:
    text = "kill=0.3,freeze=0.02,liar=0.05,churn=0.1/min"
    assert planned(text) == planned(text)
    assert planned(text) != planned(text, seed=8)


def test_each_fault_has_its_own_draw() -> None:
    (alone,) = planned("kill=0.3")
    beside = next(it for it in planned("kill=0.3,liar=0.1") if it.name == "kill")
    assert beside == alone
    assert len(alone.peers) == 30


def test_what_strikes_at_once_does_so_half_way_and_askers_are_spared() -> None:
    for fault in planned("kill=1,freeze=0.1,partition=0.2"):
        assert fault.at_s == 30.0
        assert not set(fault.peers) & set(ASKERS)
    (restart,) = planned("restart_asker=1")
    assert set(restart.peers) == set(ASKERS)


def test_peers_of_different_natures_are_different_peers() -> None:
    faults = planned("liar=0.3,silent=0.3,refuser=0.3")
    struck = [peer for fault in faults for peer in fault.peers]
    assert len(struck) == len(set(struck)) == 90
    assert all(fault.at_s == 0.0 and fault.for_s == math.inf for fault in faults)


def test_churn_is_a_record_for_each_death_at_its_rate() -> None:
    deaths = planned("churn=0.1/min", seconds=600)
    assert len(deaths) == 100
    assert len({fault.peers for fault in deaths}) == 100
    assert [fault.at_s for fault in deaths] == sorted(fault.at_s for fault in deaths)


def test_every_kind_can_be_asked_for() -> None:
    for name, kind in KINDS.items():
        rate = "/min" if kind.scope is FaultScope.RATE else ""
        amount = 5 if kind.count_max else 0.5
        assert all(it.name == name for it in planned(f"{name}={amount}{rate}"))


@pytest.mark.parametrize("text", ["kill", "kill=30%", "kill=0.1@", "kill=0.2 loss=0.1"])
def test_a_share_that_cannot_be_read_is_not_told_as_a_wrong_name(text: str) -> None:
    with pytest.raises(InputError, match="no readable share"):
        parse(text)
