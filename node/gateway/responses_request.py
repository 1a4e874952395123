"""What clients send to `/v1/responses`, and the chat that it means."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from node.gateway.dialects import chat_of, text_of_parts
from node.gateway.requests import (
    TOKENS_MAX,
    ChatRequest,
    Name,
    PlainText,
    RequestBody,
    Text,
)

MetadataText = Annotated[str, Field(max_length=512)]


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


def _kind_of(item: Any) -> str:
    """Which of the items one is; what is none of them is looked at as a message."""
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return kind if kind in ("function_call", "function_call_output") else "message"


Item = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[FunctionCallInput, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")],
    Discriminator(_kind_of),
]


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
    metadata: Annotated[dict[str, MetadataText], Field(max_length=16)] | None = None
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


def items_of(asked: ResponsesRequest, response: str) -> list[dict[str, Any]]:
    """What a request asks, as a response's input items are listed."""
    if isinstance(asked.input, str):
        part = {"type": "input_text", "text": asked.input}
        told = [{"type": "message", "role": "user", "content": [part]}]
    else:
        told = [it.model_dump(exclude_none=True) for it in asked.input]
    found = []
    for place, item in enumerate(told):
        if isinstance(text := item.get("content"), str):
            kind = "output_text" if item.get("role") == "assistant" else "input_text"
            item |= {"type": "message", "content": [{"type": kind, "text": text}]}
        found.append({"id": f"item_{place}_{response}", "status": "completed", **item})
    return found
