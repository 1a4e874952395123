"""Members that sign two things of which they may sign one: noticed where both are seen. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from node.evidence.offences import two_votes
from node.ledger.committee import places_in
from wire.checkpoint import AgreementPhase, AgreementVote, Seal
from wire.content import ContentId, PeerId
from wire.evidence import Evidence
from wire.ledger import AccountOrder, Certificate, Member, Vote
from wire.signed import Signed, open_signed, sealed

# Of one epoch: a member that signs twice once has lost everything.
FOUND_MAX = 64
CERTIFICATES_MAX = 20_000


@dataclass(slots=True)
class Equivocations:
    """What was seen in one epoch of each member, and the evidence that came of it."""

    found: dict[PeerId, Evidence] = field(default_factory=dict)
    # The first word of a member in each phase of a round: what it was for, and its bytes.
    _votes: dict[tuple[int, AgreementPhase, int], tuple[ContentId | None, bytes]] = field(
        default_factory=dict
    )
    _seals: dict[int, Signed[Seal]] = field(default_factory=dict)
    # The first certificate of each account and sequence.
    _certificates: dict[tuple[PeerId, int], bytes] = field(default_factory=dict)

    def note_vote(self, place: int, member: PeerId, vote: AgreementVote, raw: bytes) -> None:
        """A member's vote on the end of the epoch, whose signature holds."""
        header, first = self._votes.setdefault((place, vote.phase, vote.round), (vote.header, raw))
        if header != vote.header:
            self._convict(member, first, raw)

    def note_seal(self, place: int, seal: Signed[Seal]) -> None:
        """A member's seal, whose signature holds."""
        first = self._seals.setdefault(place, seal)
        if first.record != seal.record:
            self._convict(seal.signer, first.raw, seal.raw)

    def note_certificate(self, raw: bytes, members: Sequence[Member]) -> None:
        """A certificate that holds: who voted for another order of this number, too?"""
        certificate = Certificate.from_bytes(raw)
        order = open_signed(certificate.order, AccountOrder)
        key = (order.signer, order.record.sequence)
        if key not in self._certificates and len(self._certificates) >= CERTIFICATES_MAX:
            return
        first = Certificate.from_bytes(self._certificates.setdefault(key, raw))
        if first.order == certificate.order:
            return
        both = first.votes.members & certificate.votes.members
        for at in places_in(both):
            member = members[at].key
            self._convict(member, *(_vote_in(it, at, member) for it in (first, certificate)))

    def _convict(self, member: PeerId, first: bytes, second: bytes) -> None:
        if len(self.found) < FOUND_MAX:
            self.found.setdefault(member, two_votes(first, second))


def _vote_in(certificate: Certificate, place: int, member: PeerId) -> bytes:
    """A member's vote as it signed it, from a certificate, which has only its proof."""
    order = open_signed(certificate.order, AccountOrder)
    vote = Vote.of(order)
    proof = certificate.votes.proofs[places_in(certificate.votes.members).index(place)]
    return sealed(vote, member, vote.to_bytes(), proof).raw
