"""The swarm: figures are no worse, one seed has one digest, and the checkers find violations."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from p2p import view as view_module
from p2p.view import View
from tests.sim import table
from tests.sim.faults import parse
from tests.sim.measuring import mixed_ratio, sample
from tests.sim.run import Violation, plan_of, simulate, swarm_at
from tests.tidy.tree import ROOT
from wire.advert import Advert
from wire.signed import Signed

BEFORE = table.read()


def test_the_table_is_of_these_runs() -> None:
    assert set(BEFORE) == set(table.RUNS)


# The largest of the runs takes half a minute.
SLOWEST = "rare 300"


@pytest.mark.parametrize(
    "name", [pytest.param(it, marks=[pytest.mark.soak] * (it == SLOWEST)) for it in table.RUNS]
)
def test_no_figure_is_worse_than_it_was(name: str) -> None:
    found = table.worse(name, BEFORE[name], table.RUNS[name]())
    assert not found, "\n".join(found)


def test_ten_made_up_keys_for_each_honest_peer_leave_four_fifths_of_what_views_are() -> None:
    # The runs of the table test these figures.
    found = BEFORE["sybil 88"]
    assert found["flood_made_up_ratio"] <= 0.2
    assert found["flood_real_held_ratio"] >= 0.8
    # Before there were quotas, five sixths of a view were made-up adverts.
    assert BEFORE["flood 50"]["flood_made_up_ratio"] <= 0.3


def test_a_figure_that_worsens_by_a_tenth_is_found_and_said_with_what_to_do() -> None:
    before = {"p99_s": 1.0, "views_complete_end": 1.0, "estimate_median": 1.1, "late": 0}
    assert table.worse("x", before, dict(before)) == []
    assert table.worse("x", before, before | {"p99_s": 0.2, "estimate_median": 1.0}) == []
    (said,) = table.worse("x", before, before | {"p99_s": 1.2})
    assert "p99_s was 1.0 and is 1.2" in said
    assert "--table --reason" in said
    assert table.worse("x", before, before | {"views_complete_end": 0.8})
    assert table.worse("x", before, before | {"estimate_median": 0.7})
    assert table.worse("x", before, before | {"late": 2})
    assert table.worse("x", before, before | {"p99_s": None})


def test_a_table_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "VERSION", 2)
    with pytest.raises(ValueError, match="of version 1, this is 2"):
        table.read()


def test_one_seed_gives_one_digest_whatever_the_hashes() -> None:
    words = ["--peers", "30", "--seconds", "90", "--json", "--seed"]
    faults = ["--faults", "kill=0.2@60,loss=0.05,duplicate=0.1,reorder=0.1"]

    def digest(seed: str, hashes: str) -> str:
        command = [sys.executable, "-m", "tests.sim", *words, seed, *faults]
        environment = os.environ | {"PYTHONHASHSEED": hashes}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.partition('"digest": "')[2].partition('"')[0]

    first = digest("7", "1")
    assert len(first) == 64
    assert digest("7", "2") == first
    assert digest("8", "1") != first


@pytest.mark.soak
def test_a_swarm_that_begins_warm_is_one_that_has_run_and_says_so() -> None:
    plan = plan_of(400, 120, parse("kill=0.3@60"), 9, warm=True)
    first = swarm_at(plan, 0.5)
    assert all(len(it.view) == 256 for it in sample(first) if it.number < 396)
    assert not any(it.up for it in first.peers[396:])
    figures = simulate(plan)
    assert figures["start"] == "warm"
    assert "--start warm" in plan.replay
    assert figures["views_complete_steady"] == 1.0
    assert figures["kill_ghosts_10_s"] < 0.4


def test_both_sides_of_a_partition_forget_each_other_and_meet_again() -> None:
    plan = plan_of(40, 400, parse("partition=0.4@40+200"), 21)
    torn = swarm_at(plan, 239.0)
    part = dict(torn.links.part)
    assert len(part) == 16
    assert mixed_ratio(torn, part) == 0.0
    assert mixed_ratio(swarm_at(plan, 330.0), part) == pytest.approx(1.0)


def test_who_slept_comes_back_by_itself() -> None:
    swarm = swarm_at(plan_of(30, 700, parse("freeze=0.2@60+600"), 22), 690.0)
    slept = swarm.links.faults.struck(swarm.links.faults.all[0], 30)
    assert len(sample(swarm)) == 30
    for number in slept:
        assert len(swarm.peers[number].view) == 29
        assert swarm.peers[number].neighbours


def _hears_anything(hear: Callable[..., object]) -> Callable[..., object]:
    def wrong(
        self: View, heard: Signed[Advert], wall_s: float, introducer: object = None
    ) -> object:
        if (known := self._entries.get(heard.signer)) is not None:
            self._drop(heard.signer, known)
        return hear(self, heard, wall_s, introducer)

    return wrong


def test_a_number_that_goes_back_ends_the_run_with_the_line_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(View, "hear", _hears_anything(View.hear))
    with pytest.raises(Violation) as caught:
        simulate(plan_of(20, 120, parse("reorder=0.3,duplicate=0.3"), 23))
    message = str(caught.value)
    assert "a number went back" in message
    assert (
        "python -m tests.sim --peers 20 --seed 23 --seconds 120 --rare 0x2"
        " --faults reorder=0.3,duplicate=0.3" in message
    )


def test_the_dead_who_stay_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(View, "expire", lambda _self, _wall_s: [])
    monkeypatch.setattr(view_module.Entry, "until_wall_s", property(lambda _self: 2**40))
    monkeypatch.setattr(Advert, "expired", lambda _self, _wall_s: False)
    with pytest.raises(Violation, match=r"who is dead|had ended"):
        simulate(plan_of(20, 300, parse("kill=0.3@60"), 24))
