"""A list of whatever length still fits one answer on the control socket."""

from typing import Any

from node.asking.as_maps import fitting
from wire import limits
from wire.codec import pack, unpack


def answer_row(number: int) -> dict[str, Any]:
    """As long as rows of answers are."""
    leg = {f"key {it}": f"value {number}" for it in range(12)}
    verdict = {"peer": "p" * 52, "sampled": list(range(16)), "agrees": True}
    return {"task": f"{number}", "route": [leg, leg], "verdicts": [verdict] * 3}


def test_as_many_rows_are_told_as_fit_and_no_fewer() -> None:
    rows = [answer_row(number) for number in range(1000)]
    told = fitting(rows)
    assert told == rows[: len(told)]
    unpack(pack({"result": {"receipts": told}}))
    more = rows[: len(told) * 11 // 10]
    assert more != told
    assert fitting(rows[:10]) == rows[:10]
    # Not for caution's sake: a tenth more is too much.
    assert sum(map(_items, more)) > limits.ITEMS_MAX


def _items(value: object) -> int:
    if isinstance(value, dict):
        return 1 + sum(_items(key) + _items(it) for key, it in value.items())
    return 1 + sum(map(_items, value)) if isinstance(value, list) else 1
