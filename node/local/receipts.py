"""Answers that a peer keeps, with what went in and what came out, for who checks a receipt."""

from store import Store
from wire import limits
from wire.content import ContentId
from wire.errors import InputError, Missing, StoreError, WireError
from wire.receipt import Answer, Receipt
from wire.signed import open_signed
from wire.task import Task


async def read_answer(store: Store, answer_id: ContentId) -> dict[str, bytes]:
    """The signed answer as `answer`, its `input` and its `output`; empty where not kept here."""
    try:
        raw = await store.get(answer_id)
        answer = open_signed(raw, Answer).record
    except (Missing, WireError) as error:
        raise InputError(
            f"no answer with the receipt {answer_id} is kept here",
            todo="see those that are: python -m node receipts",
        ) from error
    task = open_signed(answer.task, Task).record
    last = open_signed(answer.receipts[-1], Receipt).record
    return {
        "answer": raw,
        "input": await _kept(store, task.input),
        "output": await _kept(store, last.output),
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
