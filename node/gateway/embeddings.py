"""POST /v1/embeddings."""

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from node.engines.interface import TOKEN_COUNTS, TOKEN_IDS
from node.gateway.client_request import ClientRequest
from node.gateway.errors import ErrorDetail, HttpError, bad
from node.gateway.gather import Finished, all_done, headers_of, ids_of
from node.gateway.json_response import JsonResponse
from node.gateway.openapi import answers
from node.gateway.requests import EmbeddingsRequest
from node.gateway.responses import Embeddings, ErrorResponse
from node.gateway.task_service import TaskService, Terms
from wire import limits
from wire.content import ContentId
from wire.errors import WireError
from wire.kinds import Role
from wire.operations import EMBED
from wire.payload import Texts, Vectors
from wire.schema import Scalar
from wire.task import Stage

# Of one task: what is small travels with the offer.
TEXTS_PER_TASK, TEXT_BYTES_PER_TASK = 64, limits.INLINE_BYTES_MAX - 4096


def embeddings_router(service: TaskService) -> APIRouter:
    router = APIRouter(tags=["OpenAI"])

    @router.post(
        "/v1/embeddings",
        responses=answers(Embeddings, ErrorResponse),
        operation_id="createEmbedding",
    )
    async def create(asked: EmbeddingsRequest, request: Request) -> Response:
        """Vectors of texts. `dimensions` is refused unless it is what the model gives.

        A text may be given as the model's own tokens.
        """
        return await embeddings_answer(service, asked, request)

    return router


async def embeddings_answer(
    service: TaskService, asked: EmbeddingsRequest, request: ClientRequest
) -> Response:
    """The vectors of the texts that were asked for."""
    terms = service.terms(request)
    row = service.catalogue.find(asked.model)
    await service.catalogue.check_does(row, EMBED)
    finished = await embedded(service, terms, row.id, inputs_of(asked.input))
    rows, texts = rows_of(finished), inputs_of(asked.input)
    if len(rows) != len(texts):
        raise malformed()
    if asked.dimensions is not None and asked.dimensions != rows.shape[1]:
        raise bad(
            f"{asked.model} gives {rows.shape[1]} dimensions and cannot be cut to"
            f" {asked.dimensions}",
            param="dimensions",
        )
    body = {
        "object": "list",
        "model": asked.model,
        "data": [
            {"object": "embedding", "index": at, "embedding": _told(it, asked)}
            for at, it in enumerate(rows)
        ],
        "usage": usage_of(finished),
        "x_baton": ids_of(finished),
    }
    return JsonResponse(body, headers=headers_of(finished))


def inputs_of(
    asked: str | list[str] | list[int] | list[list[int]],
) -> list[str] | list[list[int]]:
    """Each input, as text or as tokens."""
    if isinstance(asked, str):
        return [asked]
    if asked and isinstance(asked[0], int):
        return [[it for it in asked if isinstance(it, int)]]
    if asked and isinstance(asked[0], list):
        return [it for it in asked if isinstance(it, list)]
    return [it for it in asked if isinstance(it, str)]


async def embedded(
    service: TaskService,
    terms: Terms,
    model: ContentId,
    inputs: list[str] | list[list[int]],
    operation: str = EMBED,
) -> list[Finished]:
    """The vectors of texts, as several tasks have them, or scores; HttpError if one fails."""
    parameters: dict[str, Scalar] = {TOKEN_COUNTS: 1}
    texts = [it if isinstance(it, str) else json.dumps(it) for it in inputs]
    if not isinstance(inputs[0], str):
        parameters[TOKEN_IDS] = 1
    stage = Stage(role=Role.INFER, operation=operation, model=model, parameters=parameters)
    requests = [terms.request(stage, it) for it in _inputs(texts)]
    return await all_done(service, requests)


def usage_of(finished: Sequence[Finished]) -> dict[str, int]:
    """How many tokens the texts had, of peers that say so."""
    tokens = sum(sum(Vectors.from_bytes(it.answered.output).tokens) for it in finished)
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _inputs(texts: Sequence[str]) -> Iterator[bytes]:
    """The texts as the inputs of as many tasks as they take."""
    batch: list[str] = []
    held_bytes = 0
    for place, text in enumerate(texts):
        size_bytes = len(text.encode(errors="surrogatepass"))
        if not text:
            raise bad(f"text {place} is empty", param="input")
        if size_bytes > limits.TEXT_BYTES_MAX:
            raise bad(
                f"text {place} has {size_bytes} bytes, at most {limits.TEXT_BYTES_MAX} are taken",
                param="input",
                code="context_length_exceeded",
            )
        if batch and (
            len(batch) == TEXTS_PER_TASK or held_bytes + size_bytes > TEXT_BYTES_PER_TASK
        ):
            yield _input(batch)
            batch, held_bytes = [], 0
        batch.append(text)
        held_bytes += size_bytes
    yield _input(batch)


def _input(batch: Sequence[str]) -> bytes:
    try:
        return Texts(texts=tuple(batch)).to_bytes()
    except WireError as error:
        raise bad(str(error), param="input") from error


def rows_of(finished: Sequence[Finished]) -> "np.ndarray[Any, Any]":
    parts = []
    for leg in finished:
        try:
            vectors = Vectors.from_bytes(leg.answered.output)
        except WireError as error:
            raise malformed() from error
        parts.append(np.frombuffer(vectors.data, "<f4").reshape(vectors.rows, vectors.dimensions))
    if len({it.shape[1] for it in parts}) != 1:
        raise malformed()
    found = np.concatenate(parts)
    if not np.isfinite(found).all():
        raise malformed()
    return found


def malformed() -> HttpError:
    return HttpError(
        ErrorDetail(
            status=503,
            message="the peers' answer is not a vector for each text",
            code="answer_malformed",
            retry_after_s=1.0,
        )
    )


def _told(row: "np.ndarray[Any, Any]", asked: EmbeddingsRequest) -> list[float] | str:
    if asked.encoding_format == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode()
    told: list[float] = row.astype(float).tolist()
    return told
