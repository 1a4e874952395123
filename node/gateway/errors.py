"""Errors as OpenAI's clients know them: a status, and `{"error": {message, type, param, code}}`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from fastapi import HTTPException
from starlette.responses import JSONResponse, Response

from node.task.refusals import CONSEQUENCES
from wire.errors import BatonError, Refused, TaskFailed
from wire.kinds import RefusalCode

RETRY_AFTER_S = 2.0
# What a status is called where nothing more is known.
TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "payment_required_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "invalid_request_error",
    417: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "server_error",
    503: "service_unavailable_error",
    505: "invalid_request_error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDetail:
    """What a client is told: the status, the words, and what a program may go by."""

    status: int
    message: str
    code: str
    param: str | None = None
    retry_after_s: float | None = None
    # Ids of tasks that came to this, or how to pay.
    headers: Mapping[str, str] | None = None
    # What is told in place of the usual body.
    document: Mapping[str, Any] | None = None

    @property
    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": text_of(self.message),
                "type": TYPES[self.status],
                "param": None if self.param is None else text_of(self.param),
                "code": self.code,
            }
        }

    @property
    def all_headers(self) -> dict[str, str]:
        found = dict(self.headers or {})
        if self.retry_after_s is not None:
            found["retry-after"] = str(max(1, ceil(self.retry_after_s)))
        return found


BUG = ErrorDetail(status=500, message="a bug in Baton: its log says more", code="bug")
CONTEXT_WORDS = re.compile(r"the prompt has \d+ tokens; the context has|a prompt of \d+ tokens")


def code_of(message: str, otherwise: str) -> str:
    """OpenAI's code for what a peer says in words."""
    return "context_length_exceeded" if CONTEXT_WORDS.search(message) else otherwise


class HttpError(HTTPException):
    """A request that is answered with a fault."""

    def __init__(self, fault: ErrorDetail) -> None:
        super().__init__(fault.status, fault.message)
        self.fault = fault


def text_of(words: str) -> str:
    """Words that can be encoded: what a client sent may hold half of a surrogate pair."""
    return words.encode(errors="replace").decode()


def bad(message: str, *, param: str | None = None, code: str = "invalid_value") -> HttpError:
    """A request that will never do as it is."""
    return HttpError(ErrorDetail(status=400, message=message, param=param, code=code))


def not_found(message: str, *, param: str | None = None, code: str = "not_found") -> HttpError:
    return HttpError(ErrorDetail(status=404, message=message, param=param, code=code))


def unavailable(message: str, *, code: str = "unavailable", retry_after_s: float) -> HttpError:
    """A request that may do later."""
    return HttpError(
        ErrorDetail(status=503, message=message, code=code, retry_after_s=retry_after_s)
    )


def fault_of(error: BatonError, *, late: bool = False) -> ErrorDetail:
    """An error of ours as a client sees it. `late`: the task's deadline has passed by now."""
    message = str(error)
    if late and isinstance(error, TaskFailed):
        return detail_of(RefusalCode.LATE, message)
    wait_s = error.retry_after_s if isinstance(error, Refused) else None
    return detail_of(error.code, message, retry_after_s=wait_s)


def detail_of(
    code: RefusalCode, message: str, *, retry_after_s: float | None = None
) -> ErrorDetail:
    """What an HTTP client is told of a refusal, by its code; a 503 says when to try again."""
    follows = CONSEQUENCES[code]
    if retry_after_s is None and follows.status == 503:
        retry_after_s = RETRY_AFTER_S
    return ErrorDetail(
        status=follows.status,
        message=message,
        code=code_of(message, follows.code),
        retry_after_s=retry_after_s,
    )


def fault_response(
    fault: ErrorDetail, path: str, headers: Mapping[str, str] | None = None
) -> Response:
    """A fault as the clients of the endpoint at `path` are told it, with `headers` besides."""
    told = {**fault.all_headers, **(headers or {})}
    return JSONResponse(body_of(fault, path), fault.status, told)


def body_of(fault: ErrorDetail, path: str) -> dict[str, Any]:
    """A fault in the shape that the clients of an endpoint know."""
    if fault.document is not None:
        return dict(fault.document)
    if path.startswith("/api/"):
        return {"error": fault.body["error"]["message"]}
    if path.startswith("/v1/messages"):
        return {"type": "error", **fault.body}
    return fault.body
