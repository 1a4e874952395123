"""The endpoints put together, and errors of every kind in the one shape that clients know."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import trio
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from node.apps.app_keys import AppKeys
from node.gateway.access import NOBODY, OPEN_PATHS, AccessMiddleware
from node.gateway.anthropic_api import messages_router
from node.gateway.app_door import AppDoor
from node.gateway.availability import Availability
from node.gateway.batch_runner import BatchRunner
from node.gateway.batch_store import BatchStore
from node.gateway.batches_api import batches_router, files_router
from node.gateway.chat import chat_answer, chat_router
from node.gateway.completions import completion_answer, completions_router
from node.gateway.credit_means import CreditMeans
from node.gateway.embeddings import embeddings_answer, embeddings_router
from node.gateway.errors import BUG, TYPES, ErrorDetail, HttpError, fault_of, fault_response
from node.gateway.front import Front
from node.gateway.health import health_router
from node.gateway.hot_posts import HotPost, HotPosts
from node.gateway.infer import infer_answer, infer_router
from node.gateway.json_body import words_of
from node.gateway.key_budgets import KeyBudgets
from node.gateway.keys import Keyring, keys_file
from node.gateway.metrics import GenerationMetrics, metrics_router, open_registry
from node.gateway.models_api import listing_router
from node.gateway.ollama_api import ollama_router
from node.gateway.ollama_models import ollama_models_router
from node.gateway.owner_payment import OwnerPayments
from node.gateway.paywall import Paywall
from node.gateway.prices import FREE, HttpPrices
from node.gateway.requests import (
    FIELD_FAULT,
    ChatRequest,
    CompletionRequest,
    EmbeddingsRequest,
    InferRequest,
)
from node.gateway.rerank import rerank_router
from node.gateway.responses_api import responses_router
from node.gateway.spending import Purses
from node.gateway.task_service import TaskService
from node.gateway.tasks_api import native_router
from node.gateway.tokenize import tokenize_router
from node.gateway.usage_api import usage_router
from node.gateway.x402_api import x402_router
from node.gateway_config import GatewayConfig
from node.peer import Node
from wire.errors import BatonError

E = TypeVar("E", bound=Exception)
DESCRIPTION = """A peer of a Baton network, as OpenAI's clients know an API. Each answer carries
the ids of its tasks (`x-baton-task`) and of their receipts (`x-baton-receipt`)."""


def gateway_app(
    node: Node, config: GatewayConfig, paywall: Paywall | None = None
) -> tuple[AccessMiddleware, BatchRunner]:
    """The whole application, with what every request has to pass before it; and the batches.

    Nothing is done of a batch until its runner runs.
    """
    keyring = Keyring(keys_file(node.config.state))
    registry = open_registry(node)
    purses = Purses() if paywall is None else paywall.purses
    prices = HttpPrices(node, config.price or FREE)
    budgets = KeyBudgets(keyring, node.dependencies.store, prices)
    door = _app_door(node, config, prices, paywall)
    purses.of_key = lambda owner: budgets.of(owner) or door.purse_of(owner)
    node.status_sources["keys"] = budgets.status
    node.status_sources["app_keys"] = door.status

    def is_for_one() -> bool:
        return paywall is None and not door.used and keyring.is_for_one()

    service = TaskService(node, config, is_for_one, GenerationMetrics(registry), purses)
    availability = Availability(node, config, service.catalogue)
    # Its own pages would load scripts from elsewhere; the document alone is served.
    app = FastAPI(
        title="Baton gateway", version="1", description=DESCRIPTION, docs_url=None, redoc_url=None
    )
    for make in (
        listing_router,
        chat_router,
        completions_router,
        embeddings_router,
        infer_router,
        native_router,
        messages_router,
        responses_router,
        ollama_router,
        ollama_models_router,
        rerank_router,
        tokenize_router,
        usage_router,
    ):
        app.include_router(make(service))
    app.include_router(health_router(service, availability))
    app.include_router(metrics_router(registry))
    environment = node.dependencies.environment
    folder = node.config.state / "batches"
    batches = BatchStore(folder, environment.entropy, environment.wall_s)
    hot = _hot_posts(service)
    posts = {path.decode(): post for path, post in hot.posts.items() if post.kind is not None}
    is_removed = _removed_from(keyring, lambda: paywall is not None or door.used)
    runner = BatchRunner(batches, posts, is_for_one, node.note, is_removed)
    app.include_router(files_router(batches))
    app.include_router(batches_router(batches, runner))
    if paywall is not None and isinstance(means := paywall.means.get("baton"), CreditMeans):
        app.include_router(x402_router(paywall, means))
    app.router.redirect_slashes = False
    _handle(app, HttpError, lambda error: error.fault)
    _handle(app, BatonError, fault_of)
    _handle(app, HTTPException, lambda error: _of_framework(app, error))
    _handle(app, RequestValidationError, _of_validation)
    _handle(app, Exception, lambda _: BUG)
    _document(app, config)
    access = AccessMiddleware(
        hot, Front(app), environment, config, keyring, paywall, door, availability
    )
    return access, runner


def _app_door(
    node: Node, config: GatewayConfig, prices: HttpPrices, paywall: Paywall | None
) -> AppDoor:
    keys, own = AppKeys(node.peers), node.dependencies
    till = None if paywall is None else paywall.vouchers
    payments = OwnerPayments(keys, till, own.environment.entropy)
    return AppDoor(node, keys, prices, own.store, open_to_all=config.apps, payments=payments)


def _removed_from(keyring: Keyring, has_others: Callable[[], bool]) -> Callable[[bytes], bool]:
    """Says whose key is gone. With `has_others` some come that never had one here."""
    seen: set[bytes] = set()

    def is_removed(owner: bytes) -> bool:
        with suppress(BatonError):
            keyring.keys(trio.current_time())
        if owner == NOBODY or keyring.of_owner(owner) is not None:
            seen.add(owner)
            return False
        return owner in seen or not has_others()

    return is_removed


def _hot_posts(service: TaskService) -> HotPosts:
    posts = {
        b"/v1/chat/completions": HotPost(ChatRequest, partial(chat_answer, service)),
        b"/v1/completions": HotPost(CompletionRequest, partial(completion_answer, service)),
        b"/v1/embeddings": HotPost(EmbeddingsRequest, partial(embeddings_answer, service)),
        b"/v1/infer": HotPost(None, lambda _, request: infer_answer(service, request)),
    }
    return HotPosts(posts)


def _handle(app: FastAPI, kind: type[E], fault_of_one: Callable[[E], ErrorDetail]) -> None:
    async def handler(request: Request, error: Exception) -> Response:
        assert isinstance(error, kind)
        headers = error.headers if isinstance(error, HTTPException) else None
        return fault_response(fault_of_one(error), request.url.path, headers)

    known: Callable[[Request, Exception], Awaitable[Response]] = handler
    app.add_exception_handler(kind, known)


def _of_framework(app: FastAPI, error: HTTPException) -> ErrorDetail:
    status = error.status_code if error.status_code in TYPES else 400
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "invalid_request")
    message = str(error.detail)
    if isinstance(error.__cause__, ValueError | RecursionError):
        # A body that cannot even be decoded.
        return ErrorDetail(status=400, message="the body is no JSON", code="invalid_json")
    if status == 404:
        there = ", ".join(sorted(app.openapi()["paths"]))
        message = f"there is nothing at this path; there are: {there}"
    elif status == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        message = f"this path is asked for with {allowed}"
    return ErrorDetail(status=status, message=message, code=code)


def _of_validation(error: RequestValidationError) -> ErrorDetail:
    problems = error.errors()
    if any(it["type"] == "json_invalid" for it in problems):
        return ErrorDetail(status=400, message="the body is no JSON", code="invalid_json")
    if isinstance(error.body, bytes):
        message = "the body is not JSON: send it with content-type: application/json"
        return ErrorDetail(status=400, message=message, param="content-type", code="invalid_json")
    message, param = words_of(problems, error.body)
    if any(it["type"] == FIELD_FAULT for it in problems):
        return ErrorDetail(status=400, message=message, param=param, code="unknown_parameter")
    return ErrorDetail(status=400, message=message, param=param, code="invalid_value")


def _document(app: FastAPI, config: GatewayConfig) -> None:
    """Have the OpenAPI document say what is true here: 400 instead of 422, and keys."""
    document = app.openapi()
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    schemas: dict[str, Any] = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    infer = InferRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(infer.pop("$defs", {}))
    schemas["InferAsked"] = infer
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    # Without keys only where nobody but this machine's own programs comes in.
    document["security"] = [{"key": []}, *([{}] if config.loopback else [])]
    for path in OPEN_PATHS:
        document["paths"][path.decode()]["get"]["security"] = []
