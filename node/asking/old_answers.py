"""Answers of the past: found by time, and let go, oldest first, when the store has no room left.

Kept answers are pinned, so nothing evicts them. Without a bound, whoever may ask could fill the
store until this peer can neither answer nor serve.
"""

from store import Pin, Row, Store, Table
from wire.content import ContentId
from wire.errors import StoreError, WireError
from wire.receipt import Answer, Receipt
from wire.signed import open_signed
from wire.task import Task

# The answers table is read by task, by time and by job key.
BY_TASK, BY_TIME, BY_JOB = b"task:", b"time:", b"job:"
# In the verdicts table: the later state of an answer.
LATER = b"later:"
# Above this part of the quota each new answer lets some old ones go, but never the latest.
HELD_SHARE_MAX = 0.9
LET_GO_AT_ONCE = 8
KEPT_MIN = 1000
_LAST_MS = 1 << 48


def latest_rows(store: Store, count: int) -> list[tuple[bytes, bytes]]:
    """The last `count` rows by time, in order: halving all time finds where they begin."""
    begin, end = 0, _LAST_MS
    while end - begin > 1:
        middle = (begin + end) // 2
        if len(_since(store, middle, count)) == count:
            begin = middle
        else:
            end = middle
    # More than `count` may be of one moment; these are in no order anyway.
    return _since(store, begin, 2 * count)[-count:]


def _since(store: Store, at_ms: int, limit: int) -> list[tuple[bytes, bytes]]:
    start = BY_TIME + at_ms.to_bytes(8, "big")
    return store.scan(Table.ANSWERS, start=start, prefix=BY_TIME, limit=limit)


async def let_go(store: Store, new: int = 1) -> tuple[list[Row], list[Pin]]:
    """The rows to write, and the pins to remove, to let the oldest answers go before `new` are
    kept; none if there is room.
    """
    figures = store.statistics()
    rows: list[Row] = []
    pins: list[Pin] = []
    if figures.held_bytes <= HELD_SHARE_MAX * figures.quota_bytes:
        return rows, pins
    kept = store.scan(Table.ANSWERS, prefix=BY_TIME, limit=KEPT_MIN + LET_GO_AT_ONCE * new)
    for key, value in kept[:-KEPT_MIN]:
        answer_id = ContentId(value)
        rows.append(Row(Table.ANSWERS, key, None))
        rows.append(Row(Table.VERDICTS, LATER + answer_id, None))
        pins.append(Pin(answer_id, "answer"))
        try:
            answer = open_signed(await store.get(answer_id), Answer).record
            task = open_signed(answer.task, Task)
            output = open_signed(answer.receipts[-1], Receipt).record.output
        except (StoreError, WireError):
            # It is damaged on the disk: what it named cannot be known any more.
            continue
        rows.append(Row(Table.ANSWERS, BY_TASK + task.id, None))
        if task.record.input is not None and len(task.record.stages) == 1:
            job = BY_JOB + task.record.stages[0].job_key(task.record.input)
            if store.read(Table.ANSWERS, job) != answer_id:
                # A later answer has the same output, and holds it.
                continue
            rows.append(Row(Table.ANSWERS, job, None))
        pins.append(Pin(output, "answer"))
    return rows, pins
