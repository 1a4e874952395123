"""POST /v1/infer: models that are functions of named tensors."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import Response

from node.gateway.client_request import ClientRequest
from node.gateway.errors import bad, unavailable
from node.gateway.gather import all_done, headers_of, ids_of
from node.gateway.json_body import json_body_of, words_of
from node.gateway.json_response import JsonResponse
from node.gateway.openapi import answers
from node.gateway.requests import InferRequest
from node.gateway.responses import ErrorResponse, InferResponse
from node.gateway.task_service import TaskService
from node.gateway.tensors import (
    NPY_TYPE,
    SAFETENSORS_TYPE,
    from_json,
    from_npy,
    from_safetensors,
    one_tensor,
    tensors_of,
    to_json,
    to_npy,
    to_safetensors,
)
from wire.errors import WireError
from wire.kinds import Role
from wire.operations import CALL
from wire.task import Stage
from wire.tensors import Tensor, Tensors

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/InferAsked"}},
        NPY_TYPE: _BINARY,
        SAFETENSORS_TYPE: _BINARY,
    },
}


def infer_router(service: TaskService) -> APIRouter:
    router = APIRouter(tags=["Baton"])
    documented = answers(InferResponse, ErrorResponse)
    documented[200]["content"] = {NPY_TYPE: _BINARY, SAFETENSORS_TYPE: _BINARY}

    @router.post(
        "/v1/infer",
        responses=documented,
        operation_id="infer",
        openapi_extra={"requestBody": _BODY},
    )
    async def infer(request: Request, model: str | None = None, name: str = "input") -> Response:
        """Call a model on named tensors.

        As JSON, the body names the model. With an npy or a safetensors file as the body, `model`
        does, and `name` is what the one array of an npy file is called. The answer has the form
        that `accept` names, else that of the request.
        """
        return await infer_answer(service, request, model, name)

    return router


async def infer_answer(
    service: TaskService, request: ClientRequest, model: str | None = None, name: str = "input"
) -> Response:
    """What the model makes of the tensors in the request's body."""
    terms = service.terms(request)
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    model, tensors = await _read(request, sent, model, name)
    row = service.catalogue.find(model)
    await service.catalogue.check_does(row, CALL)
    stage = Stage(role=Role.INFER, operation=CALL, model=row.id, parameters={})
    finished = await all_done(service, [terms.request(stage, tensors_of(tensors))])
    try:
        outputs = Tensors.from_bytes(finished[0].answered.output).tensors
    except WireError as error:
        raise unavailable(
            "the peers' answer is no tensors", code="answer_malformed", retry_after_s=1.0
        ) from error
    headers = headers_of(finished)
    match _wanted(request, sent):
        case "application/x-npy":
            return Response(to_npy(one_tensor(outputs)), 200, headers, NPY_TYPE)
        case "application/x-safetensors":
            return Response(to_safetensors(outputs), 200, headers, SAFETENSORS_TYPE)
        case _:
            body = {
                "model": model,
                "outputs": [to_json(it) for it in outputs],
                "x_baton": ids_of(finished),
            }
            return JsonResponse(body, headers=headers)


async def _read(
    request: ClientRequest, sent: str, model: str | None, name: str
) -> tuple[str, list[Tensor]]:
    """The model and the tensors a client sent, in whichever form."""
    data = await request.body()
    if sent == "application/json":
        body = json_body_of(data)
        try:
            asked = InferRequest.model_validate(body)
        except ValidationError as error:
            placed = [{**it, "loc": ("body", *it["loc"])} for it in error.errors()]
            message, param = words_of(placed, body)
            raise bad(message, param=param) from error
        return asked.model, [from_json(it) for it in asked.inputs]
    if sent not in (NPY_TYPE, SAFETENSORS_TYPE):
        raise bad(
            f"a body of {sent[:60]!r} is not read here, but application/json, {NPY_TYPE} and"
            f" {SAFETENSORS_TYPE}",
            param="content-type",
        )
    if model is None:
        raise bad("say which model: /v1/infer?model=NAME", param="model")
    return model, [from_npy(name, data)] if sent == NPY_TYPE else from_safetensors(data)


def _wanted(request: ClientRequest, sent: str) -> str:
    accept = request.headers.get("accept", "")
    for kind in ("application/json", NPY_TYPE, SAFETENSORS_TYPE):
        if kind in accept:
            return kind
    return sent
