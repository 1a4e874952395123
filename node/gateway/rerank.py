"""POST /v1/rerank and /v1/score: how well texts answer a query, or how near texts are.

A model that scores pairs reads the query and each text together. Of an embedder's vectors the
cosines are told.
"""

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from node.gateway.embeddings import embedded, malformed, rows_of, usage_of
from node.gateway.errors import bad
from node.gateway.gather import Finished, headers_of, ids_of
from node.gateway.openapi import answers
from node.gateway.requests import INPUTS_MAX, Name, RequestBody, Text
from node.gateway.task_service import TaskService
from node.task.scores import ranked, relevances
from wire.errors import WireError
from wire.operations import EMBED, RERANK
from wire.payload import QueryText, Vectors

Texts = Annotated[list[Text], Field(min_length=1, max_length=INPUTS_MAX)]


class Document(RequestBody):
    text: Text


class RerankRequest(RequestBody):
    """POST /v1/rerank, /v2/rerank, /rerank."""

    model: Name
    query: Text
    documents: Texts | Annotated[list[Document], Field(min_length=1, max_length=INPUTS_MAX)]
    top_n: Annotated[int, Field(ge=1, le=INPUTS_MAX)] | None = None
    return_documents: bool | None = None


class ScoreRequest(RequestBody):
    """POST /v1/score: each of the first with each of the second, or one with all."""

    model: Name
    text_1: Text | Texts
    text_2: Text | Texts


def cosines(one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]") -> list[float]:
    """The cosine of each row of one with the row of the other at its place."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    dots = (one.astype(float) * other.astype(float)).sum(axis=1)
    found: list[float] = np.where(lengths > 0, dots / np.where(lengths > 0, lengths, 1), 0).tolist()
    return found


async def _vectors(
    service: TaskService, model: str, texts: list[str], request: Request
) -> list[Finished]:
    row = service.catalogue.find(model)
    await service.catalogue.check_does(row, EMBED)
    return await embedded(service, service.terms(request), row.id, texts)


async def _scored(
    service: TaskService, model: str, pairs: list[QueryText], request: Request
) -> tuple[list[float], list[Finished]] | None:
    """The scores of a model that scores pairs; None of another one."""
    row = service.catalogue.find(model)
    manifest = await service.catalogue.manifest(row)
    if manifest is None or RERANK not in manifest.operations:
        return None
    terms, texts = service.terms(request), [it.to_text() for it in pairs]
    finished = await embedded(service, terms, row.id, texts, RERANK)
    try:
        outputs = [it.answered.output for it in finished]
        parts = [relevances(it, Vectors.from_bytes(it).rows) for it in outputs]
    except WireError as error:
        raise malformed() from error
    scores = [score for part in parts for score in part]
    if len(scores) != len(pairs):
        raise malformed()
    return scores, finished


def rerank_router(service: TaskService) -> APIRouter:
    router = APIRouter(tags=["Baton"])

    @router.post("/rerank", include_in_schema=False)
    @router.post("/v2/rerank", include_in_schema=False)
    @router.post("/v1/rerank", responses=answers(None), operation_id="rerank")
    async def rerank(asked: RerankRequest, request: Request) -> Response:
        """The documents by how well they answer the query, the best first.

        A reranker scores each from 0 to 1; of an embedder's vectors it is the cosine. At
        /v2/rerank and /rerank too, where some clients look for it.
        """
        texts = [it if isinstance(it, str) else it.text for it in asked.documents]
        pairs = [QueryText(asked.query, it) for it in texts]
        if (both := await _scored(service, asked.model, pairs, request)) is not None:
            scores, finished = both
        else:
            finished = await _vectors(service, asked.model, [asked.query, *texts], request)
            rows = rows_of(finished)
            scores = cosines(rows[1:], np.repeat(rows[:1], len(texts), axis=0))
        ranks = ranked(scores)[: asked.top_n]
        results: list[dict[str, Any]] = [
            {"index": at, "relevance_score": scores[at]} for at in ranks
        ]
        if asked.return_documents is not False:
            results = [it | {"document": {"text": texts[it["index"]]}} for it in results]
        told = {
            "id": f"rerank-{finished[0].task}",
            "model": asked.model,
            "results": results,
            "usage": {"total_tokens": usage_of(finished)["total_tokens"]},
            "x_baton": ids_of(finished),
        }
        return JSONResponse(told, headers=headers_of(finished))

    @router.post("/v1/score", responses=answers(None), operation_id="score")
    async def score(asked: ScoreRequest, request: Request) -> Response:
        """How near texts are to each other: a reranker's scores, or the cosines of vectors."""
        one = [asked.text_1] if isinstance(asked.text_1, str) else asked.text_1
        other = [asked.text_2] if isinstance(asked.text_2, str) else asked.text_2
        if len(one) not in (1, len(other)):
            raise bad("text_1 is one text, or as many as text_2 has", param="text_1")
        whole = one * len(other) if len(one) < len(other) else one
        pairs = [QueryText(first, second) for first, second in zip(whole, other, strict=True)]
        if (both := await _scored(service, asked.model, pairs, request)) is not None:
            scores, finished = both
        else:
            finished = await _vectors(service, asked.model, [*one, *other], request)
            rows = rows_of(finished)
            first = rows[: len(one)]
            if len(one) < len(other):
                first = np.repeat(first, len(other), axis=0)
            scores = cosines(first, rows[len(one) :])
        told = {
            "id": f"score-{finished[0].task}",
            "object": "list",
            "model": asked.model,
            "data": [{"index": at, "object": "score", "score": it} for at, it in enumerate(scores)],
            "usage": usage_of(finished),
            "x_baton": ids_of(finished),
        }
        return JSONResponse(told, headers=headers_of(finished))

    return router
