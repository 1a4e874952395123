"""What clients send, as OpenAI documents it: read strictly, so that no value is guessed at.

What becomes of fields that are not listed `node.gateway.fields` says, and the OpenAPI document.
"""

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError

from node.gateway.errors import text_of
from node.gateway.fields import NAME_CHARACTERS_SHOWN, fault_of_field, table_of
from node.gateway_config import VERDICTS_PATTERN
from wire import limits

TOKENS_MAX = 1 << 20
CHOICES_MAX = 16
BIASES_MAX = 1024
# What a field's fault is called where pydantic tells of it; its name is in the context.
FIELD_FAULT = "field"
STOPS_MAX = 4
INPUTS_MAX = 2048

Text = Annotated[str, Field(max_length=limits.PROMPT_BYTES_MAX)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]
Stops = Annotated[list[Stop], Field(max_length=STOPS_MAX)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=16_384)]
BiasedToken = Annotated[str, Field(pattern=r"^\d{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]


def _field_fault(words: str, field: str) -> PydanticCustomError:
    # Half of a surrogate pair, in a name that a client chose, would be an error of its own.
    context = {"words": text_of(words), "field": text_of(field)}
    return PydanticCustomError(FIELD_FAULT, "{words}", context)


def _check_type(known: FieldInfo | None, value: dict[str, Any]) -> None:
    """Of an object of another type than are done, that is what is wrong, and not its fields."""
    if known is None or "type" not in value:
        return
    kinds = [it for part in get_args(known.annotation) for it in (get_args(part) or (part,))]
    told = [repr(it) for it in kinds if isinstance(it, str)]
    if value["type"] not in kinds and not (value["type"] is None and type(None) in kinds):
        shown = repr(str(value["type"])[:NAME_CHARACTERS_SHOWN])
        words = f"{shown} is not done here, only {', '.join(told)}"
        raise _field_fault(words, "type")


class RequestBody(BaseModel):
    """Base of every request: values are of the very type that is documented."""

    model_config = ConfigDict(strict=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _check_fields(cls, value: Any) -> Any:
        if isinstance(value, dict):
            done = _done_by(cls)
            if "type" in value:
                _check_type(cls.model_fields.get("type"), value)
            for name, given in value.items():
                if name in done:
                    continue
                fault = fault_of_field(cls.__name__, done, name, given)
                if fault is not None:
                    raise _field_fault(fault, name)
        return value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        found = handler(core_schema)
        schema = handler.resolve_ref_schema(found)
        table = table_of(cls.__name__)
        ignored = {it: {"description": "Ignored: it changes nothing."} for it in table.ignored}
        refused = {
            name: {"description": f"Not done: {it.why}.", "enum": [None, *it.harmless]}
            for name, it in table.refused.items()
        }
        schema["properties"] = {**schema.get("properties", {}), **ignored, **refused}
        schema["additionalProperties"] = False
        return found


@functools.cache
def _done_by(kind: type[RequestBody]) -> Mapping[str, None]:
    """The fields that a request has, as clients write them, in their order."""
    return {it.alias or name: None for name, it in kind.model_fields.items()}


class StreamOptions(RequestBody):
    include_usage: bool | None = None


class SamplingFields(RequestBody):
    """What completions and chats have in common."""

    model: Name
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Field(ge=-1, le=1 << 20)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=TOKENS_MAX)] | None = None
    ignore_eos: bool | None = None
    logit_bias: Annotated[dict[BiasedToken, Bias], Field(max_length=BIASES_MAX)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=TOKENS_MAX)] | None = None
    n: Annotated[int, Field(ge=1, le=CHOICES_MAX)] | None = None
    stop: Stop | Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class TextPart(RequestBody):
    """A part of a message. Parts of other types are refused: models here read text."""

    type: Literal["text"]
    text: Text


class CalledFunction(RequestBody):
    name: Name
    arguments: Text


