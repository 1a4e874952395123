"""The members of an epoch, by weight: what is a quorum, and whose signatures make one. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from wire.checkpoint import AgreementPhase, AgreementVote, Checkpoint, CheckpointHeader
from wire.content import PeerId
from wire.errors import BadSignature, Malformed
from wire.ledger import Member, Signatures
from wire.proof import check_proof
from wire.signed import Envelope, SignedRecord, domain_of


@dataclass(slots=True)
class Committee:
    """The members of one epoch, in the order in which bits stand for them."""

    members: Sequence[Member]
    index: dict[PeerId, int] = field(init=False)
    total: int = field(init=False)

    def __post_init__(self) -> None:
        self.index = {it.key: at for at, it in enumerate(self.members)}
        self.total = sum(it.weight for it in self.members)

    def weight_of(self, members: Iterable[int]) -> int:
        """The weight of distinct members, by their places."""
        return sum(self.members[at].weight for at in members)

    def is_quorum(self, members: Iterable[int]) -> bool:
        """Whether these have more than two thirds of the weight."""
        return self.weight_of(members) * 3 > self.total * 2

    def has_honest(self, members: Iterable[int]) -> bool:
        """Whether one of these is honest as long as less than a third of the weight is not."""
        return self.weight_of(members) * 3 > self.total

    @property
    def tolerates(self) -> int:
        """How many members may be bad, whichever they are."""
        bad = 0
        for count, member in enumerate(
            sorted(self.members, key=lambda it: it.weight, reverse=True), start=1
        ):
            bad += member.weight
            if bad * 3 >= self.total:
                return count - 1
        return 0

    def check(self, record: SignedRecord, signatures: Signatures) -> None:
        """BadSignature or Malformed unless a quorum signed exactly this record."""
        if signatures.members >> len(self.members):
            raise Malformed(f"a signature of more than {len(self.members)} members")
        signers = places_in(signatures.members)
        if not self.is_quorum(signers):
            raise BadSignature(
                f"signatures of weight {self.weight_of(signers)} of {self.total}:"
                " more than two thirds are needed"
            )
        domain, body = domain_of(record), record.to_bytes()
        for at, proof in zip(signers, signatures.proofs, strict=True):
            check_proof(self.members[at].key, domain, body, proof)

    def check_checkpoint(self, checkpoint: Checkpoint, header: CheckpointHeader) -> None:
        """As `check`: unless a quorum decided that the epoch has ended with this header."""
        vote = AgreementVote(
            network=header.network,
            epoch=header.epoch,
            round=checkpoint.round,
            phase=AgreementPhase.PRECOMMIT,
            header=header.id,
        )
        self.check(vote, checkpoint.signatures)


def places_in(bits: int) -> list[int]:
    """The places of the bits that are set, the lowest first."""
    return [at for at in range(bits.bit_length()) if bits >> at & 1]


def collected(proofs: dict[int, bytes]) -> Signatures:
    """Proofs by the places of the members that made them, as one record."""
    return Signatures(
        members=sum(1 << at for at in proofs), proofs=tuple(proofs[at] for at in sorted(proofs))
    )


def proof_of(kind: type[SignedRecord], raw: bytes) -> bytes:
    """What stands for the signature in a signed record."""
    return Envelope.read(raw, kind).proof
