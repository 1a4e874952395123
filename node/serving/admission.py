"""Which leg is next, and which is refused at once because it would take too long. A pure core.

Start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queuing", SIGCOMM 1996): a job's start
tag is the virtual time at which its asker's previous job ends, or now if that is later; the least
tag is next. So an asker with many jobs waits behind its own jobs, and no other asker does. A job is
taken only if it will be done by its deadline. If the queue is full, the asker with the most waiting
jobs loses its last one to an asker with fewer (McKenney: "Stochastic Fairness Queueing", INFOCOM
1990); but a job whose input has not come is dropped first. Asker names cost nothing, so places are
also counted by the holder that offered them.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from dataclasses import dataclass, field
from typing import TypeVar

from node.serving.lane_turns import LaneTurns
from node.serving.queue_slot import GivenUp, Now, QueuedJob, QueueSlot, SlotStage
from wire.content import PeerId
from wire.errors import Refused
from wire.kinds import RefusalCode

K = TypeVar("K")

# The most waiting jobs of one asker. A guess, below the queue of the engines, which is 64.
WAITING_PER_ASKER_MAX = 48
# One holder's share of the queue while others wait, and its least number of places.
HOLDER_SHARE = 0.25
HOLDER_PLACES_MIN = 4
# Askers whose tags are remembered; above this, the one with the lowest tag is forgotten.
ASKERS_MAX = 1024
# A job this long is taken only while no other asker waits, and one at a time for each holder.
LONG_S = 60.0
# Work that takes no longer than this together is given to the engine at once: it can make a batch
# of it, and no other asker waits noticeably longer for a turn.
AT_ONCE_S = 0.005
# Time of a leg besides the engine's work: its input travels, its receipt is stored.
OVERHEAD_S = 0.05
OVERHEAD_SHARE = 0.05
RETRY_AFTER_S_MIN, RETRY_AFTER_S_MAX = 0.25, 30.0
# A peer that got a quote is likely to offer the leg now. But quotes are free, so they count for
# little, both of one asker and in total.
QUOTED_FOR_S = 0.5
QUOTED_COST_S_MAX = 1.0
QUOTED_S_MAX = 2.0
QUOTED_MAX = 256


@dataclass(slots=True)
class Admission:
    """The jobs that were taken; of those, as many are worked on as have `units_at_once`."""

    units_at_once: int
    waiting: list[QueueSlot] = field(default_factory=list)
    running: set[QueueSlot] = field(default_factory=set)
    # The waiting ones by their turns; and of them all: their cost, and whose and from whom they
    # are. A new job mostly comes last, so what is behind it is soon looked through.
    _turns: list[QueueSlot] = field(default_factory=list)
    _numbers: set[int] = field(default_factory=set)
    _waiting_s: float = 0.0
    _askers: Counter[PeerId] = field(default_factory=Counter)
    _holders: Counter[PeerId | None] = field(default_factory=Counter)
    _lane_turns: LaneTurns = field(default_factory=LaneTurns)
    _virtual: float = 0.0
    _finish: dict[PeerId, float] = field(default_factory=dict)
    # No finish tag is below this: until then none has to be looked for.
    _finish_least: float = 0.0
    _number: int = 0
    _quoted: dict[PeerId, tuple[float, float]] = field(default_factory=dict)

    @property
    def queue_s(self) -> float:
        """How long the waiting work takes."""
        return self._waiting_s

    def expected_s(self, wanted: QueuedJob, now: Now) -> float:
        """How long it will be until a job is done, if it is taken now."""
        return self._done_s(wanted, now, 1.0)

    def _done_s(self, wanted: QueuedJob, now: Now, part: float) -> float:
        """How long it will be until that part of a job is done."""
        start = self._start(wanted.asker)
        behind = self._turns[bisect_right(self._turns, start, key=_start) :]
        ahead_s = self._waiting_s - sum(it.cost_s for it in behind)
        work_s = max(now.busy_s + ahead_s + wanted.cost_s * part, wanted.alone_s * part)
        return _with_overhead(work_s)

    def check(self, wanted: QueuedJob, by: PeerId, now: Now) -> float:
        """As `expected_s`; Refused, with when to try again, if there is no room or no time."""
        mine = self._askers[wanted.asker]
        all_s = now.busy_s + self.queue_s
        if mine >= WAITING_PER_ASKER_MAX:
            why = f"{mine} legs of this asker wait here already"
            raise Refused(why, retry_after_s=_retry_after_s(all_s))
        self._check_long(wanted.cost_s, by, self.waiting, all_s)
        held = self._holders[by]
        if held >= _holder_places(now) and held < len(self.waiting):
            why = f"{held} of the legs that wait here are yours"
            raise Refused(why, retry_after_s=_retry_after_s(all_s))
        if len(self.waiting) >= now.room and self._pushed_out(wanted.asker, by, now) is None:
            raise Refused("every slot is taken", retry_after_s=_retry_after_s(all_s))
        least_s, left_s = self._done_s(wanted, now, wanted.least), wanted.left_s
        if least_s > left_s:
            # If the job alone takes too long for its deadline, it is refused for good.
            work_s = max(wanted.cost_s, wanted.alone_s) * wanted.least
            hopeless = _with_overhead(work_s) > left_s
            raise Refused(
                f"it would take {least_s:.1f} s here, and its deadline leaves {left_s:.1f} s",
                retry_after_s=None if hopeless else _retry_after_s(all_s),
                code=RefusalCode.TOO_LONG,
            )
        return self.expected_s(wanted, now)

    def quote(self, wanted: QueuedJob, by: PeerId, now: Now) -> float:
        """As `check`, but quotes given to others a moment ago count as jobs that come first.

        So askers that ask at the same time do not all get a quote for an empty queue.
        """
        expected_s = self.check(wanted, by, now)
        for peer in [
            it for it, (until_at_s, _) in self._quoted.items() if until_at_s <= now.now_at_s
        ]:
            del self._quoted[peer]
        likely_s = sum(cost for peer, (_, cost) in self._quoted.items() if peer != by)
        if len(self._quoted) < QUOTED_MAX or by in self._quoted:
            cost_s = min(wanted.cost_s, QUOTED_COST_S_MAX)
            self._quoted[by] = (now.now_at_s + QUOTED_FOR_S, cost_s)
        return min(QUOTED_S_MAX, likely_s) + expected_s

    def enqueue(self, wanted: QueuedJob, by: PeerId, now: Now) -> tuple[QueueSlot, list[QueueSlot]]:
        """A place in the queue, and the places that were given up for it; Refused as `check`."""
        # The quote no longer counts, because its offer has come.
        self._quoted.pop(by, None)
        expected_s = self.check(wanted, by, now)
        given_up = []
        if len(self.waiting) >= now.room and (last := self._pushed_out(wanted.asker, by, now)):
            given_up.append(self._give_up(last, "its place went to another", now))
        self._number += 1
        start = self._start(wanted.asker)
        place = QueueSlot(
            wanted.asker,
            wanted.units,
            wanted.cost_s,
            expected_s,
            now.now_at_s + wanted.left_s,
            wanted.least,
            start,
            self._number,
            by,
            self._lane_turns.came(wanted.asker, wanted.lane),
        )
        self._add(place)
        self._finish[wanted.asker] = finish = start + wanted.cost_s
        self._finish_least = min(self._finish_least, finish) if len(self._finish) > 1 else finish
        if len(self._finish) > ASKERS_MAX:
            self._finish.pop(min(self._finish, key=lambda it: self._finish[it]))
        late = self._late(place, now)
        given_up += [self._give_up(it, "others' turn comes first", now) for it in late]
        return place, given_up

    def _check_long(
        self, cost_s: float, by: PeerId | None, waiting: list[QueueSlot], all_s: float
    ) -> None:
        if cost_s <= LONG_S:
            return
        others = any(it.by != by for it in waiting)
        if others or any(it.by == by and it.cost_s > LONG_S for it in [*waiting, *self.running]):
            why = f"{cost_s:.0f} s of work is too much at once while others wait, or a second time"
            raise Refused(why, retry_after_s=_retry_after_s(all_s))

    def reprice(self, place: QueueSlot, units: int, cost_s: float, least: float = 1.0) -> None:
        """Correct the size of a job that is known better now. Refused if it takes too long."""
        if cost_s > LONG_S:
            others = [it for it in self.waiting if it is not place]
            self._check_long(cost_s, place.by, others, self.queue_s)
        self._charge(place.asker, cost_s - place.cost_s)
        if place.number in self._numbers:
            self._waiting_s += cost_s - place.cost_s
        place.units, place.cost_s, place.least = units, cost_s, least

    def next(self, now: Now) -> tuple[list[QueueSlot], list[QueueSlot]]:
        """The places that begin now, and those given up because their deadline is too near."""
        begun, given_up, busy_s = [], [], now.busy_s
        units, running_s = sum(it.units for it in self.running), sum(map(_known_s, self.running))
        while place := self._next_in_turn():
            if units >= self.units_at_once and running_s + _known_s(place) > AT_ONCE_S:
                break
            if now.now_at_s + busy_s + place.least_s > place.until_at_s:
                given_up.append(self._give_up(place, "its deadline is too near", now))
                continue
            self._remove(place, place.cost_s)
            self.running.add(place)
            place.stage = SlotStage.BEGUN
            self._virtual = max(self._virtual, place.start)
            busy_s += place.cost_s
            units, running_s = units + place.units, running_s + _known_s(place)
            begun.append(place)
        return begun, given_up

    def dequeue(self, place: QueueSlot) -> bool:
        """Remove a job that is done or no longer wanted; whether it was there."""
        if place in self.running:
            self.running.remove(place)
        elif place.number in self._numbers:
            self._drop(place)
        else:
            return False
        if not self.running and not self.waiting:
            self._finish.clear()
        if self._finish and self._finish_least <= self._virtual:
            for asker in [it for it, finish in self._finish.items() if finish <= self._virtual]:
                del self._finish[asker]
            self._finish_least = min(self._finish.values(), default=0.0)
        return True

    def _start(self, asker: PeerId) -> float:
        return max(self._virtual, self._finish.get(asker, 0.0))

    def _pushed_out(self, asker: PeerId, by: PeerId, now: Now) -> QueueSlot | None:
        """The place to give up for a new job: the first without its input, of the holder with the
        most such places; else the last of an asker or holder with more than its share.
        """
        idle = Counter(it.by for it in self.waiting if not it.ready)
        if idle:
            most = idle.most_common(1)[0][0]
            return min((it for it in self.waiting if not it.ready and it.by == most), key=_number)
        if not self.waiting:
            return None
        longest, count = self._askers.most_common(1)[0]
        if count > self._askers[asker] + 1:
            return max((it for it in self.waiting if it.asker == longest), key=_order)
        holder, count = self._holders.most_common(1)[0]
        if count > max(self._holders[by] + 1, _holder_places(now)):
            return max((it for it in self.waiting if it.by == holder), key=_order)
        return None

    def _late(self, new: QueueSlot, now: Now) -> list[QueueSlot]:
        """The places behind a new one that would now miss their deadlines."""
        behind, late = self._turns[bisect_right(self._turns, new.order, key=_order) :], []
        done_s = now.now_at_s + now.busy_s + self._waiting_s - sum(it.cost_s for it in behind)
        for place in behind:
            if done_s + place.least_s > place.until_at_s:
                late.append(place)
            else:
                done_s += place.cost_s
        return late

    def _give_up(self, place: QueueSlot, why: str, now: Now) -> QueueSlot:
        self._drop(place)
        wait_s = _retry_after_s(now.busy_s + self.queue_s)
        refusal = Refused(f"given up before it began: {why}", retry_after_s=wait_s)
        place.stage = GivenUp(refusal)
        return place

    def _drop(self, place: QueueSlot) -> None:
        self._remove(place)
        # A job that was not done does not count against its asker.
        self._charge(place.asker, -place.cost_s)

    def _charge(self, asker: PeerId, cost_s: float) -> None:
        if asker in self._finish:
            self._finish[asker] += cost_s
            self._finish_least = min(self._finish_least, self._finish[asker])

    def _add(self, place: QueueSlot) -> None:
        self.waiting.append(place)
        insort(self._turns, place, key=_order)
        self._numbers.add(place.number)
        self._askers[place.asker] += 1
        self._holders[place.by] += 1
        self._waiting_s += place.cost_s

    def _next_in_turn(self) -> QueueSlot | None:
        """Whose turn it is, of those that are ready; its asker's lanes have turns within its own.

        It is as if the asker had sent that job before its others: no other asker waits longer.
        """
        first = next((it for it in self._turns if it.ready), None)
        if first is None or not self._lane_turns.has_several(first.asker):
            return first
        mine = [it for it in self._turns if it.asker == first.asker]
        worked_s = self._lane_turns.order(first.asker)
        best = min((it for it in mine if it.ready), key=lambda it: (worked_s(it.lane), it.order))
        if best is not first:
            before = mine[mine.index(first) : mine.index(best)]
            turn_start = first.start
            for place in (*before, best):
                del self._turns[bisect_left(self._turns, place.order, key=_order)]
            for place in before:
                place.start += best.cost_s
            best.start = turn_start
            for place in (best, *before):
                insort(self._turns, place, key=_order)
        return best

    def _remove(self, place: QueueSlot, worked_s: float = 0.0) -> None:
        self._lane_turns.left(place.asker, place.lane, worked_s)
        self.waiting.remove(place)
        del self._turns[bisect_left(self._turns, place.order, key=_order)]
        self._numbers.remove(place.number)
        _count_down(self._askers, place.asker)
        _count_down(self._holders, place.by)
        # A sum that is added to and taken from for long would drift.
        self._waiting_s = self._waiting_s - place.cost_s if self.waiting else 0.0


def _count_down(counts: Counter[K], key: K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def _order(place: QueueSlot) -> tuple[float, int]:
    return place.order


def _known_s(place: QueueSlot) -> float:
    """What a job costs; more than anything where that was not measured."""
    return place.cost_s or math.inf


def _start(place: QueueSlot) -> float:
    return place.start


def _number(place: QueueSlot) -> int:
    return place.number


def _holder_places(now: Now) -> int:
    return max(HOLDER_PLACES_MIN, int(HOLDER_SHARE * now.room))


def _with_overhead(work_s: float) -> float:
    return work_s * (1 + OVERHEAD_SHARE) + OVERHEAD_S


def _retry_after_s(queue_s: float) -> float:
    """Half of the queue is done by then: places are free, and not all askers return at once."""
    return min(RETRY_AFTER_S_MAX, max(RETRY_AFTER_S_MIN, queue_s / 2))