class Called(RequestBody):
    """A call that the model made earlier in the conversation."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class LegacyCall(RequestBody):
    """A call as it was told before there were tools."""

    name: Name
    arguments: Text


class ChatMessage(RequestBody):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text | Annotated[list[TextPart], Field(max_length=1024)] | None = None
    name: Name | None = None
    tool_calls: Annotated[list[Called], Field(max_length=128)] | None = None
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None
    function_call: LegacyCall | None = None


class Function(RequestBody):
    name: Name
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(RequestBody):
    type: Literal["function"]
    function: Function


class NamedFunction(RequestBody):
    name: Name


class ToolChoice(RequestBody):
    type: Literal["function"]
    function: NamedFunction


class JsonSchema(RequestBody):
    name: Annotated[str, Field(max_length=128)] | None = None
    # `schema` is a method of pydantic's own.
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class PlainText(RequestBody):
    type: Literal["text"]


class JsonObject(RequestBody):
    """Any object, or one of a schema, which other makers' clients give here under these names."""

    type: Literal["json_object"]
    # `schema` is a method of pydantic's own.
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    value: dict[str, Any] | None = None


class JsonOfSchema(RequestBody):
    type: Literal["json_schema"]
    json_schema: JsonSchema


Format = Annotated[PlainText | JsonObject | JsonOfSchema, Field(discriminator="type")]


class ChatRequest(SamplingFields):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=TOKENS_MAX)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=limits.LOGPROBS_MAX)] | None = None
    response_format: Format | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[Function], Field(max_length=128)] | None = None
    function_call: Literal["none", "auto"] | NamedFunction | None = None
    chat_template_kwargs: Annotated[dict[str, Any], Field(max_length=64)] | None = None


class CompletionRequest(SamplingFields):
    """POST /v1/completions. A prompt is text or the model's own tokens, or a list of such."""

    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=CHOICES_MAX)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=CHOICES_MAX)]
    )
    max_tokens: Annotated[int, Field(ge=0, le=TOKENS_MAX)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=limits.LOGPROBS_MAX)] | None = None
    echo: bool | None = None


class EmbeddingsRequest(RequestBody):
    """POST /v1/embeddings."""

    model: Name
    input: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=INPUTS_MAX)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=INPUTS_MAX)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None


class TensorInput(RequestBody):
    """A tensor in JSON: its elements in C order, in nested lists or in one."""

    name: Annotated[str, Field(min_length=1, max_length=limits.NAME_BYTES_MAX)]
    dtype: Annotated[str, Field(min_length=1, max_length=16)]
    shape: Annotated[
        list[Annotated[int, Field(ge=0, le=limits.TENSORS_BYTES_MAX)]], Field(max_length=8)
    ]
    data: list[Any]


class InferRequest(RequestBody):
    """POST /v1/infer, as JSON."""

    model: Name
    inputs: Annotated[list[TensorInput], Field(min_length=1, max_length=64)]


Parameter = bool | int | float | str


class SubmitRequest(RequestBody):
    """POST /v1/tasks: one inference, as the network knows it. One of the inputs is given."""

    model: Name
    operation: Annotated[str, Field(min_length=1, max_length=limits.NAME_BYTES_MAX)]
    parameters: Annotated[dict[str, Parameter], Field(max_length=limits.PARAMETERS_MAX)] | None = (
        None
    )
    texts: Annotated[list[Text], Field(min_length=1, max_length=limits.PASSAGES_MAX)] | None = None
    text: Text | None = None
    input_base64: Annotated[str, Field(max_length=1 << 20)] | None = None
    deadline_s: Annotated[int, Field(ge=1, le=limits.DEADLINE_S_MAX)] | None = None
    verdicts: Annotated[str, Field(pattern=f"^{VERDICTS_PATTERN}$")] | None = None
    # signed, spot or replayed; without verdicts of its own a level asks for 2/3.
    level: Annotated[str, Field(min_length=1, max_length=40)] | None = None
