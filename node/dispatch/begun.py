"""What was done of a handoff before it got a path of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

from node.dispatch.handoff import LegResult
from node.dispatch.order import Order, OrderedTask
from node.dispatch.route import Candidate
from wire.content import PeerId
from wire.errors import BatonError


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """Peers that failed; or one that has it now, on an order; or the result; or who was drawn."""

    failures: tuple[tuple[PeerId, BatonError], ...] = ()
    candidate: Candidate | None = None
    order: Order | None = None
    ordered: OrderedTask | None = None
    began_at_s: float = 0.0
    # Whether its watchers heard that the peer took it.
    offered: bool = False
    delivered: LegResult | None = None
    drawn: Sequence[Candidate] = ()
