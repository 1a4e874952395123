"""Faults of the swarm as they are written; the error for nonsense lists the known faults."""

import pytest

from tests.sim.__main__ import main
from tests.sim.faults import KINDS, Faults, parse
from wire.errors import InputError


def test_a_share_a_moment_and_a_duration_are_read_and_written_the_same() -> None:
    text = "kill=0.3@600,loss=0.05,freeze=0.1@120+3600"
    kill, loss, freeze = parse(text)
    assert (kill.begins_s(3600), loss.begins_s(3600), freeze.ends_s(3600)) == (600, 0, 3720)
    assert str(Faults(7, (kill, loss, freeze))) == text


@pytest.mark.parametrize("text", ["kil=0.3", "kill", "kill=2", "kill=0", "kill=0.3,kill=0.3", "=1"])
def test_nonsense_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_who_misspells_a_fault_is_told_which_there_are() -> None:
    with pytest.raises(InputError, match=", ".join(KINDS)):
        main(["--faults", "kil=0.3"])


@pytest.mark.parametrize(
    "words",
    [["--peers", "3"], ["--seconds", "1"], ["--rare", "many"], ["--table"], ["--peers", "9999999"]],
)
def test_what_cannot_be_simulated_is_refused(words: list[str]) -> None:
    with pytest.raises(InputError):
        main(words)


def test_a_seed_says_who_is_struck() -> None:
    faults = parse("kill=0.3,leave=0.3")
    first, second = Faults(1, faults), Faults(2, faults)
    kill, leave = faults
    assert first.struck(kill, 100) == first.struck(kill, 100)
    assert len(first.struck(kill, 100)) == 30
    assert first.struck(kill, 100) != second.struck(kill, 100)
    assert first.struck(kill, 100) != first.struck(leave, 100)
