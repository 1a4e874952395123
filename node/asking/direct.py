"""The common case of a task, without a path of its own: what it brings is small, and its first leg
goes by a standing order.

Such a task is put on the order at once. The outcome of one that nobody checks is kept with others';
one that is checked goes to its own path with it. Nothing is decided here about trouble: whatever
else happens, or takes long, goes to the task's own path (`node.dispatch.failover`), which goes on
from there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from node.asking.run import TaskRequest, TaskState
from node.dispatch.begun import Begun
from node.dispatch.directory import PeerDirectory
from node.dispatch.failover import WORTH_ASKING_S
from node.dispatch.handoff import Handoff, LegResult
from node.dispatch.offer import note_delivered, ordered_result
from node.dispatch.order import Heard, Order, OrderedTask, OrderOutcome
from node.dispatch.orders import version_for
from node.dispatch.route import Candidate
from node.dispatch.standing_order import TASK_S_MAX
from node.engines.interface import Part
from node.paying.pricing import LegUnits, units_at_most
from node.task.events import Offered
from node.task.units import streamed_max, units_of
from p2p.score import Offence
from p2p.typed_call import refused
from wire import limits
from wire.content import ContentId
from wire.counting import count_down, count_up
from wire.errors import BatonError, RemoteProtocolError, WireError
from wire.kinds import Level, Role
from wire.order import OrderPiece

# A task that took so long goes to its own path, where it can be given to a second peer. No task of
# a peer that delivered before is hedged sooner (`node.dispatch.hedging`).
OWN_PATH_AFTER_S = 0.75
LOOK_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a task goes. Without an `order` it goes its own path, to one that was drawn here."""

    drawn: Sequence[Candidate]
    units: int
    order: Order | None
    # Whether every peer that may read the task knows proofs of many.
    shares: bool
    # Those of whom they were drawn.
    able: Sequence[Candidate]
    # What its first leg can be charged for at most.
    most: LegUnits


@dataclass(slots=True, eq=False)
class _Direct:
    """One task on its order."""

    tasks: "DirectTasks"
    run: TaskState
    plan: Plan
    order: Order
    handoff: Handoff
    began_at_s: float
    at_once: int
    ordered: OrderedTask | None = None
    offered: bool = False

    def heard(self, heard: Heard | BatonError) -> None:
        """What the order says of it."""
        self.tasks.heard(self, heard)


