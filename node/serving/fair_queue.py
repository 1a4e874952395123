"""The queue before the engine: the shell around `node.serving.admission`; jobs wait here."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import trio

from node.engines.interface import Engine, Loaded
from node.serving.admission import Admission
from node.serving.queue_slot import Now, QueuedJob, QueueSlot, SlotStage
from wire.content import PeerId


@dataclass(slots=True)
class FairQueue:
    """Takes jobs for one engine, and gives it no more at once than it can use."""

    engine: Engine
    _admission: Admission = field(init=False)
    # Who is told once a job that waits only for the engine has begun, or was given up.
    _moved: dict[QueueSlot, Callable[[QueueSlot], None]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._admission = Admission(self.engine.units_at_once)

    @property
    def queue_s(self) -> float:
        """How long until all jobs that were taken are done."""
        return self.engine.queue_s + self._admission.queue_s

    @property
    def free_slots(self) -> int:
        return max(0, self.engine.free_slots - len(self._admission.waiting))

    def wanted(
        self, asker: PeerId, loaded: Loaded | None, units: int, left_s: float, units_least: int = 0
    ) -> QueuedJob:
        """A job for the queue, with its cost by the measured speed of its model.

        If `units_least` is given, `units` is an estimate, and the job has at least `units_least`.
        """
        if loaded is None or not loaded.units_per_s:
            return QueuedJob(asker=asker, units=units, cost_s=0.0, left_s=left_s)
        return QueuedJob(
            asker=asker,
            units=units,
            cost_s=units / loaded.units_per_s,
            left_s=left_s,
            alone_s=units / (loaded.job_units_per_s or loaded.units_per_s),
            least=min(1.0, units_least / units) if units_least else 1.0,
        )

    def quote(self, wanted: QueuedJob, by: PeerId) -> float:
        """Seconds until a job would be done; Refused as `enqueue`."""
        return self._admission.quote(wanted, by, self._now())

    def enqueue(self, wanted: QueuedJob, by: PeerId) -> QueueSlot:
        """A place for a job offered `by` a holder; Refused, with when to try again."""
        place, given_up = self._admission.enqueue(wanted, by, self._now())
        self._move(given_up)
        return place

    def dequeue(self, place: QueueSlot) -> None:
        """Give a slot back, or leave the queue; the next in turn goes on."""
        self.dequeue_all((place,))

    def dequeue_all(self, places: Iterable[QueueSlot]) -> None:
        """As `dequeue`, of many at once."""
        there = False
        for place in places:
            self._moved.pop(place, None)
            there = self._admission.dequeue(place) or there
        if there:
            self._go_on()

    def ready(self, places: Iterable[QueueSlot], moved: Callable[[QueueSlot], None]) -> None:
        """Say that jobs wait only for the engine. Call once for each place, as with `turn`.

        `moved` is told of each place when it has begun, or is given up.
        """
        for place in places:
            if place.refusal is None:
                place.stage = SlotStage.READY
                self._moved[place] = moved
        self._go_on()

    async def turn(self, place: QueueSlot, wanted: QueuedJob) -> None:
        """Wait for the engine; Refused if the place was given up. Call once for each place.

        Whoever has the turn ends it with `dequeue`.
        """
        if place.refusal is None:
            self._admission.reprice(place, wanted.units, wanted.cost_s, wanted.least)
            place.stage = SlotStage.READY
            self._go_on()
            if place.ready:
                moved = trio.Event()
                self._moved[place] = lambda _: moved.set()
                try:
                    await moved.wait()
                finally:
                    self._moved.pop(place, None)
        if place.refusal is not None:
            raise place.refusal

    def _go_on(self) -> None:
        begun, given_up = self._admission.next(self._now())
        self._move([*begun, *given_up])

    def _move(self, places: Iterable[QueueSlot]) -> None:
        for place in places:
            if (moved := self._moved.pop(place, None)) is not None:
                moved(place)
            if place.refusal is not None and place.on_refusal is not None:
                place.on_refusal()

    def _now(self) -> Now:
        engine = self.engine
        return Now(engine.queue_s, engine.free_slots, trio.current_time())
