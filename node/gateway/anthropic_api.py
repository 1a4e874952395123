"""POST /v1/messages, as Anthropic's clients know it: a thin translation of a chat."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from node.gateway.chat import chat_tasks
from node.gateway.dialects import chat_of, finish_of, named_event, prompt_tokens_of, streamed
from node.gateway.dialects import text_of_parts as text_of
from node.gateway.errors import ErrorDetail, bad
from node.gateway.generating import TokenStream, headers_of
from node.gateway.requests import TOKENS_MAX, ChatRequest, Name, RequestBody, Stop, Text, TextPart
from node.gateway.task_service import TaskService

REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class ToolUse(RequestBody):
    """A call that the model made earlier."""

    type: Literal["tool_use"]
    id: Annotated[str, Field(max_length=256)]
    name: Name
    input: dict[str, Any]


class ToolResult(RequestBody):
    """What a call came to."""

    type: Literal["tool_result"]
    tool_use_id: Annotated[str, Field(max_length=256)]
    content: Text | Annotated[list[TextPart], Field(max_length=1024)] | None = None
    is_error: bool | None = None


Block = Annotated[TextPart | ToolUse | ToolResult, Field(discriminator="type")]


class AnthropicMessage(RequestBody):
    role: Literal["user", "assistant"]
    content: Text | Annotated[list[Block], Field(max_length=1024)]


class AnthropicTool(RequestBody):
    name: Name
    description: Text | None = None
    input_schema: dict[str, Any]
    type: Literal["custom"] | None = None


class AnthropicChoice(RequestBody):
    type: Literal["auto", "any", "tool", "none"]
    name: Name | None = None
    disable_parallel_tool_use: bool | None = None


class OutputFormat(RequestBody):
    """The form of an answer: a JSON schema."""

    type: Literal["json_schema"]
    # `schema` is a method of pydantic's own.
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(RequestBody):
    format: OutputFormat | None = None


class CountTokensRequest(RequestBody):
    """POST /v1/messages/count_tokens."""

    model: Name
    messages: Annotated[list[AnthropicMessage], Field(min_length=1, max_length=4096)]
    system: Text | Annotated[list[TextPart], Field(max_length=1024)] | None = None
    tools: Annotated[list[AnthropicTool], Field(max_length=128)] | None = None
    tool_choice: AnthropicChoice | None = None
    output_config: OutputConfig | None = None
    # As it was called before there was `output_config`.
    output_format: OutputFormat | None = None


class MessagesRequest(CountTokensRequest):
    """POST /v1/messages."""

    max_tokens: Annotated[int, Field(ge=1, le=TOKENS_MAX)]
    temperature: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1 << 20)] | None = None
    stop_sequences: Annotated[list[Stop], Field(max_length=4)] | None = None
    stream: bool | None = None


def messages_to_chat(asked: CountTokensRequest) -> ChatRequest:
    """The chat that a request means."""
    found: dict[str, Any] = {"model": asked.model, "messages": list(_messages(asked))}
    if asked.tools:
        found["tools"] = [_tool(it) for it in asked.tools]
    if (choice := asked.tool_choice) is not None:
        named = {"type": "function", "function": {"name": choice.name or ""}}
        found["tool_choice"] = {"any": "required", "tool": named}.get(choice.type, choice.type)
        found["parallel_tool_calls"] = not choice.disable_parallel_tool_use
    config = asked.output_config
    if (form := (config.format if config is not None else None) or asked.output_format) is not None:
        schema = {"name": "output", "schema": form.schema_}
        found["response_format"] = {"type": "json_schema", "json_schema": schema}
    if isinstance(asked, MessagesRequest):
        for name in ("max_tokens", "temperature", "top_p", "top_k", "stream"):
            found[name] = getattr(asked, name)
        found["stop"] = asked.stop_sequences
    return chat_of(found)


def _tool(tool: AnthropicTool) -> dict[str, Any]:
    function = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _messages(asked: CountTokensRequest) -> Iterator[dict[str, Any]]:
    if asked.system:
        system = asked.model_dump(include={"system"})["system"]
        yield {"role": "system", "content": text_of(system)}
    for message in asked.messages:
        if isinstance(message.content, str):
            yield {"role": message.role, "content": message.content}
            continue
        texts = [it.text for it in message.content if isinstance(it, TextPart)]
        for block in message.content:
            if isinstance(block, ToolResult):
                content = block.model_dump()["content"]
                yield {
                    "role": "tool",
                    "tool_call_id": block.tool_use_id,
                    "content": text_of(content),
                }
        calls = [_call(it) for it in message.content if isinstance(it, ToolUse)]
        if texts or calls:
            told: dict[str, Any] = {"role": message.role, "content": "".join(texts)}
            yield told | ({"tool_calls": calls} if calls else {})


def _call(block: ToolUse) -> dict[str, Any]:
    arguments = json.dumps(block.input, ensure_ascii=False)
    function = {"name": block.name, "arguments": arguments}
    return {"id": block.id, "type": "function", "function": function}


def message_of(completion: Mapping[str, Any]) -> dict[str, Any]:
    """A completion of a chat as a message."""
    choice = completion["choices"][0]
    said = choice["message"]
    content: list[dict[str, Any]] = []
    if said["content"]:
        content.append({"type": "text", "text": said["content"]})
    for call in said.get("tool_calls", ()):
        function = call["function"]
        content.append(
            {
                "type": "tool_use",
                "id": call["id"],
                "name": function["name"],
                "input": _input(function["arguments"]),
            }
        )
    usage = completion["usage"]
    return {
        **_head(completion),
        "content": content,
        **_stopped(choice),
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": usage["completion_tokens"],
        },
        "x_baton": completion["x_baton"],
    }


def _input(arguments: str) -> dict[str, Any]:
    try:
        found = json.loads(arguments)
    except ValueError:
        # A call that was cut: nothing whole is known of its arguments.
        return {}
    return found if isinstance(found, dict) else {}


def _head(chunk: Mapping[str, Any]) -> dict[str, Any]:
    name = str(chunk["id"]).partition("-")[2]
    return {"id": f"msg_{name}", "type": "message", "role": "assistant", "model": chunk["model"]}


def _stopped(choice: Mapping[str, Any]) -> dict[str, Any]:
    sequence = choice.get("stop_reason")
    reason = REASONS.get(choice["finish_reason"], "end_turn")
    return {
        "stop_reason": "stop_sequence" if sequence is not None else reason,
        "stop_sequence": sequence,
    }


@dataclass(slots=True)
class MessagesFraming:
    """Chunks of a chat as the events of a message: a pure core."""

    # How many tokens the prompt has, which the first event tells.
    input_tokens: int
    media_type: str = "text/event-stream; charset=utf-8"
    _started: bool = False
    _blocks: int = 0
    _open: bool = False
    _ended: dict[str, Any] = field(default_factory=dict)

    def piece(self, chunk: dict[str, Any]) -> bytes:
        found = b"" if self._started else self._start(chunk)
        choice = chunk["choices"][0]
        delta = choice["delta"]
        if delta.get("content"):
            if not self._open:
                found += self._block({"type": "text", "text": ""})
            found += self._delta({"type": "text_delta", "text": delta["content"]})
        for call in delta.get("tool_calls", ()):
            function = call["function"]
            found += self._close()
            block = {"type": "tool_use", "id": call["id"], "name": function["name"], "input": {}}
            found += self._block(block)
            part = {"type": "input_json_delta", "partial_json": function["arguments"]}
            found += self._delta(part) + self._close()
        if finish_of(chunk) is not None:
            self._ended = _stopped(choice)
            found += self._close()
        return found

    def last(self, usage: dict[str, Any]) -> bytes:
        counts = usage["usage"]
        told = {
            "input_tokens": counts["prompt_tokens"],
            "output_tokens": counts["completion_tokens"],
        }
        end = {"type": "message_delta", "delta": self._ended, "usage": told}
        end["x_baton"] = usage["x_baton"]
        return named_event("message_delta", end) + named_event(
            "message_stop", {"type": "message_stop"}
        )

    def fault(self, detail: ErrorDetail) -> bytes:
        return named_event("error", {"type": "error", **detail.body})

    def _start(self, chunk: Mapping[str, Any]) -> bytes:
        self._started = True
        message = {**_head(chunk), "content": [], "stop_reason": None, "stop_sequence": None}
        message["usage"] = {"input_tokens": self.input_tokens, "output_tokens": 0}
        return named_event("message_start", {"type": "message_start", "message": message})

    def _block(self, block: Mapping[str, Any]) -> bytes:
        self._open = True
        event = {"type": "content_block_start", "index": self._blocks, "content_block": block}
        return named_event("content_block_start", event)

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        event = {"type": "content_block_delta", "index": self._blocks, "delta": delta}
        return named_event("content_block_delta", event)

    def _close(self) -> bytes:
        if not self._open:
            return b""
        self._open = False
        event = {"type": "content_block_stop", "index": self._blocks}
        self._blocks += 1
        return named_event("content_block_stop", event)


def messages_router(service: TaskService) -> APIRouter:
    router = APIRouter(tags=["Anthropic"])

    @router.post("/v1/messages", responses=streamed(), operation_id="createMessage")
    async def create(asked: MessagesRequest, request: Request) -> Response:
        """A model's answer to a conversation, whole or streamed."""
        if asked.messages[-1].role == "assistant":
            raise bad(
                "the model answers a turn of the user, and does not go on with one of its own:"
                " /v1/completions goes on with a text",
                param="messages",
            )
        chat = messages_to_chat(asked)
        generating = await chat_tasks(service, chat, request)
        if asked.stream:
            counted = await prompt_tokens_of(service, request, chat)
            return TokenStream(generating, MessagesFraming(counted))
        told = message_of(await generating.answer_map())
        return JSONResponse(told, headers=headers_of(generating.choices))

    @router.post("/v1/messages/count_tokens", responses=streamed(), operation_id="countTokens")
    async def count(asked: CountTokensRequest, request: Request) -> Response:
        """How many tokens a conversation is to the model."""
        chat = messages_to_chat(asked)
        count = await prompt_tokens_of(service, request, chat)
        return JSONResponse({"input_tokens": count})

    return router
