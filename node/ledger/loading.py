"""A replica as it was written: its books, the last checkpoint, and the epoch so far. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from node.ledger.books import Books, Changes
from node.ledger.epoch_end import EpochEnd
from node.ledger.replica import Replica
from node.ledger.rows import (
    ACCOUNTS,
    ACTS,
    CERTIFICATES,
    CHANNELS,
    CHECKPOINTS,
    MOTIONS,
    ROUNDS,
    SEAL,
    SITS_OUT,
    STAKES,
    VOTES,
    RowChange,
    of_epoch,
    read_books,
    read_stakes,
    read_vote,
    rows_of,
)
from wire.checkpoint import Checkpoint, CheckpointHeader
from wire.content import PeerId
from wire.errors import Corrupt
from wire.ledger import Genesis
from wire.signing import SigningKey

# All rows whose keys begin so, in the order of their keys.
Scan = Callable[[bytes], list[tuple[bytes, bytes]]]


@dataclass(frozen=True, slots=True)
class LoadedReplica:
    """What a start found."""

    replica: Replica
    end: EpochEnd
    # What this member has signed about the end of the epoch that runs.
    signed: list[bytes]


def first_rows(genesis: Genesis) -> list[RowChange]:
    """What is written of a network before anything else."""
    books = Books.of(genesis)
    accounts = {key: it for shelf in books.accounts for key, it in shelf.items()}
    return rows_of(Changes(accounts=accounts))


def load(genesis: Genesis, key: SigningKey, scan: Scan) -> LoadedReplica:
    """The replica that these rows are; Corrupt if they do not sum up to what was signed."""
    books = Books(genesis.fund, genesis.account_min)
    read_books(books, scan(ACCOUNTS), scan(CHANNELS))
    read_stakes(books, scan(STAKES), scan(ACTS))
    books.motions.put({key[1:]: value for key, value in scan(MOTIONS)})
    checkpoints = scan(CHECKPOINTS)[-1:]
    tip = None
    if checkpoints:
        header = Checkpoint.from_bytes(checkpoints[0][1]).header
        tip = CheckpointHeader.from_bytes(header)
        books.fund = tip.fund
        if books.digest() != tip.state:
            raise Corrupt("the accounts on this disk are not those of the last checkpoint")
    replica = Replica(genesis, key, books, tip)
    epoch = replica.epoch
    replica.restore(
        {PeerId(key[9:]): read_vote(value) for key, value in scan(of_epoch(VOTES, epoch))},
        [value for _, value in scan(of_epoch(CERTIFICATES, epoch))],
        dict(scan(SEAL)).get(SEAL),
    )
    replica.sits_out = dict(scan(SITS_OUT)).get(SITS_OUT) == epoch.to_bytes(8, "big")
    end = EpochEnd(replica)
    signed = [value for _, value in scan(of_epoch(ROUNDS, epoch))]
    end.restore(signed)
    if replica.seal is not None:
        signed.insert(0, replica.seal.raw)
    return LoadedReplica(replica, end, signed)
