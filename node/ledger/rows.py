"""How a member keeps the ledger on its disk: the keys of rows, and what is in them. Pure.

An account or channel is kept as the last checkpoint has it. Of the epoch that runs, votes and
certificates are kept; a start applies the certificates again.
"""

import struct
from collections.abc import Iterable

from node.ledger.books import GONE, Account, Books, Changes
from node.ledger.payment_channel import PaymentChannel
from wire.codec import Value, pack, unpack
from wire.content import ContentId, PeerId
from wire.stake import StakeRow

# A key, and what is kept under it; None deletes it.
RowChange = tuple[bytes, bytes | None]

GENESIS = b"g"
ACCOUNTS, CHANNELS, CHECKPOINTS, CERTIFICATES = b"a", b"c", b"h", b"o"
# Stakes by their accounts, and acts for which stake was taken.
STAKES, ACTS = b"k", b"e"
# Rows of `motion_shelf`.
MOTIONS = b"m"
VOTES, SEAL, ROUNDS = b"v", b"s", b"r"
# The epoch in which this member takes no part, for it does not know what it has signed there.
SITS_OUT = b"x"
# At a peer that has announced a case: evidence that it has not shown yet, by its seal.
PENDING = b"j"
# When this epoch has begun here, in milliseconds of the wall clock.
BEGUN = b"b"

_EPOCH = struct.Struct(">Q")
_ROUND = struct.Struct(">IB")


def of_epoch(table: bytes, epoch: int) -> bytes:
    """The beginning of the keys of one epoch's rows."""
    return table + _EPOCH.pack(epoch)


def vote_row(epoch: int, account: PeerId, sequence: int, order: bytes) -> RowChange:
    """That this member votes for this order alone."""
    return of_epoch(VOTES, epoch) + account, _EPOCH.pack(sequence) + order


def read_vote(value: bytes) -> tuple[int, bytes]:
    """The sequence and the order of a vote row."""
    return _EPOCH.unpack_from(value)[0], value[_EPOCH.size :]


def round_key(epoch: int, number: int, phase: int) -> bytes:
    """Where what was signed in one phase of a round is kept."""
    return of_epoch(ROUNDS, epoch) + _ROUND.pack(number, phase)


def account_row(key: bytes, account: Account) -> RowChange:
    """An account as it is kept."""
    return ACCOUNTS + key, None if account == GONE else pack([account.balance, account.sequence])


def channel_row(name: bytes, channel: PaymentChannel | None) -> RowChange:
    """A channel as it is kept."""
    if channel is None:
        return CHANNELS + name, None
    sides = [bytes(channel.payer), bytes(channel.payee)]
    fields: list[Value] = [*sides, *channel[2:5], channel.tasks, channel.growth]
    if channel.models:
        fields.append([[bytes(model), paid] for model, paid in channel.models])
    return CHANNELS + name, pack(fields)


def rows_of(changes: Changes) -> list[RowChange]:
    """The rows that an epoch changes."""
    rows = [account_row(key, it) for key, it in changes.accounts.items()]
    rows += [channel_row(name, it) for name, it in changes.channels.items()]
    rows += [
        (STAKES + key, None if it is None else it.to_bytes()) for key, it in changes.stakes.items()
    ]
    rows += [(MOTIONS + key, it) for key, it in changes.motions.items()]
    acts = changes.acts.items()
    return rows + [(ACTS + act, None if it is None else _EPOCH.pack(it)) for act, it in acts]


def read_stakes(books: Books, stakes: Iterable[RowChange], acts: Iterable[RowChange]) -> None:
    """Fill empty books with stakes from rows."""
    for key, value in stakes:
        books.stakes.put(key[1:], StakeRow.from_bytes(value or b""))
    for key, value in acts:
        books.stakes.put_act(key[1:], _EPOCH.unpack(value or b"")[0])


def read_books(books: Books, accounts: Iterable[RowChange], channels: Iterable[RowChange]) -> None:
    """Fill empty books from rows."""
    for key, value in accounts:
        balance, sequence = unpack(value or b"")
        books.put_account(key[1:], Account(balance, sequence))
    for name, value in channels:
        payer, payee, deposit, paid, expiry, tasks, growth, *later = unpack(value or b"")
        sides = PeerId(payer), PeerId(payee)
        channel = PaymentChannel(*sides, deposit, paid, expiry, tasks=tasks, growth=growth)
        models = tuple((ContentId(it), sum_paid) for it, sum_paid in later[0]) if later else ()
        books.put_channel(name[1:], channel._replace(models=models))
