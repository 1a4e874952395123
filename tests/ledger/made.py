"""Orders, votes and certificates as honest owners and members make them, for tests to alter."""

from collections.abc import Sequence
from typing import Any

from node.ledger.books import Books
from node.ledger.committee import Committee, collected, proof_of
from node.ledger.replica import Replica
from tests.ledger.simulation import KEYS, OWNERS, genesis_of
from wire.checkpoint import AgreementVote
from wire.content import PeerId
from wire.ledger import (
    ACTIONS,
    AccountOrder,
    Certificate,
    Genesis,
    Payment,
    Signatures,
    Vote,
    Voucher,
    order_digest,
)
from wire.signed import Signed, sign
from wire.signing import SigningKey

ONE, TWO, THREE = OWNERS[:3]


class Made:
    """A network of some members with the same orders applied, and what is made in it."""

    def __init__(self, members: int = 4, fund: int = 5) -> None:
        self.genesis: Genesis = genesis_of(members, fund=fund)
        self.committee = Committee(self.genesis.members)
        by_key = {it.peer: it for it in KEYS}
        self.keys = [by_key[it.key] for it in self.genesis.members]
        self.replicas = [self.replica(key) for key in self.keys]

    def replica(self, key: SigningKey) -> Replica:
        """A member that has just begun, and knows that this epoch runs."""
        replica = Replica(self.genesis, key, Books.of(self.genesis))
        replica.sure = True
        return replica

    def order(self, key: SigningKey = ONE, **changes: Any) -> Signed[AccountOrder]:
        """An order of an account: by default its next, a small payment."""
        replica = self.replicas[0]
        fields: dict[str, Any] = {
            "network": self.genesis.id,
            "epoch": replica.epoch,
            "sequence": replica.draft.account(key.peer).sequence,
        }
        if not changes.keys() & set(ACTIONS):
            to = TWO if key is not TWO else ONE
            fields["pay"] = (Payment(to=to.peer, amount=1000),)
        return sign(AccountOrder(**(fields | changes)), key)

    def certificate(
        self, order: Signed[AccountOrder], members: Sequence[int] = (0, 1, 2), **changes: Any
    ) -> bytes:
        """The votes of some members for an order, whatever they think of it."""
        record = order.record
        fields: dict[str, Any] = {
            "network": record.network,
            "epoch": record.epoch,
            "account": order.signer,
            "sequence": record.sequence,
            "order": order_digest(order),
        }
        vote = Vote(**(fields | changes))
        proofs = {at: proof_of(Vote, sign(vote, self.keys[at]).raw) for at in members}
        return Certificate(order=order.raw, votes=collected(proofs)).to_bytes()

    def signatures(self, *raws: bytes) -> Signatures:
        """What members signed about the end of an epoch, in their order, as one record."""
        return collected({at: proof_of(AgreementVote, raw) for at, raw in enumerate(raws)})

    def done(self, order: Signed[AccountOrder]) -> bytes:
        """Have all members vote for an order and apply it; its certificate."""
        for replica in self.replicas:
            replica.vote(order)
        raw = self.certificate(order)
        for replica in self.replicas:
            replica.confirm(raw)
        return raw

    def balance(self, key: SigningKey, at: int = 0) -> int:
        return self.replicas[at].draft.account(key.peer).balance

    def voucher(self, channel: bytes, total: int, key: SigningKey = ONE, **changes: Any) -> bytes:
        fields: dict[str, Any] = {
            "network": self.genesis.id,
            "channel": channel,
            "total": total,
            "tasks": 1,
            "receipt": None,
        }
        return sign(Voucher(**(fields | changes)), key).raw


def nobody() -> PeerId:
    """32 bytes that are no point of the curve."""
    return PeerId(b"\2" * 32)
