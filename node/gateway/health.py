"""Whether this peer is up, whether anything can be served, and which version answers."""

from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from node.gateway.availability import Availability
from node.gateway.errors import unavailable
from node.gateway.openapi import answers
from node.gateway.responses import Health, ReadyResponse, Version
from node.gateway.task_service import TaskService
from wire.limits import PROTOCOL_VERSION

RETRY_AFTER_S = 2.0
PACKAGE = "baton"


def health_router(service: TaskService, availability: Availability) -> APIRouter:
    router = APIRouter(tags=["Baton"])

    async def health() -> Response:
        """That this peer is up, and how many others it is connected to."""
        _, connected = service.node.peers.answered_last_minute()
        told = {
            "status": "ok",
            "peers": connected,
            "tasks_under_way": service.node.tasks.statistics().under_way,
        }
        return JSONResponse(told)

    async def ready() -> Response:
        """Whether some peer runs a model, and enough check it: 503 while nothing can be served."""
        if lacking := availability.lacking():
            raise unavailable(
                f"nothing can be served yet: {lacking}",
                code="not_ready",
                retry_after_s=RETRY_AFTER_S,
            )
        rows = service.catalogue.rows()
        models = sum(bool(it.holders) and it.loaded_share is None for it in rows)
        return JSONResponse({"status": "ready", "models": models})

    for path in ("/healthz", "/health", "/livez"):
        router.get(path, responses=answers(Health), operation_id=path[1:])(health)
    for path in ("/ready", "/readyz"):
        router.get(path, responses=answers(ReadyResponse), operation_id=path[1:])(ready)

    @router.get("/version", responses=answers(Version), operation_id="version")
    async def version_told() -> Response:
        """Which version of Baton answers."""
        return JSONResponse({"version": told_version(), "protocol": PROTOCOL_VERSION})

    return router


def told_version() -> str:
    """The installed version; where it runs from its source, that is said."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "source"
