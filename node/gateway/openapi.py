"""What the OpenAPI document says of answers that are not made by it."""

from typing import Any

from pydantic import BaseModel

from node.gateway.responses import ErrorResponse

FAULTS = {
    400: "The request will never do as it is.",
    401: "No API key, or one that is not known here.",
    402: "It costs something, and there is no payment, or this key's budget is used.",
    403: "The Host header names what this gateway is not, or a page of another site asks.",
    404: "There is no such model, task or receipt; of models, the nearest is named.",
    408: "The body did not come in time, or no peer answered within the deadline.",
    409: "The payment that came with it is used for another request, or for this one now.",
    413: "The body is too large.",
    429: "This key has asked too often; retry-after says how long to wait.",
    503: "Nobody can do it now; retry-after says when to ask again.",
}
# Of each event; JSON is in `data`, or `[DONE]` at the end of what OpenAI's clients read.
EVENTS = {
    "itemSchema": {
        "type": "object",
        "properties": {"data": {"type": "string"}},
        "required": ["data"],
    }
}


def answers(
    model: type[BaseModel] | None, error: type[BaseModel] = ErrorResponse, *, streamed: bool = False
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint: its answer, and every fault there can be."""
    found: dict[int | str, dict[str, Any]] = {
        status: {"model": error, "description": words} for status, words in FAULTS.items()
    }
    for status in (408, 429, 503):
        found[status]["headers"] = {
            "retry-after": {"schema": {"type": "string"}, "description": "Seconds."}
        }
    if model is not None:
        found[200] = {"model": model, "description": "The answer."}
        if streamed:
            found[200]["content"] = {"text/event-stream": EVENTS}
    return found
