"""What an asker computed itself contradicts others' verdicts, and noise is told from lies."""

from typing import Any

import pytest

from node.checking.own_finding import OwnFinding
from tests.checking.test_disputes import verdict
from tests.node.asking import VECTORS, complete, receipt_of, task_of
from tests.p2p.transports import key_of
from wire.content import PeerId
from wire.receipt import Verdict
from wire.signed import Signed

TOLERANCE_PPB = 1000
EXACT = "hash-1 exact"


def own(
    sampled: tuple[int, ...], wrong: tuple[int, ...] = (), *, exact: bool = False, **changes: Any
) -> OwnFinding:
    mine = verdict("me", sampled, wrong, **changes).record
    return OwnFinding(verdict=mine, exact=exact, tolerance_ppb=TOLERANCE_PPB)


def said(*verdicts: Signed[Verdict], by: OwnFinding) -> dict[PeerId, bool]:
    return by.untrue(verdicts)


A, B = key_of("a").peer, key_of("b").peer


def test_who_calls_a_right_row_wrong_is_contradicted_and_who_agreed_is_not() -> None:
    found = own((1, 2, 3))
    no, yes = verdict("a", (2,), wrong=(2,)), verdict("b", (1, 2))
    assert said(no, yes, by=found) == {A: True}


@pytest.mark.parametrize(("worst", "lies"), [(3_900, False), (4_200, True)])
def test_what_honest_noise_explains_is_no_lie(worst: int, lies: bool) -> None:
    near = verdict("a", (2,), wrong=(2,), worst_ppb=(worst,))
    assert said(near, by=own((2,))) == {A: lies}


def test_where_bits_are_the_same_there_is_no_noise_but_between_equal_profiles_only() -> None:
    found = own((2,), exact=True, profile=EXACT)
    near = {"wrong": (2,), "worst_ppb": (1_100,)}
    alike = verdict("a", (2,), profile=EXACT, **near)
    other = verdict("b", (2,), profile="another device", **near)
    assert said(alike, other, by=found) == {A: True, B: False}


def test_rows_that_were_not_looked_at_here_prove_nothing() -> None:
    no = verdict("a", (9,), wrong=(9,))
    assert said(no, by=own((1, 2))) == {}
    assert said(verdict("b", (1, 2)), by=own((1, 2, 5), wrong=(5,))) == {}


def test_who_agrees_with_a_row_that_is_wrong_here_has_not_looked() -> None:
    found = own((1, 5), wrong=(5,))
    looked, elsewhere = verdict("a", (5, 6)), verdict("b", (1, 6))
    assert said(looked, elsewhere, by=found) == {A: True}


def test_what_is_wrong_as_a_whole_is_seen_by_whoever_looks() -> None:
    found = own((0,), wrong=(0,), reason="3 rows for 4 texts", worst_ppb=(10**9,))
    assert said(verdict("a", (7,)), by=found) == {A: True}


def test_what_was_withheld_from_somebody_contradicts_nothing() -> None:
    withheld = verdict("a", (), agrees=False, could_check=False)
    assert said(withheld, by=own((1, 2))) == {}


def test_bytes_of_another_kind_of_device_decide_nothing() -> None:
    task = task_of(key_of("asker"), 1_800_000_000.0, complete(4))
    receipt = receipt_of(task, key_of("worker"), VECTORS).record
    assert own((0,), profile=receipt.profile).decides(receipt)
    assert not own((0,), profile="another device").decides(receipt)
    rows = receipt_of(task_of(key_of("asker"), 1_800_000_000.0), key_of("worker"), VECTORS).record
    assert own((0,), profile="another device").decides(rows)
    assert not own((), agrees=False, could_check=False).decides(rows)
