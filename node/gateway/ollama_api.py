"""Ollama's `/api`, as its clients know it: a thin translation of chats and completions."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from node.gateway.chat import chat_tasks
from node.gateway.completions import completion_tasks
from node.gateway.dialects import JSON_LINES, chat_of, finish_of, streamed
from node.gateway.errors import ErrorDetail, bad
from node.gateway.generating import GenerationTasks, TokenStream, headers_of
from node.gateway.ollama_models import found_model, now_ns, time_of
from node.gateway.requests import (
    TOKENS_MAX,
    ChatRequest,
    CompletionRequest,
    Name,
    RequestBody,
    Stop,
    Stops,
    Text,
    Tool,
)
from node.gateway.responses import OllamaError
from node.gateway.task_service import TaskService


class OllamaOptions(RequestBody):
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1 << 20)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    num_predict: Annotated[int, Field(ge=-2, le=TOKENS_MAX)] | None = None
    stop: Stop | Stops | None = None
    repeat_penalty: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None


class OllamaFunction(RequestBody):
    name: Name
    arguments: dict[str, Any]


class OllamaCall(RequestBody):
    function: OllamaFunction


class OllamaMessage(RequestBody):
    role: Literal["system", "user", "assistant", "tool"]
    content: Text | None = None
    tool_calls: Annotated[list[OllamaCall], Field(max_length=128)] | None = None
    tool_name: Name | None = None


class OllamaGenerating(RequestBody):
    """What chats and completions have in common. They stream unless they are told not to."""

    model: Name
    format: Literal["", "json"] | dict[str, Any] | None = None
    options: OllamaOptions | None = None
    stream: bool | None = None


class OllamaChatRequest(OllamaGenerating):
    """POST /api/chat."""

    messages: Annotated[list[OllamaMessage], Field(min_length=1, max_length=4096)]
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None


class OllamaGenerateRequest(OllamaGenerating):
    """POST /api/generate."""

    prompt: Annotated[Text, Field(min_length=1)]
    system: Text | None = None
    raw: bool | None = None


def sampling_of(options: OllamaOptions | None) -> dict[str, Any]:
    """Ollama's options as OpenAI's and others' fields."""
    found = options.model_dump(exclude_none=True) if options is not None else {}
    if "repeat_penalty" in found:
        found["repetition_penalty"] = found.pop("repeat_penalty")
    # What is not positive asks for as much as there is room for.
    if (most := found.pop("num_predict", 0)) > 0:
        found["max_tokens"] = most
    return found


def _formatted(asked: OllamaGenerating) -> dict[str, Any]:
    if asked.format == "json":
        return {"response_format": {"type": "json_object"}}
    if isinstance(asked.format, dict):
        schema = {"name": "format", "schema": asked.format}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {}


def ollama_to_chat(asked: OllamaChatRequest, model: str) -> ChatRequest:
    """The chat that a request means."""
    tools = [it.model_dump(exclude_none=True) for it in asked.tools or ()]
    return chat_of(
        {
            **sampling_of(asked.options),
            **_formatted(asked),
            "model": model,
            "messages": [_message(it) for it in asked.messages],
            "tools": tools or None,
        }
    )


def _message(message: OllamaMessage) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.tool_name is not None:
        found["name"] = message.tool_name
    if message.tool_calls:
        found["tool_calls"] = [
            {
                "type": "function",
                "function": {
                    "name": it.function.name,
                    "arguments": json.dumps(it.function.arguments, ensure_ascii=False),
                },
            }
            for it in message.tool_calls
        ]
    return found


def generate_to_chat(asked: OllamaGenerateRequest, model: str) -> ChatRequest:
    """The chat that a prompt means, by the model's own template."""
    system = [{"role": "system", "content": asked.system}] if asked.system else []
    messages = [*system, {"role": "user", "content": asked.prompt}]
    fields = {**sampling_of(asked.options), **_formatted(asked)}
    return chat_of({**fields, "model": model, "messages": messages})


def generate_to_completion(asked: OllamaGenerateRequest, model: str) -> CompletionRequest:
    """The completion that a raw prompt means."""
    if asked.system or asked.format:
        raise bad("a raw prompt is taken as it is, without system and format", param="raw")
    fields = {"max_tokens": TOKENS_MAX, **sampling_of(asked.options)}
    return CompletionRequest.model_validate({**fields, "model": model, "prompt": asked.prompt})


