"""Tasks and receipts as the network knows them, models, and whether the gateway is well."""

import base64
import binascii
import json
from dataclasses import dataclass, field, replace
from typing import Any

import trio
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from node.asking import as_maps
from node.asking.answers import Answered
from node.gateway.errors import ErrorDetail, HttpError, bad, fault_of, not_found
from node.gateway.openapi import EVENTS, answers
from node.gateway.requests import SubmitRequest
from node.gateway.responses import (
    ReceiptResponse,
    TaskAccepted,
    TaskResponse,
)
from node.gateway.task_service import TaskService, check_asked
from node.task.events import Event, ignore_event
from wire.content import ContentId
from wire.errors import BatonError, Malformed, Missing, Refused, StoreError, WireError
from wire.kinds import Role
from wire.payload import Texts
from wire.receipt import Answer
from wire.signed import open_signed
from wire.task import Stage, Task

# Events that a client has not read yet; who lags further behind misses the pieces among them.
EVENTS_MAX = 1024
RECEIPT_TYPE = "application/octet-stream"


def native_router(service: TaskService) -> APIRouter:
    router = APIRouter(tags=["Baton"])
    _tasks(router, service)
    _receipts(router, service)
    return router


def _tasks(router: APIRouter, service: TaskService) -> None:
    @router.post(
        "/v1/tasks",
        status_code=202,
        responses={**answers(None), 202: {"model": TaskAccepted, "description": "Accepted."}},
        operation_id="submitTask",
    )
    async def submit(asked: SubmitRequest, request: Request) -> Response:
        """Submit one inference; it is answered, or said to have failed, whoever waits for it."""
        row = service.catalogue.find(asked.model)
        await service.catalogue.check_does(row, asked.operation)
        terms = service.own_terms(request)
        if asked.level is not None or asked.verdicts is not None:
            param = "verdicts" if asked.level is None else "level"
            check = check_asked(asked.level, asked.verdicts, terms.check_terms, param)
            terms = replace(terms, check_terms=check)
        if asked.deadline_s is not None:
            terms = replace(terms, deadline_s=asked.deadline_s)
        task = await service.leave(terms.request(_stage(asked, row.id), _input(asked)))
        return JSONResponse(
            {"id": str(task), "status": "accepted"}, 202, {"x-baton-task": str(task)}
        )

    @router.get("/v1/tasks/{task}", responses=answers(TaskResponse), operation_id="getTask")
    async def fetch(task: str, request: Request) -> Response:
        """What became of a task: its output and receipt once it is answered."""
        task_id = id_of(task, "task")
        service.check_owns(request, task_id)
        body: dict[str, Any] = {"id": str(task_id), "status": "running"}
        headers = {"x-baton-task": str(task_id)}
        if not service.node.tasks.under_way(task_id):
            try:
                answered = await service.node.tasks.watch(task_id, ignore_event)
            except Missing as error:
                raise HttpError(fault_of(error)) from error
            except BatonError as error:
                body |= {"status": "failed", "error": fault_of(error).body["error"]}
            else:
                body |= {"status": "answered", **_told(answered)}
                body["output_base64"] = base64.b64encode(answered.output).decode()
                headers["x-baton-receipt"] = body["receipt"]
        return JSONResponse(body, headers=headers)

    @router.delete("/v1/tasks/{task}", responses=answers(TaskResponse), operation_id="cancelTask")
    async def cancel(task: str, request: Request) -> Response:
        """Cancel a task that is under way."""
        task_id = id_of(task, "task")
        service.check_owns(request, task_id)
        service.node.tasks.cancel(task_id)
        while service.node.tasks.under_way(task_id):
            # It ends at once; its own cleaning up takes a moment.
            await trio.sleep(0.01)
        return await fetch(task, request)

    @router.get(
        "/v1/tasks/{task}/events",
        responses={
            **answers(None),
            200: {
                "description": "Server-sent events, each a JSON object; the last is `end`.",
                "content": {"text/event-stream": EVENTS},
            },
        },
        operation_id="watchTask",
    )
    async def events(task: str, request: Request) -> Response:
        """What happened and happens to a task, from its beginning where that is still known."""
        task_id = id_of(task, "task")
        service.check_owns(request, task_id)
        return EventStream(service, task_id)


