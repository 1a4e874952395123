"""The verifiers that a peer knows: who may check a leg, and what ties them to each other."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from node.checking.check_request import CheckRequest
from node.checking.ties import Ties, ties_in
from node.paying.payer import Payer
from p2p.peers import Peers
from p2p.score import Standing
from wire import limits
from wire.content import ContentId, PeerId
from wire.kinds import Role
from wire.ownership import Ownership, shown_in


@dataclass(slots=True)
class KnownVerifiers:
    """Whom one peer may ask to check."""

    peers: Peers
    # None in a network without credits, where nobody asks for any.
    payer: Payer | None = field(default=None, kw_only=True)
    # How much a verifier counts in a draw: nobody counts more where there are no stakes.
    weight: Callable[[PeerId], int] = field(default=lambda _: 0, kw_only=True)

    def candidates(self, claimed: CheckRequest) -> list[PeerId]:
        """The known verifiers that run the leg's model, without the peers that did the task.

        Nor those of the owners of these, as far as they declare it.
        """
        doers = claimed.doers | claimed.void | {self.peers.me}
        known = self.verifiers(claimed.receipt.record.model) - doers
        if self.payer is not None:
            known = self.payer.payable(known, claimed.task.record)
        owners = {self.owner_of(it) for it in claimed.doers | {self.peers.me}}
        apart = (it for it in known if self.owner_of(it) not in owners)
        return sorted(apart)[: limits.CANDIDATES_MAX]

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

    def owner_of(self, peer: PeerId) -> PeerId:
        """Whose a peer is, as it shows in its advert; where it shows nothing, its own."""
        found = self._shown(peer)
        return peer if found is None else found.owner

    def owned(self, peers: Iterable[PeerId]) -> tuple[Ownership, ...]:
        """What these show of their owners, in order of their keys."""
        shown = (self._shown(it) for it in sorted({*peers, self.peers.me}))
        return tuple(it for it in shown if it is not None)

    def _shown(self, peer: PeerId) -> Ownership | None:
        if peer == self.peers.me:
            return self.peers.config.ownership
        heard = self.peers.view.advert_of(peer)
        return None if heard is None else shown_in(heard.record.addresses, peer)