@dataclass(slots=True)
class OllamaFraming:
    """Chunks as lines of JSON: a pure core. `chat`: told as messages, else as `response`."""

    model: str
    chat: bool
    began_ns: int
    now_ns: Callable[[], int]
    media_type: str = JSON_LINES
    _reason: str = "stop"

    def piece(self, chunk: dict[str, Any]) -> bytes:
        """One chunk as a line, or nothing."""
        choice = chunk["choices"][0]
        delta = choice.get("delta") or {"content": choice.get("text")}
        calls = _calls(delta.get("tool_calls", ()))
        line = b""
        if delta.get("content") or calls:
            told = self.told(chunk["created"], delta.get("content") or "", calls)
            line = _line(told | {"done": False})
        if (reason := finish_of(chunk)) is not None:
            # The counts come with the last line, which the reason is part of.
            self._reason = reason
        return line

    def last(self, usage: dict[str, Any]) -> bytes:
        return _line(self.told(usage["created"], "", []) | self.ended(usage, self._reason))

    def told(self, created: int, text: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        """A line with a piece of text, or with calls; `created` is the wall clock's seconds."""
        head: dict[str, Any] = {"model": self.model, "created_at": time_of(created)}
        if not self.chat:
            return head | {"response": text}
        message: dict[str, Any] = {"role": "assistant", "content": text}
        return head | {"message": message | ({"tool_calls": calls} if calls else {})}

    def ended(self, completion: Mapping[str, Any], reason: str) -> dict[str, Any]:
        """What the last line has besides: why it ended, counts of tokens, nanoseconds."""
        counts = completion["usage"]
        took_ns = self.now_ns() - self.began_ns
        return {
            "done": True,
            "done_reason": "length" if reason == "length" else "stop",
            "total_duration": took_ns,
            "load_duration": 0,
            "prompt_eval_count": counts["prompt_tokens"],
            "prompt_eval_duration": 0,
            "eval_count": counts["completion_tokens"],
            "eval_duration": took_ns,
            "x_baton": completion["x_baton"],
        }

    def fault(self, detail: ErrorDetail) -> bytes:
        return _line({"error": detail.body["error"]["message"]})


def _line(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"


def _calls(calls: Any) -> list[dict[str, Any]]:
    found = []
    for call in calls:
        function = call["function"]
        try:
            arguments = json.loads(function["arguments"])
        except ValueError:
            # A call that was cut: nothing whole is known of its arguments.
            arguments = {}
        found.append({"function": {"name": function["name"], "arguments": arguments}})
    return found


def ollama_router(service: TaskService) -> APIRouter:
    router = APIRouter(tags=["Ollama"])
    _generating(router, service)
    return router


def _generating(router: APIRouter, service: TaskService) -> None:
    documented = streamed(OllamaError, JSON_LINES)

    @router.post("/api/chat", responses=documented, operation_id="ollamaChat")
    async def chat(asked: OllamaChatRequest, request: Request) -> Response:
        """A model's answer to a conversation, streamed unless `stream` is false."""
        row = found_model(service, asked.model)
        generating = await chat_tasks(service, ollama_to_chat(asked, row.name), request)
        return await answered(asked, generating, chat=True)

    @router.post("/api/generate", responses=documented, operation_id="ollamaGenerate")
    async def generate(asked: OllamaGenerateRequest, request: Request) -> Response:
        """A model's answer to a prompt, streamed unless `stream` is false."""
        row = found_model(service, asked.model)
        if asked.raw:
            completion = generate_to_completion(asked, row.name)
            generating = await completion_tasks(service, completion, request)
        else:
            meant = generate_to_chat(asked, row.name)
            generating = await chat_tasks(service, meant, request)
        return await answered(asked, generating, chat=False)

    async def answered(
        asked: OllamaGenerating, generating: GenerationTasks, *, chat: bool
    ) -> Response:
        framing = OllamaFraming(asked.model, chat, now_ns(), now_ns)
        if asked.stream is not False:
            return TokenStream(generating, framing)
        completion = await generating.answer_map()
        choice = completion["choices"][0]
        said = choice.get("message") or {"content": choice.get("text")}
        calls = _calls(said.get("tool_calls", ()))
        told = framing.told(completion["created"], said["content"] or "", calls)
        told |= framing.ended(completion, choice["finish_reason"])
        return JSONResponse(told, headers=headers_of(generating.choices))
