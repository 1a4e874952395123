"""POST /v1/rerank and /v1/score: how near texts are, by the vectors of an embedder."""

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from node.gateway.embeddings import embedded, rows_of, usage_of
from node.gateway.errors import bad
from node.gateway.gather import Finished, headers_of, ids_of
from node.gateway.openapi import answers
from node.gateway.requests import INPUTS_MAX, Name, RequestBody, Text
from node.gateway.task_service import TaskService
from wire.operations import EMBED

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


def rerank_router(service: TaskService) -> APIRouter:
    router = APIRouter(tags=["Baton"])

    async def vectors(model: str, texts: list[str], request: Request) -> list[Finished]:
        row = service.catalogue.find(model)
        await service.catalogue.check_does(row, EMBED)
        return await embedded(service, service.terms(request), row.id, texts)

    @router.post("/rerank", include_in_schema=False)
    @router.post("/v2/rerank", include_in_schema=False)
    @router.post("/v1/rerank", responses=answers(None), operation_id="rerank")
    async def rerank(asked: RerankRequest, request: Request) -> Response:
        """The documents by how near they are to the query, the nearest first.

        At /v2/rerank and /rerank too, where some clients look for it.
        """
        texts = [it if isinstance(it, str) else it.text for it in asked.documents]
        finished = await vectors(asked.model, [asked.query, *texts], request)
        rows = rows_of(finished)
        scores = cosines(rows[1:], np.repeat(rows[:1], len(texts), axis=0))
        ranks = sorted(range(len(texts)), key=lambda it: (-scores[it], it))[: asked.top_n]
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
        """How near texts are to each other: the cosine of their vectors."""
        one = [asked.text_1] if isinstance(asked.text_1, str) else asked.text_1
        other = [asked.text_2] if isinstance(asked.text_2, str) else asked.text_2
        if len(one) not in (1, len(other)):
            raise bad("text_1 is one text, or as many as text_2 has", param="text_1")
        finished = await vectors(asked.model, [*one, *other], request)
        rows = rows_of(finished)
        first = rows[: len(one)]
        if len(one) < len(other):
            first = np.repeat(first, len(other), axis=0)
        told = {
            "id": f"score-{finished[0].task}",
            "object": "list",
            "model": asked.model,
            "data": [
                {"index": at, "object": "score", "score": it}
                for at, it in enumerate(cosines(first, rows[len(one) :]))
            ],
            "usage": usage_of(finished),
            "x_baton": ids_of(finished),
        }
        return JSONResponse(told, headers=headers_of(finished))

    return router
