"""GET /v1/usage: whether people come back, from the ledger that this peer follows."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from node.gateway.errors import not_found, unavailable
from node.gateway.openapi import answers
from node.gateway.responses import UsageReport
from node.gateway.task_service import TaskService
from node.usage.report import report_of

RETRY_AFTER_S = 5.0


def usage_router(service: TaskService) -> APIRouter:
    router = APIRouter(tags=["Baton"])
    # Of one epoch the report is always the same, and a large one is work.
    made: dict[int, dict[str, Any]] = {}

    @router.get("/v1/usage", responses=answers(UsageReport), operation_id="usage")
    async def usage() -> Response:
        """Who pays for tasks and comes back, by week: as it is, and with self-dealing discounted.

        Computed from the ledger up to its last checkpoint, as `usage --offline` does; amounts in
        millionths of a credit.
        """
        ledger = service.node.ledger
        if ledger is None:
            raise not_found("this network has no ledger: its use leaves no line", code="no_ledger")
        follower = ledger.follower
        if follower.current_at_s == float("-inf"):
            raise unavailable(
                f"not known yet: {follower.problem}",
                code="not_ready",
                retry_after_s=RETRY_AFTER_S,
            )
        epochs = follower.history.epochs
        if epochs not in made:
            made.clear()
            made[epochs] = report_of(ledger.genesis, follower.history)
        return JSONResponse(made[epochs])

    return router
