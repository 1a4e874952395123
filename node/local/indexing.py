"""Making an index: whole sources fetched, cut, embedded and checked, part by part.

Data peers are not trusted: lists have a bound, and every part is compared with what was asked for.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from node.asking import as_maps
from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.local.control import Emit
from node.local.within_bound import BoundReached, PriceOf, Tried, WithinBound
from node.task.price_bound import PriceBound
from node.task.units import PASSAGES_PER_LEG
from p2p.blobs import Blobs
from p2p.gather import gather
from p2p.timeouts import stretched
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import InputError, Malformed, TaskFailed
from wire.kinds import Level, Role
from wire.operations import EMBED_PASSAGES, FETCH, LIST
from wire.payload import Index, IndexPart, Passages, Texts
from wire.plural import plural
from wire.schema import Parameters
from wire.task import Stage

TASKS_AT_ONCE = 8
SOURCES_LISTED_MAX = 10_000
# The record of an index has room for so many.
PARTS_MAX = 2048

LIST_DEADLINE_S = 30.0
PASSAGES_DEADLINE_S = 60.0


class Run(Protocol):
    """Has a task done; `lost` is told what one that fails was charged, in millionths."""

    def __call__(
        self, request: TaskRequest, emit: Emit, /, *, lost: Callable[[int], None] = ...
    ) -> Awaitable[Answered]:
        """Answer one task; BatonError if it fails."""


async def list_sources(run: Run, unheard: Emit) -> list[str]:
    """The names that data peers can bring in, the first `SOURCES_LISTED_MAX` of them."""
    names: list[str] = []
    while len(names) < SOURCES_LISTED_MAX:
        # Each list begins with the last known name, so no list is empty.
        known = max(0, len(names) - 1)
        stage = Stage(role=Role.DATA, operation=LIST, model=None, parameters={"first": known})
        request = TaskRequest(
            stages=(stage,),
            input=None,
            deadline_s=int(stretched(LIST_DEADLINE_S)),
            level=Level.SIGNED,
        )
        answered = await run(request, unheard)
        batch = Texts.from_bytes(answered.output).texts
        names[known:] = batch
        if len(batch) < limits.PASSAGES_MAX:
            break
    return names[:SOURCES_LISTED_MAX]


@dataclass(slots=True)
class Indexing:
    """One index that is being made. `terms` are those of each task; all pay `price_max` at most."""

    run: Run
    blobs: Blobs
    model: ContentId
    terms: TaskRequest
    emit: Emit
    price_of: PriceOf
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("passages", "tasks", "verified", "attempts", "charged"), 0
        )
    )
    # The sources that could not be had.
    skipped: list[str] = field(default_factory=list)
    _parts: dict[tuple[int, int], IndexPart] = field(default_factory=dict)
    # How many passages a source has, of those whose first part is there.
    _totals: dict[int, int] = field(default_factory=dict)
    _planned: int = 0
    _within: WithinBound = field(init=False)

    def __post_init__(self) -> None:
        bound = PriceBound(self.terms.price_max)
        self._within = WithinBound(bound, self.price_of, "this index", "its next part")

    async def of(self, names: Sequence[str]) -> Index:
        """Make the index of these sources, in their order; each name counts once.

        What fails is tried once more when all else is done, and it is known better who fails; a
        source that still cannot be had is left out, and named in `skipped`.
        """
        distinct = list(dict.fromkeys(names))
        failed = await self._each(distinct, range(len(distinct)))
        if failed:
            self.emit({"event": "again", "sources": [distinct[it] for it in sorted(failed)]})
            failed = await self._each(distinct, sorted(failed))
        for number, error in sorted(failed.items()):
            if number in self._totals or not self._parts:
                # It is there, or nothing is: what fails is not the source.
                raise error
            # The source is empty, not text, or missing: the other sources go on.
            name = distinct[number]
            self.skipped.append(name)
            self.emit({"event": "skipped", "source": name, "why": error.message})
        return Index(
            model=self.model, parts=tuple(self._parts[place] for place in sorted(self._parts))
        )

    async def _each(self, names: Sequence[str], numbers: Sequence[int]) -> dict[int, TaskFailed]:
        """Bring in what is missing of these sources; what failed of which."""
        failed: dict[int, TaskFailed] = {}

        async def whole(number: int) -> None:
            try:
                await self._whole(names[number], number)
            except TaskFailed as error:
                failed[number] = error

        await gather(whole, numbers, at_once=TASKS_AT_ONCE)
        return failed

    async def _whole(self, name: str, number: int) -> None:
        if number not in self._totals:
            total = (await self._part(name, number, 0)).total
            self._totals[number] = total
            self._planned += max(1, -(-total // PASSAGES_PER_LEG))
            if self._planned > PARTS_MAX:
                raise InputError(
                    f"these sources come to more than {PARTS_MAX * PASSAGES_PER_LEG} passages",
                    todo="make an index of fewer of them at a time",
                )
        for first in range(PASSAGES_PER_LEG, self._totals[number], PASSAGES_PER_LEG):
            if (number, first) not in self._parts:
                await self._part(name, number, first)

    async def _part(self, name: str, number: int, first: int) -> Passages:
        wanted: Parameters = {"source": name, "first": first, "count": PASSAGES_PER_LEG}
        stages = (
            Stage(role=Role.DATA, operation=FETCH, model=None, parameters=wanted),
            Stage(role=Role.INFER, operation=EMBED_PASSAGES, model=self.model, parameters={}),
        )
        row = as_maps.answer_map(await self._paid(replace(self.terms, stages=stages)))
        found, vectors = ContentId.parse(row["route"][0]["output"]), row["output"]
        data = await self.blobs.get(
            found,
            [PeerId.parse(row["route"][0]["peer"])],
            deadline_s=stretched(PASSAGES_DEADLINE_S),
            size_bytes_max=limits.INLINE_BYTES_MAX,
        )
        passages = Passages.from_bytes(data)
        due = min(PASSAGES_PER_LEG, passages.total - first)
        if (passages.source, passages.first, len(passages.passages)) != (name, first, due):
            raise Malformed(
                f"a data peer sent other passages than those of {name} from number {first} on",
                todo="try again; another data peer may answer",
            )
        self._parts[number, first] = IndexPart(passages=found, vectors=ContentId.parse(vectors))
        self.counts["passages"] += len(passages.passages)
        self.counts["tasks"] += 1
        self.counts["verified"] += row["verified"]
        self.counts["attempts"] += row["attempts"]
        self.emit({"event": "part", "source": name, **self.counts, **row})
        return passages

    async def _paid(self, request: TaskRequest) -> Answered:
        """One part, for what is left; InputError if that is too little.

        Where those fail that ask for little, others are asked that ask for more.
        """
        tried = Tried()
        while True:
            try:
                async with self._within.part(request, tried) as held:
                    asked = replace(request, price_max=held)
                    answered = await self.run(asked, self.emit, lost=self._within.bound.add)
                    self._within.bound.charged += answered.cost
            except BoundReached as error:
                error.message += f": {plural(self.counts['tasks'], 'part')} were made"
                raise
            except TaskFailed:
                if not await self._within.goes_on(request, tried):
                    raise
            else:
                self.counts["charged"] = self._within.bound.charged
                return answered
