"""An engine that has layers which only add: what a range of layers is to the rest of a peer.

Each layer makes of a row the sum of all rows of its slot up to itself, and of the layer's number:
it depends on what was kept, as attention does, and on nothing else.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import trio

from node.engines.interface import (
    REPLAY,
    Emit,
    EngineStatistics,
    Found,
    Job,
    Loaded,
    Output,
    Part,
    ready_model,
)
from node.engines.other_layers import (
    BEGIN,
    END,
    SESSION,
    EndedRows,
    LayerPass,
    LayersLied,
    LayersLost,
    OtherLayers,
)
from node.engines.replay import ReplayRequest
from tests.engines.judging import judged
from wire.content import ContentId
from wire.errors import EngineFailed, ModelRefused
from wire.generation import Ending, Token, to_frame
from wire.layers import LayerRange
from wire.model import Manifest
from wire.operations import GENERATE, STAGE
from wire.stage import StageRows

HIDDEN = 64
PAGE, PAGES, LEAST = 128, 16, 2
# The pages of whatever is read.
TABLE = b"\1\0\0\0"


def summing_manifest() -> Manifest:
    return Manifest(
        name="sums",
        format="gguf",
        profile="f32",
        operations=("generate",),
        files=(),
        parameters={},
        tolerance=0.0,
    )


def state(position: int, before: float) -> float:
    """The number of the token at a position, which follows from what came out before it."""
    return 1.0 + position + before % 7


def layer(number: int, total: float) -> float:
    """What a layer makes of the sum of the rows up to one of them."""
    return (total + number) % 97 + 1


def expected(count: int, layers: int) -> list[float]:
    """What comes out of so many layers, where nothing goes wrong."""
    rows: list[float] = []
    out: list[float] = []
    for position in range(count):
        rows.append(state(position, out[-1] if out else 0.0))
        through = rows
        for number in range(layers):
            through = [layer(number, sum(through[: at + 1])) for at in range(len(through))]
        out.append(through[-1])
    return out


def frames(out: Sequence[float]) -> list[bytes]:
    """Tokens as a model that answers with what comes out."""
    found = [
        to_frame(Token(id=int(it), text=f"{it:g} ".encode(), logprob_millionths=None, top=()))
        for it in out
    ]
    ending = Ending(reason="length", prompt_tokens=1, tokens=len(out), text_bytes=0)
    return [*found[:-1], found[-1] + to_frame(ending)]


@dataclass
class Reading:
    """Has the first layers: reads everything once more where something was lost."""

    others: OtherLayers
    model: ContentId
    here: LayerRange
    # What went into each layer here; the rows of each token after them, and what came out.
    own: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    rows: list[np.ndarray] = field(default_factory=list)
    out: list[float] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    fresh: bool = True
    pages: int = PAGES

    async def _pass(self, first: int, count: int, *, wait: bool) -> bytes:
        rows = StageRows(
            tables=(TABLE,),
            owners=bytes(count),
            places=np.arange(first, first + count, dtype="<u4").tobytes(),
            data=np.concatenate(self.rows[first : first + count]).tobytes(),
        )
        fresh, self.fresh = self.fresh, False
        some = LayerPass(
            model=self.model,
            here=self.here,
            rows=rows.to_bytes(),
            wait=wait,
            fresh=fresh,
            pages=self.pages,
            pages_max=PAGES,
        )
        return await self.others.run(some)

    async def token(self) -> float:
        """One more token; LayersLost if there is nobody to make it."""
        last = len(self.out)
        value = state(last, self.out[-1] if self.out else 0.0)
        for number in range(self.here.last + 1):
            self.own[number][last:] = [value]
            value = layer(number, sum(self.own[number]))
        self.rows[last:] = [np.full(HIDDEN, value, "<f4")]
        read = last
        while True:
            try:
                while read < last:
                    count = min(4, last - read)
                    await self._pass(read, count, wait=False)
                    read += count
                data = await self._pass(last, 1, wait=True)
            except LayersLost as lost:
                if lost.final:
                    raise
                self.losses.append(str(lost))
                assert len(self.losses) < 20
                read, self.fresh, self.pages = 0, True, lost.pages or self.pages
                continue
            self.out.append(float(np.frombuffer(data, "<f4")[0]))
            return self.out[-1]


class SummingEngine:
    """See `node.engines.interface.Engine`: one model's layers, and no other."""

    def __init__(
        self, layers: LayerRange, others: OtherLayers | None = None, token_s: float = 0.0
    ) -> None:
        manifest = summing_manifest()
        self.layers = layers
        self.others = others
        self.token_s = token_s
        self._turn = trio.Lock()
        self._loaded = Loaded(
            model=manifest.id,
            manifest=manifest,
            profile="sums",
            units_per_s=100.0,
            memory_bytes=1,
            layers=layers,
        )
        # What is added to the rows that it gives; and from which of its rows on.
        self.lie, self.lies_from = 0.0, 0
        self.sessions: dict[int, dict[tuple[int, int], float]] = {}
        self._granted: dict[int, int] = {}
        self.rows = 0

    free_slots = 8
    units_at_once = 8
    queue_s = 0.0

    async def load(self, manifest: Manifest, files: Mapping[str, Path]) -> Loaded:
        return self._loaded

    async def unload(self, model: ContentId) -> None:
        """There is but one model."""

    def loaded(self) -> Mapping[ContentId, Loaded]:
        return {self._loaded.model: self._loaded}

    def ready(self, model: ContentId) -> Loaded | None:
        return self.loaded().get(model)

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(
            jobs_queued=0,
            units_queued=0,
            units_done=self.rows,
            restarts=0,
            running=True,
            last_failure="",
        )

    async def infer_many(self, jobs: Sequence[Job]) -> list[Found]:
        return [await self.infer(job) for job in jobs]

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        await trio.lowlevel.checkpoint()
        ready_model(self.ready(job.model), job, frozenset({STAGE, GENERATE, REPLAY}))
        if job.operation == REPLAY:
            claim = ReplayRequest.from_bytes(job.input)
            again = replace(job, operation=GENERATE, input=claim.asked, resume=None)
            return judged(claim, (await self.infer(again)).data)
        if job.operation == GENERATE:
            # All answers would have the same pages.
            async with self._turn:
                return await self._generate(job, emit)
        session = int(job.parameters[SESSION])
        if asked := int(job.parameters.get(BEGIN, 0)):
            return Output(data=self._begin(session, asked).to_bytes(4, "little"), units=0)
        if job.parameters.get(END):
            self.sessions.pop(session, None)
            self._granted.pop(session, None)
            return Output(data=b"", units=0)
        rows = StageRows.from_bytes(job.input)
        self.rows += len(rows.owners)
        return Output(data=self._through(session, rows), units=len(rows.owners))

    async def _generate(self, job: Job, emit: Emit | None) -> Output:
        assert self.others is not None, "the first layers are of use with the others alone"
        while True:
            try:
                return await self._told(job, emit)
            except LayersLied:
                # What was made of wrong rows is told again.
                continue

    async def _told(self, job: Job, emit: Emit | None) -> Output:
        assert self.others is not None
        reading = Reading(self.others, job.model, self.layers)
        try:
            for position in range(int(job.parameters["tokens"])):
                await trio.sleep(self.token_s)
                await reading.token()
                if emit is not None and position >= (job.resume.units if job.resume else 0):
                    last = position == int(job.parameters["tokens"]) - 1
                    frame = frames(reading.out)[-1] if last else frames([*reading.out, 0])[-2]
                    await emit(Part(position, 1, frame))
        except LayersLost as lost:
            raise EngineFailed(str(lost)) from lost
        ended = EndedRows(model=job.model, table=TABLE, rows=len(reading.out))
        legs = await self.others.sign(ended)
        return Output(data=b"".join(frames(reading.out)), units=len(reading.out), layers=legs)

    def _begin(self, session: int, asked: int) -> int:
        free = PAGES - sum(self._granted.values())
        granted = min(asked, max(LEAST, free // 2))
        if granted > free or session in self.sessions:
            raise ModelRefused(f"{free} pages are free")
        self.sessions[session], self._granted[session] = {}, granted
        return granted

    def _through(self, session: int, rows: StageRows) -> bytes:
        kept = self.sessions.get(session)
        if kept is None:
            raise ModelRefused("what was kept is gone")
        states = np.frombuffer(rows.data, "<f4").reshape(len(rows.owners), -1)
        if states.shape[1] != HIDDEN:
            raise ModelRefused(f"rows of {states.shape[1]} numbers")
        if not (np.abs(states) <= 1e9).all():
            raise ModelRefused("rows with numbers that no layer gives")
        tables = [np.frombuffer(it, "<u2") for it in rows.tables]
        if any(it.max() >= self._granted[session] for it in tables):
            raise ModelRefused("pages that are not theirs")
        places = np.frombuffer(rows.places, "<u4")
        if any(
            place // PAGE >= len(tables[own])
            for own, place in zip(rows.owners, places, strict=True)
        ):
            raise ModelRefused("a row where it has no page")

        def at(owner: int, place: int) -> int:
            return int(tables[owner][place // PAGE]) * PAGE + place % PAGE

        found = []
        for owner, place, row in zip(rows.owners, places, states, strict=True):
            value = float(row[0])
            for number in range(self.layers.first, self.layers.last + 1):
                kept[number, at(owner, place)] = value
                total = sum(kept[number, at(owner, before)] for before in range(place + 1))
                value = layer(number, total)
            lie = self.lie if self.rows >= self.lies_from else 0.0
            found.append(np.full(HIDDEN, value + lie))
        return np.array(found, "<f4").tobytes()