@dataclass(slots=True)
class DirectTasks:
    """The tasks of this peer's clients that are on orders without a path of their own."""

    directory: PeerDirectory
    nursery: trio.Nursery
    done: Callable[[TaskState, LegResult], None]
    # Gives a task its own path; what happened so far is in `TaskState.begun`.
    own_path: Callable[[TaskState], None]
    # Tasks that needed no path of their own.
    count: int = 0
    _tasks: dict[ContentId, _Direct] = field(default_factory=dict)
    _looking: bool = False

    # Choosing

    def plans(self, requests: Sequence[TaskRequest]) -> list[Plan | None]:
        """Where each of them goes; None for those that have to find their own path."""
        known: dict[tuple[Role, ContentId | None, int], list[Candidate]] = {}
        return [self._plan(it, known) for it in requests]

    def _plan(
        self, request: TaskRequest, known: dict[tuple[Role, ContentId | None, int], list[Candidate]]
    ) -> Plan | None:
        orders, stage = self.directory.orders, request.stages[0]
        if orders is None or not _is_common(request):
            return None
        if self.directory.payer is not None and len(request.stages) > 1:
            # What its later legs cost, and who can be paid for them, is found on its own path.
            return None
        units = max(1, units_of(stage, request.inline))
        key = (stage.role, stage.model, units)
        able = known.get(key)
        if able is None or len(able) > 1:
            # Which of several is best depends on what each has been given by now.
            able = known[key] = self.directory.candidates(stage, units, frozenset())
        most = units_at_most(stage, request.inline, units)
        priced = self.directory.affordable(able, stage, most, request.price_max)
        if not priced:
            return None
        if len(able) == 1:
            known[key] = priced
        able = priced
        two = self.directory.trials.to_ask(able, self.directory.peers.environment.random)
        slight = stage.role is not Role.INFER
        asks = not slight and len(two) > 1 and min(it.work_s for it in two) >= WORTH_ASKING_S
        order = orders.standing_at(two[0].peer) if two[0].delivered and not asks else None
        if order is not None and order.version < version_for(request.stages):
            order = None
        if order is not None:
            count_up(self.directory.under_way, two[0].peer)
        # The receipts of a leg are read by whoever does the next one, which is not known here.
        alone = len(request.stages) == 1
        shares = alone and all(orders.standing_at(it.peer) is not None for it in able)
        if request.level is not Level.SIGNED:
            shares = shares and self._verifiers_know_proofs(stage.model)
        return Plan(two, units, order, shares, able, most)

    def _verifiers_know_proofs(self, model: ContentId | None) -> bool:
        """Whether every verifier that is known now reads what was signed with others."""
        peers = self.directory.peers
        known = peers.view.candidates(Role.VERIFY, model, peers.environment.wall_s())
        version_of = peers.neighbours.known_version
        return all(version_of(it.signer) >= limits.BUNDLES_VERSION for it in known)

    # Life

    def begin(self, run: TaskState, plan: Plan, order: Order, deadline_at_s: float) -> None:
        """Have a task done on an order that was planned for it."""
        peer = plan.drawn[0].peer
        lane = self.directory.lanes.of(run.owner)
        handoff = Handoff(
            task=run.task, input=run.inline, units=plan.units, lane=lane, bill=run.bill
        )
        self.directory.note_choice(handoff, plan.able, plan.drawn, plan.drawn[0])
        is_promised, payer = True, self.directory.payer
        if run.bill is not None and payer is not None:
            is_promised = payer.note_given(run.bill, peer, 0, handoff.leg, plan.most, 0)
        at_once = self.directory.under_way[peer]
        direct = _Direct(self, run, plan, order, handoff, trio.current_time(), at_once)
        self._tasks[run.task.id] = direct
        if not order.takes or not is_promised:
            # It ended since the task was planned; or what was promised is used by those before it.
            if run.bill is not None:
                run.bill.drop(peer)
            self._leave(direct, Begun(drawn=plan.drawn))
            return
        direct.ordered = order.put(handoff, deadline_at_s, direct.heard)
        if not self._looking:
            self._looking = True
            self.nursery.start_soon(self._look)

    def stop(self, run: TaskState) -> bool:
        """Wait for a task no longer; whether it was here. Its own path ends it."""
        direct = self._tasks.get(run.task.id)
        if direct is None:
            return False
        self._leave(direct, Begun())
        return True

    def heard(self, direct: _Direct, heard: Heard | BatonError) -> None:
        """Take in what an order says of a task."""
        if isinstance(heard, BatonError):
            self._failed(direct, heard)
            return
        if isinstance(heard, OrderOutcome) and heard.refusal is not None:
            self._failed(direct, refused(heard.refusal))
            return
        run, peer = direct.run, direct.order.peer
        if not direct.offered:
            direct.offered = True
            run.on_event(Offered(0, direct.handoff.leg.role, peer))
        try:
            if isinstance(heard, OrderPiece):
                self._show(direct, Part(heard.position, heard.units, heard.data, heard.segment))
            elif isinstance(heard, OrderOutcome):
                self._delivered(direct, ordered_result(direct.handoff, peer, heard))
        except (WireError, RemoteProtocolError) as error:
            # It is what the peer says of this task that does not fit; others go on.
            self.directory.peers.offended(peer, Offence.MALFORMED)
            self._failed(direct, error)

    def _show(self, direct: _Direct, part: Part) -> None:
        units_max = streamed_max(direct.run.task.record.stages[-1])
        if part.position + part.units > units_max:
            raise RemoteProtocolError(f"a piece beyond the {units_max} units of the leg")
        run, peer = direct.run, direct.order.peer
        if run.bill is not None:
            run.bill.show(peer, part.position + part.units)
        for event in run.shown.apply(part):
            run.on_event(event)
        if run.shown.take_segment(part, peer, run.task.id, 0) and run.bill is not None:
            run.bill.sign(peer, run.shown.units)

    def _delivered(self, direct: _Direct, found: LegResult) -> None:
        run, one = direct.run, direct.plan.drawn[0]
        took_s = trio.current_time() - direct.began_at_s
        note_delivered(
            self.directory, direct.handoff, one.peer, found, run.on_event, took_s, direct.at_once
        )
        if direct.handoff.is_last:
            self.directory.hedging.delivered(took_s, one.expected_s)
        if found.output is None or run.task.record.checking.level is not Level.SIGNED:
            # It is large, and has to be fetched; or it is checked.
            self._leave(direct, Begun(delivered=found))
            return
        self._forget(direct)
        self.count += 1
        self.done(run, found)

    def _failed(self, direct: _Direct, error: BatonError) -> None:
        if (bill := direct.run.bill) is not None:
            if isinstance(error, WireError | RemoteProtocolError):
                bill.drop(direct.order.peer)
            bill.part(direct.order.peer)
        self._leave(direct, Begun(failures=((direct.order.peer, error),)))

    def _leave(self, direct: _Direct, begun: Begun) -> None:
        """Give a task its own path."""
        if direct.ordered is not None and begun.ordered is None:
            direct.order.leave(direct.ordered)
        self._forget(direct)
        direct.run.begun = begun
        self.own_path(direct.run)

    def _forget(self, direct: _Direct) -> None:
        del self._tasks[direct.run.task.id]
        if (ordered := direct.ordered) is not None:
            # The two have each other, and only the garbage collector would part them.
            direct.ordered = ordered.sink = None
        count_down(self.directory.under_way, direct.order.peer)

    async def _look(self) -> None:
        """Give tasks that take long their own paths, in which they go on as they are."""
        try:
            while self._tasks:
                await trio.sleep(LOOK_EVERY_S)
                since_at_s = trio.current_time() - OWN_PATH_AFTER_S
                for direct in list(self._tasks.values()):
                    if direct.began_at_s > since_at_s:
                        break
                    assert direct.ordered is not None
                    direct.ordered.sink = None
                    begun = Begun(
                        candidate=direct.plan.drawn[0],
                        order=direct.order,
                        ordered=direct.ordered,
                        began_at_s=direct.began_at_s,
                        offered=direct.offered,
                    )
                    self._leave(direct, begun)
        finally:
            self._looking = False


def _is_common(request: TaskRequest) -> bool:
    if request.only or request.deadline_s > TASK_S_MAX:
        return False
    # A data leg may have no input; what is large has to be fetched.
    nothing = request.input is None and request.stages[0].role is Role.DATA
    return nothing or request.inline is not None
