"""A summary of a receipt for people: what was asked, of which model, when, and the answer.

Pure. The summary says what the signed bytes say; `node.checking.audit` says whether they hold.
Input and output are shown only if they are at hand and are the ones that were signed.
"""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass

from wire.chain import doers_of, legs_to_check
from wire.content import ContentId, PeerId
from wire.errors import WireError
from wire.fetch import SourceRecord
from wire.generation import Ending, Generation, Token, read_frames
from wire.payload import Hits, Passages, Question, Texts, Vectors
from wire.plural import plural
from wire.receipt import Answer, Receipt
from wire.schema import Scalar
from wire.signed import Signed
from wire.task import Task
from wire.tree import name_of

Have = Callable[[ContentId], bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The first lines of a report. Texts are complete and raw: the caller shortens and cleans."""

    operation: str
    model: ContentId | None
    # What was asked, in words; None if the input is not at hand.
    question: str | None
    # Settings of the last leg, as text.
    settings: str
    asked_at_ms: int
    answered_at_ms: int
    asked_by: PeerId
    answered_by: tuple[PeerId, ...]
    answer: str | None
    # How many verdicts were needed; 0 if no check was asked for.
    needed: int


def summary_of(
    answer: Signed[Answer], task: Signed[Task], receipts: list[Signed[Receipt]], have: Have
) -> Summary:
    """The summary of an answer whose parts could be read."""
    stages, last = task.record.stages, receipts[-1].record
    settings = stages[min(last.stage, len(stages) - 1)].parameters
    source, output = task.record.input, last.output
    asked = None if source is None else _right(source, have)
    given = _right(output, have)
    question = _question(stages[0].operation, asked)
    if question is None and source is None:
        question = f"the source {_shown(stages[0].parameters.get('source', ''))}"
    # Verdicts on what is no leg of a model are none of this answer.
    is_checked = bool(answer.record.verdicts) and bool(legs_to_check(receipts))
    return Summary(
        operation=last.operation,
        model=last.model,
        question=question,
        settings=", ".join(f"{key} {_shown(value)}" for key, value in sorted(settings.items())),
        asked_at_ms=task.record.issued_at_ms,
        answered_at_ms=answer.record.answered_at_ms,
        asked_by=task.signer,
        answered_by=tuple(dict.fromkeys(it for leg in receipts for it in doers_of(leg))),
        answer=_answer(last.operation, given),
        needed=task.record.checking.needed if is_checked else 0,
    )


def _shown(value: Scalar) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _right(content: ContentId, have: Have) -> bytes | None:
    data = have(content)
    return data if data is not None and name_of(data) == content else None


def _question(operation: str, data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        match operation:
            case "generate":
                return _last_said(Generation.from_bytes(data))
            case "fetch":
                return f"the source {SourceRecord.from_bytes(data).place}"
            case "embed":
                return " / ".join(Texts.from_bytes(data).texts)
            case "nearest":
                return Question.from_bytes(data).text
            case "complete":
                return data.decode(errors="replace")
            case _:
                return f"{len(data)} bytes of input"
    except WireError:
        return "an input that cannot be read"


def _last_said(asked: Generation) -> str:
    """The prompt, or what the last message says."""
    if asked.prompt:
        return asked.prompt
    try:
        last = json.loads(asked.messages)[-1]
        return str(last["content"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return "a conversation that cannot be read"


def _answer(operation: str, data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        match operation:
            case "generate":
                return _generated(data)
            case "embed" | "embed-passages":
                return _numbers(Vectors.from_bytes(data))
            case "fetch":
                return _brought(Passages.from_bytes(data))
            case "nearest":
                hits = Hits.from_bytes(data).hits
                return (
                    f"{plural(len(hits), 'passage')}, the nearest with {hits[0].score:.3f}"
                    if hits
                    else ""
                )
            case "complete":
                return data.decode(errors="replace")
            case _:
                return f"{len(data)} bytes of output"
    except WireError:
        return "an output that cannot be read"


def _brought(passages: Passages) -> str:
    return (
        f"{len(passages.passages)} of the {plural(passages.total, 'passage')} of {passages.source}"
    )


def _generated(data: bytes) -> str:
    text, size_bytes = bytearray(), None
    for frame in read_frames(data):
        match frame:
            case Token():
                text += frame.text
            case Ending():
                size_bytes = frame.text_bytes
    return bytes(text[:size_bytes]).decode(errors="replace")


def _numbers(vectors: Vectors) -> str:
    first = struct.unpack_from(f"<{min(4, vectors.dimensions)}f", vectors.data)
    shown = ", ".join(f"{it:+.4f}" for it in first)
    word = "vector" if vectors.rows == 1 else "vectors"
    return (
        f"{vectors.rows} {word} of {plural(vectors.dimensions, 'number')}, the first begins {shown}"
    )
