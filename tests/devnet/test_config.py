"""The settings of a run: how they are written down, and which are refused."""

from collections.abc import Callable

import pytest

from node.commands.devnet import economy_typed
from node.devnet.chances import most_by_chance
from node.devnet.config import VERSION, DevnetConfig, config_of
from node.devnet.faults import parse
from node.devnet.machine import PEER_BYTES, PROCESS_BYTES, check_memory
from node.devnet.plan import RUNNERS_MIN, plan_peers
from tests.devnet.running import economy, machine
from wire.errors import InputError
from wire.kinds import Role


def test_a_run_is_read_as_it_was_written() -> None:
    run = DevnetConfig(peers=99, seed=3, rate=2.5, faults=parse("kill=0.3,churn=0.1/min"))
    assert config_of(run.to_document()) == run
    assert "--peers 99 --seed 3" in run.replay_line()
    assert "--faults kill=0.3,churn=0.1/min" in run.replay_line()


def test_a_file_of_another_version_is_refused_with_both_named() -> None:
    document = {**DevnetConfig().to_document(), "version": VERSION + 1}
    with pytest.raises(InputError, match=rf"version {VERSION + 1} .* version {VERSION}"):
        config_of(document)


@pytest.mark.parametrize("change", [{"peers": None}, {"load": "x"}, {"faults": 7}, {"seconds": []}])
def test_a_file_that_lacks_what_a_run_needs_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        config_of({**DevnetConfig().to_document(), **change})
    for nonsense in (None, [], {}, "x"):
        with pytest.raises(InputError, match="not a report"):
            config_of(nonsense)


def test_more_peers_than_memory_has_are_refused_with_how_many_fit() -> None:
    room = machine(free_bytes=PROCESS_BYTES + 70 * PEER_BYTES + 1)
    check_memory(70, room)
    with pytest.raises(InputError, match="70 fit"):
        check_memory(71, room)
    with pytest.raises(InputError, match="0 fit"):
        check_memory(8, machine(free_bytes=1))


@pytest.mark.parametrize("count", [8, 20, 200, 1000])
def test_every_network_has_askers_data_and_enough_of_every_model(count: int) -> None:
    peers = plan_peers(count, seed=7)
    assert peers == plan_peers(count, seed=7)
    assert [it.number for it in peers] == list(range(count))
    askers = [it for it in peers if it.asks]
    assert 2 <= len(askers) < count / 3
    assert sum(Role.DATA in it.roles for it in peers) >= 2
    for model in ("common", "uncommon", "rare"):
        runners = [it for it in peers if model in it.models]
        checkers = sum(Role.VERIFY in it.roles for it in peers)
        assert len(runners) >= min(RUNNERS_MIN, checkers)
        assert any(Role.INFER in it.roles for it in runners)


def test_how_many_wrong_answers_chance_allows() -> None:
    assert most_by_chance(1000, 0.0) == 0
    assert most_by_chance(100, 1.0) == 100
    # Of a Poisson distribution of mean 1, one in a thousand exceeds 5.
    assert most_by_chance(1000, 0.001) == 5


def test_a_network_with_credits_is_read_as_it_was_written() -> None:
    run = economy("member=0.3,partition=0.1@4,kill=0.1", epochs=3, epoch_s=9)
    assert config_of(run.to_document()) == run
    assert "--economy --epochs 3 --epoch 9" in run.replay_line()
    assert "--seconds" not in run.replay_line()
    for nonsense in ("x", {}, {"epochs": None, "epoch_s": 9}):
        with pytest.raises(InputError):
            config_of({**run.to_document(), "economy": nonsense})


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: DevnetConfig(faults=parse("thief=0.1")), "--economy"),
        (lambda: economy(epochs=0), "0 epochs"),
        (lambda: economy(epochs=1001), "1001 epochs"),
        (lambda: economy(epoch_s=1), "1 seconds"),
        (lambda: economy(peers=1001), "--peers 1000"),
        (lambda: economy_typed(False, 3, None, ()), "--economy"),
        (lambda: economy_typed(True, 3, None, ("--seconds",)), "--seconds"),
    ],
)
def test_what_makes_no_network_with_credits_is_refused(
    made: Callable[[], object], words: str
) -> None:
    with pytest.raises(InputError) as refused:
        made()
    assert words in str(refused.value)
