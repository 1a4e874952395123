"""What the dialects of other makers' clients share: a chat goes in, its answer comes out as a map.

Each dialect translates a request into a `ChatRequest`, and a completion or its chunks back, without
waiting for anything. What is done in between is the same for all.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from pydantic import ValidationError

from node.gateway.errors import bad
from node.gateway.gather import all_done
from node.gateway.json_body import words_of
from node.gateway.openapi import EVENTS, answers
from node.gateway.requests import ChatRequest
from node.gateway.responses import ErrorResponse
from node.gateway.sampling import chat_input
from node.gateway.task_service import TaskService, Terms
from wire.content import ContentId
from wire.errors import WireError
from wire.generation import Ending, Frame, PromptToken, read_frames
from wire.kinds import Role
from wire.operations import GENERATE
from wire.schema import Scalar
from wire.task import Stage

JSON_LINES = "application/x-ndjson"


def chat_of(fields: Mapping[str, Any]) -> ChatRequest:
    """A translated request as a chat; HttpError if it is none."""
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return ChatRequest.model_validate(given)
    except ValidationError as error:
        placed = [{**it, "loc": ("body", *it["loc"])} for it in error.errors()]
        message, param = words_of(placed, given)
        raise bad(message, param=param) from error


def streamed(
    error: type[Any] = ErrorResponse, media_type: str = "text/event-stream"
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint that answers whole or streams, in another maker's words."""
    found = answers(None, error)
    found[200] = {
        "description": "The answer, whole or as events.",
        "content": {"application/json": {}, media_type: EVENTS},
    }
    return found


def named_event(name: str, data: Mapping[str, Any]) -> bytes:
    """A server-sent event with a name."""
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def text_of_parts(content: str | Sequence[Mapping[str, Any]] | None) -> str:
    """The text of a content that is text, or parts of it."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(str(it.get("text", "")) for it in content)


def finish_of(chunk: Mapping[str, Any]) -> str | None:
    """Why the one choice of a chunk or a completion ended, if it did."""
    choices = chunk["choices"]
    return choices[0]["finish_reason"] if choices else None


async def looked_at(
    service: TaskService, terms: Terms, model: ContentId, data: bytes
) -> tuple[list[PromptToken], int]:
    """The tokens of a prompt, and how many they are: a generation of nothing."""
    frames = await _nothing_made(service, terms, model, data, echo=True)
    tokens = [it for it in frames if isinstance(it, PromptToken)]
    ending = frames[-1] if frames and isinstance(frames[-1], Ending) else None
    return tokens, ending.prompt_tokens if ending is not None else len(tokens)


async def _nothing_made(
    service: TaskService, terms: Terms, model: ContentId, data: bytes, *, echo: bool
) -> list[Frame]:
    parameters: dict[str, Scalar] = {"tokens": 0, "temperature": 0.0, "seed": 0}
    if echo:
        parameters["echo"] = 1
    stage = Stage(role=Role.INFER, operation=GENERATE, model=model, parameters=parameters)
    finished = await all_done(service, [terms.request(stage, data)])
    try:
        return list(read_frames(finished[0].answered.output))
    except WireError as error:
        raise bad("the peers' answer is no generation") from error


async def prompt_tokens_of(service: TaskService, request: Request, asked: ChatRequest) -> int:
    """How many tokens the prompt of a chat has."""
    row = service.catalogue.find(asked.model)
    await service.catalogue.check_does(row, GENERATE)
    terms, data = service.terms(request), chat_input(asked)
    frames = await _nothing_made(service, terms, row.id, data, echo=False)
    if not frames or not isinstance(ending := frames[-1], Ending):
        raise bad("the peers' answer is no generation")
    return ending.prompt_tokens
