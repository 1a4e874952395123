"""What a workflow asks of the network through the peer that keeps it: as `ask` and `sources` do."""

import struct
from dataclasses import dataclass, replace
from typing import Any

import trio

from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.gateway.reading import Reader
from node.ingest.model_inputs import FETCHED, fetched_parameter, model_inputs
from node.ingest.owned import OwnedSources
from node.ingest.table import DataTable
from node.local import questions
from node.local.agreeing import Agreeing, FetchedSource, fetch_stage
from node.local.control import unheard
from node.local.fetch_commands import FetchCommands
from node.local.model_commands import named_as, until_ready
from node.local.source_calls import call_input, known_manifest
from node.peer import Node
from node.task.events import ignore_event
from node.task.levels import asked_at
from node.task.price_bound import PriceBound, part_of_fetches
from node.task.tensor_maps import finite, tensor_maps
from node.workflows.definition import OPERATIONS, ModelStep, SourceStep
from node.workflows.feed_reading import FeedName
from node.workflows.following import FeedFollower
from node.workflows.preparing import output_of_result, prompt_of, tensors_of_table
from node.workflows.steps import BroughtInput, ModelAnswer
from wire.content import ContentId
from wire.errors import InputError
from wire.fetch import AttestedFetch
from wire.kinds import Level, Role
from wire.model import Manifest
from wire.operations import CALL, EMBED, GENERATE
from wire.payload import Vectors
from wire.receipt import Receipt
from wire.schema import Parameters, Scalar
from wire.signed import open_signed
from wire.task import Stage, Task
from wire.tree import name_of


@dataclass(slots=True)
class PeerSteps:
    """The steps of workflows, for one running peer."""

    node: Node
    follower: FeedFollower | None = None

    async def check(self, model: ModelStep) -> None:
        """InputError if the model is known here and cannot do what is asked of it."""
        try:
            model_id = self.node.models.meant(model.model)
        except InputError:
            # It may be somebody's by the time of the first slot.
            return
        manifest = await self.node.models.learn(model_id)
        if manifest is None:
            return
        _check_does(manifest, model)
        known = {it.name for it in model_inputs(manifest.parameters)}
        if known and (odd := sorted({it.name for it in model.inputs} - known)):
            raise InputError(
                f"the model {manifest.name} has no input {odd[0][:40]!r}",
                todo=f"its inputs are {', '.join(sorted(known))[:200]}",
            )

    async def bring(
        self, source: SourceStep, deadline_s: int, bound: PriceBound, *, then: bool
    ) -> BroughtInput:
        """Have a source fetched by a data peer: by this one where it is one, and it is its own."""
        if source.text:
            return BroughtInput(output=source.text.encode())
        if source.feed is not None:
            return await self._from_feed(source.feed)
        owned, node = OwnedSources(self.node.config.state), self.node
        is_own = bool(source.record) or await trio.to_thread.run_sync(owned.has, source.name)
        record = source.record
        if record is None and source.quorum > 1:
            record = await trio.to_thread.run_sync(owned.get, source.name)
        by_itself = source.quorum == 1 and is_own and Role.DATA in node.config.roles
        request = TaskRequest(
            stages=(_fresh(fetch_stage(source.name or "source")),),
            input=None if record is None else record.to_bytes(),
            deadline_s=deadline_s,
            level=Level.SIGNED,
            only=frozenset((node.peers.me,)) if by_itself else frozenset(),
            price_max=part_of_fetches(bound.left, source.quorum, then=then),
        )
        fetching = FetchCommands(node, bound)
        if source.quorum == 1:
            return await self._brought([await fetching.fetch_one(request, record, unheard)])
        assert record is not None
        found: list[FetchedSource] = []

        async def one(asked: TaskRequest, sent: Any, emit: Any) -> FetchedSource:
            fetched = await fetching.fetch_one(asked, sent, emit)
            found.append(fetched)
            return fetched

        most = request.price_max * source.quorum
        agreeing = Agreeing(node, one, record, source.agree, source.quorum, PriceBound(most))
        agreed = await agreeing.run(request, unheard)
        return await self._brought(found, ContentId.parse(agreed["output"]))

    async def _from_feed(self, feed: FeedName) -> BroughtInput:
        """The latest result of another peer's workflow, as its keeper has signed it."""
        assert self.follower is not None, "who runs workflows follows feeds"
        entry, data = await self.follower.latest_result(feed)
        # What others made may be a table of many rows, which the loop does not wait for.
        output, table = await trio.to_thread.run_sync(output_of_result, data)
        assert entry.record.result is not None
        entry_id = await self.node.dependencies.store.put(entry.raw)
        contents = (entry.record.result, entry_id)
        return BroughtInput(output=output, table=table, contents=contents)

    async def _brought(
        self, found: list[FetchedSource], agreed: ContentId | None = None
    ) -> BroughtInput:
        first = found[0]
        output = first.output if agreed is None else await self._kept(agreed)
        contents = {agreed} if agreed is not None else set()
        for it in found:
            contents |= {*_contents_of(it.answered), it.record_id, *_named_by(it.record)}
        table, extraction = None, first.record.extraction
        if extraction.is_table:
            table = await trio.to_thread.run_sync(DataTable.from_bytes, output)
        # Of several that agree, one that said the very same.
        same = next((it for it in found if it.record.output == name_of(output)), None)
        is_tensor = extraction.gives == "tensor" and same is not None
        return BroughtInput(
            output=output,
            table=table,
            tensor_of=same.answered.answer.id if is_tensor and same is not None else None,
            answers=tuple(it.answered.answer.id for it in found),
            contents=tuple(contents),
        )

    async def submit(
        self, model: ModelStep, brought: BroughtInput, deadline_s: int, price_max: int
    ) -> ContentId:
        """Ask the model for an answer of its own to this slot; the id of the task."""
        model_id = self.node.models.meant(model.model)
        with named_as(model.model, model_id):
            manifest = await self.node.models.learn(model_id)
            if manifest is not None:
                _check_does(manifest, model)
            data, parameters = await trio.to_thread.run_sync(_question, model, brought, manifest)
            stage = Stage(
                role=Role.INFER, operation=model.operation, model=model_id, parameters=parameters
            )
            request = TaskRequest(
                stages=(asked_at(model.terms.level, stage),),
                input=data,
                deadline_s=deadline_s,
                level=model.terms.level,
                verifiers=model.terms.verifiers,
                needed=model.terms.needed,
                price_max=price_max,
            )
            await until_ready(self.node, model_id)
            return await self.node.tasks.submit(request)

    async def outcome(self, task: ContentId) -> ModelAnswer:
        """What came of a task, also of one that an earlier life of this peer has asked for."""
        answered = await self.node.tasks.watch(task, ignore_event)
        return ModelAnswer(
            answer=answered.answer.id,
            result=await trio.to_thread.run_sync(_readable, answered),
            contents=_contents_of(answered),
            cost=sum(it.amount for it in answered.answer.record.charges),
        )

    def cost_of(self, task: ContentId) -> int:
        """See `Steps`."""
        return self.node.tasks.cost_of(task)

    async def _kept(self, content: ContentId) -> bytes:
        return await self.node.dependencies.store.get(content)


