"""The data role: brings in text from outside, cut into passages, each kept by content id."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from node.ingest.bring import KEPT_S, Ingest
from node.ingest.dataset import GetContent
from node.ingest.local_files import NAME_BYTES_MAX
from node.ingest.passages import cut
from node.serving.queue_slot import QueueSlot
from node.serving.role import Done, Emit, LegInput, LegWork
from node.serving.sources import Source, passages_of
from node.task.units import PASSAGES_PER_LEG
from p2p.blobs import Blobs
from p2p.ip_address import host_of, prefix_of
from p2p.peers import Peers
from p2p.timeouts import stretched
from store import Store
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import InputError, Refused, TransportError, WireError
from wire.fetch import SourceRecord
from wire.kinds import RefusalCode
from wire.latest import Latest
from wire.operations import FETCH, LIST
from wire.payload import Passages, Texts
from wire.schema import Parameters
from wire.task import Stage

# A shorter text is cut in a few milliseconds; a longer one is cut in a thread.
LONG_CHARS = 256 << 10
CUTS_KEPT = 4
# For one file of a data set, or one piece of it.
CONTENT_DEADLINE_S = 15.0


@dataclass(frozen=True, slots=True)
class _Cut:
    """A text and its passages."""

    text: str
    passages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """The passages of one source, and the record of its fetch where there is one."""

    name: str
    passages: Sequence[str]
    attested: bytes | None = None


@dataclass(frozen=True, slots=True)
class DataRole:
    """Answers `list` (names of sources) and `fetch` (passages of one source)."""

    sources: Source
    store: Store
    # Brings in the owner's own sources, and those that other peers send.
    ingest: Ingest | None = None
    # This peer: what it asks of itself is its owner's own.
    me: PeerId | None = None
    _cuts: Latest[str, _Cut] = field(default_factory=lambda: Latest(CUTS_KEPT))

    def check(self, stage: Stage) -> None:
        """Refused if a data peer does not do this operation."""
        if stage.operation not in (FETCH, LIST):
            raise Refused(
                f"a data peer does not do {stage.operation!r}, only fetch and list",
                code=RefusalCode.UNSUPPORTED,
            )

    def quote(self, work: LegWork) -> float:
        self.check(work.stage)
        return 0.05 if work.stage.operation == FETCH else 0.01

    def admit(self, work: LegWork) -> QueueSlot:
        """Admit every leg: the work is small, and the leg server bounds the number of legs."""
        expected_s = self.quote(work)
        return QueueSlot(work.asker, work.units, expected_s, expected_s, math.inf)

    def dequeue(self, place: QueueSlot) -> None:
        """Do nothing: this role has no queue."""

    async def do(self, stage: Stage, source: LegInput, emit: Emit) -> Done:
        if stage.operation == LIST:
            return await self._list(stage.parameters)
        first, count = _window(stage.parameters, PASSAGES_PER_LEG)
        found = await self._found(stage.parameters, source)
        return self._done(found, first, count)

    async def _list(self, parameters: Parameters) -> Done:
        first, count = _window(parameters, limits.PASSAGES_MAX)
        await self.sources.look()
        owned = () if self.ingest is None else await self.ingest.names()
        names = (*self.sources.names(), *owned)[first : first + count]
        if not names:
            raise Refused(f"there is no source number {first} here", code=RefusalCode.NOT_FOUND)
        return Done(data=Texts(texts=names).to_bytes(), units=len(names), profile="text")

    async def _found(self, parameters: Parameters, source: LegInput) -> _Found:
        """The whole of what a leg asks for; Refused if it cannot be brought in."""
        name, max_age_s = _source_of(parameters), _max_age_s(parameters)
        asker = None if source.place is None else source.place.asker
        is_own = asker is not None and asker == self.me
        if self.ingest is None and source.data is not None:
            raise Refused(
                "this peer brings in no sources that others send", code=RefusalCode.NOT_WILLING
            )
        if self.ingest is None or not (source.data is not None or await self.ingest.has(name)):
            return _Found(name, await self._passages(name))
        try:
            if source.data is None:
                named_by = None if is_own else asker
                brought = await self.ingest.named(name, named_by, max_age_s=max_age_s)
            elif is_own:
                record = SourceRecord.from_bytes(source.data)
                brought = await self.ingest.owners(record, max_age_s=max_age_s)
            else:
                record = SourceRecord.from_bytes(source.data)
                brought = await self.ingest.given(record, asker, max_age_s=max_age_s)
            # Kept by themselves: together they may be too much for one commit.
            for content, data in (
                (brought.record.body, brought.body),
                (brought.record.output, brought.output),
            ):
                if not self.store.has(content):
                    await self.store.put(data)
            extraction = brought.record.extraction
            passages = await trio.to_thread.run_sync(passages_of, extraction, brought.output)
        except (InputError, WireError, TransportError) as error:
            raise Refused(
                f"{name} is not brought in: {error.message}",
                code=RefusalCode.NOT_WILLING
                if isinstance(error, InputError)
                else RefusalCode.FAILED,
            ) from error
        return _Found(name, passages, brought.record.to_bytes())

    def _done(self, found: _Found, first: int, count: int) -> Done:
        name, passages = found.name, found.passages
        wanted = tuple(it.encode() for it in passages[first : first + count])
        if not wanted:
            raise Refused(
                f"{name} has {len(passages)} passages, none from number {first} on",
                code=RefusalCode.NOT_FOUND,
            )
        attested = () if found.attested is None else (found.attested,)
        ids = tuple(ContentId.of(it) for it in wanted)
        try:
            record = Passages(
                source=name,
                first=first,
                total=len(passages),
                passages=ids,
                attested=tuple(map(ContentId.of, attested)),
            )
        except WireError as error:
            raise Refused(
                f"{name} cannot be passed on: {error}", code=RefusalCode.FAILED
            ) from error
        return Done(
            data=record.to_bytes(), units=len(ids), profile="text", blobs=(*wanted, *attested)
        )

    async def _passages(self, name: str) -> Sequence[str]:
        """Every passage of a source. A text is cut once for all the legs that soon read it."""
        text = await self.sources.fetch(name)
        kept = self._cuts.get(name)
        if kept is None or kept.text != text:
            if len(text) < LONG_CHARS:
                passages = cut(text)
            else:
                passages = await trio.to_thread.run_sync(cut, text)
            kept = self._cuts[name] = _Cut(text, tuple(passages))
        return kept.passages


def data_role(sources: Source, ingest: Ingest | None, blobs: Blobs) -> DataRole:
    """The role of a peer that runs, whose data sets come from its store or from other peers."""
    if ingest is not None:
        ingest.get_content = published_by(blobs)
        ingest.fetcher.place_of = partial(_place_of, blobs.peers)
    return DataRole(sources, blobs.store, ingest, blobs.peers.me)


def _place_of(peers: Peers, asker: PeerId) -> str:
    return prefix_of(host_of(peers.endpoint.remote_address(asker) or ""))


def published_by(blobs: Blobs) -> GetContent:
    """How a running peer finds published content: in its store, or at other peers."""

    async def get(content: ContentId, size_bytes_max: int) -> bytes:
        return await blobs.get(
            content, deadline_s=stretched(CONTENT_DEADLINE_S), size_bytes_max=size_bytes_max
        )

    return get


def _source_of(parameters: Parameters) -> str:
    name = parameters.get("source")
    if not isinstance(name, str) or not 0 < len(name.encode()) <= NAME_BYTES_MAX:
        raise Refused(
            f"a fetch names its source, in at most {NAME_BYTES_MAX} bytes",
            code=RefusalCode.MALFORMED,
        )
    return name


def _max_age_s(parameters: Parameters) -> float:
    """How old a fetch may be that serves this one, in seconds."""
    value = parameters.get("max_age_s", KEPT_S)
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        raise Refused("max_age_s is a number of seconds", code=RefusalCode.MALFORMED)
    return float(value)


def _window(parameters: Parameters, count_max: int) -> tuple[int, int]:
    first, count = parameters.get("first", 0), parameters.get("count", count_max)
    for value in (first, count):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise Refused("first and count are whole numbers", code=RefusalCode.MALFORMED)
    assert isinstance(first, int)
    assert isinstance(count, int)
    return first, min(max(1, count), count_max)
