"""What a gateway's answers mean to a client: pieces of text, arrays, errors. A pure core."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

import numpy as np

from wire.errors import (
    BatonError,
    InputError,
    Malformed,
    Missing,
    Oversize,
    Refused,
    RemoteProtocolError,
    TaskFailed,
    TooSlow,
)
from wire.tensors import SAFETENSORS_KINDS, SAFETENSORS_LABELS

Array = np.ndarray[Any, Any]
# A piece is a few tokens, at most with their alternatives.
EVENT_BYTES_MAX = 8 << 20
WORDS_MAX = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPiece:
    """Some text of an answer. The last piece says how it ended, and which receipt proves it."""

    text: str = ""
    finish_reason: str | None = None
    task: str | None = None
    receipt: str | None = None
    usage: Mapping[str, int] | None = None
    # These words are OpenAI's.
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    logprobs: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class EventReader:
    """Reads server-sent events from bytes that may be cut anywhere."""

    _rest: bytes = b""
    _data: list[bytes] = field(default_factory=list)

    def feed(self, data: bytes) -> list[str]:
        """The data of the events that are complete now; Oversize, Malformed."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        found = []
        for raw in lines:
            line = raw.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line.removeprefix(b"data:").removeprefix(b" "))
            elif not line and self._data:
                found.append(_text(b"\n".join(self._data)))
                self._data.clear()
        if len(self._rest) + sum(map(len, self._data)) > EVENT_BYTES_MAX:
            raise Oversize(f"the gateway sent an event of more than {EVENT_BYTES_MAX} bytes")
        return found


@dataclass(slots=True)
class PieceReader:
    """Reads pieces from the events of one answer.

    The usage arrives after the ending, so the last piece waits for the usage.
    """

    _last: AnswerPiece | None = None
    over: bool = False
    # What the answer cost, as its end says, where it was paid for by itself.
    amount: object = None

    def take(self, event: str) -> list[AnswerPiece]:
        """The pieces that can be shown by now; BatonError if the gateway says that it failed."""
        if event == "[DONE]":
            return self._end()
        chunk = read_json(event)
        if isinstance(chunk.get("error"), dict):
            raise error_of(503, chunk, None)
        if isinstance(baton := chunk.get("x_baton"), dict):
            self.amount = baton.get("amount", self.amount)
        if isinstance(usage := chunk.get("usage"), dict) and self._last is not None:
            self._last = replace(self._last, usage=usage)
        found = [_piece(it, chunk) for it in chunk.get("choices") or ()]
        for piece in found:
            if piece.finish_reason is not None:
                self._last = piece
        shown = (it for it in found if it.finish_reason is None)
        return [it for it in shown if it.text or it.tool_calls or it.logprobs]

    def _end(self) -> list[AnswerPiece]:
        self.over = True
        if self._last is None:
            raise Malformed("the gateway ended an answer without saying how it ended")
        return [self._last]


def _piece(choice: Any, chunk: Mapping[str, Any]) -> AnswerPiece:
    if not isinstance(choice, dict):
        raise Malformed("the gateway sent a choice that cannot be read")
    delta = choice.get("delta") or {}
    baton = chunk.get("x_baton") or {}
    return AnswerPiece(
        text=delta.get("content") or choice.get("text") or "",
        finish_reason=choice.get("finish_reason"),
        task=baton.get("task"),
        receipt=baton.get("receipt"),
        tool_calls=tuple(delta.get("tool_calls") or ()),
        logprobs=choice.get("logprobs"),
    )


def read_json(data: bytes | str) -> dict[str, Any]:
    """A JSON object, as every answer of a gateway is; Malformed for anything else."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the gateway's answer is not JSON: {error}", todo=_WHO) from error
    if not isinstance(found, dict):
        raise Malformed("the gateway's answer is not a JSON object", todo=_WHO)
    return found


GIVE_LONGER = "give it longer: deadline_s=…"
_WHO = "check that the address is a Baton gateway's"


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Malformed("the gateway sent an event that is not UTF-8", todo=_WHO) from error


# In a stream, whose status is 200 by then, the code alone tells it: the time is over, or it is too
# short for anybody who would begin.
LATE_CODES = ("deadline_passed", "deadline_too_short")


def error_of(status: int, body: Mapping[str, Any], retry_after: str | None) -> BatonError:
    """A gateway's refusal as the error that says whose fault it is, why, and what to do."""
    told = body.get("error")
    told = told if isinstance(told, dict) else {}
    message = str(told.get("message") or f"the gateway answered {status}")[:WORDS_MAX]
    code, wait_s = told.get("code"), seconds_of(retry_after)
    match status:
        case 401:
            return InputError(message, todo="give a key: connect(…, key=…)")
        case 403:
            return Refused(message)
        case 404 if code == "model_not_found":
            return InputError(message, todo="see them: await net.models()")
        case 404:
            return Missing(message)
        case _ if status == 408 or code in LATE_CODES:
            return TooSlow(message, todo=GIVE_LONGER)
        case 429:
            return Refused(message, retry_after_s=wait_s, todo="ask less often, or wait")
        case 503 if wait_s is not None:
            return Refused(message, retry_after_s=wait_s)
        case 503:
            return TaskFailed(message)
        case _ if 400 <= status < 500:
            return InputError(message)
        case _:
            return RemoteProtocolError(message, todo=_WHO)


def seconds_of(text: str | None) -> float | None:
    """A `retry-after` in seconds; a date, or anything else, is None."""
    try:
        found = float(text or "")
    except ValueError:
        return None
    return found if isfinite(found) and found >= 0 else None


def to_safetensors(inputs: Mapping[str, Any]) -> bytes:
    """Named arrays as one safetensors file; InputError for anything but an array of numbers."""
    head: dict[str, Any] = {}
    parts: list[bytes] = []
    at = 0
    for name, value in inputs.items():
        array = np.asarray(value)
        if (label := SAFETENSORS_LABELS.get(array.dtype.name)) is None:
            raise InputError(
                f"{name} is an array of {array.dtype.name}",
                todo=f"make it one of {', '.join(SAFETENSORS_LABELS)}",
            )
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        head[name] = {
            "dtype": label,
            "shape": list(array.shape),
            "data_offsets": [at, at + len(data)],
        }
        parts.append(data)
        at += len(data)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


def from_safetensors(data: bytes) -> dict[str, Array]:
    """The arrays of a safetensors file, writable and in this machine's byte order; Malformed."""
    size, found = int.from_bytes(data[:8], "little"), {}
    head = read_json(data[8 : 8 + size])
    body = data[8 + size :]
    try:
        for name, told in head.items():
            if name == "__metadata__":
                continue
            begin, end = told["data_offsets"]
            kind = np.dtype(SAFETENSORS_KINDS[told["dtype"]])
            values = np.frombuffer(body[begin:end], kind.newbyteorder("<"))
            found[name] = values.reshape(told["shape"]).astype(kind)
    except (ValueError, TypeError, KeyError) as error:
        raise Malformed(f"the gateway's tensors cannot be read: {error}", todo=_WHO) from error
    return found


def vectors_of(encoded: list[bytes]) -> Array:
    """Vectors as rows of one array; Malformed unless all have one length."""
    if len({len(it) for it in encoded}) != 1 or len(encoded[0]) % 4:
        raise Malformed("the gateway's vectors differ in length", todo=_WHO)
    rows = np.frombuffer(b"".join(encoded), "<f4").astype(np.float32)
    return rows.reshape(len(encoded), -1)
