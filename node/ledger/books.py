"""Accounts, channels and stakes, and what an order does to them. Pure.

`Books` are those of the last checkpoint. A `Draft` is what the orders of an epoch make of them: it
is thrown away, or becomes the books, when the epoch ends. Orders of different accounts commute, so
members that have applied the same have the same draft, in whatever order they heard of them.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from node.ledger.motion_shelf import MotionShelf, RowChanges, parameter, rows_by
from node.ledger.payment_channel import PaymentChannel, channel_name, shares_of
from node.ledger.stake_shelf import StakeShelf, unbonded, with_more
from wire.content import PeerId
from wire.jury import ShownCase
from wire.ledger import (
    AccountOrder,
    Accusation,
    Genesis,
    Member,
    Redemption,
    Voucher,
    order_digest,
)
from wire.motion import Parameter
from wire.signed import Signed, open_signed
from wire.stake import UNBONDING_EPOCHS, StakeRow

SHELVES = 256
# Of one epoch: what changed is written in one commit when it ends.
CHANGED_MAX = 80_000


class Account(NamedTuple):
    """What an account has, in millionths, and the sequence number of its next order."""

    balance: int = 0
    sequence: int = 0


_ACCOUNT_ROW = struct.Struct(">32sQQ")


@dataclass(slots=True)
class Books:
    """All accounts and channels of the last checkpoint, on shelves by their first byte."""

    fund: int
    account_min: int
    accounts: list[dict[bytes, Account]] = field(
        default_factory=lambda: [{} for _ in range(SHELVES)]
    )
    channels: list[dict[bytes, PaymentChannel]] = field(
        default_factory=lambda: [{} for _ in range(SHELVES)]
    )
    balances: int = 0
    deposits: int = 0
    # The names of each payer's channels.
    payers: dict[bytes, set[bytes]] = field(default_factory=dict)
    stakes: StakeShelf = field(default_factory=StakeShelf)
    motions: MotionShelf = field(default_factory=MotionShelf)
    # Who keeps the ledger now.
    members: Sequence[Member] = ()
    # The first members, who vote without a stake.
    founders: frozenset[bytes] = frozenset()
    # Digests of shelves that have not changed since.
    _digests: dict[tuple[str, int], bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, genesis: Genesis) -> "Books":
        """The books of a network that begins."""
        books = cls(genesis.fund, genesis.account_min)
        for grant in genesis.grants:
            books.put_account(grant.account, Account(grant.amount))
        return books

    def balance(self, key: bytes) -> int:
        """What an account has, in millionths."""
        return self.accounts[key[0]].get(key, Account()).balance

    def put_account(self, key: bytes, account: Account) -> None:
        """Set an account, in place of what was there."""
        shelf = self.accounts[key[0]]
        self.balances += account.balance - shelf.get(key, Account()).balance
        shelf[key] = account
        self._digests.pop(("accounts", key[0]), None)

    def put_channel(self, name: bytes, channel: PaymentChannel | None) -> None:
        """Set a channel, in place of what was there; None for one that is no more."""
        shelf = self.channels[name[0]]
        before = shelf.pop(name, None)
        if before is not None:
            self.deposits -= before.locked
            self._forget_payer(before.payer, name)
        if channel is not None:
            self.payers.setdefault(channel.payer, set()).add(name)
            shelf[name] = channel
            self.deposits += channel.locked
        self._digests.pop(("channels", name[0]), None)

    def _forget_payer(self, payer: PeerId, name: bytes) -> None:
        names = self.payers[payer]
        names.discard(name)
        if not names:
            del self.payers[payer]

    @property
    def supply(self) -> int:
        """All credits there are."""
        return self.fund + self.balances + self.deposits + self.stakes.total + self.motions.bonds

    def digest(self) -> bytes:
        """32 bytes that all this hashes to."""
        whole = hashlib.sha256(b"baton/1/ledger_state\0" + self.fund.to_bytes(8, "big"))
        for shelf in range(SHELVES):
            whole.update(self._shelf_digest("accounts", shelf))
        for shelf in range(SHELVES):
            whole.update(self._shelf_digest("channels", shelf))
        if state := self.stakes.state():
            whole.update(b"stakes" + state)
        if state := self.motions.digest():
            whole.update(b"motions" + state)
        return whole.digest()

    def _shelf_digest(self, kind: str, shelf: int) -> bytes:
        found = self._digests.get((kind, shelf))
        if found is None:
            if kind == "accounts":
                rows = [
                    _ACCOUNT_ROW.pack(key, it.balance, it.sequence)
                    for key, it in sorted(self.accounts[shelf].items())
                ]
            else:
                rows = [it.row(name) for name, it in sorted(self.channels[shelf].items())]
            found = hashlib.sha256(b"".join(rows)).digest()
            self._digests[kind, shelf] = found
        return found


@dataclass(slots=True)
class Changes:
    """What an epoch changes in the books: accounts, and channels, None for those that are gone.

    `growth` is what the fund gets.
    """

    accounts: dict[bytes, Account] = field(default_factory=dict)
    channels: dict[bytes, PaymentChannel | None] = field(default_factory=dict)
    growth: int = 0
    stakes: dict[bytes, StakeRow | None] = field(default_factory=dict)
    # Acts that were punished, and the epoch.
    acts: dict[bytes, int | None] = field(default_factory=dict)
    motions: RowChanges = field(default_factory=dict)


@dataclass(slots=True)
class Draft:
    """The books after some orders of one epoch; a balance may be below zero for a while.

    A member that has not yet seen what an account received may already see it spent. A set of
    orders that is complete leaves no balance below zero.
    """

    books: Books
    epoch: int
    accounts: dict[bytes, Account] = field(default_factory=dict)
    channels: dict[bytes, PaymentChannel] = field(default_factory=dict)
    # What the fund has got of what was redeemed.
    growth: int = 0
    stakes: dict[bytes, StakeRow] = field(default_factory=dict)
    acts: dict[bytes, int] = field(default_factory=dict)
    motions: dict[bytes, bytes | None] = field(default_factory=dict)
    # By their orders: who accuses, and of what. They are looked into when the epoch ends.
    accusations: dict[bytes, tuple[PeerId, Accusation | ShownCase]] = field(default_factory=dict)
    _opened: dict[bytes, list[bytes]] = field(default_factory=dict)

    def account(self, key: bytes) -> Account:
        """An account as it is now; one that nobody has paid yet is empty."""
        found = self.accounts.get(key) or self.books.accounts[key[0]].get(key)
        return found or Account()

    def exists(self, key: bytes) -> bool:
        """Whether the account was opened."""
        return key in self.accounts or key in self.books.accounts[key[0]]

    def channel(self, name: bytes) -> PaymentChannel | None:
        """A channel as it is now."""
        return self.channels.get(name) or self.books.channels[name[0]].get(name)

    def channels_of(self, payer: PeerId) -> list[PaymentChannel]:
        """The open channels of one payer."""
        names = {*self.books.payers.get(payer, ()), *self._opened.get(payer, ())}
        found = [self.channel(name) for name in names]
        return [it for it in found if it is not None and not it.closed]

    def stake(self, account: bytes) -> StakeRow:
        """What an account has staked now."""
        return self.stakes.get(account) or self.books.stakes.row(account)

    def motion_rows(self) -> dict[bytes, bytes]:
        """All that is kept of motions now."""
        return self.books.motions.after(self.motions)

    @property
    def full(self) -> bool:
        """Whether so much has changed that this epoch takes no further orders."""
        return len(self.accounts) + len(self.channels) + len(self.stakes) >= CHANGED_MAX

    # What it does

    def awaits(self, order: Signed[AccountOrder]) -> bool:
        """Whether an order before this one has to be applied first."""
        record = order.record
        return record.sequence > self.account(order.signer).sequence or any(
            self.channel(name) is None for name in record.channels
        )

    def apply(self, order: Signed[AccountOrder]) -> None:
        """Do what an order says, which a quorum has judged; `awaits` says that it can be done."""
        owner, record = order.signer, order.record
        account = self.account(owner)
        self.accounts[owner] = Account(account.balance - record.spent, record.sequence + 1)
        for payment in record.pay:
            self.credit(payment.to, payment.amount)
        growth = parameter(self.books.motions.rows, Parameter.GROWTH)
        for number, opening in enumerate(record.open):
            name = channel_name(order_digest(order), number)
            self._opened.setdefault(owner, []).append(name)
            self.channels[name] = PaymentChannel(
                owner, opening.payee, opening.deposit, 0, opening.expiry, growth=growth
            )
        for top_up in record.top_up:
            channel = self._there(top_up.channel)
            if channel.closed:
                self.credit(owner, top_up.amount)
            else:
                self.channels[top_up.channel] = channel._replace(
                    deposit=channel.deposit + top_up.amount,
                    expiry=max(channel.expiry, top_up.expiry),
                )
        for redemption in record.redeem:
            self._redeem(redemption)
        for name in record.reclaim:
            self._close(name)
        for part in record.stake:
            self.stakes[owner] = with_more(self.stake(owner), part.role, part.amount)
        for part in record.unbond:
            until = self.epoch + UNBONDING_EPOCHS
            self.stakes[owner] = unbonded(self.stake(owner), part.role, part.amount, until)
        self.motions.update(rows_by(order, self.epoch))
        shown: tuple[Accusation | ShownCase, ...] = (*record.accuse, *record.charge)
        self.accusations.update({order_digest(order): (owner, it) for it in shown})

    def _redeem(self, redemption: Redemption) -> None:
        channel = self._there(redemption.channel)
        if redemption.voucher is not None:
            voucher = open_signed(redemption.voucher, Voucher).record
            after = channel.after(voucher)
            growth, shares = shares_of(channel, after, self.books.motions.rows)
            self.growth += growth
            for share in shares:
                self.credit(share.author, share.amount)
            authors = sum(it.amount for it in shares)
            self.credit(channel.payee, after.paid - channel.paid - growth - authors)
            self.channels[redemption.channel] = after
        if redemption.release:
            self._close(redemption.channel)

    def _close(self, name: bytes) -> None:
        channel = self._there(name)
        self.credit(channel.payer, channel.locked)
        self.channels[name] = channel._replace(closed=True)

    def _there(self, name: bytes) -> PaymentChannel:
        channel = self.channel(name)
        assert channel is not None
        return channel

    def credit(self, key: bytes, amount: int) -> None:
        """Give an account so much."""
        account = self.account(key)
        self.accounts[key] = account._replace(balance=account.balance + amount)

    # The end of the epoch

    def sums(self) -> tuple[int, int]:
        """All balances and all deposits after these orders."""
        balances = self.books.balances + sum(
            it.balance - self.books.accounts[key[0]].get(key, Account()).balance
            for key, it in self.accounts.items()
        )
        deposits = self.books.deposits
        for name, channel in self.channels.items():
            before = self.books.channels[name[0]].get(name)
            deposits += channel.locked - (before.locked if before is not None else 0)
        return balances, deposits

    @property
    def staked(self) -> int:
        """What all accounts have staked after these orders."""
        shelf = self.books.stakes
        return shelf.total + sum(it.total - shelf.row(key).total for key, it in self.stakes.items())

    def overdrawn(self) -> list[bytes]:
        """Accounts and open channels below zero: none, if the orders are complete."""
        found = [key for key, it in self.accounts.items() if it.balance < 0]
        return found + [name for name, it in self.channels.items() if it.locked < 0]

    def changes(self) -> Changes:
        """What becomes of the books; a closed channel is gone."""
        return Changes(
            dict(self.accounts),
            {name: None if it.closed else it for name, it in self.channels.items()},
            self.growth,
            {key: it if it.total else None for key, it in self.stakes.items()},
            dict(self.acts),
            dict(self.motions),
        )

    def digest(self) -> bytes:
        """The digest that the books will have."""
        return self.digests()[0]

    def digests(self) -> tuple[bytes, bytes]:
        """The digest that the books will have, and that of the table of stakes."""
        before = self.undo()
        put(self.books, self.changes())
        found = self.books.digest(), self.books.stakes.table
        put(self.books, before)
        return found

    def undo(self) -> Changes:
        """What puts the books back as they are now."""
        return Changes(
            {key: self.books.accounts[key[0]].get(key, GONE) for key in self.accounts},
            {name: self.books.channels[name[0]].get(name) for name in self.channels},
            -self.growth,
            {key: self.books.stakes.rows.get(key) for key in self.stakes},
            {act: self.books.stakes.acts.get(act) for act in self.acts},
            {key: self.books.motions.rows.get(key) for key in self.motions},
        )


# Stands for an account that was never opened.
GONE = Account(0, -1)


def put(books: Books, changes: Changes) -> None:
    """Make changes in the books."""
    books.fund += changes.growth
    for key, account in changes.accounts.items():
        if account == GONE:
            shelf = books.accounts[key[0]]
            books.put_account(key, Account())
            del shelf[key]
        else:
            books.put_account(key, account)
    for name, channel in changes.channels.items():
        books.put_channel(name, channel)
    for key, row in changes.stakes.items():
        books.stakes.put(key, row)
    for act, epoch in changes.acts.items():
        books.stakes.put_act(act, epoch)
    books.motions.put(changes.motions)
