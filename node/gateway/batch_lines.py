"""The lines of a batch: each one request as a client wrote it, and what came of it. Pure."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from node.gateway.errors import text_of
from node.gateway.json_body import is_too_deep

LINE_BYTES_MAX = 1 << 20
LINES_MAX = 50_000
ERRORS_MAX = 100
_KEYS = frozenset({"custom_id", "method", "url", "body"})
_ID_CHARS_MAX = 512


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One request: its number in the file, from 1, the client's own id for it, and its body."""

    number: int
    custom_id: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LineError:
    """A line that is no request, and why: then nothing of its batch is done."""

    number: int
    code: str
    message: str

    def as_map(self) -> dict[str, Any]:
        """As OpenAI tells it."""
        return {"line": self.number, "code": self.code, "message": self.message, "param": None}


def read_lines(data: bytes, endpoint: str) -> Iterator[BatchLine | LineError]:
    """Every request of a file, in order; an empty line is none."""
    seen: set[str] = set()
    count = 0
    # A view at a time: the lines of a file are not held besides the file.
    for number, line in enumerate(io.BytesIO(data), 1):
        if not line.strip():
            continue
        count += 1
        if count > LINES_MAX:
            words = f"a batch has at most {LINES_MAX} requests"
            yield LineError(number, "too_many_requests", words)
            return
        yield _read(number, line, endpoint, seen)
    if not count:
        yield LineError(1, "empty_file", "the file has no requests")


def _read(number: int, line: bytes, endpoint: str, seen: set[str]) -> BatchLine | LineError:
    if len(line) > LINE_BYTES_MAX:
        words = f"the line has more than {LINE_BYTES_MAX} bytes"
        return LineError(number, "line_too_long", words)
    if is_too_deep(line):
        return LineError(number, "invalid_json_line", "the JSON is nested too deeply")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return LineError(number, "invalid_json_line", "the line is no JSON")
    if not isinstance(found, dict) or found.keys() != _KEYS:
        words = "a request has custom_id, method, url and body, and nothing else"
        return LineError(number, "invalid_request", words)
    custom_id, body = found["custom_id"], found["body"]
    is_text = isinstance(custom_id, str) and text_of(custom_id) == custom_id
    if not is_text or not 0 < len(custom_id) <= _ID_CHARS_MAX:
        words = f"custom_id is a text of 1 to {_ID_CHARS_MAX} characters"
        return LineError(number, "invalid_custom_id", words)
    if custom_id in seen:
        words = f"the custom_id {custom_id[:80]!r} is there twice"
        return LineError(number, "duplicate_custom_id", words)
    seen.add(custom_id)
    if found["method"] != "POST":
        return LineError(number, "invalid_method", "the method of a request is POST")
    if found["url"] != endpoint:
        words = f"the url of a request is the batch's endpoint, {endpoint}"
        return LineError(number, "mismatched_endpoint", words)
    if not isinstance(body, dict):
        return LineError(number, "invalid_body", "the body of a request is an object")
    if body.get("stream"):
        return LineError(number, "invalid_body", "nothing is streamed in a batch: leave out stream")
    return BatchLine(number, custom_id, body)


def answer_of(name: str, custom_id: str, status: int, request_id: str, body: Any) -> dict[str, Any]:
    """What stands in a file of results for one request; `name` is a text that no other has."""
    return {
        "id": f"batch_req_{name}",
        "custom_id": custom_id,
        "response": {"status_code": status, "request_id": request_id, "body": body},
        "error": None,
    }