def _receipts(router: APIRouter, service: TaskService) -> None:
    documented = answers(ReceiptResponse)
    documented[200]["content"] = {RECEIPT_TYPE: {"schema": {"type": "string", "format": "binary"}}}

    @router.get("/v1/receipts/{receipt}", responses=documented, operation_id="getReceipt")
    async def fetch(receipt: str, request: Request) -> Response:
        """An answer's receipt: in words, or the file itself to whom accepts octet-stream."""
        receipt_id = id_of(receipt, "receipt")
        try:
            answer = open_signed(await service.node.dependencies.store.get(receipt_id), Answer)
        except Missing as error:
            raise not_found(f"no receipt {receipt_id} is kept here") from error
        except WireError as error:
            # Some other content: what is kept here is nobody's to read.
            raise not_found(f"no receipt {receipt_id} is kept here") from error
        except StoreError as error:
            raise HttpError(fault_of(error)) from error
        task = open_signed(answer.record.task, Task).id
        if service.node.tasks.owner_of(task) != request.state.owner:
            raise not_found(f"no receipt {receipt_id} is kept here")
        if RECEIPT_TYPE in request.headers.get("accept", ""):
            return Response(answer.raw, media_type=RECEIPT_TYPE)
        told = as_maps.answer_map(Answered(answer=answer, output=b"", kept_before=True))
        del told["kept_before"], told["receipt"]
        told |= {"id": str(receipt_id), "receipt_base64": base64.b64encode(answer.raw).decode()}
        return JSONResponse(told, headers={"x-baton-receipt": str(receipt_id)})


def id_of(text: str, what: str) -> ContentId:
    try:
        return ContentId.parse(text)
    except Malformed as error:
        raise not_found(f"{text[:80]!r} is no id of a {what}: they begin with baf") from error


def _stage(asked: SubmitRequest, model: ContentId) -> Stage:
    try:
        return Stage(
            role=Role.INFER,
            operation=asked.operation,
            model=model,
            parameters=asked.parameters or {},
        )
    except WireError as error:
        raise bad(str(error), param="parameters") from error


def _input(asked: SubmitRequest) -> bytes:
    given = [it for it in (asked.texts, asked.text, asked.input_base64) if it is not None]
    if len(given) != 1:
        raise bad("give one of texts, text and input_base64", param="input")
    try:
        if asked.texts is not None:
            return Texts(texts=tuple(asked.texts)).to_bytes()
        if asked.text is not None:
            return asked.text.encode()
        assert asked.input_base64 is not None
        return base64.b64decode(asked.input_base64, validate=True)
    except (WireError, UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise bad(f"the input cannot be read: {error}", param="input") from error


def _told(answered: Answered) -> dict[str, Any]:
    told = as_maps.answer_map(answered)
    return {name: told[name] for name in ("receipt", "route", "verdicts", "verified")}


@dataclass(slots=True)
class _Backlog:
    """Events that were not sent yet."""

    waiting: list[dict[str, Any]] = field(default_factory=list)
    more: trio.Event = field(default_factory=trio.Event)

    def on_event(self, event: Event) -> None:
        told = as_maps.event_map(event)
        if isinstance(data := told.pop("data", None), bytes):
            told["data_base64"] = base64.b64encode(data).decode()
        if len(self.waiting) < EVENTS_MAX or told["event"] != "piece":
            self.waiting.append(told)
        self.more.set()


class EventStream(Response):
    """Server-sent events of one task. Watching a task does not keep it from being forgotten."""

    def __init__(self, service: TaskService, task: ContentId) -> None:
        super().__init__()
        self.service = service
        self.task = task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        backlog, ends = _Backlog(), []

        async def follow() -> None:
            try:
                answered = await self.service.node.tasks.watch(self.task, backlog.on_event)
                ends.append({"event": "end", "status": "answered", **_told(answered)})
            except (Missing, Refused) as error:
                fault.append(fault_of(error))
            except BatonError as error:
                ends.append({"event": "end", "status": "failed", **fault_of(error).body})
            backlog.more.set()

        fault: list[ErrorDetail] = []
        started = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            while (not ends and not fault) or backlog.waiting:
                await backlog.more.wait()
                backlog.more = trio.Event()
                told, backlog.waiting = backlog.waiting, []
                if told and not started:
                    started = True
                    await self._start(send)
                if told:
                    await _send(send, told, more=True)
        if fault:
            raise HttpError(fault[0])
        if not started:
            await self._start(send)
        await _send(send, ends, more=False)

    async def _start(self, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-baton-task", str(self.task).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _send(send: Send, told: list[dict[str, Any]], *, more: bool) -> None:
    data = "".join(f"data: {json.dumps(it, ensure_ascii=False)}\n\n" for it in told)
    await send({"type": "http.response.body", "body": data.encode(), "more_body": more})
