"""POST /v1/chat/completions."""

from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from node.gateway.catalogue import fingerprint_of
from node.gateway.client_request import ClientRequest
from node.gateway.generating import Choice, GenerationTasks
from node.gateway.openapi import answers
from node.gateway.reading import Fresh, Reader
from node.gateway.requests import ChatRequest
from node.gateway.responses import ChatCompletion, ErrorResponse
from node.gateway.sampling import chat_input, must_call, offered_tools, stages_of, tokens_of
from node.gateway.task_service import TaskService
from node.gateway.tool_calls import CALLS_MAX, ToolCall, ToolGate, is_whole
from wire.generation import Alternative, Token
from wire.operations import GENERATE

# What OpenAI tells of a token whose probability is not known.
LOGPROB_UNKNOWN = -9999.0


@dataclass(slots=True)
class ChatForm:
    """Messages, and calls of tools in them."""

    tools: frozenset[str]
    logprobs: bool
    # The whole answer has to be a call; at most so many; told as `function_call`.
    forced: bool = False
    calls_max: int = CALLS_MAX
    legacy: bool = False
    whole_object: str = "chat.completion"
    piece_object: str = "chat.completion.chunk"
    id_prefix: str = "chatcmpl"
    _gates: dict[int, ToolGate] = field(default_factory=dict)

    def waits(self, choice: Choice) -> bool:
        return False

    def opening(self, choice: Choice) -> dict[str, Any]:
        delta = {"role": "assistant", "content": "", "refusal": None}
        return self._piece(choice, delta, None)

    def delta(self, choice: Choice, fresh: Fresh) -> dict[str, Any] | None:
        text = self._gate(choice).feed(fresh.text) if self.tools else fresh.text
        told = logprobs_of(fresh.tokens) if self.logprobs else None
        if not text and told is None:
            return None
        return self._piece(choice, {"content": text}, told)

    def ending(self, choice: Choice) -> list[dict[str, Any]]:
        found = []
        rest, calls, reason = self._end(choice)
        if rest:
            found.append(self._piece(choice, {"content": rest}, None))
        if calls and self.legacy:
            found.append(self._piece(choice, {"function_call": calls[0]["function"]}, None))
        elif calls:
            # One at a time: some clients look at the first call of a piece alone.
            told = [{"tool_calls": [{"index": at, **it}]} for at, it in enumerate(calls)]
            found += [self._piece(choice, it, None) for it in told]
        last = self._piece(choice, {}, None)
        last |= {"finish_reason": reason, "stop_reason": choice.reader.stop_sequence}
        return [*found, last]

    def whole(self, choice: Choice, fresh: Fresh) -> dict[str, Any]:
        """One choice of a whole answer, as this dialect words it."""
        text = self._gate(choice).feed(fresh.text) if self.tools else fresh.text
        rest, calls, reason = self._end(choice)
        content = text + rest
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if calls and self.legacy:
            message |= {"content": content or None, "function_call": calls[0]["function"]}
        elif calls:
            message |= {"content": content or None, "tool_calls": calls}
        return {
            "index": choice.index,
            "message": message,
            "logprobs": logprobs_of(fresh.tokens) if self.logprobs else None,
            "finish_reason": reason,
            "stop_reason": choice.reader.stop_sequence,
        }

    def _end(self, choice: Choice) -> tuple[str, list[dict[str, Any]], str]:
        """The text that is left, the calls, and why the choice ended."""
        cut = choice.reader.reason == "length"
        rest, calls = self._gate(choice).end(cut=cut)
        told = _calls(choice, calls[: self.calls_max])
        if not calls or (cut and not is_whole(calls[-1])):
            return rest, told, choice.reader.reason
        return rest, told, "function_call" if self.legacy else "tool_calls"

    def _gate(self, choice: Choice) -> ToolGate:
        return self._gates.setdefault(choice.index, ToolGate(self.tools, self.forced))

    def _piece(
        self, choice: Choice, delta: dict[str, Any], logprobs: dict[str, Any] | None
    ) -> dict[str, Any]:
        return {
            "index": choice.index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": None,
        }


def _calls(choice: Choice, calls: list[ToolCall]) -> list[dict[str, Any]]:
    assert choice.task is not None
    return [
        {
            "id": f"call_{choice.task.digest.hex()[:20]}{at}",
            "type": "function",
            "function": {"name": it.name, "arguments": it.arguments},
        }
        for at, it in enumerate(calls)
    ]


def logprobs_of(tokens: tuple[Token, ...]) -> dict[str, Any] | None:
    """The tokens' logarithms as chats tell them; None where the model told none."""
    if not any(it.logprob_millionths is not None for it in tokens):
        return None
    content = []
    for token in tokens:
        told = _logprob(token.text, token.logprob_millionths)
        content.append(told | {"top_logprobs": [_alternative(it) for it in token.top]})
    return {"content": content}


def _alternative(found: Alternative) -> dict[str, Any]:
    return _logprob(found.text, found.logprob_millionths)


def _logprob(text: bytes, millionths: int | None) -> dict[str, Any]:
    return {
        "token": text.decode(errors="replace"),
        "logprob": LOGPROB_UNKNOWN if millionths is None else millionths / 1e6,
        "bytes": list(text),
    }


def chat_router(service: TaskService) -> APIRouter:
    router = APIRouter(tags=["OpenAI"])

    @router.post(
        "/v1/chat/completions",
        responses=answers(ChatCompletion, ErrorResponse, streamed=True),
        operation_id="createChatCompletion",
    )
    async def create(asked: ChatRequest, request: Request) -> Response:
        """A model's answer to a conversation: whole, or streamed with `stream`.

        Headers: `x-baton-verdicts: 2/3` has the answer checked by others before it is told as
        final; `x-baton-level` is signed (nobody checks), spot (some answers are checked, by lot) or
        replayed (all are); `x-baton-deadline` is how many seconds it may take.
        """
        return await chat_answer(service, asked, request)

    return router


async def chat_answer(service: TaskService, asked: ChatRequest, request: ClientRequest) -> Response:
    """The answer to a chat, whole or streamed."""
    generating = await chat_tasks(service, asked, request)
    return await generating.respond(asked)


async def chat_tasks(
    service: TaskService, asked: ChatRequest, request: ClientRequest
) -> GenerationTasks:
    """The choices of a chat, not begun yet: what every dialect of a conversation comes to."""
    terms = service.terms(request)
    row = service.catalogue.find(asked.model)
    await service.catalogue.check_does(row, GENERATE)
    manifest = await service.catalogue.manifest(row)
    data = chat_input(asked)
    logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
    tokens = tokens_of(asked.max_completion_tokens or asked.max_tokens, manifest)
    stages = stages_of(asked, row.id, tokens, logprobs, service.node.dependencies.environment)
    stops = tuple(it.encode(errors="replace") for it in asked.stops)
    form = ChatForm(
        frozenset(it["function"]["name"] for it in offered_tools(asked)),
        bool(asked.logprobs),
        forced=must_call(asked),
        calls_max=1 if asked.functions or asked.parallel_tool_calls is False else CALLS_MAX,
        legacy=bool(asked.functions),
    )
    choices = [
        Choice(index, terms.request(stage, data), Reader(stops, least=asked.min_tokens or 0))
        for index, stage in enumerate(stages)
    ]
    return GenerationTasks(service, asked.model, form, choices, fingerprint_of(row, manifest))
