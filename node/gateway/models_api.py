"""GET /v1/models."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from node.gateway.catalogue import CatalogueRow
from node.gateway.openapi import answers
from node.gateway.responses import ModelList, ModelRow
from node.gateway.task_service import TaskService
from node.task.levels import levels_of_model


def listing_router(service: TaskService) -> APIRouter:
    router = APIRouter()

    @router.get(
        "/v1/models", responses=answers(ModelList), operation_id="listModels", tags=["OpenAI"]
    )
    async def models() -> Response:
        """The models that peers known here run now, and those that this one is loading."""
        rows = sorted(service.catalogue.rows(), key=lambda it: it.name)
        told = [_row(it, service.catalogue.since_wall_s(it)) for it in rows]
        return JSONResponse(
            {
                "object": "list",
                "data": told,
                # All are in one page, as Anthropic's clients ask for them.
                "first_id": told[0]["id"] if told else None,
                "last_id": told[-1]["id"] if told else None,
                "has_more": False,
            }
        )

    @router.get(
        "/v1/models/{model:path}",
        responses=answers(ModelRow),
        operation_id="retrieveModel",
        tags=["OpenAI"],
    )
    async def model(model: str) -> Response:
        """One model, by its name or its content id, with what its manifest says of it."""
        row = service.catalogue.find(model)
        told = _row(row, service.catalogue.since_wall_s(row))
        manifest = await service.catalogue.manifest(row)
        if manifest is not None:
            told["x_baton"] |= {
                "format": manifest.format,
                "operations": list(manifest.operations),
                "levels": levels_of_model(manifest),
                "parameters": {
                    name: value
                    for name, value in manifest.parameters.items()
                    if not isinstance(value, bytes)
                },
            }
        return JSONResponse(told)

    return router


def _state(row: CatalogueRow) -> dict[str, Any]:
    if row.loaded_share is None:
        return {}
    return {"state": "loading", "loaded_share": round(row.loaded_share, 2)}


def _row(row: CatalogueRow, created: int) -> dict[str, Any]:
    return {
        "id": row.name,
        "object": "model",
        "created": created,
        "owned_by": "baton",
        # As Anthropic's clients know a model.
        "type": "model",
        "display_name": row.name,
        "created_at": datetime.fromtimestamp(created, UTC).isoformat(),
        "x_baton": {"model": str(row.id), "peers": len(row.holders), **_state(row)},
    }
