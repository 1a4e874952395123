"""What the running peer does for commands on its own machine.

Arguments come over the control socket from the peer's own user, and are checked all the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trio

from node.asking import as_maps
from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.local.control import Command, Emit, unheard
from node.local.indexing import Indexing, list_sources
from node.local.model_commands import ModelCommands, own_models
from node.peer import Node
from node.serving.nearest import INDEX_BYTES_MAX
from node.task.events import Event, EventSink, LegDone, ignore_event
from p2p.timeouts import stretched
from store import disk_bytes
from wire import limits
from wire.content import ContentId
from wire.errors import InputError, Malformed, WireError
from wire.kinds import Level, Role
from wire.operations import EMBED, NEAREST
from wire.payload import Hits, Index, Question, Texts, Vectors
from wire.task import Stage

GET_DEADLINE_S = 3600
# An index is one block, and lies with whoever made it.
INDEX_DEADLINE_S = 20.0
PASSAGE_DEADLINE_S = 30.0
ANSWERS_LISTED_MAX = 200


@dataclass(slots=True)
class LocalCommands:
    """The commands, by name, for one running peer."""

    node: Node

    def commands(self) -> dict[str, Command]:
        """Every command that the control socket takes, by the name that is sent."""
        return {
            "status": self.status,
            "peers": self.peers,
            **ModelCommands(self.node).commands(),
            "receipts": self.receipts,
            "ask": self.ask,
            "embed": self.embed,
            "sources": self.sources,
            "put": self.put,
            "get": self.get,
        }

    # Looking

    async def status(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        node = self.node
        await node.peers.neighbours.ask_around()
        answered, connected = node.peers.answered_last_minute()
        tasks, store = node.tasks.statistics(), node.dependencies.store.statistics()
        engine = node.dependencies.engine.statistics()
        return {
            "peer": str(node.peers.me),
            "version": limits.PROTOCOL_VERSION,
            "network": node.config.peers.network,
            "addresses": list(node.peers.endpoint.addresses),
            "roles": sorted(role.name.lower() for role in node.config.roles),
            "paused": node.leg_server.paused,
            "uptime_s": round(trio.current_time() - node.started_at_s, 1),
            "connected": connected,
            "answered_last_minute": answered,
            "known": len(node.peers.view),
            "models": own_models(node),
            "tasks": {
                "accepted": tasks.accepted,
                "answered": tasks.answered,
                "failed": tasks.failed,
                "retried": tasks.retried,
                "under_way": tasks.under_way,
            },
            "legs_done": node.leg_server.done,
            "legs_under_way": node.leg_server.under_way,
            "failed_over": node.leg_server.dispatcher.directory.failed_over,
            "checks_done": node.verify_role.checked,
            "store": {
                "used_bytes": store.used_bytes,
                "quota_bytes": store.quota_bytes,
                "blocks": store.blocks,
                # On the disk, as du counts: blocks and records, and what lies in files (models).
                "disk_bytes": await self._disk_bytes("store"),
                "files_disk_bytes": await self._disk_bytes("files"),
            },
            "engine": {"restarts": engine.restarts, "last_failure": engine.last_failure},
            **{name: dict(status()) for name, status in node.status_sources.items()},
            "same_key_elsewhere": node.peers.handshake_log.same_key,
            "clock_wrong_s": node.peers.handshake_log.clock_wrong_s(),
            "unmet": node.peers.neighbours.unmet,
            "problems": [
                *([f"store: {store.problem}"] if store.problem else []),
                *list(node.peers.problems.values())[-5:],
                *list(node.log)[-5:],
            ],
        }

    async def _disk_bytes(self, name: str) -> int:
        folder = self.node.config.state / name
        return await trio.to_thread.run_sync(disk_bytes, folder)

    async def peers(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """The peers whose adverts are valid now: roles, models, addresses, standing."""
        node = self.node
        wall_s = node.dependencies.environment.wall_s()
        connected = node.peers.connected()
        rows = []
        for heard in sorted(node.peers.view.living(wall_s), key=lambda it: it.signer):
            advert = heard.record
            rows.append(
                {
                    "peer": str(heard.signer),
                    "roles": [role.name.lower() for role in Role if advert.plays(role)],
                    "models": [it.name for it in advert.models],
                    "addresses": list(advert.addresses),
                    "connected": heard.signer in connected,
                    "standing": node.peers.standing(heard.signer).name.lower(),
                    "free_slots": advert.free_slots,
                    "heard_s_ago": max(0, int(wall_s - advert.issued_at_s)),
                }
            )
        return {"me": str(node.peers.me), "peers": rows}

    async def receipts(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        kept = await self.node.tasks.answers.latest(ANSWERS_LISTED_MAX)
        rows = [Answered(answer=it, output=b"", kept_before=True) for it in kept]
        later = [self.node.tasks.answers.later(it) for it in kept]
        told = [
            as_maps.answer_map(row) | {"later": None if it is None else it.value}
            for row, it in zip(rows, later, strict=True)
        ]
        shown = as_maps.fitting(told)
        return {"receipts": shown, "left_out": len(told) - len(shown)}

    # Asking

    async def ask(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """One text, embedded, or searched in an index; events on the way, the answer at the end."""
        model = self.node.models.resolve(_text(arguments, "model"))
        text = _text(arguments, "text")
        request = _request((), None, arguments)
        size_bytes = len(text.encode())
        if size_bytes > limits.TEXT_BYTES_MAX:
            raise InputError(
                f"the text has {size_bytes} bytes, at most {limits.TEXT_BYTES_MAX} are taken",
                todo="cut it, or bring it in as files: join --role data --files PATH",
            )
        index = arguments.get("index")
        operation = str(arguments.get("operation") or (NEAREST if index else EMBED))
        self._check_does(model, operation)
        if operation == NEAREST:
            index_id = _content_id(index)
            await self._check_index(index_id, model)
            count = _number(arguments, "count", 5)
            data = Question(text=text, index=index_id, count=count).to_bytes()
        elif operation == EMBED:
            data = Texts(texts=(text,)).to_bytes()
        else:
            data = text.encode()
        parameters = arguments.get("parameters") or {}
        stage = Stage(role=Role.INFER, operation=operation, model=model, parameters=parameters)
        answered = None
        if not arguments.get("fresh"):
            answered = await self.node.tasks.answers.of_job(
                stage, ContentId.of(data), request.needed
            )
        if answered is None:
            asked = replace(request, stages=(stage,), input=data)
            answered = await self._run(asked, emit, self._few_verifiers(asked, emit))
        result = as_maps.answer_map(answered)
        result["answer"] = answered.answer.raw
        result["input_payload"] = data
        result["result"] = await self._readable(operation, answered)
        result["payload"] = (
            answered.output if len(answered.output) < limits.INLINE_BYTES_MAX else b""
        )
        return result

    def _check_does(self, model: ContentId, operation: str) -> None:
        """Refuse at once what no peer could do; of a model unknown here only others can tell."""
        manifest = self.node.models.manifest_of(model)
        if manifest is not None and operation not in manifest.operations:
            raise InputError(
                f"the model {manifest.name} does not do {operation!r}",
                todo=f"ask it for one of {', '.join(manifest.operations)}",
            )

    async def _check_index(self, index_id: ContentId, model: ContentId) -> None:
        """Have the index here, so that a wrong one is told from one whose searchers are busy."""
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
                todo="ask that model",
            )

    def _few_verifiers(self, request: TaskRequest, emit: Emit) -> EventSink:
        """Say so when a leg is done and has to wait for verifiers that are not known yet."""

        def on_event(event: Event) -> None:
            if not isinstance(event, LegDone):
                return
            verifiers = self.node.tasks.checking.verifiers(event.receipt.record.model)
            known = len(verifiers - {event.receipt.signer, self.node.peers.me})
            if known < request.needed:
                emit({"event": "few_verifiers", "known": known, "needed": request.needed})

        return on_event

    async def _run(
        self, request: TaskRequest, emit: Emit, then: EventSink = ignore_event
    ) -> Answered:
        def on_event(event: Event) -> None:
            emit(as_maps.event_map(event))
            then(event)

        task = await self.node.tasks.submit(request)
        return await self.node.tasks.watch(task, on_event)

    async def _readable(self, operation: str, answered: Answered) -> dict[str, Any]:
        """The output in a form that a person, or a script, can use."""
        if operation == EMBED:
            vectors = Vectors.from_bytes(answered.output)
            return {"dimensions": vectors.dimensions, "vector_f32": vectors.data}
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

    async def sources(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """The names of everything that data peers can bring in, asked of one of them."""
        return {"sources": await list_sources(self._run, unheard)}

    async def embed(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Whole sources: fetched, cut, embedded, checked; kept as an index to search in."""
        model = self.node.models.resolve(_text(arguments, "model"))
        names = arguments.get("sources")
        if not isinstance(names, list) or not names:
            raise InputError("name at least one source", todo="for example --source pydoc:try")
        terms = _request((), None, arguments)
        indexing = Indexing(self._run, self.node.blobs, model, terms, emit)
        index = await indexing.of([str(it) for it in names])
        index_id = await self.node.dependencies.store.put(index.to_bytes(), pin="index")
        return {"index": str(index_id), **indexing.counts}

    # Content

    async def put(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Keep the file `path`; the answer has its content `id` and `size_bytes`."""
        path = _path(arguments)
        size_bytes = 0

        def progress(done_bytes: int) -> None:
            nonlocal size_bytes
            size_bytes = done_bytes
            emit({"event": "progress", "done_bytes": done_bytes})

        content = await self.node.dependencies.store.put_file(path, progress, pin="put")
        return {"id": str(content), "size_bytes": size_bytes}

    async def get(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        content = _content_id(arguments.get("id"))
        path = _path(arguments)

        def progress(done_bytes: int, size_bytes: int) -> None:
            emit({"event": "progress", "done_bytes": done_bytes, "size_bytes": size_bytes})

        deadline_s = _number(arguments, "deadline_s", GET_DEADLINE_S)
        await self.node.blobs.fetch(content, deadline_s=deadline_s, progress=progress)
        size_bytes = await self.node.dependencies.store.export(content, path)
        return {"id": str(content), "size_bytes": size_bytes}


def _request(
    stages: tuple[Stage, ...], data: bytes | None, arguments: Mapping[str, Any]
) -> TaskRequest:
    needed, verifiers = _number(arguments, "needed", 2), _number(arguments, "verifiers", 3)
    if not 0 <= needed <= verifiers <= limits.VERIFIERS_MAX or (verifiers and not needed):
        raise InputError(
            f"{needed} of {verifiers} verdicts cannot be asked for",
            todo="for example --verdicts 2/3, or 0/0 for an answer that nobody checks",
        )
    deadline_s = _number(arguments, "deadline_s", 120)
    if not 1 <= deadline_s <= limits.DEADLINE_S_MAX:
        raise InputError(
            f"a deadline of {deadline_s} s cannot be kept",
            todo=f"give --deadline 1 to {limits.DEADLINE_S_MAX} seconds",
        )
    return TaskRequest(
        stages=stages,
        input=data,
        deadline_s=deadline_s,
        level=Level.SPOT_CHECKED if verifiers else Level.SIGNED,
        verifiers=verifiers,
        needed=needed,
    )


def _text(arguments: Mapping[str, Any], name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value:
        raise InputError(f"the {name} is missing or empty", todo=f"give a {name}")
    return value


def _number(arguments: Mapping[str, Any], name: str, default: int) -> int:
    value = arguments.get(name, default)
    if type(value) is not int:
        raise InputError(f"{name} is not a whole number", todo=f"for example {default}")
    return value


def _path(arguments: Mapping[str, Any]) -> Path:
    text = _text(arguments, "path")
    if "\0" in text or not text.startswith("/"):
        raise InputError(f"{text[:80]!r} is not the whole path of a file", todo="begin it with /")
    return Path(text)


def _content_id(text: object) -> ContentId:
    if text is None:
        raise InputError("no content id was given", todo="to search, name one with --index")
    try:
        return ContentId.parse(str(text))
    except Malformed as error:
        raise InputError(
            f"{str(text)[:80]!r} is not a content id", todo="content ids begin with baf"
        ) from error
