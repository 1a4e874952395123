"""Rows of a table for a command on this machine: one bundle at a time, answered and signed.

A bundle's tasks are like any others. One that was answered before, or is still under way because
the command that asked for it died, is not done again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import trio

from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.local import questions
from node.local.arguments import read_request, read_text
from node.local.control import Command, Emit
from node.local.model_commands import named_as, until_ready
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
from p2p.gather import gather
from p2p.score import Offence
from p2p.timeouts import stretched
from wire import limits
from wire.content import ContentId
from wire.errors import InputError, Refused, TaskFailed
from wire.kinds import Role
from wire.receipt import Receipt
from wire.rows import RowBundle, hashed_rows
from wire.signed import open_signed, sign
from wire.task import Stage
from wire.tree import name_of

# What is larger travels in pieces: a message has a bound.
PIECE_BYTES = 256 << 10
# Tasks of one bundle at once.
TASKS_AT_ONCE = 32


@dataclass(slots=True)
class RowCommands:
    """The commands about rows, for one running peer."""

    node: Node

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
        of these rows, where the model gives something else.
        """
        stage = _stage(arguments)
        inputs, numbers = _inputs(arguments), _numbers(arguments)
        request, fresh = read_request((stage,), arguments), bool(arguments.get("fresh"))
        sources = sources_of(stage.operation, inputs)
        if len(sources) != len(numbers):
            raise InputError(f"{len(sources)} rows have {len(numbers)} numbers")
        answered = await self._answered(request, inputs, fresh=fresh)
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
        }

    async def _answered(
        self, request: TaskRequest, inputs: Sequence[bytes], *, fresh: bool
    ) -> list[Answered]:
        found: dict[int, Answered] = {}

        async def one(place: int) -> None:
            asked = replace(request, input=inputs[place])
            found[place] = await self._one(asked, fresh=fresh)

        await gather(one, range(len(inputs)), at_once=TASKS_AT_ONCE)
        return [found[place] for place in range(len(inputs))]

    async def _one(self, request: TaskRequest, *, fresh: bool) -> Answered:
        """An answer that is kept, or comes; a task that fails is tried again.

        So is one whose answer cannot be read: it is kept too, and would come back for ever.
        """
        assert request.input is not None
        tasks, (stage,) = self.node.tasks, request.stages
        source = name_of(request.input)
        for wait_s in (*RETRY_AFTER_S, None):
            kept = None if fresh else await tasks.answers.of_job(stage, source, request.needed)
            if kept is not None and can_be_read(stage.operation, request.input, kept.output):
                return kept
            try:
                task = tasks.under_way_as(request, source) or await self._submitted(request)
                found = await tasks.watch(task, ignore_event)
                if can_be_read(stage.operation, request.input, found.output):
                    return found
                self._blame(found)
                raise TaskFailed("the peer's answer cannot be read")
            except TaskFailed:
                if wait_s is None:
                    raise
                await trio.sleep(wait_s)
        raise AssertionError

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
