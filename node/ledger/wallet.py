"""The owner of an account: its orders, each durable before it is sent, until they are settled.

There is one order at a time. One that was signed is never given up for another of the same epoch
and sequence: two such orders would lock the account until the next epoch.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import trio

from node.ledger.account_view import AccountView
from node.ledger.committee import collected
from node.ledger.committee_calls import CommitteeCalls, MemberReplies, epoch_is_over
from node.ledger.committees import Committees
from node.ledger.sync import LedgerCalls
from p2p.peers import Peers
from p2p.timeouts import stretched
from store import Row, Store, Table, Write
from store.seam import SCAN_ROWS_MAX, VALUE_BYTES_MAX
from wire import limits
from wire.amount import show_credits
from wire.codec import pack, unpack
from wire.content import PeerId
from wire.errors import (
    InputError,
    Refused,
    RemoteProtocolError,
    TransportError,
    Unreachable,
    WireError,
)
from wire.ledger import AccountOrder, Certificate, Genesis, Payment, Settlement, order_digest
from wire.signed import Signed, open_signed, sign
from wire.signing import SigningKey
from wire.stake import StakePart

LOOK_DEADLINE_S = 8.0
PAY_DEADLINE_S = 60.0
LOG_MAX = 1000
# Only the latest is ever gone on with; earlier ones are here to be shown.
ORDERS_KEPT = 10_000
# An order that is larger is kept once in its row.
WHOLE_BYTES_MAX = 8 << 10
# A row of the largest order, and a member's of its certificate, is kept whole.
assert limits.SETTLEMENT_BYTES_MAX + 2048 < VALUE_BYTES_MAX
_TROUBLES = (TransportError, WireError, RemoteProtocolError, Refused)
Emit = Callable[[Mapping[str, Any]], None]


def unheard(_: Mapping[str, Any]) -> None:
    """Nobody waits for the steps of an order that is made in the background."""


class OrderState(IntEnum):
    """How far an order is. They are kept: append only."""

    SIGNED = 0
    CERTIFIED = 1
    SETTLED = 2
    # Too many members refused it.
    REFUSED = 3


@dataclass(frozen=True, slots=True)
class Ordered:
    """An order of this peer's account, as it is kept: what there is by now besides."""

    order: Signed[AccountOrder]
    state: OrderState
    ordered_at_ms: int
    certificate: bytes = b""
    # Empty if a checkpoint has settled it, and too few members said so afterwards.
    settlement: bytes = b""
    why: str = ""
    # How many members have voted for one that was refused.
    votes: int = 0

    def to_bytes(self) -> bytes:
        """The row: of one that is large a part is left out where another has it in it.

        A settlement has the certificate in it, and that has the order. Small rows are written as
        ever, so that an earlier release reads them.
        """
        certificate, raw = self.certificate, self.order.raw
        if len(raw) > WHOLE_BYTES_MAX:
            raw = b"" if certificate or self.settlement else raw
            certificate = b"" if self.settlement else certificate
        return pack(
            [
                raw,
                int(self.state),
                self.ordered_at_ms,
                certificate,
                self.settlement,
                self.why,
                self.votes,
            ]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "Ordered":
        """WireError if a row is none."""
        raw, state, ordered_at_ms, certificate, settlement, why, votes = unpack(data)
        if not certificate and not raw:
            certificate = Settlement.from_bytes(settlement).certificate
        raw = raw or Certificate.from_bytes(certificate).order
        return cls(
            open_signed(raw, AccountOrder),
            OrderState(state),
            ordered_at_ms,
            certificate,
            settlement,
            why,
            votes,
        )

    @property
    def unsettled(self) -> bool:
        """Whether it is still on its way."""
        return self.state in (OrderState.SIGNED, OrderState.CERTIFIED)

    def to_map(self) -> dict[str, Any]:
        """For people and programs."""
        record = self.order.record
        return {
            "sequence": record.sequence,
            "epoch": record.epoch,
            "order": order_digest(self.order).hex(),
            "state": self.state.name.lower(),
            "at_ms": self.ordered_at_ms,
            "pay": [{"to": str(it.to), "amount": it.amount} for it in record.pay],
            "action": record.action,
            "open": [{"to": str(it.payee), "amount": it.deposit} for it in record.open],
            "redeemed": len(record.redeem),
            "stake": [_part_map(it) for it in record.stake],
            "unbond": [_part_map(it) for it in record.unbond],
            "spent": record.spent,
            "why": self.why,
        }


def _part_map(part: StakePart) -> dict[str, Any]:
    return {"role": part.role.name.lower(), "amount": part.amount}


async def _stay() -> None:
    """Nobody follows the ledger for this wallet."""
    await trio.lowlevel.checkpoint()


def _settlement(certificate: bytes, answered: MemberReplies) -> bytes:
    """What shows anybody that an order is settled."""
    acknowledgements = collected(answered.proofs)
    return Settlement(certificate=certificate, acknowledgements=acknowledgements).to_bytes()


@dataclass(slots=True)
class Wallet:
    """The account of one peer's key in its network's ledger."""

    peers: Peers
    store: Store
    genesis: Genesis
    key: SigningKey
    # Who keeps the ledger, and what asks members for how its last epochs ended.
    committees: Committees = field(init=False)
    catch_up: Callable[[], Awaitable[None]] = _stay
    committee_calls: CommitteeCalls = field(init=False)
    # The latest epoch that members said runs, and when they last said anything.
    epoch: int = 0
    looked_at_s: float = -math.inf
    _busy: trio.Lock = field(default_factory=trio.Lock)
    # The number of the latest order that is kept here; None until it was looked for.
    _latest: int | None = None

    def __post_init__(self) -> None:
        self.committees = Committees(self.genesis)
        self.committee_calls = CommitteeCalls(self.peers, self.committees, self.genesis.id)

    async def look(self, account: PeerId | None = None) -> AccountView:
        """How an account stands, ours if none is named; Unreachable if too few members answer.

        Afterwards it is known who keeps the epoch that runs.
        """
        try:
            view = await self._look(account)
        except Unreachable:
            before = self.committees.latest
            await self.catch_up()
            if self.committees.latest is before:
                raise
            # Those that were asked keep the ledger no longer.
            view = await self._look(account)
        if view.epoch > self.committees.epoch:
            await self.catch_up()
        self.epoch, self.looked_at_s = max(self.epoch, view.epoch), trio.current_time()
        return view

    async def _look(self, account: PeerId | None) -> AccountView:
        return await self.committee_calls.account(
            account or self.key.peer, deadline_s=LOOK_DEADLINE_S
        )

    async def epoch_now(self, age_s: float) -> int:
        """The epoch that runs, as members said not longer ago than this."""
        if trio.current_time() > self.looked_at_s + age_s:
            await self.look()
        return self.epoch

    def log(self, count: int = LOG_MAX) -> list[Ordered]:
        """The orders of this account, the latest first: those of the `count` latest numbers."""
        latest = self._latest if self._latest is not None else self._find_latest()
        first = max(0, latest + 1 - count).to_bytes(8, "big")
        rows = self.store.scan(Table.WALLET, start=first, limit=count)
        return [Ordered.from_bytes(value) for _, value in reversed(rows)]

    def _find_latest(self) -> int:
        """The number of the latest order; -1 if there is none."""
        start, latest = b"", -1
        while rows := self.store.scan(Table.WALLET, start=start, limit=SCAN_ROWS_MAX):
            latest = int.from_bytes(rows[-1][0], "big")
            start = rows[-1][0] + b"\0"
        self._latest = latest
        return latest

    async def pay(self, to: PeerId, amount: int, emit: Emit) -> Ordered:
        """Pay, and wait until it is settled.

        InputError if the account does not have it, Refused if members refuse. What is not settled
        in time goes on when this peer pays again or starts again.
        """
        if to == self.key.peer:
            raise InputError("an account does not pay itself", todo="name another key")
        async with self._busy:
            await self._finish_earlier(emit)
            view = await self.look()
            if view.agreed and view.balance < amount:
                raise InputError(
                    f"this account has {show_credits(view.balance)} credits,"
                    f" {show_credits(amount)} are more",
                    todo="pay less, or have somebody pay this account first",
                )
            if view.agreed and view.balance - amount < (least := self.genesis.account_min):
                raise InputError(
                    f"an account keeps {show_credits(least)} credits, and this one has"
                    f" {show_credits(view.balance)}",
                    todo="pay less",
                )
            self._check_free(view)
            return await self._settled(
                await self._sign(view, pay=(Payment(to=to, amount=amount),)), emit
            )

    async def order(self, emit: Emit, **action: Any) -> Ordered:
        """Order one of the actions of an `AccountOrder`, and wait until it is settled, as `pay`."""
        async with self._busy:
            await self._finish_earlier(emit)
            view = await self.look()
            self._check_free(view)
            return await self._settled(await self._sign(view, **action), emit)

    def _check_free(self, view: AccountView) -> None:
        """InputError if an order of this epoch was refused for which some may have voted."""
        for last in self.log(1):
            record = last.order.record
            here = (record.epoch, record.sequence) == (view.epoch, view.sequence)
            if here and last.state is OrderState.REFUSED and last.votes:
                raise InputError(
                    f"the last order of this account was refused ({last.why}), and some members"
                    " voted for it: they vote for no other before the epoch ends",
                    todo="pay in the next epoch; python -m node status says when",
                )

    async def resume(self) -> None:
        """Go on with what was not settled when this peer stopped."""
        async with self._busy:
            await self._finish_earlier(unheard)

    async def _finish_earlier(self, emit: Emit) -> None:
        for ordered in self.log(1):
            if ordered.unsettled:
                emit({"event": "earlier", "order": ordered.to_map()})
                await self._settled(ordered, emit)

    async def _sign(self, view: AccountView, **action: Any) -> Ordered:
        order = AccountOrder(
            network=self.genesis.id, epoch=view.epoch, sequence=view.sequence, **action
        )
        return await self._signed(order)

    async def _signed(self, order: AccountOrder) -> Ordered:
        at_ms = int(self.peers.environment.wall_s() * 1000)
        ordered = Ordered(sign(order, self.key), OrderState.SIGNED, at_ms)
        await self._keep(ordered)
        return ordered

    async def _keep(self, ordered: Ordered) -> None:
        number = ordered.order.record.sequence
        rows = [Row(Table.WALLET, number.to_bytes(8, "big"), ordered.to_bytes())]
        if (old := number - ORDERS_KEPT) >= 0:
            rows.append(Row(Table.WALLET, old.to_bytes(8, "big"), None))
        await self.store.commit(Write(rows=tuple(rows)))
        latest = self._latest if self._latest is not None else self._find_latest()
        self._latest = max(latest, number)

    async def _settled(self, ordered: Ordered, emit: Emit) -> Ordered:
        """Have an order settled, in a later epoch if its own ends before."""
        with trio.move_on_after(stretched(PAY_DEADLINE_S)):
            while True:
                ended = await self._in_its_epoch(ordered, emit)
                if ended is not None:
                    return ended
                ordered = await self._after_its_epoch(self.log(1)[0], emit)
                if ordered.state is OrderState.SETTLED:
                    return ordered
        raise Refused(
            f"the payment is not settled after {PAY_DEADLINE_S:.0f} s, and goes on",
            todo="look at it with: python -m node wallet log",
            retry_after_s=1.0,
        )

    async def _in_its_epoch(self, ordered: Ordered, emit: Emit) -> Ordered | None:
        """Votes, a certificate, acknowledgements; None if the epoch ends before."""
        if ordered.state is OrderState.SIGNED:
            answered = await self.committee_calls.votes(ordered.order, deadline_s=PAY_DEADLINE_S)
            if not answered.is_quorum:
                if epoch_is_over(answered):
                    return None
                refused = replace(
                    ordered,
                    state=OrderState.REFUSED,
                    why=answered.why(),
                    votes=len(answered.proofs) + len(answered.unheard),
                )
                await self._keep(refused)
                raise Refused(
                    f"members of the ledger do not vote for this order: {answered.why()}",
                    todo="look at the account: python -m node wallet",
                )
            certificate = Certificate(
                order=ordered.order.raw, votes=collected(answered.proofs)
            ).to_bytes()
            ordered = replace(ordered, state=OrderState.CERTIFIED, certificate=certificate)
            await self._keep(ordered)
            emit({"event": "certified", "votes": len(answered.proofs)})
        answered = await self.committee_calls.acknowledgements(
            ordered.order, ordered.certificate, deadline_s=PAY_DEADLINE_S
        )
        if not answered.is_quorum:
            if epoch_is_over(answered):
                return None
            raise Refused(f"members do not apply the order: {answered.why()}", retry_after_s=1.0)
        settlement = _settlement(ordered.certificate, answered)
        ordered = replace(ordered, state=OrderState.SETTLED, settlement=settlement)
        await self._keep(ordered)
        emit({"event": "settled", "acknowledged": len(answered.proofs)})
        return ordered

    async def _after_its_epoch(self, ordered: Ordered, emit: Emit) -> Ordered:
        """The epoch has ended: with the order, which is settled; or without, and it is renewed."""
        while True:
            view = await self.look()
            if view.epoch > ordered.order.record.epoch and view.agreed:
                break
            await trio.sleep(1.0)
        if view.sequence > ordered.order.record.sequence:
            certificate = await self._included(ordered)
            answered = await self.committee_calls.acknowledgements(
                ordered.order, certificate, deadline_s=LOOK_DEADLINE_S
            )
            ordered = replace(ordered, state=OrderState.SETTLED, certificate=certificate)
            if answered.is_quorum:
                ordered = replace(ordered, settlement=_settlement(certificate, answered))
            await self._keep(ordered)
            emit({"event": "settled", "acknowledged": len(answered.proofs)})
            return ordered
        emit({"event": "renewed", "epoch": view.epoch})
        record = replace(ordered.order.record, epoch=view.epoch, sequence=view.sequence)
        return await self._signed(record)

    async def _included(self, ordered: Ordered) -> bytes:
        """The certificate of an order with which its epoch ended, as a member shows it; Refused."""
        digest, epoch = order_digest(ordered.order), ordered.order.record.epoch
        for member in self.committees.latest.members:
            try:
                calls = LedgerCalls(self.peers)
                for raw in await calls.certificates(member.key, epoch, [digest]):
                    order = open_signed(Certificate.from_bytes(raw).order, AccountOrder)
                    if order_digest(order) == digest:
                        return raw
            except _TROUBLES:
                continue
        raise Refused(
            "another order of this account was applied in its place: its key is used elsewhere",
            todo="look at the account with: python -m node wallet",
        )
