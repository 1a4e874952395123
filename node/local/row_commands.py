"""Rows of a table for a command on this machine: one bundle at a time, answered and signed.

A bundle's tasks are like any others. One that was answered before, or is still under way because
the command that asked for it died, is not done again.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import trio

from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.checking.enough import TooFewCanCheck
from node.gateway.checkable import makers_that_can_be_checked
from node.local import questions
from node.local.arguments import read_request, read_text
from node.local.control import Command, Emit
from node.local.model_commands import named_as, until_ready
from node.local.quoting import least_cost
from node.local.within_bound import Tried, WithinBound
from node.peer import Node
from node.rows.plan import (
    BUNDLE_ROWS,
    RETRY_AFTER_S,
    ROOM_S,
    can_be_read,
    outputs_of,
    sources_of,
)
from node.task.events import ignore_event
from node.task.price_bound import PriceBound
from p2p.gather import gather
from p2p.score import Offence
from p2p.timeouts import stretched
from wire import limits
from wire.content import ContentId
from wire.counting import counted
from wire.errors import BatonError, InputError, Refused, TaskFailed
from wire.kinds import Role
from wire.plural import plural
from wire.receipt import Receipt
from wire.rows import RowBundle, hashed_rows
from wire.signed import open_signed, sign
from wire.task import Stage
from wire.tree import name_of

# What is larger travels in pieces: a message has a bound.
PIECE_BYTES = 256 << 10
# Tasks of one bundle at once.
TASKS_AT_ONCE = 32
JOB_CHARS_MAX = 4096
GO_ON = "allow more for all of it, and go on: --resume --pay-max"


@dataclass(slots=True)
class RowCommands:
    """The commands about rows, for one running peer."""

    node: Node
    # What tables may cost of which bundles are under way, by their commands, and how many are.
    _within: dict[str, WithinBound] = field(default_factory=dict)
    _bundles: dict[str, int] = field(default_factory=dict)
    # Tasks whose end is waited for, and counted, once.
    _watched: set[ContentId] = field(default_factory=set)

    def commands(self) -> dict[str, Command]:
        """The commands about rows that the control socket takes, by their names on it."""
        return {"rows-model": self.model, "rows": self.rows}

    async def model(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """What a model would be asked for each row: its id, the operation, whether it chats."""
        typed = read_text(arguments, "model")
        model = self.node.models.meant(typed)
        with named_as(typed, model):
            manifest = await self.node.models.learn(model)
            known = manifest.operations if manifest else ()
            operation = questions.operation_of(arguments, known)
            if manifest is not None and operation not in known:
                raise InputError(
                    f"the model {manifest.name} has no operation {operation!r}",
                    todo=f"use one of {', '.join(known)}",
                )
            await until_ready(self.node, model)
        chats = manifest is None or bool(manifest.parameters.get("chat", True))
        return {"model": str(model), "operation": operation, "chats": chats}

    async def rows(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Answer one bundle. Outputs and receipts come as pieces; the result is the signed bundle.

        `inputs` are those of its tasks, `numbers` those of its rows, `parameters` as of a task.
        With `fresh` no answer of an earlier task will do. `unanswered` says why the answers are not
        of these rows, where the model gives something else. All bundles under way of one `job` cost
        no more than the first of them is told by `price_max`; events say what tasks come to, and
        `charged_before` what those did whose answers were kept. `first` is one before which the
        command has had no answer: what nobody could check is refused then, and later waited for.
        """
        stage = _stage(arguments)
        inputs, numbers = _inputs(arguments), _numbers(arguments)
        request, fresh = read_request((stage,), arguments), bool(arguments.get("fresh"))
        sources = sources_of(stage.operation, inputs)
        if len(sources) != len(numbers):
            raise InputError(f"{plural(len(sources), 'row')} have {plural(len(numbers), 'number')}")
        is_first = bool(arguments.get("first"))
        with self._bounded(_job(arguments), request.price_max) as within:
            answered = await self._answered(
                request, inputs, _Asked(within, emit, is_first), fresh=fresh
            )
        outputs = [it.output for it in answered]
        try:
            each = outputs_of(stage.operation, outputs, len(numbers))
        except InputError as error:
            # It is what the model gives, and other rows may be answered all the same.
            return {"unanswered": error.message, "todo": error.todo}
        _, root = hashed_rows(numbers, sources, each)
        assert stage.model is not None
        bundle = RowBundle(
            model=stage.model,
            first=numbers[0],
            last=numbers[-1],
            rows=len(numbers),
            root=root,
            answers=tuple(it.answer.id for it in answered),
        )
        for place, one in enumerate(answered):
            _emit_pieces(emit, "output", place, one.output)
            _emit_pieces(emit, "answer", place, one.answer.raw)
        return {
            "signed": sign(bundle, self.node.peers.key).raw,
            "tasks": len(inputs),
            "kept_before": sum(it.kept_before for it in answered),
            "charged_before": sum(_charges(it) for it in answered if it.kept_before),
        }

    @contextmanager
    def _bounded(self, job: str, most: int) -> Iterator[WithinBound]:
        """What the bundles of a job that are under way may cost together."""
        price_of = partial(least_cost, self.node)
        alone = WithinBound(PriceBound(most), price_of, "this table", "its next task", GO_ON)
        with counted(self._bundles, job):
            try:
                yield self._within.setdefault(job, alone) if job else alone
            finally:
                if self._bundles[job] == 1:
                    self._within.pop(job, None)

    async def _answered(
        self, request: TaskRequest, inputs: Sequence[bytes], bundle: "_Asked", *, fresh: bool
    ) -> list[Answered]:
        found: dict[int, Answered] = {}

        async def one(place: int) -> None:
            asked = replace(request, input=inputs[place])
            found[place] = await self._one(asked, bundle, fresh=fresh)

        await gather(one, range(len(inputs)), at_once=TASKS_AT_ONCE)
        return [found[place] for place in range(len(inputs))]

    async def _one(self, request: TaskRequest, bundle: "_Asked", *, fresh: bool) -> Answered:
        """An answer that is kept, or comes; a task that fails is tried again.

        So is one whose answer cannot be read: it is kept too, and would come back for ever.
        """
        assert request.input is not None
        tasks, (stage,) = self.node.tasks, request.stages
        source = name_of(request.input)
        waits_s, tried = iter(RETRY_AFTER_S), Tried()
        while True:
            kept = None if fresh else await tasks.answers.of_job(stage, source, request.needed)
            if kept is not None and can_be_read(stage.operation, request.input, kept.output):
                return kept
            try:
                found = await self._done(request, source, bundle, tried)
                if can_be_read(stage.operation, request.input, found.output):
                    return found
                self._blame(found)
                raise TaskFailed("the peer's answer cannot be read")
            except TaskFailed:
                if await bundle.within.goes_on(request, tried):
                    # Others may be paid more, and are asked at once.
                    continue
                if (wait_s := next(waits_s, None)) is None:
                    raise
                await trio.sleep(wait_s)

    async def _done(
        self, request: TaskRequest, source: ContentId, bundle: "_Asked", tried: Tried
    ) -> Answered:
        """The end of a task that is under way, or is begun within the job's bound."""
        if (task := self.node.tasks.under_way_as(request, source)) is not None:
            return await self._watch(task, bundle)
        checkable = await self._checkable(request, bundle)
        async with bundle.within.part(checkable, tried) as held:
            task = await self._submitted(replace(checkable, price_max=held))
            return await self._watch(task, bundle)

    async def _checkable(self, request: TaskRequest, bundle: "_Asked") -> TaskRequest:
        """A task as it goes to who can be checked; TooFewCanCheck before anything was asked."""
        (stage,) = request.stages
        try:
            makers = await makers_that_can_be_checked(self.node, request, stage)
        except TooFewCanCheck as error:
            if bundle.is_first:
                error.todo = f"go on with --resume, and {error.todo}"
                raise
            # Who checked what was asked before may be back before its deadline.
            return request
        return replace(request, only=makers)

    async def _watch(self, task: ContentId, bundle: "_Asked") -> Answered:
        if task in self._watched:
            return await self.node.tasks.watch(task, ignore_event)
        self._watched.add(task)
        try:
            found = await self.node.tasks.watch(task, ignore_event)
        except BatonError:
            bundle.count(self.node.tasks.cost_of(task))
            raise
        finally:
            self._watched.discard(task)
        bundle.count(self.node.tasks.cost_of(task))
        return found

    def _blame(self, answered: Answered) -> None:
        """Have others asked before the peer whose answer cannot be read."""
        signer = open_signed(answered.answer.record.receipts[-1], Receipt).signer
        if signer != self.node.peers.me:
            self.node.peers.offended(signer, Offence.MALFORMED)

    async def _submitted(self, request: TaskRequest) -> ContentId:
        with trio.move_on_after(stretched(ROOM_S)):
            while True:
                try:
                    return await self.node.tasks.submit(request)
                except Refused as error:
                    if error.retry_after_s is None:
                        raise
                    await trio.sleep(error.retry_after_s)
        raise TaskFailed(f"there was no room for another task here for {ROOM_S:.0f} s")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a bundle's tasks may cost, whom to tell what they came to, and whether it is of the
    first that a command asks for.
    """

    within: WithinBound
    emit: Emit
    is_first: bool

    def count(self, charged: int) -> None:
        if charged:
            self.within.bound.charged += charged
            self.emit({"event": "charged", "amount": charged})


def _charges(answered: Answered) -> int:
    return sum(it.amount for it in answered.answer.record.charges)


def _emit_pieces(emit: Emit, what: str, place: int, data: bytes) -> None:
    for at in range(0, len(data), PIECE_BYTES):
        emit({"event": what, "place": place, "data": data[at : at + PIECE_BYTES]})


def _stage(arguments: Mapping[str, Any]) -> Stage:
    operation = read_text(arguments, "operation")
    if operation not in BUNDLE_ROWS:
        raise InputError(f"rows cannot be asked for {operation[:40]!r}")
    parameters = arguments.get("parameters")
    if not isinstance(parameters, dict):
        raise InputError("the parameters are not a map")
    model = ContentId.parse(read_text(arguments, "model"))
    return Stage(role=Role.INFER, operation=operation, model=model, parameters=parameters)


def _job(arguments: Mapping[str, Any]) -> str:
    job = arguments.get("job", "")
    if not isinstance(job, str) or len(job) > JOB_CHARS_MAX:
        raise InputError(f"the job has no name of at most {JOB_CHARS_MAX} characters")
    return job


def _inputs(arguments: Mapping[str, Any]) -> list[bytes]:
    found = arguments.get("inputs")
    if not isinstance(found, list) or not 0 < len(found) <= limits.BUNDLE_ROWS_MAX:
        raise InputError(f"a bundle has 1 to {limits.BUNDLE_ROWS_MAX} inputs")
    if not all(isinstance(it, bytes) for it in found):
        raise InputError("the inputs of a bundle are bytes")
    return found


def _numbers(arguments: Mapping[str, Any]) -> list[int]:
    found = arguments.get("numbers")
    if not isinstance(found, list) or not 0 < len(found) <= limits.BUNDLE_ROWS_MAX:
        raise InputError(f"a bundle has 1 to {limits.BUNDLE_ROWS_MAX} rows")
    if not all(type(it) is int for it in found) or found != sorted(set(found)):
        raise InputError("the rows of a bundle are numbered in order")
    return found
