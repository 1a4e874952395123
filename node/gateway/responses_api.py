"""POST /v1/responses, as OpenAI's newer clients know it: a thin translation of a chat."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from node.gateway.chat import chat_tasks
from node.gateway.dialects import chat_of, finish_of, named_event, streamed, text_of_parts
from node.gateway.errors import ErrorDetail, bad, not_found
from node.gateway.generating import TokenStream, headers_of
from node.gateway.requests import (
    TOKENS_MAX,
    ChatRequest,
    Name,
    PlainText,
    RequestBody,
    Text,
)
from node.gateway.response_memory import ResponseMemory
from node.gateway.task_service import TaskService


class InputText(RequestBody):
    type: Literal["input_text", "output_text", "text"]
    text: Text


class InputMessage(RequestBody):
    role: Literal["user", "assistant", "system", "developer"]
    content: Text | Annotated[list[InputText], Field(max_length=1024)]
    type: Literal["message"] | None = None


class FunctionCallInput(RequestBody):
    type: Literal["function_call"]
    call_id: Annotated[str, Field(max_length=256)]
    name: Name
    arguments: Text


class FunctionCallOutput(RequestBody):
    type: Literal["function_call_output"]
    call_id: Annotated[str, Field(max_length=256)]
    output: Text | Annotated[list[InputText], Field(max_length=1024)]


class ResponseTool(RequestBody):
    type: Literal["function"]
    name: Name
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedTool(RequestBody):
    type: Literal["function"]
    name: Name


class SchemaFormat(RequestBody):
    type: Literal["json_schema"]
    name: Annotated[str, Field(max_length=128)] | None = None
    # `schema` is a method of pydantic's own.
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class ObjectFormat(RequestBody):
    type: Literal["json_object"]


class TextOptions(RequestBody):
    format: (
        Annotated[PlainText | ObjectFormat | SchemaFormat, Field(discriminator="type")] | None
    ) = None


Item = InputMessage | FunctionCallInput | FunctionCallOutput


class ResponsesRequest(RequestBody):
    """POST /v1/responses."""

    model: Name
    input: Text | Annotated[list[Item], Field(min_length=1, max_length=4096)]
    instructions: Text | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=TOKENS_MAX)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    tools: Annotated[list[ResponseTool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: Annotated[str, Field(max_length=256)] | None = None


def response_to_chat(asked: ResponsesRequest, before: list[dict[str, Any]]) -> ChatRequest:
    """The chat that a request means, after the messages of those before."""
    found: dict[str, Any] = {
        "model": asked.model,
        "messages": [*_instructed(asked), *before, *messages_of(asked)],
        "max_completion_tokens": asked.max_output_tokens,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "parallel_tool_calls": asked.parallel_tool_calls,
    }
    if asked.tools:
        told = [it.model_dump(exclude_none=True, exclude={"type"}) for it in asked.tools]
        found["tools"] = [{"type": "function", "function": it} for it in told]
    if isinstance(asked.tool_choice, NamedTool):
        found["tool_choice"] = {"type": "function", "function": {"name": asked.tool_choice.name}}
    else:
        found["tool_choice"] = asked.tool_choice
    chosen = asked.text.format if asked.text is not None else None
    if isinstance(chosen, SchemaFormat):
        found["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": chosen.name, "schema": chosen.schema_, "strict": chosen.strict},
        }
    elif chosen is not None:
        found["response_format"] = {"type": chosen.type}
    return chat_of(found)


def _instructed(asked: ResponsesRequest) -> list[dict[str, Any]]:
    # Instructions hold for one response alone.
    return [{"role": "system", "content": asked.instructions}] if asked.instructions else []


def messages_of(asked: ResponsesRequest) -> list[dict[str, Any]]:
    """What a request adds to a conversation."""
    if isinstance(asked.input, str):
        return [{"role": "user", "content": asked.input}]
    found: list[dict[str, Any]] = []
    for item in asked.input:
        if isinstance(item, InputMessage):
            content = item.model_dump()["content"]
            found.append({"role": item.role, "content": text_of_parts(content)})
        elif isinstance(item, FunctionCallOutput):
            content = text_of_parts(item.model_dump()["output"])
            found.append({"role": "tool", "tool_call_id": item.call_id, "content": content})
        else:
            function = {"name": item.name, "arguments": item.arguments}
            call = {"id": item.call_id, "type": "function", "function": function}
            # Calls that were made at once are one turn.
            if found and found[-1].get("tool_calls"):
                found[-1]["tool_calls"].append(call)
            else:
                found.append({"role": "assistant", "content": "", "tool_calls": [call]})
    return found


def _id_of(completion: Mapping[str, Any], prefix: str) -> str:
    return f"{prefix}_{str(completion['id']).partition('-')[2]}"


def _message_item(completion: Mapping[str, Any], text: str, status: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "id": _id_of(completion, "msg"),
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [part] if status != "in_progress" else [],
    }


def _call_item(call: Mapping[str, Any], status: str) -> dict[str, Any]:
    function = call["function"]
    return {
        "id": f"fc_{call['id']}",
        "type": "function_call",
        "status": status,
        "call_id": call["id"],
        "name": function["name"],
        "arguments": function["arguments"] if status != "in_progress" else "",
    }


def response_map(
    asked: ResponsesRequest, completion: Mapping[str, Any], output: list[dict[str, Any]]
) -> dict[str, Any]:
    """A response as clients know it: `completion` is a completion, or the last chunk of one."""
    usage = completion.get("usage")
    told = asked.model_dump(by_alias=True, exclude_none=True)
    reason = finish_of(completion)
    return {
        "id": _id_of(completion, "resp"),
        "object": "response",
        "created_at": completion["created"],
        "status": "incomplete" if reason == "length" else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if reason == "length" else None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "metadata": {},
        "model": completion["model"],
        "output": output,
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "reasoning": {"effort": None, "summary": None},
        "store": asked.store is not False,
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "text": told.get("text") or {"format": {"type": "text"}},
        "tool_choice": told.get("tool_choice", "auto"),
        "tools": told.get("tools", []),
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "truncation": "disabled",
        "usage": None if usage is None else _usage(usage),
        "x_baton": completion.get("x_baton"),
    }


def _usage(usage: Mapping[str, int]) -> dict[str, Any]:
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }


def output_of(completion: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The items that a completion comes to."""
    choice = completion["choices"][0]
    said, cut = choice["message"], choice["finish_reason"] == "length"
    status = "incomplete" if cut else "completed"
    found = []
    if said["content"] or not said.get("tool_calls"):
        found.append(_message_item(completion, said["content"] or "", status))
    return [*found, *(_call_item(it, status) for it in said.get("tool_calls", ()))]


