"""Small legs that came together are done together: one task, one call of the engine.

Each has all that a leg has: a place in the fair queue, a deadline, an end of its own; what one
comes to is no matter of the others. A leg that needs more than its input and a turn of the engine
goes by `LegServer.do_once`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import trio

from node.dispatch.handoff import Handoff
from node.serving.done_legs import DoneLeg
from node.serving.finishing import FinishedLeg, receipt_of, shares_signature
from node.serving.infer_role import InferRole
from node.serving.lease import LegLease
from node.serving.leg_server import LegServer
from node.serving.queue_slot import QueueSlot, SlotStage
from node.serving.role import Done, LegInput
from node.serving.running_leg import RunningLeg
from wire.chain import source_of
from wire.content import PeerId
from wire.counting import count_down, count_up
from wire.errors import BatonError, Disconnected, Malformed, Refused
from wire.kinds import RefusalCode
from wire.receipt import Receipt
from wire.signed import Signed
from wire.tree import name_of

Ended = Callable[[DoneLeg | BatonError], None]


def may_share(legs: LegServer, handoff: Handoff, lease: LegLease) -> bool:
    """Whether a leg that was taken in this moment can be done with others."""
    role, place = lease.role, lease.place
    if not lease.fresh or place is None or not isinstance(role, InferRole):
        return False
    if lease.leg_key in legs.running:
        # It came twice.
        return False
    # What the handoff does not bring has to be fetched first.
    return handoff.input is not None and role.shares(handoff.leg, place.cost_s)


@dataclass(slots=True, eq=False)
class _SmallLeg:
    """One of them. `ended` hears once what came of it."""

    handoff: Handoff
    lease: LegLease
    deadline_at_s: float
    ended: Ended
    over: bool = False

    @property
    def place(self) -> QueueSlot:
        assert self.lease.place is not None
        return self.lease.place


@dataclass(slots=True, eq=False)
class LegBundle:
    """The small legs of one bundle. `add` them in the moment in which they were taken, then `run`.

    `role` is the one that all of them have.
    """

    legs: LegServer
    holder: PeerId
    role: InferRole
    _legs: list[_SmallLeg] = field(default_factory=list)
    # Those that wait for their turn, and those that have it and are not begun.
    _waiting: dict[QueueSlot, _SmallLeg] = field(default_factory=dict)
    _begun: list[_SmallLeg] = field(default_factory=list)
    _left: int = 0
    _changed: trio.Event = field(default_factory=trio.Event)
    _began_at_s: float = field(default_factory=trio.current_time)
    _began_wall_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._began_wall_s = self.legs.environment.wall_s()

    def add(self, handoff: Handoff, lease: LegLease, deadline_at_s: float, ended: Ended) -> None:
        """Have one done of which `may_share` says that it can be."""
        leg = _SmallLeg(handoff, lease, deadline_at_s, ended)
        self._legs.append(leg)
        self._left += 1
        count_up(self.legs.holders, self.holder)
        self.legs.running[lease.leg_key] = RunningLeg()
        lease.watched_by(partial(self._given_up, leg))
        source_id = source_of(handoff.task, handoff.receipts, handoff.stage)
        if handoff.input is None or name_of(handoff.input) != source_id:
            self._end(leg, Malformed("the input is not the one that the task names"))

    async def run(self) -> None:
        """Do them as their turns come; returns when each has ended."""
        try:
            self._waiting = {it.place: it for it in self._legs if not it.over}
            self.role.fair_queue.ready(list(self._waiting), self._moved)
            async with trio.open_nursery() as nursery:
                while self._left:
                    await self._some_moved()
                    begun, self._begun = self._begun, []
                    kinds = _by_kind(begun)
                    if len(kinds) == 1 and not self._waiting:
                        await self._do(begun)
                        continue
                    for some in kinds:
                        nursery.start_soon(self._do, some)
        finally:
            # Only a peer that ends leaves some undone.
            for leg in self._legs:
                self._end(leg, Disconnected("this peer ends"))

    async def _some_moved(self) -> None:
        """Wait until some have their turn or have ended, or the first deadline has passed."""
        if self._waiting:
            late_at_s = min(it.deadline_at_s for it in self._waiting.values())
            with trio.move_on_at(late_at_s):
                await self._changed.wait()
            self._refuse_late()
        else:
            await self._changed.wait()
        self._changed = trio.Event()

    # Turns

    def _moved(self, place: QueueSlot) -> None:
        leg = self._waiting.pop(place, None)
        if leg is not None and not leg.over and place.refusal is None:
            self._begun.append(leg)
            self._changed.set()

    def _given_up(self, leg: _SmallLeg) -> None:
        assert leg.place.refusal is not None
        self._end(leg, leg.place.refusal)

    def _refuse_late(self) -> None:
        now_at_s = trio.current_time()
        for leg in [it for it in self._waiting.values() if it.deadline_at_s <= now_at_s]:
            why = "the deadline passed before its turn came"
            self._end(leg, Refused(why, code=RefusalCode.LATE))

    # Doing

    async def _do(self, legs: list[_SmallLeg]) -> None:
        now_at_s = trio.current_time()
        works = [(it.handoff.leg, self._source(it, it.deadline_at_s - now_at_s)) for it in legs]
        try:
            found = await self.role.do_many(works)
        finally:
            self.role.fair_queue.dequeue_all([it.place for it in legs])
        finished = []
        for leg, done in zip(legs, found, strict=True):
            if leg.over:
                continue
            if isinstance(done, BatonError):
                self._end(leg, done)
                continue
            # It is done: that its asker goes away does not matter any more.
            leg.place.stage = SlotStage.DONE
            finished.append(self._finished(leg, done))
        self.legs.finishing.finish_soon(finished)

    def _source(self, leg: _SmallLeg, left_s: float) -> LegInput:
        handoff = leg.handoff
        return LegInput(
            id=source_of(handoff.task, handoff.receipts, handoff.stage),
            data=handoff.input,
            holders=(),
            deadline_s=max(0.0, left_s),
            place=leg.place,
        )

    def _finished(self, leg: _SmallLeg, done: Done) -> FinishedLeg:
        receipt = receipt_of(
            leg.handoff,
            done,
            began_wall_s=self._began_wall_s,
            took_s=trio.current_time() - self._began_at_s,
        )
        return FinishedLeg(
            leg.lease.leg_key,
            leg.lease.job_key,
            receipt,
            (done.data, *done.blobs),
            shares=shares_signature(leg.handoff),
            told=partial(self._kept, leg, done.data),
        )

    def _kept(self, leg: _SmallLeg, output: bytes, found: Signed[Receipt] | BatonError) -> None:
        if isinstance(found, BatonError):
            self._end(leg, found)
        else:
            self.legs.done += 1
            if leg.lease.seat is not None:
                leg.lease.seat.charge(found.record, leg.handoff.input, output)
            self._end(leg, DoneLeg(found, output))

    def _end(self, leg: _SmallLeg, found: DoneLeg | BatonError) -> None:
        """Tell what came of a leg; the first that is said of it counts."""
        if leg.over:
            return
        leg.over = True
        self._left -= 1
        self._waiting.pop(leg.place, None)
        leg.lease.release()
        self.legs.running.pop(leg.lease.leg_key).end()
        count_down(self.legs.holders, self.holder)
        leg.ended(found)
        self._changed.set()


def _by_kind(legs: Iterable[_SmallLeg]) -> list[list[_SmallLeg]]:
    """Those of one model and operation together, which the engine does at once."""
    kinds: dict[object, list[_SmallLeg]] = {}
    for leg in legs:
        stage = leg.handoff.leg
        kinds.setdefault((stage.model, stage.operation), []).append(leg)
    return list(kinds.values())
