"""Signing for legs that are done: one signature and one commit for all that are done together.

A receipt is durable before anybody hears of it. Legs whose receipts are read only
by peers that know such proofs are signed together, each with one that holds alone (`wire.proof`).
Every other receipt has a signature of its own, which peers of every version can read.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import trio

from node.dispatch.handoff import Handoff
from node.serving.done_legs import DoneLegs
from node.serving.receipt_log import ReceiptLog
from node.serving.role import Done
from node.task.flushing import Gathering, in_parts, keep_each
from p2p.peers import Peers
from p2p.timeouts import stretched
from store import Row, Store, Table, Write
from wire import limits
from wire.chain import source_of
from wire.codec import pack
from wire.content import PeerId
from wire.errors import BatonError, Refused, RemoteProtocolError, TransportError, WireError
from wire.kinds import Level, Role
from wire.receipt import Receipt
from wire.segment import standing
from wire.signed import Signed, is_of_many, sign, sign_many
from wire.signing import SigningKey
from wire.tree import name_of

# Of the question for a version.
VERSION_S = 5.0
# Bounds of one commit.
LEGS_MAX = 256
BYTES_MAX = 4 << 20


@dataclass(slots=True, eq=False)
class FinishedLeg:
    """A leg that is done: its receipt before it is signed, and what is kept with it."""

    leg_key: bytes
    job_key: bytes
    receipt: Receipt
    blobs: tuple[bytes, ...]
    # Whether its signature may be one of many.
    shares: bool
    # Who is told what came of it, if nobody waits.
    told: Callable[[Signed[Receipt] | BatonError], None] | None = None
    _signed: Signed[Receipt] | None = None
    _error: BatonError | None = None
    _ended: trio.Event = field(default_factory=trio.Event)

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.blobs))

    async def durable(self) -> Signed[Receipt]:
        """Wait until the receipt is durable; StoreError or WireError if it cannot be kept."""
        await self._ended.wait()
        if self._error is not None:
            raise self._error
        assert self._signed is not None
        return self._signed

    def end(self, found: Signed[Receipt] | BatonError) -> None:
        """Tell who waits what came of it."""
        if isinstance(found, BatonError):
            self._error = found
        else:
            self._signed = found
        self._ended.set()
        if self.told is not None:
            self.told(found)


def receipt_of(
    handoff: Handoff, done: Done, *, began_wall_s: float, took_s: float, reused: bool = False
) -> Receipt:
    """What this peer says of the next leg of a handoff, once it has done it."""
    return Receipt(
        task=handoff.task.id,
        stage=handoff.stage,
        role=handoff.leg.role,
        operation=handoff.leg.operation,
        model=handoff.leg.model,
        input=source_of(handoff.task, handoff.receipts, handoff.stage),
        output=name_of(done.data),
        output_size_bytes=len(done.data),
        units=done.units,
        started_at_ms=int(began_wall_s * 1000),
        duration_ms=int(took_s * 1000),
        profile=done.profile,
        previous=handoff.receipts[-1].id if handoff.receipts else None,
        reused=reused,
        layers=done.layers,
        segments=tuple(it.raw for it in standing(handoff.segments, done.data)),
    )


async def readable(done: Done, peers: Peers, holder: PeerId) -> Done:
    """As the holder reads its receipt: older peers do not know who ran layers for it."""
    if not done.layers:
        return done
    try:
        version = await peers.neighbours.version_of(holder, deadline_s=stretched(VERSION_S))
    except (Refused, TransportError, WireError, RemoteProtocolError):
        version = 0
    known = version >= limits.STAGE_LEGS_VERSION and len(done.layers) <= limits.STAGE_LEGS_MAX
    return done if known else replace(done, layers=())


def shares_signature(handoff: Handoff) -> bool:
    """Whether the receipt of a leg of a standing order may be signed with others.

    Verifiers read the receipts of a task that is checked, and later peers those of a task of
    several legs; they may be of an older version. But they read the task too: an asker that signed
    it with others knows that they can.
    """
    task = handoff.task.record
    alone = task.checking.level is Level.SIGNED and len(task.stages) == 1
    return alone or is_of_many(handoff.task)


@dataclass(slots=True)
class Finishing:
    """The legs of one peer that are done and not durable yet. `run` has to run meanwhile."""

    key: SigningKey
    store: Store
    before: DoneLegs
    wall_s: Callable[[], float]
    # The receipts that this peer signed.
    log: ReceiptLog = field(init=False)
    commits: int = 0
    _legs: deque[FinishedLeg] = field(default_factory=deque)
    _came: trio.Event = field(default_factory=trio.Event)
    _gathering: Gathering = field(default_factory=Gathering)

    def __post_init__(self) -> None:
        self.log = ReceiptLog(self.key, self.store, self.wall_s)

    def finish_soon(self, legs: Sequence[FinishedLeg]) -> None:
        """As `finish`, of legs that nobody waits for: `FinishedLeg.told` is called with each."""
        self._legs.extend(legs)
        self._came.set()

    async def finish(self, leg: FinishedLeg) -> Signed[Receipt]:
        """The signed receipt of a leg, once it and the output are durable."""
        self.finish_soon((leg,))
        return await leg.durable()

    async def run(self) -> None:
        """Make durable what is done, as much at once as there is."""
        while True:
            await self._came.wait()
            await self._gathering.grown(lambda: len(self._legs), LEGS_MAX)
            while self._legs:
                count = min(len(self._legs), LEGS_MAX)
                legs = [self._legs.popleft() for _ in range(count)]
                for some in in_parts(legs, BYTES_MAX):
                    await keep_each(some, self._keep, FinishedLeg.end, FinishedLeg.end)
            self._came = trio.Event()

    async def _keep(self, legs: list[FinishedLeg]) -> list[Signed[Receipt]]:
        signed = self._sign(legs)
        await self._commit(legs, signed)
        return signed

    def _sign(self, legs: list[FinishedLeg]) -> list[Signed[Receipt]]:
        shared = [it for it in legs if it.shares]
        together = sign_many([it.receipt for it in shared], self.key) if shared else ()
        of = dict(zip(shared, together, strict=True))
        return [of[it] if it.shares else sign(it.receipt, self.key) for it in legs]

    async def _commit(self, legs: list[FinishedLeg], signed: list[Signed[Receipt]]) -> None:
        rows = self.before.evict([(it.leg_key, it.job_key) for it in legs])
        for leg, receipt in zip(legs, signed, strict=True):
            rows.append(Row(Table.RECEIPTS, leg.leg_key, receipt.raw))
            # What others made a part of is not given out as this peer's own another time.
            if leg.receipt.role is Role.INFER and not leg.receipt.segments:
                job = pack([leg.receipt.units, leg.receipt.profile, leg.receipt.output])
                rows.append(Row(Table.JOBS, leg.job_key, job))
        edge, log_rows = self.log.grown([it.id for it in signed])
        blobs = dict.fromkeys(blob for it in legs for blob in it.blobs)
        await self.store.commit(Write(rows=(*rows, *log_rows), blobs=tuple(blobs)))
        self.log.committed(edge)
        self.commits += 1
