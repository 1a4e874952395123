"""POST /v1/completions: a prompt as it is, without a template."""

from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from node.gateway.chat import LOGPROB_UNKNOWN
from node.gateway.errors import bad
from node.gateway.generating import Choice, GenerationTasks
from node.gateway.openapi import answers
from node.gateway.reading import Fresh, Reader
from node.gateway.requests import CHOICES_MAX, CompletionRequest
from node.gateway.responses import Completion, ErrorResponse
from node.gateway.sampling import generation_of, stages_of
from node.gateway.task_service import TaskService
from wire.operations import GENERATE


@dataclass(slots=True)
class TextForm:
    """Texts; `echo` has each begin with its prompt."""

    prompts: list[str]
    choices_each: int
    echo: bool
    logprobs: bool
    whole_object: str = "text_completion"
    piece_object: str = "text_completion"
    id_prefix: str = "cmpl"
    _offsets: dict[int, int] = field(default_factory=dict)

    def opening(self, choice: Choice) -> dict[str, Any] | None:
        prompt = self._prompt(choice)
        return self._piece(choice, prompt, None) if self.echo else None

    def delta(self, choice: Choice, fresh: Fresh) -> dict[str, Any] | None:
        told = self._logprobs(choice, fresh)
        return self._piece(choice, fresh.text, told) if fresh.text or told is not None else None

    def ending(self, choice: Choice) -> list[dict[str, Any]]:
        return [self._piece(choice, "", None) | {"finish_reason": choice.reader.reason}]

    def whole(self, choice: Choice, fresh: Fresh) -> dict[str, Any]:
        text = (self._prompt(choice) if self.echo else "") + fresh.text
        return self._piece(choice, text, self._logprobs(choice, fresh)) | {
            "finish_reason": choice.reader.reason
        }

    def _prompt(self, choice: Choice) -> str:
        return self.prompts[choice.index // self.choices_each]

    def _logprobs(self, choice: Choice, fresh: Fresh) -> dict[str, Any] | None:
        tokens = fresh.tokens
        if not self.logprobs or not any(it.logprob_millionths is not None for it in tokens):
            return None
        at = self._offsets.get(choice.index, len(self._prompt(choice)) if self.echo else 0)
        offsets = []
        for token in tokens:
            offsets.append(at)
            at += len(token.text.decode(errors="ignore"))
        self._offsets[choice.index] = at
        known = [it.logprob_millionths for it in tokens]
        return {
            "tokens": [it.text.decode(errors="replace") for it in tokens],
            "token_logprobs": [LOGPROB_UNKNOWN if it is None else it / 1e6 for it in known],
            "top_logprobs": [
                {it.text.decode(errors="replace"): it.logprob_millionths / 1e6 for it in token.top}
                for token in tokens
            ],
            "text_offset": offsets,
        }

    def _piece(self, choice: Choice, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        return {"index": choice.index, "text": text, "logprobs": logprobs, "finish_reason": None}


def completions_router(service: TaskService) -> APIRouter:
    router = APIRouter(tags=["OpenAI"])

    @router.post(
        "/v1/completions",
        responses=answers(Completion, ErrorResponse, streamed=True),
        operation_id="createCompletion",
    )
    async def create(asked: CompletionRequest, request: Request) -> Response:
        """What a model goes on with after a prompt: whole, or streamed with `stream`."""
        terms = service.terms(request)
        row = service.catalogue.find(asked.model)
        await service.catalogue.check_does(row, GENERATE)
        prompts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
        if not all(prompts):
            raise bad("an empty prompt is nothing to go on from", param="prompt")
        each = asked.n or 1
        if len(prompts) * each > CHOICES_MAX:
            raise bad(f"at most {CHOICES_MAX} choices are made at once", param="n")
        stages = stages_of(
            asked, row.id, asked.max_tokens, asked.logprobs, service.node.dependencies.environment
        )
        stops = tuple(it.encode(errors="replace") for it in asked.stops)
        inputs = [generation_of(prompt=it, stops=asked.stops) for it in prompts]
        form = TextForm(prompts, each, bool(asked.echo), asked.logprobs is not None)
        choices = [
            Choice(at * each + index, terms.request(stage, data), Reader(stops))
            for at, data in enumerate(inputs)
            for index, stage in enumerate(stages)
        ]
        generating = GenerationTasks(service, asked.model, form, choices)
        return await generating.respond(asked)

    return router
