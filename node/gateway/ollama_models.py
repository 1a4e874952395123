"""Ollama's `/api` of models and vectors: which there are, what is known of them, texts embedded."""

from datetime import UTC, datetime
from typing import Annotated, Any

import trio
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from node.gateway.catalogue import CatalogueRow
from node.gateway.embeddings import embedded, inputs_of, rows_of, usage_of
from node.gateway.errors import HttpError, bad
from node.gateway.health import told_version
from node.gateway.openapi import answers
from node.gateway.requests import INPUTS_MAX, Name, RequestBody, Text
from node.gateway.responses import OllamaError
from node.gateway.task_service import TaskService
from wire.operations import EMBED

LATEST = ":latest"
# When a model is let go: nobody here says when, so it is said to be far off.
KEPT_S = 30 * 24 * 3600


class OllamaEmbedRequest(RequestBody):
    """POST /api/embed."""

    model: Name
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=INPUTS_MAX)]
    truncate: bool | None = None
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None


class OllamaEmbeddingsRequest(RequestBody):
    """POST /api/embeddings, as it was before `/api/embed`."""

    model: Name
    prompt: Annotated[Text, Field(min_length=1)]


class OllamaShowRequest(RequestBody):
    """POST /api/show. `name` is how it was called before."""

    model: Name | None = None
    name: Name | None = None


def time_of(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).isoformat().replace("+00:00", "Z")


def now_ns() -> int:
    return int(trio.current_time() * 1e9)


def found_model(service: TaskService, name: str) -> CatalogueRow:
    """A model by its name, with Ollama's tag or without."""
    try:
        return service.catalogue.find(name)
    except HttpError:
        if not name.endswith(LATEST):
            raise
        return service.catalogue.find(name.removesuffix(LATEST))


def ollama_models_router(service: TaskService) -> APIRouter:
    router = APIRouter(tags=["Ollama"])
    _models(router, service)
    _vectors(router, service)
    return router


def _vectors(router: APIRouter, service: TaskService) -> None:
    @router.post("/api/embed", responses=answers(None, OllamaError), operation_id="ollamaEmbed")
    async def embed(asked: OllamaEmbedRequest, request: Request) -> Response:
        """Vectors of texts."""
        began_ns = now_ns()
        row = found_model(service, asked.model)
        await service.catalogue.check_does(row, EMBED)
        terms = service.terms(request)
        finished = await embedded(service, terms, row.id, inputs_of(asked.input))
        rows = rows_of(finished)
        if asked.dimensions not in (None, rows.shape[1]):
            raise bad(f"{asked.model} gives {rows.shape[1]} dimensions", param="dimensions")
        told = {
            "model": asked.model,
            "embeddings": rows.astype(float).tolist(),
            "total_duration": now_ns() - began_ns,
            "load_duration": 0,
            "prompt_eval_count": usage_of(finished)["prompt_tokens"],
        }
        return JSONResponse(told)

    @router.post(
        "/api/embeddings", responses=answers(None, OllamaError), operation_id="ollamaEmbeddings"
    )
    async def embeddings(asked: OllamaEmbeddingsRequest, request: Request) -> Response:
        """The vector of one text."""
        row = found_model(service, asked.model)
        await service.catalogue.check_does(row, EMBED)
        finished = await embedded(service, service.terms(request), row.id, [asked.prompt])
        return JSONResponse({"embedding": rows_of(finished)[0].astype(float).tolist()})


def _models(router: APIRouter, service: TaskService) -> None:
    @router.get("/api/tags", responses=answers(None, OllamaError), operation_id="ollamaTags")
    async def tags() -> Response:
        """The models that peers known here run now."""
        rows = sorted(service.catalogue.rows(), key=lambda it: it.name)
        return JSONResponse({"models": [await told(it) for it in rows]})

    @router.get("/api/ps", responses=answers(None, OllamaError), operation_id="ollamaRunning")
    async def running() -> Response:
        """The models that peers known here run now, each as one that stays in memory."""
        until_wall_s = service.node.dependencies.environment.wall_s() + KEPT_S
        rows = [it for it in service.catalogue.rows() if it.loaded_share is None]
        found = [await told(it) for it in sorted(rows, key=lambda it: it.name)]
        more = {"expires_at": time_of(until_wall_s), "size_vram": 0}
        return JSONResponse({"models": [it | more for it in found]})

    @router.get("/api/version", responses=answers(None, OllamaError), operation_id="ollamaVersion")
    async def version() -> Response:
        """Which version of Baton answers."""
        return JSONResponse({"version": told_version()})

    @router.post("/api/show", responses=answers(None, OllamaError), operation_id="ollamaShow")
    async def show(asked: OllamaShowRequest) -> Response:
        """What is known of a model."""
        name = asked.model or asked.name
        if name is None:
            raise bad("model: is missing", param="model")
        row = found_model(service, name)
        manifest = await service.catalogue.manifest(row)
        operations = manifest.operations if manifest is not None else ()
        able = {"generate": ["completion", "tools"], "embed": ["embedding"]}
        facts = manifest.parameters if manifest is not None else {}
        info = {name: value for name, value in facts.items() if not isinstance(value, bytes)}
        whole = await told(row)
        return JSONResponse(
            {
                "modified_at": whole["modified_at"],
                "details": whole["details"],
                "capabilities": [it for name in operations for it in able.get(name, ())],
                "model_info": info,
                "template": "",
                "parameters": "",
            }
        )

    async def told(row: CatalogueRow) -> dict[str, Any]:
        manifest = await service.catalogue.manifest(row)
        files = manifest.files if manifest is not None else ()
        form = manifest.format if manifest is not None else ""
        return {
            "name": row.name,
            "model": row.name,
            "modified_at": time_of(service.catalogue.since_wall_s(row)),
            "size": sum(it.size_bytes for it in files),
            "digest": str(row.id),
            "details": {
                "parent_model": "",
                "format": form,
                "family": form,
                "families": [form],
                "parameter_size": "",
                "quantization_level": manifest.profile if manifest is not None else "",
            },
        }
