"""Receipts belong to a task only as a chain: each leg of it, in order, each from the one before."""

from typing import Any

import pytest

from tests.wire.samples import BLOCK, EMBED, FETCH, KEY, MODEL, OTHER_KEY, TREE, altered
from wire.chain import check_chain, legs_to_check, open_receipts, source_of
from wire.content import ContentId
from wire.errors import BadSignature, Malformed
from wire.kinds import Role
from wire.receipt import Receipt
from wire.signed import Signed, sign
from wire.task import Task

VECTORS = ContentId.of(b"vectors")


def signed_task(**changes: Any) -> Signed[Task]:
    task = altered("Task", **{"stages": (FETCH, EMBED), "input": None, **changes})
    assert isinstance(task, Task)
    return sign(task, KEY)


TASK = signed_task()


def signed_receipt(**changes: Any) -> Signed[Receipt]:
    receipt = altered("Receipt", **changes)
    assert isinstance(receipt, Receipt)
    return sign(receipt, OTHER_KEY)


FIRST: dict[str, Any] = {
    "task": TASK.id,
    "stage": 0,
    "role": Role.DATA,
    "operation": "fetch",
    "model": None,
    "input": None,
    "output": BLOCK,
    "previous": None,
}
FETCHED = signed_receipt(**FIRST)
SECOND: dict[str, Any] = {
    "task": TASK.id,
    "stage": 1,
    "role": Role.INFER,
    "operation": "embed",
    "model": MODEL,
    "input": BLOCK,
    "output": VECTORS,
    "previous": FETCHED.id,
}
EMBEDDED = signed_receipt(**SECOND)


@pytest.mark.parametrize("legs", [0, 1, 2])
def test_the_receipts_of_the_first_legs_are_a_chain(legs: int) -> None:
    receipts = [FETCHED, EMBEDDED][:legs]
    check_chain(TASK, receipts)
    assert open_receipts(TASK, [receipt.raw for receipt in receipts]) == receipts


ALTERED = {
    "task": BLOCK,
    "stage": 0,
    "role": Role.DATA,
    "operation": "fetch",
    "model": BLOCK,
    "input": TREE,
    "previous": BLOCK,
}


@pytest.mark.parametrize("name", ALTERED)
def test_a_receipt_that_names_another_is_of_another_chain(name: str) -> None:
    with pytest.raises(Malformed, match="the receipt of leg 2 names another"):
        check_chain(TASK, [FETCHED, signed_receipt(**{**SECOND, name: ALTERED[name]})])


def test_the_first_receipt_continues_nothing_and_begins_with_the_tasks_input() -> None:
    for changes in ({"previous": BLOCK}, {"input": BLOCK}):
        with pytest.raises(Malformed, match="the receipt of leg 1 names another"):
            check_chain(TASK, [signed_receipt(**{**FIRST, **changes})])


def test_receipts_out_of_order_doubled_or_with_a_gap_are_no_chain() -> None:
    for receipts in ([EMBEDDED, FETCHED], [FETCHED, FETCHED], [EMBEDDED]):
        with pytest.raises(Malformed):
            check_chain(TASK, receipts)


def test_there_are_no_more_receipts_than_legs() -> None:
    with pytest.raises(Malformed, match="3 receipts for 2 legs"):
        check_chain(TASK, [FETCHED, EMBEDDED, EMBEDDED])


def test_the_receipts_of_another_task_are_not_this_tasks() -> None:
    with pytest.raises(Malformed):
        check_chain(signed_task(nonce=bytes(16)), [FETCHED])


def test_the_same_leg_signed_again_breaks_the_link_to_it() -> None:
    again = signed_receipt(**{**FIRST, "duration_ms": 13})
    check_chain(TASK, [again])
    with pytest.raises(Malformed, match="previous receipt"):
        check_chain(TASK, [again, EMBEDDED])


def test_a_receipt_whose_signature_does_not_fit_is_refused_before_the_chain_is_looked_at() -> None:
    raw = FETCHED.raw[:-1] + bytes((FETCHED.raw[-1] ^ 1,))
    with pytest.raises(BadSignature):
        open_receipts(TASK, [raw])


def test_what_reaches_a_leg_is_the_tasks_input_or_the_output_before() -> None:
    assert source_of(TASK, [FETCHED], 0) is None
    assert source_of(signed_task(input=TREE, stages=(EMBED,)), [], 0) == TREE
    assert source_of(TASK, [FETCHED], 1) == BLOCK


def test_the_legs_that_ran_a_model_are_checked() -> None:
    assert legs_to_check([FETCHED, EMBEDDED]) == [1]
    assert legs_to_check([FETCHED]) == []
