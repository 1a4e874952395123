"""The verifiers that a peer knows: who may check a leg, and what ties them to each other."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from node.checking.check_request import CheckRequest
from node.checking.ties import Ties, ties_in
from node.paying.payer import Payer
from p2p.peers import Peers
from p2p.score import Standing
from wire import limits
from wire.content import ContentId, PeerId
from wire.kinds import Role
from wire.lottery import candidates_drawn
from wire.ownership import Ownership, shown_in


@dataclass(slots=True)
class SeenOwners:
    """What peers showed of their owners when one check first looked at each.

    Whoever shows another one meanwhile changes nothing: else a verifier could show, once it was
    asked, that another one is its owner's too, and the answer would tell of an unfair draw.
    """

    look: Callable[[PeerId], Ownership | None]
    _seen: dict[PeerId, Ownership | None] = field(default_factory=dict)

    def shown(self, peer: PeerId) -> Ownership | None:
        """The word of a peer's owner; None if it showed none."""
        if peer not in self._seen:
            self._seen[peer] = self.look(peer)
        return self._seen[peer]

    def owner_of(self, peer: PeerId) -> PeerId:
        """Whose a peer is; where it showed nothing, its own."""
        found = self.shown(peer)
        return peer if found is None else found.owner

    def sharing(self, peers: Iterable[PeerId]) -> set[PeerId]:
        """Those of these peers whose owner has several of them."""
        found = defaultdict[PeerId, list[PeerId]](list)
        for peer in peers:
            found[self.owner_of(peer)].append(peer)
        return {it for same in found.values() if len(same) > 1 for it in same}

    def told(
        self, peers: Iterable[PeerId], candidates: Iterable[PeerId]
    ) -> Mapping[PeerId, Ownership | None]:
        """What these showed, or that they showed nothing; and candidates that share an owner."""
        return {it: self.shown(it) for it in {*peers, *self.sharing(candidates)}}


@dataclass(slots=True)
class KnownVerifiers:
    """Whom one peer may ask to check."""

    peers: Peers
    # None in a network without credits, where nobody asks for any.
    payer: Payer | None = field(default=None, kw_only=True)
    # How much a verifier counts in a draw: nobody counts more where there are no stakes.
    weight: Callable[[PeerId], int] = field(default=lambda _: 0, kw_only=True)

    def candidates(self, claimed: CheckRequest, seen: SeenOwners | None = None) -> list[PeerId]:
        """The known verifiers that run the leg's model, without the peers that did the task.

        Nor those of the owners of these, as far as they declare it, or did when they were `seen`.
        """
        seen = seen or self.owners()
        doers = claimed.doers | claimed.void | {self.peers.me}
        known = self.verifiers(claimed.receipt.record.model) - doers
        if self.payer is not None:
            known = self.payer.payable(known, claimed.task.record)
        owners = {seen.owner_of(it) for it in claimed.doers | {self.peers.me}}
        apart = [it for it in known if seen.owner_of(it) not in owners]
        if len(apart) > limits.CANDIDATES_MAX:
            # By lot, so that no choice of keys gets anybody in.
            weights = {it: self.weight(it) for it in apart}
            apart = candidates_drawn(claimed.secret, claimed.receipt.id, weights)
        return sorted(apart[: limits.CANDIDATES_MAX])

    def verifiers(self, model: ContentId | None) -> set[PeerId]:
        """The known verifiers that run a model, and may be asked."""
        found = self.peers.view.candidates(Role.VERIFY, model, self.peers.environment.wall_s())
        standing = self.peers.standing
        return {it.signer for it in found if standing(it.signer) is not Standing.BANNED}

    def ties(self, peers: Iterable[PeerId]) -> Ties:
        """What ties known peers to each other."""
        wall_s, members = self.peers.environment.wall_s(), self.peers.credentials
        proven = {} if members is None else members.proven
        # Whom the owner of a private network admits need not be the owner's.
        admitters = {
            peer: it.admitter
            for peer, it in proven.items()
            if members is not None and it.admitter not in (members.network, peer)
        }
        return ties_in(self.peers.view, peers, wall_s, admitters)

    def owners(self) -> SeenOwners:
        """Whose each peer is, as its advert shows when it is first looked at."""
        return SeenOwners(self._shown)

    def _shown(self, peer: PeerId) -> Ownership | None:
        if peer == self.peers.me:
            return self.peers.config.ownership
        heard = self.peers.view.advert_of(peer)
        return None if heard is None else shown_in(heard.record.addresses, peer)
