"""From what a client sends to what a model is asked: the input, and the stage's parameters."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from node.gateway.errors import bad, text_of
from node.gateway.requests import (
    ChatMessage,
    ChatRequest,
    NamedFunction,
    SamplingFields,
    ToolChoice,
)
from p2p.adverts import Environment
from wire import limits
from wire.content import ContentId
from wire.errors import WireError
from wire.generation import Generation, TokenBias
from wire.kinds import Role
from wire.model import Manifest
from wire.operations import GENERATE
from wire.schema import Scalar
from wire.task import Stage

# What is made where a client does not say how much: of a prompt as OpenAI does it, of a chat what
# fits, and this where nobody knows what that is.
COMPLETION_TOKENS, TOKENS_DEFAULT = 16, 1024
_PASSED_ON = (
    *("top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty"),
    *("top_k", "min_tokens"),
)
_LITERAL = frozenset(("const", "enum", "default", "examples"))
# Of one character.
UTF8_BYTES_MAX = 4
_WHOLE = frozenset(("top_k", "min_tokens"))


def tokens_of(asked: int | None, manifest: Manifest | None, default: int | None = None) -> int:
    """How many tokens an answer may have: what is asked for, or what fits if that is less."""
    context = manifest.parameters.get("context") if manifest is not None else None
    if asked is None:
        asked = default
    if type(context) is not int:
        return TOKENS_DEFAULT if asked is None else asked
    return context if asked is None else min(asked, context)


def stages_of(
    asked: SamplingFields,
    model: ContentId,
    tokens: int,
    logprobs: int | None,
    environment: Environment,
    *,
    echo: bool = False,
) -> list[Stage]:
    """One stage for each choice, with a seed of its own, drawn here where the client has none."""
    temperature = 1.0 if asked.temperature is None else float(asked.temperature)
    seed = int.from_bytes(environment.entropy(8)) if asked.seed is None else asked.seed
    parameters: dict[str, Scalar] = {
        "tokens": tokens,
        "temperature": temperature,
    }
    for name in _PASSED_ON:
        if (value := getattr(asked, name)) is not None:
            parameters[name] = max(0, value) if name in _WHOLE else float(value)
    if asked.ignore_eos:
        parameters["ignore_eos"] = 1
    if echo:
        parameters["echo"] = 1
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
    prompt_tokens: Sequence[int] = (),
    template: str = "",
    bias: Mapping[str, float] | None = None,
) -> bytes:
    """The input of a generation; HttpError if there can be none such."""
    named = {"prompt": prompt, "messages": messages, "tools": tools}
    for name, text in {**named, "chat_template_kwargs": template}.items():
        if len(text) * UTF8_BYTES_MAX <= limits.PROMPT_BYTES_MAX:
            continue
        size_bytes = len(text.encode(errors="surrogatepass"))
        if size_bytes > limits.PROMPT_BYTES_MAX:
            raise bad(
                f"{name} of {size_bytes} bytes, at most {limits.PROMPT_BYTES_MAX} are taken",
                param=name,
                code="context_length_exceeded",
            )
    try:
        return Generation(
            prompt=prompt,
            messages=messages,
            tools=tools,
            schema=schema,
            stop=tuple(stops),
            prompt_tokens=tuple(prompt_tokens),
            template=template,
            bias=_biases(bias or {}),
        ).to_bytes()
    except WireError as error:
        raise bad(text_of(str(error))) from error


def _biases(asked: Mapping[str, float]) -> tuple[TokenBias, ...]:
    found = {int(token): round(bias * 1e6) for token, bias in asked.items()}
    return tuple(TokenBias(token=it, millionths=found[it]) for it in sorted(found) if found[it])


def chat_input(asked: ChatRequest) -> bytes:
    """The conversation as the model's own template will read it."""
    if asked.top_logprobs and not asked.logprobs:
        raise bad("top_logprobs are told where logprobs is true", param="top_logprobs")
    schema = _schema_of(asked)
    tools = offered_tools(asked)
    if must_call(asked):
        if not tools:
            param = "function_call" if asked.functions else "tool_choice"
            raise bad(f"{param} asks for a tool that is not there", param=param)
        calls = [_call_schema(it, f"#/anyOf/{at}") for at, it in enumerate(tools)]
        schema = json_of({"anyOf": calls}, "tools")
    template = asked.chat_template_kwargs
    return generation_of(
        template=json_of(template, "chat_template_kwargs") if template else "",
        bias=asked.logit_bias,
        messages=json_of([_message(it) for it in asked.messages], "messages"),
        tools=json_of(tools, "tools") if tools else "",
        schema=schema,
        stops=asked.stops,
    )


def offered_tools(asked: ChatRequest) -> list[dict[str, Any]]:
    """The tools that the model may call, as templates read them."""
    chosen = asked.function_call if asked.functions else asked.tool_choice
    offered = [it.function for it in asked.tools or ()] or list(asked.functions or ())
    if chosen == "none":
        return []
    named = None
    if isinstance(chosen, ToolChoice):
        named = chosen.function.name
    elif isinstance(chosen, NamedFunction):
        named = chosen.name
    return [
        {"type": "function", "function": it.model_dump(exclude_none=True)}
        for it in offered
        if named is None or it.name == named
    ]


def must_call(asked: ChatRequest) -> bool:
    """Whether the answer has to be a call of a tool."""
    chosen = asked.function_call if asked.functions else asked.tool_choice
    return chosen == "required" or isinstance(chosen, ToolChoice | NamedFunction)


def _schema_of(asked: ChatRequest) -> str:
    chosen = asked.response_format
    match chosen.type if chosen is not None else "text":
        case "json_object":
            assert chosen is not None
            assert chosen.type == "json_object"
            return json_of(chosen.schema_ or chosen.value or {}, "response_format")
        case "json_schema":
            assert chosen is not None
            assert chosen.type == "json_schema"
            return json_of(chosen.json_schema.schema_, "response_format")
        case _:
            return ""


def _call_schema(tool: dict[str, Any], place: str) -> dict[str, Any]:
    """What a call of a tool has to be, at its place in a schema."""
    function = tool["function"]
    arguments = function.get("parameters") or {"type": "object"}
    return {
        "type": "object",
        "properties": {
            "name": {"const": function["name"]},
            "arguments": _moved(arguments, f"{place}/properties/arguments"),
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, place: str) -> Any:
    """A schema whose references are right when it stands at a place in another one."""
    if isinstance(schema, list):
        return [_moved(it, place) for it in schema]
    if not isinstance(schema, dict):
        return schema
    found = {}
    for name, value in schema.items():
        if name == "$ref" and isinstance(value, str) and value.startswith("#"):
            found[name] = place + value[1:]
        else:
            # What is a value and no schema stays as it is.
            found[name] = value if name in _LITERAL else _moved(value, place)
    return found


def _message(message: ChatMessage) -> dict[str, Any]:
    """One message: parts joined, and the arguments of calls as what they are."""
    found = message.model_dump(exclude_none=True)
    if (call := found.pop("function_call", None)) is not None:
        found["tool_calls"] = [{"type": "function", "function": call}]
    if message.role == "function":
        found["role"] = "tool"
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
