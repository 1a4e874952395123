"""The whole ledger as one file: genesis, then of each epoch the checkpoint and its certificates.

A part is four bytes of length and as many bytes. `replay` goes through all of it, offline, and
believes nothing that is not signed by a quorum of the members of that epoch.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from node.ledger.books import Account, Books
from node.ledger.epoch_outcome import EpochOutcome
from node.ledger.judging import check_authority
from node.ledger.jury_draw import DrawnBy
from node.ledger.replica import Replica
from wire import limits
from wire.checkpoint import Checkpoint, CheckpointHeader
from wire.content import PeerId
from wire.errors import BatonError, Malformed
from wire.ledger import Certificate, Genesis
from wire.signing import SigningKey

MAGIC = b"baton ledger 1\n"
PART_BYTES_MAX = max(
    limits.GENESIS_BYTES_MAX, limits.CERTIFICATE_BYTES_MAX, limits.CHECKPOINT_BYTES_MAX
)
# Whoever only reads signs nothing: this key is nobody's.
_NOBODY = hashlib.sha256(b"baton/1/reader of ledgers").digest()


def framed(part: bytes) -> bytes:
    """One part as it stands in the file."""
    return len(part).to_bytes(4, "big") + part


def read_parts(source: BinaryIO) -> Iterator[bytes]:
    """The parts of a file, in order; Malformed if it is none, or is cut."""
    if source.read(len(MAGIC)) != MAGIC:
        raise Malformed("not a ledger: its first line is another")
    while head := source.read(4):
        size_bytes = int.from_bytes(head, "big")
        if len(head) < 4 or not 0 < size_bytes <= PART_BYTES_MAX:
            raise Malformed("the file is cut, or no ledger")
        part = source.read(size_bytes)
        if len(part) < size_bytes:
            raise Malformed("the file is cut in the middle of a part")
        yield part


@dataclass(slots=True)
class Replayed:
    """What a whole ledger says, after everything in it was checked."""

    genesis: Genesis
    books: Books
    tip: CheckpointHeader | None
    epochs: int = 0
    orders: int = 0
    signatures: int = 0

    def account(self, key: PeerId) -> Account:
        """An account after the last epoch in the file."""
        return self.books.accounts[key[0]].get(key, Account())


# Told of each epoch that holds, before the next one begins.
Watcher = Callable[[Replica, EpochOutcome], None]


def unwatched(_: Replica, __: EpochOutcome) -> None:
    """Nobody wants to know."""


def replay(parts: Iterator[bytes], watch: Watcher = unwatched) -> Replayed:
    """Check all parts, from genesis on; WireError says which epoch does not hold, and why."""
    genesis = Genesis.from_bytes(next(parts, b""))
    replica = follower(genesis)
    found = Replayed(genesis, replica.books, None)
    for raw in parts:
        try:
            _replay_epoch(replica, Checkpoint.from_bytes(raw), parts, found, watch)
        except BatonError as error:
            raise Malformed(f"epoch {replica.epoch} does not hold: {error}") from error
    found.tip = replica.tip
    return found


def follower(genesis: Genesis) -> Replica:
    """A copy of the ledger at its beginning, of whoever signs nothing."""
    return Replica(genesis, SigningKey(_NOBODY), Books.of(genesis))


def _replay_epoch(
    replica: Replica,
    checkpoint: Checkpoint,
    parts: Iterator[bytes],
    found: Replayed,
    watch: Watcher,
) -> None:
    header = replica.check_checkpoint(checkpoint)
    orders = []
    for _ in range(header.count):
        raw = next(parts, None)
        if raw is None:
            raise Malformed("certificates are missing at the end of the file")
        digest = replica.learn(raw)
        found.signatures += 1 + len(Certificate.from_bytes(raw).votes.proofs)
        orders.append(digest)
    outcome = replica.outcome(orders, DrawnBy.of(header))
    for digest in orders:
        check_authority(outcome.draft, replica.orders[digest])
    watch(replica, outcome)
    replica.turn(checkpoint, orders)
    found.epochs += 1
    found.orders += header.count
    found.signatures += len(checkpoint.signatures.proofs)
    _check_sums(replica)


def _check_sums(replica: Replica) -> None:
    """Add everything up again, from the rows and not from the sums that were kept with them."""
    books, tip = replica.books, replica.tip
    assert tip is not None
    balances = sum(it.balance for shelf in books.accounts for it in shelf.values())
    deposits = sum(it.locked for shelf in books.channels for it in shelf.values())
    stakes = sum(it.total for it in books.stakes.rows.values())
    summed = (balances, deposits, books.fund, stakes, books.motions.bonds)
    if summed != (tip.balances, tip.deposits, tip.fund, tip.stakes, tip.bonds):
        raise Malformed("balances, deposits, stakes and the fund are not what the checkpoint says")
    if sum(summed) != replica.genesis.supply:
        raise Malformed("the supply has changed")
