"""`ask` and its like in the running peer: a task of a model, an index, what sources there are.

Arguments come over the control socket from the peer's own user, and are checked all the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import trio

from node.asking import as_maps
from node.asking.answers import Answered
from node.asking.following import Follower
from node.asking.run import TaskRequest
from node.gateway.checkable import makers_that_can_be_checked
from node.gateway.reading import Reader
from node.local import questions
from node.local.arguments import read_content_id, read_number, read_request, read_text
from node.local.control import Command, Emit, unheard
from node.local.indexing import Indexing, list_sources
from node.local.model_commands import named_as, until_ready
from node.local.quoting import least_cost, show_quote
from node.local.source_calls import bring_inputs, known_manifest
from node.paying.charge_shares import shares_map
from node.peer import Node
from node.serving.nearest import INDEX_BYTES_MAX
from node.task.events import Event, EventSink, LegDone, ignore_event
from node.task.levels import asked_at
from node.task.scores import ranked, relevances
from node.task.tensor_maps import shown_tensors
from p2p.timeouts import stretched
from wire import limits
from wire.content import ContentId
from wire.errors import BatonError, InputError, WireError
from wire.kinds import Level, Role
from wire.model import Manifest
from wire.operations import CALL, EMBED, GENERATE, NEAREST, RERANK
from wire.payload import Hits, Index, Vectors
from wire.schema import Scalar
from wire.task import Stage
from wire.tree import name_of

# An index is one block, and the peer that made the index keeps it.
INDEX_DEADLINE_S = 20.0
PASSAGE_DEADLINE_S = 30.0


class _Attending(Follower):
    """A client that wants its task for as long as it is there itself."""

    __slots__ = ("_sink",)

    def __init__(self, sink: EventSink) -> None:
        super().__init__()
        self._sink = sink

    def on_event(self, event: Event) -> None:
        self._sink(event)


@dataclass(slots=True)
class AskCommands:
    """The commands, by name, for one running peer."""

    node: Node

    def commands(self) -> dict[str, Command]:
        """What the control socket serves, by name."""
        return {"ask": self.ask, "embed": self.embed, "sources": self.sources}

    async def ask(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """One task: a text embedded, searched with or answered; events on the way.

        With `attended` the task ends when whoever asked goes away.
        """
        typed = read_text(arguments, "model")
        model = self.node.models.meant(typed)
        with named_as(typed, model):
            return await self._ask(model, arguments, emit)

    async def _ask(
        self, model: ContentId, arguments: Mapping[str, Any], emit: Emit
    ) -> dict[str, Any]:
        request = read_request((), arguments)
        manifest = await self.node.models.learn(model)
        operation = questions.operation_of(arguments, manifest.operations if manifest else ())
        self._check_does(manifest, operation)
        data, parameters = await self._input(operation, model, manifest, arguments)
        stage = Stage(role=Role.INFER, operation=operation, model=model, parameters=parameters)
        return await self._answer(request, stage, data, arguments, emit)

    async def _answer(
        self,
        request: TaskRequest,
        stage: Stage,
        data: bytes,
        arguments: Mapping[str, Any],
        emit: Emit,
    ) -> dict[str, Any]:
        """The answer to one input, kept from before or asked for, as the socket gives it."""
        operation, answered = stage.operation, None
        assert stage.model is not None
        if not arguments.get("fresh"):
            answered = await self.node.tasks.answers.of_job(
                stage, ContentId.of(data), request.needed
            )
        if answered is None:
            await until_ready(self.node, stage.model)
            asked_stage, called = asked_at(request.level, stage), str(arguments["model"])
            makers = await makers_that_can_be_checked(self.node, request, asked_stage, called)
            asked = replace(request, stages=(asked_stage,), input=data, only=makers)
            await show_quote(self.node, asked, called, emit)
            left = bool(arguments.get("attended"))
            answered = await self._run(asked, emit, self._few_verifiers(asked, emit), attended=left)
        result = as_maps.answer_map(answered)
        ledger = self.node.ledger
        if result["charges"] and ledger is not None and (rows := ledger.known_rows()) is not None:
            result["shares"] = shares_map(answered.answer.record, rows)
        result["operation"] = operation
        result["answer"] = answered.answer.raw
        # What is large is got by its id.
        result["input"], result["output"] = str(name_of(data)), str(name_of(answered.output))
        result["input_payload"] = data if len(data) <= limits.PROMPT_BYTES_MAX else b""
        # Years later the file's name may be another, and no peer that knows the model may run.
        manifest = await self.node.models.learn(stage.model)
        result["manifest_payload"] = b"" if manifest is None else manifest.to_bytes()
        result["result"] = await self._readable(operation, answered)
        result["payload"] = (
            answered.output if len(answered.output) < limits.INLINE_BYTES_MAX else b""
        )
        return result

    async def _input(
        self,
        operation: str,
        model: ContentId,
        manifest: Manifest | None,
        arguments: Mapping[str, Any],
    ) -> tuple[bytes, dict[str, Scalar]]:
        """What the model is given, and with which parameters."""
        if operation == GENERATE:
            chats = manifest is None or bool(manifest.parameters.get("chat", True))
            parameters = questions.generate_parameters(arguments)
            return questions.generate_input(arguments, chats=chats), parameters
        text = read_text(arguments, "text")
        if operation in (NEAREST, EMBED, RERANK):
            questions.check_no_settings(arguments)
        if operation == NEAREST:
            index_id = read_content_id(arguments.get("index"))
            await self._check_index(index_id, model)
            count = read_number(arguments, "count", 5)
            return questions.search_input(text, index_id, count), {}
        if operation == EMBED:
            return questions.embed_input(text), {}
        if operation == RERANK:
            return questions.rerank_input(text, arguments.get("documents")), {}
        if operation == CALL:
            name = str(model) if manifest is None else manifest.name
            raise InputError(
                f"the model {name} is a function of tensors, and no text can be given to it",
                todo="give it a source of tensors: --source NAME; or a table: --rows, --input"
                " NAME=COLUMN; or POST /v1/infer at a gateway",
            )
        checked = questions.check_text(text, limits.TEXT_BYTES_MAX)
        return checked.encode(), dict(questions.given_parameters(arguments))

    def _check_does(self, manifest: Manifest | None, operation: str) -> None:
        """Refuse at once what no peer could do; of a model unknown here only others can tell."""
        if manifest is not None and operation not in manifest.operations:
            raise InputError(
                f"the model {manifest.name} has no operation {operation!r}",
                todo=f"use one of {', '.join(manifest.operations)}",
            )

    async def _check_index(self, index_id: ContentId, model: ContentId) -> None:
        """Fetch the index, so that a wrong index and busy searchers give different errors."""
        data = await self.node.blobs.get(
            index_id, deadline_s=stretched(INDEX_DEADLINE_S), size_bytes_max=INDEX_BYTES_MAX
        )
        try:
            index = Index.from_bytes(data)
        except WireError as error:
            raise InputError(
                f"{index_id} is not an index", todo="use the id that ask --source printed"
            ) from error
        if index.model != model:
            raise InputError(
                f"the index {index_id.short} was made with the model {index.model}",
                todo="use that model",
            )

    def _few_verifiers(self, request: TaskRequest, emit: Emit) -> EventSink:
        """Emit a notice when a leg is done and has to wait for verifiers that are not known yet."""

        def on_event(event: Event) -> None:
            if not isinstance(event, LegDone):
                return
            verifiers = self.node.tasks.checking.verifiers(event.receipt.record.model)
            known = len(verifiers - {event.receipt.signer, self.node.peers.me})
            if known < request.needed and request.level is not Level.SPOT_CHECKED:
                emit({"event": "few_verifiers", "known": known, "needed": request.needed})

        return on_event

    async def _run(
        self,
        request: TaskRequest,
        emit: Emit,
        then: EventSink = ignore_event,
        *,
        attended: bool = False,
        lost: Callable[[int], None] = lambda _: None,
    ) -> Answered:
        """The end of a task; `lost` is told what one that failed was charged, in millionths."""

        def on_event(event: Event) -> None:
            emit(as_maps.event_map(event))
            then(event)

        tasks = self.node.tasks
        if attended:
            answered = await tasks.ask(request, _Attending(on_event))
            # It waits without a limit.
            assert answered is not None
            return answered
        task = await tasks.submit(request)
        try:
            return await tasks.watch(task, on_event)
        except BatonError:
            lost(tasks.cost_of(task))
            raise

    async def _readable(self, operation: str, answered: Answered) -> dict[str, Any]:
        """The output in a form that a person, or a script, can use."""
        if operation == EMBED:
            vectors = Vectors.from_bytes(answered.output)
            return {"dimensions": vectors.dimensions, "vector_f32": vectors.data}
        if operation == RERANK:
            scores = relevances(answered.output, Vectors.from_bytes(answered.output).rows)
            return {"ranked": [{"index": at, "score": scores[at]} for at in ranked(scores)]}
        if operation == GENERATE:
            reader = Reader()
            reader.finish(answered.output)
            assert reader.ending is not None
            return {
                "text": reader.fresh().text,
                "reason": reader.reason,
                "tokens": reader.ending.tokens,
                "prompt_tokens": reader.ending.prompt_tokens,
            }
        if operation == CALL:
            return {"outputs": await trio.to_thread.run_sync(shown_tensors, answered.output)}
        if operation != NEAREST:
            return {"text": answered.output.decode(errors="replace")}
        passages = []
        for hit in Hits.from_bytes(answered.output).hits:
            data = await self.node.blobs.get(
                hit.passage,
                deadline_s=stretched(PASSAGE_DEADLINE_S),
                size_bytes_max=limits.PASSAGE_BYTES_MAX,
            )
            text = data.decode(errors="replace")
            passages.append({"id": str(hit.passage), "score": hit.score, "text": text})
        return {"passages": passages}

    async def _call(
        self, manifest: Manifest, arguments: Mapping[str, Any], emit: Emit
    ) -> dict[str, Any]:
        """A function called on what sources give; with its answer, the fetches."""
        request, names = read_request((), arguments), [str(it) for it in arguments["sources"]]
        self._check_does(manifest, CALL)
        brought = await bring_inputs(self.node, manifest, names, request, emit)
        left = replace(request, price_max=max(0, request.price_max - brought.charged))
        result = await self._answer(left, brought.stage, brought.data, arguments, emit)
        return {
            **result,
            "fetched": [it.to_map() for it in brought.fetched],
            "charged_whole": brought.charged + (0 if result["kept_before"] else result["charged"]),
            "price_max_whole": request.price_max,
        }

    async def sources(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """The names of all sources that data peers can bring in; one data peer is asked."""
        return {"sources": await list_sources(self._run, unheard)}

    async def embed(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Whole sources: fetched, cut, embedded, checked; kept as an index to search in.

        A function of tensors is called on what the sources give instead.
        """
        typed = read_text(arguments, "model")
        model = self.node.models.meant(typed)
        names = arguments.get("sources")
        if not isinstance(names, list) or not names:
            raise InputError("name at least one source", todo="for example --source pydoc:try")
        terms = read_request((), arguments)
        with named_as(typed, model):
            manifest = await self.node.models.learn(model)
            known = manifest.operations if manifest else ()
            if questions.operation_of(arguments, known) == CALL:
                return await self._call(known_manifest(manifest, typed), arguments, emit)
        stage = Stage(role=Role.INFER, operation=EMBED, model=model, parameters={})
        await makers_that_can_be_checked(self.node, terms, stage, typed)
        price_of = partial(least_cost, self.node)
        indexing = Indexing(self._run, self.node.blobs, model, terms, emit, price_of)
        index = await indexing.of([str(it) for it in names])
        index_id = await self.node.dependencies.store.put(index.to_bytes(), pin="index")
        return {"index": str(index_id), **indexing.counts, "skipped": indexing.skipped}
