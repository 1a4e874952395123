"""Generations for a client: each choice a task of its own, told whole or as it comes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.gateway.errors import ErrorDetail, HttpError
from node.gateway.json_response import JsonResponse
from node.gateway.reading import Fresh, Reader
from node.gateway.requests import SamplingFields
from node.gateway.task_service import TaskService
from node.task.events import Event, EventSink, Restarted, Streamed, ignore_event
from wire.content import ContentId
from wire.errors import WireError

CONTRADICTED = ErrorDetail(
    status=503,
    message="a part of what was streamed turned out wrong, and the right text is another",
    code="stream_contradicted",
)
UNREADABLE = ErrorDetail(
    status=503,
    message="the peers' answer is no generation",
    code="answer_malformed",
    retry_after_s=1.0,
)


@dataclass(slots=True)
class Choice:
    """One of the answers a client asked for."""

    index: int
    request: TaskRequest
    reader: Reader
    task: ContentId | None = None
    answered: Answered | None = None
    fault: ErrorDetail | None = None
    # Of a stream: whether its beginning, and its end, were told.
    opened: bool = False
    closed: bool = False

    def on_event(self, event: Event) -> None:
        """Take in what a task emitted: more output, or that it starts again from a position."""
        match event:
            case Streamed():
                self.reader.take(event.position, event.units, event.data)
            case Restarted():
                self.reader.restart(event.position)
            case _:
                pass

    @property
    def baton(self) -> dict[str, str]:
        return baton_of([self])


class Form(Protocol):
    """How an endpoint words choices."""

    whole_object: str
    piece_object: str
    id_prefix: str

    def waits(self, choice: Choice) -> bool:
        """Whether nothing of a choice is told before all of it is there."""
        ...

    def opening(self, choice: Choice) -> dict[str, Any] | None: ...

    def delta(self, choice: Choice, fresh: Fresh) -> dict[str, Any] | None: ...

    def ending(self, choice: Choice) -> list[dict[str, Any]]: ...

    def whole(self, choice: Choice, fresh: Fresh) -> dict[str, Any]:
        """One choice of a whole answer."""
        ...


@dataclass(slots=True)
class GenerationTasks:
    """The choices of one request."""

    service: TaskService
    model: str
    form: Form
    choices: Sequence[Choice]
    # Which model of which precision answers.
    fingerprint: str | None = None
    created: int = field(init=False)
    # Set at the next change, where somebody waits for it.
    _changed: trio.Event | None = None

    def __post_init__(self) -> None:
        self.created = int(self.service.node.dependencies.environment.wall_s())

    async def respond(self, asked: SamplingFields) -> Response:
        """The answer as it was asked for: streamed, or whole."""
        if not asked.stream:
            return await self.answer()
        options = asked.stream_options
        with_usage = options is not None and bool(options.include_usage)
        return TokenStream(self, OpenAIFraming(with_usage))

    async def answer(self) -> Response:
        """All choices, whole; HttpError if one of them failed."""
        told = await self.answer_map()
        return JsonResponse(told, headers=_headers(told["x_baton"]))

    async def answer_map(self) -> dict[str, Any]:
        """As `answer`, as a map."""
        # The whole answer says all that pieces would have said.
        if len(self.choices) == 1:
            await self._run(self.choices[0], ignore_event, None)
        else:
            async with trio.open_nursery() as nursery:
                for choice in self.choices:
                    nursery.start_soon(self._run, choice, ignore_event, nursery.cancel_scope)
        for choice in self.choices:
            if choice.fault is not None:
                raise HttpError(choice.fault)
        body = self.head(self.form.whole_object)
        body["choices"] = [self.form.whole(it, it.reader.fresh()) for it in self.choices]
        body["usage"] = self.usage()
        body["x_baton"] = baton_of(self.choices)
        return body

    async def run_all(self, nursery: trio.Nursery) -> None:
        for choice in self.choices:
            nursery.start_soon(self._run, choice, self._streamed_to(choice), None)

    def _streamed_to(self, choice: Choice) -> EventSink:
        def on_event(event: Event) -> None:
            choice.on_event(event)
            self._moved()

        return on_event

    async def _run(
        self, choice: Choice, on_event: EventSink, failed: trio.CancelScope | None
    ) -> None:
        def accepted(task: ContentId) -> None:
            choice.task = task
            self._moved()

        try:
            with self.service.generations.watch(self.model) as watch:
                if on_event is not ignore_event:
                    on_event = watch.on_event(on_event)
                choice.answered = await self.service.done(choice.request, on_event, accepted)
                choice.reader.finish(choice.answered.output)
                if (ending := choice.reader.ending) is not None:
                    watch.ended(ending.reason, ending.prompt_tokens, ending.tokens)
        except HttpError as error:
            choice.fault = error.fault
        except WireError:
            choice.fault = UNREADABLE
        if choice.fault is not None and failed is not None:
            failed.cancel()
        self._moved()

    def _moved(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def next_change(self) -> trio.Event:
        """Set once there is more of a choice, or one has ended."""
        if self._changed is None:
            self._changed = trio.Event()
        return self._changed

    def head(self, kind: str) -> dict[str, Any]:
        """What every object of this kind begins with: its id, kind, time and model."""
        task = self.choices[0].task
        return {
            "id": f"{self.form.id_prefix}-{task}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def usage(self) -> dict[str, int]:
        """Each prompt counts once, however many choices it has."""
        prompts: dict[bytes | None, int] = {}
        made = 0
        for choice in self.choices:
            if (ending := choice.reader.ending) is not None:
                prompts[choice.request.input] = ending.prompt_tokens
                made += ending.tokens
        prompt = sum(prompts.values())
        return {
            "prompt_tokens": prompt,
            "completion_tokens": made,
            "total_tokens": prompt + made,
        }

    def baton(self, choices: Sequence[Choice]) -> dict[str, str]:
        """What the end of a stream tells of these choices, and at its very end what is paid."""
        told = baton_of(choices)
        if all(it.closed for it in self.choices):
            purse = self.service.purses.of(self.choices[0].request.owner)
            if purse is not None and (amount := purse.amount) is not None:
                # As x402's documents write amounts.
                told["amount"] = str(amount)
        return told


class Framing(Protocol):
    """How a stream's chunks, as OpenAI words them, are written down."""

    @property
    def media_type(self) -> str: ...

    def piece(self, chunk: dict[str, Any]) -> bytes:
        """One chunk of a choice, as bytes of the stream."""
        ...

    def last(self, usage: dict[str, Any]) -> bytes:
        """What comes after all choices have ended; `usage` is a chunk that has it."""
        ...

    def fault(self, detail: ErrorDetail) -> bytes: ...


