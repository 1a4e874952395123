"""`sources fetch` in the running peer: a data peer brings a source in and signs for it.

What the data peer said of the fetch, what came, and what was made of it are brought here, as long
as they are what it signed for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from node.asking import as_maps
from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.ingest.http_fetch import BODY_BYTES_MAX
from node.ingest.parsing import OUTPUT_BYTES_MAX
from node.local.agreeing import Agreeing, FetchedSource, fetch_stage
from node.local.arguments import read_amount, read_number, read_text
from node.local.control import Command, Emit
from node.local.quoting import show_quote
from node.peer import Node
from node.task.price_bound import PriceBound
from p2p.timeouts import stretched
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import BatonError, InputError, Malformed
from wire.fetch import AttestedFetch, SourceRecord
from wire.kinds import Level
from wire.payload import Passages
from wire.receipt import Receipt
from wire.signed import open_signed

CONTENT_DEADLINE_S = 30.0
RECORD_BYTES_MAX = 256 << 10


@dataclass(slots=True)
class FetchCommands:
    """The commands, by name, for one running peer."""

    node: Node
    # What all fetches may cost together.
    bound: PriceBound = field(default_factory=lambda: PriceBound(0))

    def commands(self) -> dict[str, Command]:
        """What the control socket serves, by name."""
        return {"fetch": self.fetch}

    async def fetch(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """A source fetched, by its name at data peers or by the record `record`.

        With `terms` several data peers fetch it, and the answer has what they agree on.
        """
        source = _source_of(arguments)
        terms = arguments.get("terms")
        request = TaskRequest(
            stages=(fetch_stage(read_text(arguments, "name")),),
            input=None if source is None else source.to_bytes(),
            deadline_s=_deadline_of(arguments),
            level=Level.SIGNED,
        )
        most = read_amount(arguments, "price_max")
        fetching = FetchCommands(self.node, PriceBound(most))
        if terms is None:
            request = replace(request, price_max=most)
            await show_quote(self.node, request, "this source", emit)
            found = await fetching.fetch_one(request, source, emit)
            return {**found.to_map(), "input_payload": request.input or b""}
        if source is None:
            raise InputError(
                "what one peer calls by a name another may not: a quorum needs the source itself",
                todo="name its TOML file: python -m node sources fetch ./prices.toml --quorum 3",
            )
        quorum = read_number(arguments, "quorum", 3)
        agreeing = Agreeing(
            self.node, fetching.fetch_one, source, str(terms), quorum, fetching.bound
        )
        return await agreeing.run(request, emit)

    async def fetch_one(
        self, request: TaskRequest, source: SourceRecord | None, emit: Emit
    ) -> FetchedSource:
        """One task, with its contents brought here; Malformed if its record does not fit."""
        answered = await self._asked(request, emit)
        by = open_signed(answered.answer.record.receipts[0], Receipt).signer
        attested = Passages.from_bytes(answered.output).attested
        if not attested:
            raise InputError(
                "this source is text that a data peer has by itself, and nothing was fetched",
                todo="embed it: python -m node ask minilm --source NAME",
            )
        record_id = attested[0]
        record = AttestedFetch.from_bytes(await self._get(record_id, by, RECORD_BYTES_MAX))
        if source is not None and record.source != source.id:
            raise Malformed(f"{by.short} fetched another source than the one that it was sent")
        await self._get(record.body, by, BODY_BYTES_MAX)
        output = await self._get(record.output, by, OUTPUT_BYTES_MAX)
        return FetchedSource(answered, record, record_id, by, output)

    async def _asked(self, request: TaskRequest, emit: Emit) -> Answered:
        """The answer to one task, within what is left of what all may cost."""
        tasks = self.node.tasks
        with self.bound.holding(request.price_max) as most:
            task = await tasks.submit(replace(request, price_max=most))
            try:
                answered = await tasks.watch(task, lambda event: emit(as_maps.event_map(event)))
            except BatonError:
                self.bound.charged += tasks.cost_of(task)
                raise
            self.bound.charged += answered.cost
        return answered

    async def _get(self, content: ContentId, by: PeerId, size_bytes_max: int) -> bytes:
        data = await self.node.blobs.get(
            content,
            [by],
            deadline_s=stretched(CONTENT_DEADLINE_S),
            size_bytes_max=size_bytes_max,
        )
        store = self.node.dependencies.store
        if not store.has(content):
            await store.put(data)
        return data


def _source_of(arguments: Mapping[str, Any]) -> SourceRecord | None:
    data = arguments.get("record")
    if data is None:
        return None
    if not isinstance(data, bytes):
        raise InputError("the record of a source is bytes")
    return SourceRecord.from_bytes(data)


def _deadline_of(arguments: Mapping[str, Any]) -> int:
    deadline_s = read_number(arguments, "deadline_s", 60)
    if not 1 <= deadline_s <= limits.DEADLINE_S_MAX:
        raise InputError(f"a deadline of {deadline_s} s is not possible")
    return deadline_s