def said_of(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a response's output adds to a conversation."""
    text = "".join(it["content"][0]["text"] for it in output if it["type"] == "message")
    calls = [
        {
            "id": it["call_id"],
            "type": "function",
            "function": {"name": it["name"], "arguments": it["arguments"]},
        }
        for it in output
        if it["type"] == "function_call"
    ]
    return [{"role": "assistant", "content": text} | ({"tool_calls": calls} if calls else {})]


@dataclass(slots=True)
class ResponsesFraming:
    """Chunks of a chat as the events of a response: a pure core, but for who keeps the last."""

    asked: ResponsesRequest
    memory: ResponseMemory
    owner: str
    messages: list[dict[str, Any]]
    media_type: str = "text/event-stream; charset=utf-8"
    _number: int = 0
    _text: str = ""
    _message: dict[str, Any] | None = None
    _output: list[dict[str, Any]] = field(default_factory=list)
    _ended: dict[str, Any] = field(default_factory=dict)

    def piece(self, chunk: dict[str, Any]) -> bytes:
        return b"".join(self._events(chunk))

    def _events(self, chunk: dict[str, Any]) -> Iterator[bytes]:
        if not self._number:
            told = response_map(self.asked, chunk, []) | {"status": "in_progress"}
            yield self._event("response.created", {"response": told})
            yield self._event("response.in_progress", {"response": told})
        delta = chunk["choices"][0]["delta"]
        if text := delta.get("content"):
            if self._message is None:
                yield from self._open_message(chunk)
            self._text += text
            yield self._event("response.output_text.delta", self._place({"delta": text}))
        reason = finish_of(chunk)
        calls = delta.get("tool_calls", ())
        if (calls or reason is not None) and self._message is not None:
            status = "incomplete" if reason == "length" else "completed"
            yield from self._close_message(chunk, status)
        for call in calls:
            yield from self._call(call)
        if reason is not None:
            self._ended = chunk
            if not self._output:
                yield from self._open_message(chunk)
                yield from self._close_message(chunk, "completed")

    def last(self, usage: dict[str, Any]) -> bytes:
        whole = {**self._ended, "usage": usage["usage"], "x_baton": usage["x_baton"]}
        told = response_map(self.asked, whole, self._output)
        if self.asked.store is not False:
            self.memory.keep(self.owner, told["id"], [*self.messages, *said_of(self._output)])
        return self._event(f"response.{told['status']}", {"response": told})

    def fault(self, detail: ErrorDetail) -> bytes:
        error = detail.body["error"]
        told = {"code": error["code"], "message": error["message"], "param": error["param"]}
        return self._event("error", told)

    def _open_message(self, chunk: Mapping[str, Any]) -> Iterator[bytes]:
        self._message = _message_item(chunk, "", "in_progress")
        told = {"output_index": len(self._output), "item": self._message}
        yield self._event("response.output_item.added", told)
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield self._event("response.content_part.added", self._place({"part": part}))

    def _close_message(self, chunk: Mapping[str, Any], status: str) -> Iterator[bytes]:
        item = _message_item(chunk, self._text, status)
        part = item["content"][0]
        yield self._event("response.output_text.done", self._place({"text": self._text}))
        yield self._event("response.content_part.done", self._place({"part": part}))
        told = {"output_index": len(self._output), "item": item}
        yield self._event("response.output_item.done", told)
        self._output.append(item)
        self._message = None

    def _call(self, call: Mapping[str, Any]) -> Iterator[bytes]:
        item, index = _call_item(call, "completed"), len(self._output)
        told = {"output_index": index, "item": _call_item(call, "in_progress")}
        yield self._event("response.output_item.added", told)
        place = {"item_id": item["id"], "output_index": index}
        yield self._event(
            "response.function_call_arguments.delta", place | {"delta": item["arguments"]}
        )
        yield self._event(
            "response.function_call_arguments.done",
            place | {"arguments": item["arguments"], "name": item["name"]},
        )
        yield self._event("response.output_item.done", {"output_index": index, "item": item})
        self._output.append(item)

    def _place(self, more: dict[str, Any]) -> dict[str, Any]:
        assert self._message is not None
        place = {"item_id": self._message["id"], "output_index": len(self._output)}
        return place | {"content_index": 0, "logprobs": []} | more

    def _event(self, kind: str, told: dict[str, Any]) -> bytes:
        event = {"type": kind, "sequence_number": self._number} | told
        self._number += 1
        return named_event(kind, event)


def owner_of(request: Request) -> str:
    """Whose responses are whose: those of one API key, or of all that need none."""
    owner: bytes = request.state.owner
    return owner.hex()


def responses_router(service: TaskService) -> APIRouter:
    router = APIRouter(tags=["OpenAI"])
    memory = ResponseMemory()

    @router.post("/v1/responses", responses=streamed(), operation_id="createResponse")
    async def create(asked: ResponsesRequest, request: Request) -> Response:
        """A model's answer, whole or streamed; `previous_response_id` goes on from one before."""
        owner, before = owner_of(request), []
        if asked.previous_response_id is not None:
            found = memory.find(owner, asked.previous_response_id)
            if found is None:
                raise not_found(
                    f"there is no response {asked.previous_response_id!r} here any more: send the"
                    " conversation again",
                    param="previous_response_id",
                    code="previous_response_not_found",
                )
            before = found
        if not messages_of(asked):
            raise bad("the input is empty", param="input")
        generating = await chat_tasks(service, response_to_chat(asked, before), request)
        messages = [*before, *messages_of(asked)]
        if asked.stream:
            return TokenStream(generating, ResponsesFraming(asked, memory, owner, messages))
        completion = await generating.answer_map()
        told = response_map(asked, completion, output_of(completion))
        if asked.store is not False:
            memory.keep(owner, told["id"], [*messages, *said_of(told["output"])])
        return JSONResponse(told, headers=headers_of(generating.choices))

    return router