@dataclass(frozen=True, slots=True)
class OpenAIFraming:
    """Server-sent events as OpenAI's clients read them."""

    with_usage: bool
    media_type: str = "text/event-stream; charset=utf-8"

    def piece(self, chunk: dict[str, Any]) -> bytes:
        """One chunk as an event."""
        return event_of(chunk | {"usage": None} if self.with_usage else chunk)

    def last(self, usage: dict[str, Any]) -> bytes:
        return (event_of(usage) if self.with_usage else b"") + b"data: [DONE]\n\n"

    def fault(self, detail: ErrorDetail) -> bytes:
        return event_of(detail.body)


class TokenStream(Response):
    """Server-sent events: pieces as they come, how each choice ended, usage if wanted, `[DONE]`.

    Nothing is sent before the first piece, so that what fails at once has its status. What fails
    later is an event with an error, and the end: clients raise it.
    """

    media_type = "text/event-stream"

    def __init__(self, generating: GenerationTasks, framing: Framing) -> None:
        super().__init__()
        self.generating = generating
        self.framing = framing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault: ErrorDetail | None = None
        async with trio.open_nursery() as nursery:
            await self.generating.run_all(nursery)
            fault = await self._speak(send)
            nursery.cancel_scope.cancel()
        if fault is not None:
            raise HttpError(fault)

    async def _speak(self, send: Send) -> ErrorDetail | None:
        """Everything there is to say; what went wrong, if that was before the first word."""
        choices, started = self.generating.choices, False
        while not all(it.closed for it in choices):
            changed = self.generating.next_change()
            pieces = [piece for it in choices for piece in self._pieces(it)]
            fault = next((it.fault for it in choices if it.fault is not None), None)
            if fault is not None and not started:
                return fault
            if pieces and not started:
                started = True
                await self._start(send)
            if pieces:
                await _say(send, b"".join(map(self.framing.piece, pieces)))
            if fault is not None:
                await _say(send, self.framing.fault(fault), more=False)
                return None
            if not pieces:
                await changed.wait()
        chunk = self.generating.head(self.generating.form.piece_object)
        chunk |= {"choices": [], "usage": self.generating.usage()}
        last = self.framing.last(chunk | {"x_baton": self.generating.baton(choices)})
        await _say(send, last, more=False)
        return None

    def _pieces(self, choice: Choice) -> list[dict[str, Any]]:
        """The chunks that one choice has for the client by now."""
        form, found = self.generating.form, []
        if choice.closed or choice.fault is not None:
            return []
        if form.waits(choice) and choice.answered is None:
            return []
        fresh = choice.reader.fresh()
        if choice.reader.contradicted:
            choice.fault = CONTRADICTED
            return []
        ended = choice.reader.ending is not None and choice.answered is not None
        if (fresh.tokens or fresh.text or ended) and not choice.opened:
            choice.opened = True
            found.append(form.opening(choice))
        if fresh.tokens or fresh.text:
            found.append(form.delta(choice, fresh))
        if ended:
            choice.closed = True
            found += form.ending(choice)
        chunks = [self._chunk(it) for it in found if it is not None]
        if choice.closed:
            chunks[-1]["x_baton"] = self.generating.baton([choice])
        return chunks

    def _chunk(self, worded: Mapping[str, Any]) -> dict[str, Any]:
        chunk = self.generating.head(self.generating.form.piece_object)
        chunk["choices"] = [worded]
        return chunk

    async def _start(self, send: Send) -> None:
        headers = headers_of(self.generating.choices)
        headers |= {"content-type": self.framing.media_type, "cache-control": "no-store"}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})


async def _say(send: Send, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


def event_of(chunk: Mapping[str, Any]) -> bytes:
    """A server-sent event without a name."""
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


def baton_of(choices: Sequence[Choice]) -> dict[str, str]:
    """The ids of the tasks, and of the receipts as far as there are any."""
    return {
        "task": ",".join(str(it.task) for it in choices if it.task is not None),
        "receipt": ",".join(str(it.answered.answer.id) for it in choices if it.answered),
    }


def headers_of(choices: Sequence[Choice]) -> dict[str, str]:
    return _headers(baton_of(choices))


def _headers(ids: Mapping[str, str]) -> dict[str, str]:
    return {f"x-baton-{name}": value for name, value in ids.items() if value}
