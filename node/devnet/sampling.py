"""Looking at a running network once a second: its views, its figures over time, its invariants.

A view is complete if, for every role and model, it knows eight living peers that play it, or all of
them if there are fewer. Each second a part of the peers is looked at. All are looked at in the end,
and whenever a part was found complete.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

import trio

from node.devnet.caught import Caught
from node.devnet.faults import Fault
from node.devnet.invariants import BoundsHold, SequenceNeverGoesBack, Violations
from node.devnet.load import OpenLoopLoad
from node.devnet.open_loop import Latencies
from node.devnet.peer import DevPeer, SharedEnvironment
from node.devnet.plan import manifests
from node.devnet.population import Population
from node.devnet.relay_faults import NATURES
from node.devnet.relay_load import RelaysKeepTheirBounds
from p2p.view import View
from wire.advert import Advert
from wire.content import ContentId, PeerId
from wire.kinds import Role
from wire.signed import Signed

CANDIDATES_WANTED = 8
LOOKED_AT = 48
# These peers' views are watched for sequence numbers that go back; they are always the same peers.
WATCHED = 8
WINDOW_S = 10.0

Part = tuple[Role, ContentId | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The network at one moment, `at_s` after the load began."""

    at_s: float
    living: int
    in_flight: int
    accepted: int
    answered: int
    retries: int
    # Latencies of the answers of the last ten seconds.
    p50_s: float | None
    p99_s: float | None
    views_complete_ratio: float
    gossip_bytes_per_peer_s: float
    # Of those that misbehave, the share that was banned by somebody so far, by the fault's name.
    caught: dict[str, float]
    # How many peers are reached in which way; empty where all are open.
    reached: dict[str, int]

    def to_document(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class Sampler:
    """Takes the samples of one run."""

    seed: int
    violations: Violations
    samples: list[Sample] = field(default_factory=list)
    # The longest time from a fault of many peers, or its end, until every view was complete.
    complete_s: float | None = None
    caught: Caught = field(default_factory=Caught)
    faults: tuple[Fault, ...] = ()
    peer_seconds: float = 0.0
    # How many are reached in which way, by the kind of router, when all were looked at last.
    reached_by_kind: dict[str, dict[str, int]] = field(default_factory=dict)
    carried_before: int = 0
    gossip_cpu_before_s: float = 0.0
    _struck_at_s: float | None = None
    _random: Random = field(init=False)
    _parts: dict[tuple[PeerId, int], tuple[Part, ...]] = field(default_factory=dict)
    _sequences: SequenceNeverGoesBack = field(init=False)
    _bounds: BoundsHold = field(init=False)
    _relays: RelaysKeepTheirBounds = field(init=False)
    _gossip_bytes: int = 0

    def __post_init__(self) -> None:
        self._random = Random(f"{self.seed}:samples")
        self._sequences = SequenceNeverGoesBack(self.violations)
        self._bounds = BoundsHold(self.violations)
        self._relays = RelaysKeepTheirBounds(self.violations)

    def struck(self, now_at_s: float) -> None:
        """A fault struck: measure from now on until views are complete again."""
        if self._struck_at_s is None:
            self._struck_at_s = now_at_s

    @property
    def is_waiting(self) -> bool:
        """Whether some views are not complete again yet."""
        return self._struck_at_s is not None

    # Samples

    def sample(
        self, population: Population, load: OpenLoopLoad, passed_s: float, *, whole: bool = False
    ) -> None:
        """Look at the network, `passed_s` after the load began; at all views if `whole`."""
        now_at_s = trio.current_time()
        living = population.living()
        self._watch(living)
        ratio = self.complete_ratio(living if whole else self._drawn(living), living)
        if self._struck_at_s is not None and ratio == 1.0:
            ratio = self.complete_ratio(living, living)
            if ratio == 1.0:
                self.complete_s = max(self.complete_s or 0.0, now_at_s - self._struck_at_s)
                self._struck_at_s = None
        homes = population.around.homes
        if homes is not None and whole:
            kinds = sorted({homes.kind_of(it.number) for it in living})
            self.reached_by_kind = {
                kind: _reached([it for it in living if homes.kind_of(it.number) == kind])
                for kind in kinds
            }
        accounting, network = population.around.accounting, population.around.network
        gossip_bytes = accounting.gossip_bytes(network.carried_bytes)
        recent = Latencies()
        for at_s, latency_s in reversed(load.answers):
            if at_s < now_at_s - WINDOW_S:
                break
            recent.note(latency_s)
        interval_s = passed_s - self.samples[-1].at_s if self.samples else 1.0
        per_peer_s = (
            (gossip_bytes - self._gossip_bytes) / max(1, len(living)) / max(0.1, interval_s)
        )
        counts = load.counts
        self.caught.look(load.askers)
        if self.samples:
            self.peer_seconds += len(living) * interval_s
        self.samples.append(
            Sample(
                at_s=round(passed_s, 3),
                living=len(living),
                in_flight=counts.in_flight,
                accepted=counts.accepted,
                answered=counts.answered,
                retries=counts.retries,
                p50_s=recent.percentile_s(50),
                p99_s=recent.percentile_s(99),
                views_complete_ratio=ratio,
                gossip_bytes_per_peer_s=per_peer_s,
                caught=self.caught.ratios(self.faults, population.peers),
                reached={} if homes is None else _reached(living),
            )
        )
        self._gossip_bytes = gossip_bytes

    def begin(self, around: SharedEnvironment) -> None:
        """Count gossip from now on: the gossip of starting does not belong to the run."""
        accounting, carried = around.accounting, around.network.carried_bytes
        self.gossip_cpu_before_s = accounting.gossip_cpu_s(carried)
        self._gossip_bytes = self.carried_before = accounting.gossip_bytes(carried)

    def _watch(self, living: Sequence[DevPeer]) -> None:
        for peer in living:
            assert peer.node is not None
            if peer.number < WATCHED:
                self._sequences.see(peer.number, peer.starts, peer.node)
            self._bounds.see(peer.number, peer.node)
            peer.look_at_relaying()
            if (limits := peer.relay_limits) and peer.natures.isdisjoint(NATURES):
                self._relays.see(peer.number, peer.relay_load, limits)

    # Views

    def is_complete(self, living: Sequence[DevPeer]) -> bool:
        """Whether every view is complete; looking at a part of them is usually enough."""
        drawn = self._drawn(living)
        return all(self.complete_ratio(it, living) == 1.0 for it in (drawn, living))

    def _drawn(self, living: Sequence[DevPeer]) -> Sequence[DevPeer]:
        return self._random.sample(living, min(LOOKED_AT, len(living)))

    def complete_ratio(self, looked: Sequence[DevPeer], living: Sequence[DevPeer]) -> float:
        """The share of `looked` that are up and know enough of the `living`."""
        there: Counter[Part] = Counter()
        own: dict[PeerId, tuple[Part, ...]] = {}
        for peer in living:
            own[peer.key.peer] = parts = _planned(peer)
            there.update(parts)
        up = [it for it in looked if it.node is not None]
        complete = sum(self._is_complete(it, own, there) for it in up)
        return complete / max(1, len(looked))

    def _is_complete(
        self, peer: DevPeer, own: dict[PeerId, tuple[Part, ...]], there: Counter[Part]
    ) -> bool:
        assert peer.node is not None
        mine = own.get(peer.key.peer, ())
        lacking = {it: min(CANDIDATES_WANTED, n - (it in mine)) for it, n in there.items()}
        lacking = {part: count for part, count in lacking.items() if count > 0}
        view: View = peer.node.peers.view
        for heard in view.living(peer.node.dependencies.environment.wall_s()):
            if not lacking:
                return True
            if heard.signer in own:
                for part in self._parts_of(heard):
                    if part in lacking:
                        lacking[part] -= 1
                        if not lacking[part]:
                            del lacking[part]
        return not lacking

    def _parts_of(self, heard: Signed[Advert]) -> tuple[Part, ...]:
        key = (heard.signer, heard.record.seq)
        parts = self._parts.get(key)
        if parts is None:
            if len(self._parts) > 100_000:
                self._parts.clear()
            models = [it.model for it in heard.record.models]
            parts = self._parts[key] = tuple(
                (role, model)
                for role in Role
                if heard.record.plays(role)
                for model in (models if role in (Role.INFER, Role.VERIFY) else [None])
            )
        return parts


def _reached(living: Sequence[DevPeer]) -> dict[str, int]:
    return dict(Counter([it.reach for it in living]))


def _planned(peer: DevPeer) -> tuple[Part, ...]:
    models = [_MODEL_IDS[it] for it in peer.plan.models]
    return tuple(
        (role, model)
        for role in Role
        if role in peer.plan.roles
        for model in (models if role in (Role.INFER, Role.VERIFY) else [None])
    )


_MODEL_IDS = {name: manifest.id for name, manifest in manifests().items()}
