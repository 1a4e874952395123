"""How juries are drawn: by secrets that the ledger's members were bound to before. Pure.

A member's secret for an epoch is what its key gives for it (`wire.vrf`): there is one, and nobody
else knows it. Whose secrets count was settled by the checkpoint before, so whoever leads the end
of an epoch has no choice of them: with one missing nothing is drawn, and who did not give its
secret is left out of the next try. So who withholds a secret wins one more draw, once.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from node.ledger.committee import Committee, places_in
from node.ledger.epoch_outcome import EpochOutcome
from wire.checkpoint import CheckpointHeader, Proposal, Seal
from wire.content import ContentId, PeerId
from wire.errors import Malformed
from wire.ledger import Member
from wire.signed import Signed
from wire.signing import SigningKey
from wire.vrf import output_of, prove

# Leaders of so many rounds wait for a secret that is missing. For as many times the number of
# members, who knows one that a proposal leaves out does not vote for it.
ROUNDS_EACH = 2
_KEPT = 256


@dataclass(frozen=True, slots=True)
class DrawnBy:
    """What the seals of a proposal say for the draw: `beacon` is empty where a secret is missing.

    `sealed` are the members whose secrets may count in the next epoch, as bits: by their places in
    the epoch that ends, or, as a checkpoint says it, in the next one.
    """

    beacon: bytes = b""
    sealed: int = 0
    by_next: bool = False

    @classmethod
    def of(cls, header: CheckpointHeader) -> "DrawnBy":
        """As a checkpoint says it."""
        return cls(header.jury_draw.beacon, header.jury_draw.secrets_of, by_next=True)

    def noted(self, outcome: EpochOutcome) -> EpochOutcome:
        """An outcome whose header says whose secrets count next, if a jury waits for them."""
        if not outcome.juries.waits:
            return outcome
        sealed = self.sealed
        if not self.by_next and outcome.header.members != outcome.members:
            sealed = _moved(sealed, outcome.members, outcome.header.members)
        draw = replace(outcome.header.jury_draw, secrets_of=sealed)
        return replace(outcome, header=replace(outcome.header, draw=(draw,)))


NO_DRAW = DrawnBy()


def _moved(bits: int, before: Sequence[Member], after: Sequence[Member]) -> int:
    """The same members, without those that are none any more, by their places among others."""
    keys = {before[at].key for at in places_in(bits)}
    return sum(1 << at for at, member in enumerate(after) if member.key in keys)


def _words(network: ContentId, epoch: int) -> bytes:
    return b"baton/1/jury_secret\0" + network + epoch.to_bytes(8, "big")


def is_due(tip: CheckpointHeader | None, place: int) -> bool:
    """Whether a member gives its secret in the epoch after this checkpoint."""
    return tip is not None and bool(tip.jury_draw.secrets_of >> place & 1)


def secret_for(key: SigningKey, network: ContentId, epoch: int) -> bytes:
    """The proof of a member's secret."""
    return prove(key, _words(network, epoch))


@lru_cache(maxsize=_KEPT)
def _output(member: PeerId, network: ContentId, epoch: int, proof: bytes) -> bytes:
    return output_of(member, _words(network, epoch), proof)


def check_seal(seal: Signed[Seal], tip: CheckpointHeader | None, place: int) -> None:
    """WireError unless a seal has its member's secret where that is due, and none elsewhere."""
    said = seal.record
    if is_due(tip, place):
        _output(seal.signer, said.network, said.epoch, said.secret)
    elif said.secret:
        raise Malformed("a seal with a secret that nobody waits for")


def drawn_by(
    seals: Mapping[int, Signed[Seal]], tip: CheckpointHeader | None, committee: Committee
) -> DrawnBy:
    """What the seals of a proposal, which were checked, come to."""
    due = [] if tip is None else places_in(tip.jury_draw.secrets_of)
    sealed = sum(1 << at for at in seals)
    if not due:
        return DrawnBy(b"", sealed)
    if all(at in seals for at in due):
        whole = hashlib.sha256(b"baton/1/beacon\0")
        for at in due:
            seal = seals[at]
            said = seal.record
            whole.update(_output(seal.signer, said.network, said.epoch, said.secret))
        return DrawnBy(whole.digest(), sealed)
    # Whoever is missing could know by now what would have been drawn.
    left = [at for at in due if at in seals]
    if committee.has_honest(left):
        sealed = sum(1 << at for at in left)
    return DrawnBy(b"", sealed)


def withholds(
    proposal: Proposal,
    seals: Mapping[int, Signed[Seal]],
    known: Mapping[int, Signed[Seal]],
    tip: CheckpointHeader | None,
    members: int,
) -> bool:
    """Whether a new proposal with these seals leaves out a secret that is known here.

    Late rounds take any, so that every epoch ends; one that has prevotes was looked at before.
    """
    due = [] if tip is None else places_in(tip.jury_draw.secrets_of)
    if proposal.valid_round is not None or proposal.round >= ROUNDS_EACH * members:
        return False
    return any(at in known and at not in seals for at in due)


def is_awaited(
    seals: Mapping[int, Signed[Seal]], tip: CheckpointHeader | None, number: int
) -> bool:
    """Whether the leader of an early round waits for a secret that may still come."""
    due = [] if tip is None else places_in(tip.jury_draw.secrets_of)
    return number < ROUNDS_EACH and not all(at in seals for at in due)
