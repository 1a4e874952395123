"""The standing orders of this peer at others: which leg goes by one, and when one is opened.

A leg alone goes by a conversation of its own, as with peers that know no orders. Where two are
under way at one peer, or one soon follows another, an order is opened, and is used until it has
been idle for a while.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import trio

from node.dispatch.handoff import Handoff
from node.dispatch.order import Order
from node.dispatch.order_tags import OrderFigures
from node.dispatch.standing_order import IDLE_S, OPEN_DEADLINE_S, TASK_S_MAX, StandingOrder
from p2p.connect import TROUBLES
from p2p.peers import Peers
from p2p.timeouts import stretched
from wire import limits
from wire.content import PeerId
from wire.kinds import Role
from wire.latest import Latest
from wire.task import Stage

# Items under way at one peer from which on an order is worth its conversation.
WORTH_IT = 2
ORDERS_MAX = 128
# How long an item waits for an order that is being opened; then it goes by itself.
PATIENCE_S = 1.0
# A peer that opened no order is asked again after so long.
AGAIN_S = 30.0
PEERS_KEPT = 1024

O = TypeVar("O", bound=StandingOrder[Any])  # noqa: E741


@dataclass(slots=True)
class OrderBook(Generic[O]):
    """Orders of one kind by peer; each runs in `nursery`."""

    # The version from which on a peer takes such orders.
    SINCE: ClassVar[int]

    peers: Peers
    nursery: trio.Nursery
    # Orders that were used and have ended; the items that were sent on them, in how many bundles.
    ended: int = 0
    sent: int = 0
    bundles: int = 0
    _orders: dict[PeerId, O] = field(default_factory=dict)
    # Peers that opened none, and when they may be asked again.
    _without: Latest[PeerId, float] = field(default_factory=lambda: Latest(PEERS_KEPT))
    # When the last item went to a peer.
    _given_at_s: Latest[PeerId, float] = field(default_factory=lambda: Latest(PEERS_KEPT))

    @property
    def standing(self) -> int:
        """Orders that stand now."""
        return sum(it.stands for it in self._orders.values())

    def figures(self) -> OrderFigures:
        """What the orders of this peer at others are, and were."""
        now = list(self._orders.values())
        places = [it.places for it in now if it.stands]
        return OrderFigures(
            open=len(places),
            tasks=self.sent + sum(it.sent for it in now),
            bundles=self.bundles + sum(it.bundles for it in now),
            in_use=sum(used for used, _ in places),
            free=sum(free for _, free in places),
        )

    def standing_at(self, peer: PeerId) -> O | None:
        """The order at `peer` that takes an item now, if there is one."""
        order = self._orders.get(peer)
        return order if order is not None and order.takes else None

    @abstractmethod
    def _made(self, peer: PeerId) -> O:
        """An order that is not open yet."""

    async def _settled_at(self, peer: PeerId, left_s: float, at_once: int) -> O | None:
        """The order at `peer` that takes one more of `at_once` items; None if there is none.

        One that comes alone waits for no order that is being opened.
        """
        order, alone = self._orders.get(peer), at_once < WORTH_IT
        now_at_s = trio.current_time()
        follows = self._given_at_s.get(peer, -math.inf) >= now_at_s - IDLE_S
        self._given_at_s[peer] = now_at_s
        if order is None or order.closing:
            if (alone and not follows) or not self._may_open(peer):
                return None
            order = self._open(peer)
        if not order.settled.is_set() and not alone:
            with trio.move_on_after(min(stretched(PATIENCE_S), left_s)):
                await order.settled.wait()
        return order if order.takes else None

    def _may_open(self, peer: PeerId) -> bool:
        if len(self._orders) >= ORDERS_MAX:
            return False
        return self._without.get(peer, 0.0) <= trio.current_time()

    def _open(self, peer: PeerId) -> O:
        order = self._orders[peer] = self._made(peer)
        self.nursery.start_soon(self._run, order)
        return order

    async def _run(self, order: O) -> None:
        peer = order.peer
        try:
            order.version = await self._version_of(peer)
            if order.version >= self.SINCE:
                await order.run()
        finally:
            order.closing = True
            order.settled.set()
            if not order.sent:
                self._without[peer] = trio.current_time() + AGAIN_S
            self.ended += bool(order.sent)
            self.sent += order.sent
            self.bundles += order.bundles
            if self._orders.get(peer) is order:
                del self._orders[peer]

    async def _version_of(self, peer: PeerId) -> int:
        try:
            return await self.peers.neighbours.version_of(
                peer, deadline_s=stretched(OPEN_DEADLINE_S)
            )
        except TROUBLES:
            return limits.PROTOCOL_VERSION


def version_for(stages: Sequence[Stage]) -> int:
    """The version from which on a peer takes a task of these stages on an order."""
    one = len(stages) == 1 and stages[0].role is Role.INFER
    return limits.ORDERS_VERSION if one else limits.LEGS_VERSION


@dataclass(slots=True)
class Orders(OrderBook[Order]):
    """The orders of tasks."""

    SINCE: ClassVar[int] = limits.ORDERS_VERSION

    async def at(self, peer: PeerId, handoff: Handoff, left_s: float, at_once: int) -> Order | None:
        """The order at `peer` that takes this leg; None if it has to go by itself.

        `at_once` is how many legs are under way at the peer with this one.
        """
        if left_s > TASK_S_MAX:
            return None
        least = version_for(handoff.task.record.stages)
        known = self.peers.neighbours.known_version(peer)
        # What a peer speaks that was never asked is found out as its order is opened.
        if limits.PROTOCOL_VERSION < known < least:
            return None
        if not handoff.is_last and (handoff.avoid or handoff.unpayable()):
            # No item of an order says whom to avoid: that is rare.
            return None
        order = await self._settled_at(peer, left_s, at_once)
        return order if order is not None and order.version >= least else None

    def _made(self, peer: PeerId) -> Order:
        return Order(self.peers, peer)
