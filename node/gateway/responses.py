"""What clients get, as the OpenAPI document says it: answers are plain maps of this form."""

from typing import Any, Literal

from pydantic import BaseModel

Finish = Literal["stop", "length", "tool_calls", "function_call"]


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """What every status but 2xx says."""

    error: ErrorBody


class TaskReference(BaseModel):
    """Ids, with commas between those of several choices: of tasks, and of the answers' receipts."""

    task: str
    receipt: str


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    content: list[TokenLogprob] | None


class FunctionCall(BaseModel):
    name: str
    arguments: str


class ToolCallItem(BaseModel):
    id: str
    type: Literal["function"]
    function: FunctionCall


class AssistantMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[ToolCallItem] | None = None
    function_call: FunctionCall | None = None


class ChatChoice(BaseModel):
    index: int
    message: AssistantMessage
    logprobs: Logprobs | None
    finish_reason: Finish
    # The stop sequence that ended it.
    stop_reason: str | None = None


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[ChatChoice]
    usage: Usage
    x_baton: TaskReference


class TextLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(BaseModel):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Finish


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[TextChoice]
    usage: Usage
    x_baton: TaskReference


class EmbeddingRow(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    object: Literal["list"]
    model: str
    data: list[EmbeddingRow]
    usage: EmbeddingsUsage
    x_baton: TaskReference


class ModelRow(BaseModel):
    """`x_baton` has the content id, who runs it, and what it does as far as that is known here."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    type: Literal["model"]
    display_name: str
    created_at: str
    x_baton: dict[str, Any]


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelRow]
    first_id: str | None
    last_id: str | None
    has_more: bool


class TensorOutput(BaseModel):
    name: str
    dtype: str
    shape: list[int]
    data: list[Any]


class InferResponse(BaseModel):
    model: str
    outputs: list[TensorOutput]
    x_baton: TaskReference


class TaskAccepted(BaseModel):
    id: str
    status: Literal["accepted"]


class TaskResponse(BaseModel):
    id: str
    status: Literal["running", "answered", "failed"]
    error: ErrorBody | None = None
    receipt: str | None = None
    route: list[dict[str, Any]] | None = None
    verdicts: list[dict[str, Any]] | None = None
    verified: bool | None = None
    output_base64: str | None = None


class ReceiptResponse(BaseModel):
    """A kept answer. `receipt_base64` is what `python -m node verify` reads."""

    id: str
    task: str
    output: str
    route: list[dict[str, Any]]
    verdicts: list[dict[str, Any]]
    verified: bool
    attempts: int
    answered_at_ms: int
    duration_ms: int
    receipt_base64: str


class ResponseDeleted(BaseModel):
    id: str
    object: Literal["response"]
    deleted: bool


class ResponseItems(BaseModel):
    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ResponseTokens(BaseModel):
    object: Literal["response.input_tokens"]
    input_tokens: int


class ReadyResponse(BaseModel):
    status: Literal["ready"]
    models: int


class Version(BaseModel):
    version: str
    protocol: int


class OllamaError(BaseModel):
    """What `/api` says of every status but 2xx."""

    error: str


class Health(BaseModel):
    status: Literal["ok"]
    peers: int
    tasks_under_way: int


class UsageWeek(BaseModel):
    week: int
    raw: int
    discounted: int
    paid: int
    paid_discounted: int
    tasks: int
    cost: int


class UsageCohort(BaseModel):
    week: int
    raw: list[int]
    discounted: list[int]
    paid: int
    tasks: int
    cost: int


class UsageCurve(BaseModel):
    raw: list[float]
    discounted: list[float]


class UsageReport(BaseModel):
    network: str
    name: str
    epochs: int
    week_epochs: int
    weeks_over: int
    accounts: int
    owners: int
    transfers_unseen: int
    paid: int
    tasks: int
    cost: int
    cost_discounted: int
    weeks: list[UsageWeek]
    cohorts: list[UsageCohort]
    curve: UsageCurve
