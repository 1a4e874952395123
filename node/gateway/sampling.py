"""From what a client sends to what a model is asked: the input, and the stage's parameters."""

import json
from collections.abc import Sequence
from typing import Any

from node.gateway.errors import bad, text_of
from node.gateway.requests import ChatMessage, ChatRequest, SamplingFields, ToolChoice
from p2p.adverts import Environment
from wire import limits
from wire.content import ContentId
from wire.errors import WireError
from wire.generation import Generation
from wire.kinds import Role
from wire.operations import GENERATE
from wire.schema import Scalar
from wire.task import Stage

# What is made where a client does not say how much: a model's whole context would be taken by few.
TOKENS_DEFAULT = 1024
_PASSED_ON = ("top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty")


def stages_of(
    asked: SamplingFields,
    model: ContentId,
    tokens: int | None,
    logprobs: int | None,
    environment: Environment,
) -> list[Stage]:
    """One stage for each choice, with a seed of its own, drawn here where the client has none."""
    temperature = 1.0 if asked.temperature is None else float(asked.temperature)
    seed = int.from_bytes(environment.entropy(8)) if asked.seed is None else asked.seed
    parameters: dict[str, Scalar] = {
        "tokens": TOKENS_DEFAULT if tokens is None else tokens,
        "temperature": temperature,
    }
    for name in _PASSED_ON:
        if (value := getattr(asked, name)) is not None:
            parameters[name] = value if name == "top_k" else float(value)
    if logprobs is not None:
        parameters["logprobs"] = logprobs
    stages = []
    for index in range(asked.n or 1):
        # Without chance no seed matters, and equal questions are one job.
        own = 0 if temperature == 0 else (seed + index) % (1 << 62)
        stages.append(
            Stage(
                role=Role.INFER,
                operation=GENERATE,
                model=model,
                parameters=parameters | {"seed": own},
            )
        )
    return stages


def generation_of(
    *,
    prompt: str = "",
    messages: str = "",
    tools: str = "",
    schema: str = "",
    stops: Sequence[str] = (),
) -> bytes:
    """The input of a generation; HttpError if there can be none such."""
    for name, text in (("prompt", prompt), ("messages", messages), ("tools", tools)):
        size_bytes = len(text.encode(errors="surrogatepass"))
        if size_bytes > limits.PROMPT_BYTES_MAX:
            raise bad(
                f"{name} of {size_bytes} bytes, at most {limits.PROMPT_BYTES_MAX} are taken",
                param=name,
                code="context_length_exceeded",
            )
    try:
        return Generation(
            prompt=prompt, messages=messages, tools=tools, schema=schema, stop=tuple(stops)
        ).to_bytes()
    except WireError as error:
        raise bad(text_of(str(error))) from error


def chat_input(asked: ChatRequest) -> bytes:
    """The conversation as the model's own template will read it."""
    schema = _schema_of(asked)
    tools = offered_tools(asked)
    if asked.tool_choice == "required" or isinstance(asked.tool_choice, ToolChoice):
        if not tools:
            raise bad("tool_choice asks for a tool that is not there", param="tool_choice")
        schema = json_of({"anyOf": [_call_schema(it) for it in tools]}, "tools")
    return generation_of(
        messages=json_of([_message(it) for it in asked.messages], "messages"),
        tools=json_of(tools, "tools") if tools else "",
        schema=schema,
        stops=asked.stops,
    )


def offered_tools(asked: ChatRequest) -> list[dict[str, Any]]:
    """The tools that the model may call, as templates read them."""
    if not asked.tools or asked.tool_choice == "none":
        return []
    named = asked.tool_choice.function.name if isinstance(asked.tool_choice, ToolChoice) else None
    return [
        it.model_dump(exclude_none=True)
        for it in asked.tools
        if named is None or it.function.name == named
    ]


def _schema_of(asked: ChatRequest) -> str:
    chosen = asked.response_format
    match chosen.type if chosen is not None else "text":
        case "json_object":
            return "{}"
        case "json_schema":
            assert chosen is not None
            assert chosen.type == "json_schema"
            return json_of(chosen.json_schema.schema_, "response_format")
        case _:
            return ""


def _call_schema(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool["function"]
    return {
        "type": "object",
        "properties": {
            "name": {"const": function["name"]},
            "arguments": function.get("parameters") or {"type": "object"},
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _message(message: ChatMessage) -> dict[str, Any]:
    """One message: parts joined, and the arguments of calls as what they are."""
    found = message.model_dump(exclude_none=True)
    if message.role == "developer":
        found["role"] = "system"
    if isinstance(message.content, list):
        found["content"] = "".join(it.text for it in message.content)
    found.setdefault("content", "")
    for call in found.get("tool_calls", ()):
        function = call["function"]
        try:
            arguments = json.loads(function["arguments"])
        except (ValueError, RecursionError):
            continue
        if isinstance(arguments, dict):
            function["arguments"] = arguments
    return found


def json_of(value: Any, param: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise bad(f"{param} is no JSON: {error}", param=param) from error