_NO_TENSOR = (
    "end its [[prepare]] with stack, window, tokenise or image, or say which columns go where:"
    " [model.inputs.NAME]"
)


def _check_does(manifest: Manifest, model: ModelStep) -> None:
    if model.operation not in manifest.operations:
        able = [it for it in manifest.operations if it in OPERATIONS]
        raise InputError(
            f"the model {manifest.name} has no operation {model.operation!r}",
            todo=f'in [model] say operation = "{able[0]}"'
            if able
            else f"it does only {', '.join(manifest.operations)}, and no workflow asks for that",
        )


def _fresh(stage: Stage) -> Stage:
    """A fetch that nothing of an earlier one will do for."""
    parameters: Parameters = {**stage.parameters, "max_age_s": 0}
    return replace(stage, parameters=parameters)


def _question(
    model: ModelStep, brought: BroughtInput, manifest: Manifest | None
) -> tuple[bytes, dict[str, Scalar]]:
    """The input of a model, and its parameters; InputError if they do not fit."""
    if model.operation == CALL and not model.inputs:
        if brought.tensor_of is None:
            raise InputError("the source gave no tensor", todo=_NO_TENSOR)
        data = call_input(known_manifest(manifest, model.model), [brought.output])
        return data, {FETCHED: fetched_parameter([brought.tensor_of])}
    if model.operation == CALL:
        if brought.table is None:
            raise InputError("the source gave no table", todo="name a format: json or csv")
        return tensors_of_table(model, brought.table), {}
    if brought.tensor_of is not None:
        raise InputError(
            f"the source gave a tensor, and {model.operation} takes words",
            todo='ask a function: operation = "call"',
        )
    if brought.table is None:
        text = prompt_of(model, brought.output)
    else:
        text = prompt_of(model, "\n".join(brought.table.words()).encode())
    if model.operation == EMBED:
        return questions.embed_input(text), {}
    if model.operation == GENERATE:
        chats = manifest is None or bool(manifest.parameters.get("chat", True))
        asked = questions.generate_parameters({"parameters": dict(model.parameters)})
        return questions.generate_input({"text": text}, chats=chats), asked
    return text.encode(), dict(model.parameters)


def _readable(answered: Answered) -> dict[str, Any]:
    """An output as JSON has it."""
    operation = open_signed(answered.answer.record.receipts[-1], Receipt).record.operation
    task = open_signed(answered.answer.record.task, Task).record
    found: dict[str, Any] = {"verdicts": len(answered.answer.record.verdicts)}
    found["needed"] = task.checking.needed
    if operation == EMBED:
        vectors = Vectors.from_bytes(answered.output)
        numbers = struct.unpack(f"<{len(vectors.data) // 4}f", vectors.data)
        return found | {"dimensions": vectors.dimensions, "vector": list(map(finite, numbers))}
    if operation == CALL:
        return found | {"outputs": tensor_maps(answered.output)}
    if operation == GENERATE:
        reader = Reader()
        reader.finish(answered.output)
        return found | {"text": reader.fresh().text, "reason": reader.reason}
    return found | {"text": answered.output.decode(errors="replace")}


def _contents_of(answered: Answered) -> tuple[ContentId, ...]:
    """An answer, its input and its output: all that `verify` needs."""
    task = open_signed(answered.answer.record.task, Task).record
    output = open_signed(answered.answer.record.receipts[-1], Receipt).record.output
    source = () if task.input is None else (task.input,)
    return (answered.answer.id, output, *source)


def _named_by(record: AttestedFetch) -> tuple[ContentId, ContentId]:
    return record.body, record.output
