"""Events and answers as plain maps: what commands send to a screen, and `--json` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from node.asking.answers import Answered
from node.task import events
from wire import limits
from wire.chain import doers_of, segments_of
from wire.codec import pack
from wire.receipt import Receipt, Verdict
from wire.signed import Signed, open_signed
from wire.tariff import Charge, Tariff
from wire.task import Task


def event_map(event: events.Event) -> dict[str, Any]:
    """One event as a map; `event` is its kind, the other keys are what a screen shows."""
    match event:
        case events.Accepted():
            return {"event": "accepted", "task": str(event.task)}
        case events.Offered():
            role = event.role.name.lower()
            return {"event": "offered", "stage": event.stage, "role": role, "peer": str(event.peer)}
        case events.Failed():
            return {
                "event": "failed",
                "what": event.what,
                "peer": str(event.peer),
                "why": event.why,
                "code": None if event.code is None else event.code.name.lower(),
            }
        case events.Streamed():
            return {"event": "piece", "position": event.position, "data": event.data}
        case events.Restarted():
            return {"event": "restarted", "position": event.position}
        case events.LegDone():
            return {"event": "leg", **leg_map(event.receipt)}
        case events.Checked():
            return {"event": "verdict", **verdict_map(event.verdict)}
        case events.Kept():
            return {"event": "kept", "receipt": str(event.answer), "output": str(event.output)}


def leg_map(receipt: Signed[Receipt]) -> dict[str, Any]:
    leg = receipt.record
    return {
        "leg": leg.stage + 1,
        "role": leg.role.name.lower(),
        "operation": leg.operation,
        "model": None if leg.model is None else str(leg.model),
        "peer": str(receipt.signer),
        "units": leg.units,
        "duration_ms": leg.duration_ms,
        "profile": leg.profile,
        "reused": leg.reused,
        "input": None if leg.input is None else str(leg.input),
        "output": str(leg.output),
        "receipt": str(receipt.id),
        **_segments_map(receipt),
    }


def _segments_map(receipt: Signed[Receipt]) -> dict[str, Any]:
    """Who signed for which tokens of a stream, where that is more than one; else nothing."""
    before = segments_of(receipt)
    if not before:
        return {}
    ends = [*(it.record.end for it in before), receipt.record.units]
    begins = [0, *ends[:-1]]
    doers = doers_of(receipt)
    return {
        "segments": [
            {"first": first, "end": end, "peer": str(peer)}
            for first, end, peer in zip(begins, ends, doers, strict=True)
        ]
    }


def verdict_map(verdict: Signed[Verdict]) -> dict[str, Any]:
    found = verdict.record
    return {
        "peer": str(verdict.signer),
        "agrees": found.agrees,
        "could_check": found.could_check,
        "rows": found.rows,
        "sampled": list(found.sampled),
        "worst": max(found.worst_ppb, default=0) / 1e9,
        "reason": found.reason,
        "duration_ms": found.duration_ms,
        "receipt": str(found.receipt),
    }


def charge_map(charge: Charge) -> dict[str, Any]:
    tariff = open_signed(charge.tariff, Tariff)
    return {
        "peer": str(tariff.signer),
        "for": charge.kind.name.lower(),
        "leg": charge.stage + 1,
        "units": charge.units,
        "amount": charge.amount,
        "tariff": str(tariff.id),
    }


def answer_map(answered: Answered) -> dict[str, Any]:
    """Which peers did what for an answer, and the id of its receipt."""
    answer = answered.answer.record
    receipts = [open_signed(it, Receipt) for it in answer.receipts]
    verdicts = [open_signed(it, Verdict) for it in answer.verdicts]
    task = open_signed(answer.task, Task)
    return {
        "task": str(task.id),
        "receipt": str(answered.answer.id),
        "output": str(receipts[-1].record.output),
        "route": [leg_map(it) for it in receipts],
        "verdicts": [verdict_map(it) for it in verdicts],
        "verified": sum(it.record.agrees for it in verdicts) >= task.record.checking.needed > 0,
        "needed": task.record.checking.needed,
        "price_max": task.record.price_max,
        "charges": [charge_map(it) for it in answer.charges],
        "charged": sum(it.amount for it in answer.charges),
        "attempts": answer.attempts,
        "answered_at_ms": answer.answered_at_ms,
        "duration_ms": answer.duration_ms,
        "kept_before": answered.kept_before,
    }


Rows = Sequence[Mapping[str, Any]]
# Items of an answer besides its rows.
_ITEMS_AROUND = 64


def fitting(rows: Rows) -> Rows:
    """The first of the rows, as many as fit in one answer."""
    items, size_bytes = _ITEMS_AROUND, limits.FRAME_BYTES_MAX // 16
    for place, row in enumerate(rows):
        items += _items_in(row)
        size_bytes += len(pack(row))
        if items > limits.ITEMS_MAX or size_bytes > limits.FRAME_BYTES_MAX:
            return rows[:place]
    return rows


def _items_in(value: object) -> int:
    """The number of items, counted as the codec counts them."""
    match value:
        case dict():
            return 1 + len(value) + sum(map(_items_in, value.values()))
        case list() | tuple():
            return 1 + sum(map(_items_in, value))
        case _:
            return 1
