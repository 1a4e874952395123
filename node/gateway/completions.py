"""POST /v1/completions: a prompt as it is, without a template."""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from node.gateway.catalogue import fingerprint_of
from node.gateway.chat import LOGPROB_UNKNOWN
from node.gateway.client_request import ClientRequest
from node.gateway.errors import bad
from node.gateway.generating import Choice, GenerationTasks
from node.gateway.openapi import answers
from node.gateway.reading import Fresh, Reader
from node.gateway.requests import CHOICES_MAX, CompletionRequest
from node.gateway.responses import Completion, ErrorResponse
from node.gateway.sampling import COMPLETION_TOKENS, generation_of, stages_of, tokens_of
from node.gateway.task_service import TaskService
from wire.generation import PromptToken, Token
from wire.operations import GENERATE

Told = Token | PromptToken


@dataclass(slots=True)
class TextOffset:
    """Where in a text tokens begin, in characters; within one, where that begins."""

    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )
    _at: int = 0

    def take(self, text: bytes) -> int:
        """The offset of the next token, which has this text."""
        at = self._at
        self._at += len(self._decoder.decode(text))
        return at


@dataclass(slots=True)
class TextForm:
    """Texts; `echo` has each begin with its prompt, which is None where it was given as tokens."""

    prompts: list[str | None]
    choices_each: int
    echo: bool
    logprobs: bool
    whole_object: str = "text_completion"
    piece_object: str = "text_completion"
    id_prefix: str = "cmpl"
    _offsets: dict[int, TextOffset] = field(default_factory=dict)

    def opening(self, choice: Choice) -> dict[str, Any] | None:
        if not self.echo:
            return None
        told = self._logprobs(choice, choice.reader.prompt)
        return self._piece(choice, self._prompt(choice), told)

    def delta(self, choice: Choice, fresh: Fresh) -> dict[str, Any] | None:
        told = self._logprobs(choice, fresh.tokens)
        return self._piece(choice, fresh.text, told) if fresh.text or told is not None else None

    def ending(self, choice: Choice) -> list[dict[str, Any]]:
        return [self._piece(choice, "", None) | {"finish_reason": choice.reader.reason}]

    def whole(self, choice: Choice, fresh: Fresh) -> dict[str, Any]:
        """One choice of a whole answer, as this dialect words it."""
        text = (self._prompt(choice) if self.echo else "") + fresh.text
        tokens: tuple[Told, ...] = fresh.tokens
        if self.echo:
            tokens = (*choice.reader.prompt, *tokens)
        return self._piece(choice, text, self._logprobs(choice, tokens)) | {
            "finish_reason": choice.reader.reason
        }

    def waits(self, choice: Choice) -> bool:
        """The prompt's tokens come with the whole answer, and are told before it."""
        return self.echo and (self._given(choice) is None or self.logprobs)

    def _given(self, choice: Choice) -> str | None:
        return self.prompts[choice.index // self.choices_each]

    def _prompt(self, choice: Choice) -> str:
        if (given := self._given(choice)) is not None:
            return given
        return b"".join(it.text for it in choice.reader.prompt).decode(errors="replace")

    def _logprobs(self, choice: Choice, tokens: Sequence[Told]) -> dict[str, Any] | None:
        if not self.logprobs or not tokens:
            return None
        offset = self._offsets.setdefault(choice.index, TextOffset())
        prompt = isinstance(tokens[0], PromptToken)
        if not prompt and not any(it.logprob_millionths is not None for it in tokens):
            return None
        return {
            "tokens": [token_name(it.text) for it in tokens],
            "token_logprobs": [_logprob(it) for it in tokens],
            "top_logprobs": [_alternatives(it) for it in tokens],
            "text_offset": [offset.take(it.text) for it in tokens],
        }

    def _piece(self, choice: Choice, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        return {"index": choice.index, "text": text, "logprobs": logprobs, "finish_reason": None}


def token_name(text: bytes) -> str:
    """A token as OpenAI tells it: its text, or its bytes where they are no text by themselves."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return bytes_name(text)


def bytes_name(text: bytes) -> str:
    return "bytes:" + "".join(f"\\x{it:02x}" for it in text)


def _logprob(token: Told) -> float | None:
    if token.logprob_millionths is None:
        # Of the first token of a prompt nothing can be known.
        return None if isinstance(token, PromptToken) else LOGPROB_UNKNOWN
    return token.logprob_millionths / 1e6


def _alternatives(token: Told) -> dict[str, float] | None:
    """Each alternative under a name of its own, also where several have the same text."""
    if isinstance(token, PromptToken) and token.logprob_millionths is None:
        return None
    found: dict[str, float] = {}
    for one in token.top:
        names = chain(
            (token_name(one.text), bytes_name(one.text)),
            (f"{bytes_name(one.text)}#{number}" for number in count(2)),
        )
        name = next(it for it in names if it not in found)
        found[name] = one.logprob_millionths / 1e6
    return found


def completions_router(service: TaskService) -> APIRouter:
    router = APIRouter(tags=["OpenAI"])

    @router.post(
        "/v1/completions",
        responses=answers(Completion, ErrorResponse, streamed=True),
        operation_id="createCompletion",
    )
    async def create(asked: CompletionRequest, request: Request) -> Response:
        """What a model goes on with after a prompt: whole, or streamed with `stream`."""
        return await completion_answer(service, asked, request)

    return router


async def completion_answer(
    service: TaskService, asked: CompletionRequest, request: ClientRequest
) -> Response:
    """The answer to a prompt, whole or streamed."""
    generating = await completion_tasks(service, asked, request)
    return await generating.respond(asked)


async def completion_tasks(
    service: TaskService, asked: CompletionRequest, request: ClientRequest
) -> GenerationTasks:
    """The choices of a completion, not begun yet."""
    terms = service.terms(request)
    row = service.catalogue.find(asked.model)
    await service.catalogue.check_does(row, GENERATE)
    manifest = await service.catalogue.manifest(row)
    prompts = prompts_of(asked.prompt)
    if not all(prompts):
        raise bad("an empty prompt is nothing to go on from", param="prompt")
    each = asked.n or 1
    if len(prompts) * each > CHOICES_MAX:
        raise bad(f"at most {CHOICES_MAX} choices are made at once", param="n")
    as_tokens = not isinstance(prompts[0], str)
    stages = stages_of(
        asked,
        row.id,
        tokens_of(asked.max_tokens, manifest, COMPLETION_TOKENS),
        asked.logprobs,
        service.node.dependencies.environment,
        # Only the prompt's tokens say what text token ids are.
        echo=bool(asked.echo) and (as_tokens or asked.logprobs is not None),
    )
    stops = tuple(it.encode(errors="replace") for it in asked.stops)
    inputs = [
        generation_of(
            prompt=it if isinstance(it, str) else "",
            prompt_tokens=() if isinstance(it, str) else it,
            stops=asked.stops,
            bias=asked.logit_bias,
        )
        for it in prompts
    ]
    form = TextForm(
        [it if isinstance(it, str) else None for it in prompts],
        each,
        bool(asked.echo),
        asked.logprobs is not None,
    )
    choices = [
        Choice(
            at * each + index,
            terms.request(stage, data),
            Reader(stops, least=asked.min_tokens or 0),
        )
        for at, data in enumerate(inputs)
        for index, stage in enumerate(stages)
    ]
    return GenerationTasks(service, asked.model, form, choices, fingerprint_of(row, manifest))


def prompts_of(asked: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    """Each prompt, as text or as tokens."""
    if isinstance(asked, str):
        return [asked]
    if isinstance(asked[0], int):
        return [[it for it in asked if isinstance(it, int)]]
    return [it for it in asked if not isinstance(it, int)]
