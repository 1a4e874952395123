"""Answers that a peer keeps, own ones and imported ones, for who lists or checks receipts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from node.asking import as_maps
from node.asking.answers import Answered, Answers
from store import Pin, Store, Table
from wire import limits
from wire.codec import unpack
from wire.content import ContentId
from wire.errors import InputError, Missing, StoreError, WireError
from wire.model import Manifest
from wire.receipt import Answer, Receipt
from wire.signed import Signed, open_signed
from wire.task import Task

LISTED_MAX = 200
# In the answers table: what was imported, by the time of the import.
BY_IMPORT = b"import:"
IMPORT_PIN = "imported"
# One more lets the oldest go.
IMPORTED_MAX = 256


@dataclass(frozen=True, slots=True)
class Imported:
    """One import: its row, its receipt, and all that is pinned for it."""

    key: bytes
    answer_id: ContentId
    blobs: tuple[ContentId, ...]

    @property
    def pins(self) -> tuple[Pin, ...]:
        return tuple(Pin(it, IMPORT_PIN) for it in self.blobs)


def imported(store: Store) -> list[Imported]:
    """What was imported, the oldest first."""
    found = []
    for key, value in store.scan(Table.ANSWERS, prefix=BY_IMPORT, limit=2 * IMPORTED_MAX):
        blobs = tuple(map(ContentId, unpack(value)))
        found.append(Imported(key, blobs[0], blobs))
    return found


async def list_receipts(
    answers: Answers,
    manifest_of: Callable[[ContentId], Manifest | None],
    count: int = LISTED_MAX,
) -> dict[str, Any]:
    """The `count` answers kept last, latest first, then what was imported."""
    rows = [
        _row(it, manifest_of, is_imported=False, later=answers.later(it))
        for it in await answers.latest(count)
    ]
    for one in list(reversed(imported(answers.store)))[:count]:
        try:
            answer = open_signed(await answers.store.get(one.answer_id), Answer)
        except (StoreError, WireError):
            # It is damaged on the disk; the others can still be read.
            continue
        rows.append(_row(answer, manifest_of, is_imported=True, later=None))
    shown = as_maps.fitting(rows)
    return {"receipts": shown, "left_out": len(rows) - len(shown)}


def _row(
    answer: Signed[Answer],
    manifest_of: Callable[[ContentId], Manifest | None],
    *,
    is_imported: bool,
    later: str | None,
) -> dict[str, Any]:
    row = as_maps.answer_map(Answered(answer=answer, output=b"", kept_before=True))
    model = row["route"][-1]["model"]
    manifest = None if model is None else manifest_of(ContentId.parse(model))
    return {
        **row,
        "later": None if later is None else str(later),
        "model_name": manifest.name if manifest is not None else model or "",
        "imported": is_imported,
    }


async def read_kept(store: Store, answer_id: ContentId) -> Signed[Answer]:
    """An answer that is kept here, own or imported; InputError if it is not."""
    try:
        return open_signed(await store.get(answer_id), Answer)
    except (Missing, WireError) as error:
        raise InputError(
            f"no answer with the receipt {answer_id} is kept here",
            todo="see those that are: python -m node receipts",
        ) from error


async def read_answer(store: Store, answer_id: ContentId) -> dict[str, bytes]:
    """The signed answer as `answer`, its `input`, `output` and model's `manifest`.

    Empty where not kept here.
    """
    answer = await read_kept(store, answer_id)
    task = open_signed(answer.record.task, Task).record
    last = open_signed(answer.record.receipts[-1], Receipt).record
    return {
        "answer": answer.raw,
        "input": await _kept(store, task.input),
        "output": await _kept(store, last.output),
        "manifest": await _kept(store, last.model),
    }


async def _kept(store: Store, content: ContentId | None) -> bytes:
    """Content that is kept here and is small enough to be told; else nothing."""
    if content is None:
        return b""
    try:
        data = await store.get(content)
    except StoreError:
        return b""
    return data if len(data) <= limits.PROMPT_BYTES_MAX else b""
