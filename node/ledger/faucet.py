"""A sponsor gives credits to keys that have none, each once; and how a newcomer asks for them.

What is given to a key is written before it is ordered, so that a key gets nothing twice whenever
the sponsor ends. Whoever asks only waits: that it hangs up changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio
from trio import to_thread

from node.ledger.faucet_book import FaucetBook
from node.ledger.faucet_puzzle import (
    BITS_FIRST,
    BITS_STEP,
    BITS_TRIED_MAX,
    TRIES_AT_ONCE,
    bits_of,
    packed,
    solve,
    unpacked,
    words_of,
)
from node.ledger.wallet import Ordered, OrderState, Wallet, unheard
from node.paying_config import Sponsoring
from p2p.ip_address import host_of, prefix_of
from p2p.peers import Peers
from p2p.timeouts import stretched
from p2p.typed_call import TypedCall, refusal_of
from store import Row, Store, Table, Write
from wire.codec import pack
from wire.content import PeerId
from wire.errors import (
    BatonError,
    InputError,
    Malformed,
    Refused,
    RemoteProtocolError,
    StoreError,
    TransportError,
    WireError,
)
from wire.kinds import RefusalCode
from wire.ledger import order_digest
from wire.ledger_message import AskCredits, CreditsGiven
from wire.message import Message

# Keys that wait for their payment at once; further ones are asked to come back.
WAITING_MAX = 16
WAITING_AGAIN_S = 5.0
RESTS_S = 60.0
ASK_DEADLINE_S = 75.0
# Payments are looked for in so many of the latest orders.
ORDERS_LOOKED_AT = 200
# The rows of the table: what this period has given, keys that were given credits, and of these
# the ones for which it is not known yet whether they were paid.
_PERIOD, _GIVEN, _OPEN = b"p", b"k", b"o"


@dataclass(slots=True)
class _Asking:
    """One key that is being paid."""

    peer: PeerId
    prefix: str
    period: int
    done: trio.Event = field(default_factory=trio.Event)
    ordered: Ordered | None = None
    why: str = ""


@dataclass(slots=True)
class Faucet:
    """Answers who asks for credits. It refuses everybody unless it was started with terms."""

    peers: Peers
    store: Store
    wallet: Wallet
    nursery: trio.Nursery
    book: FaucetBook | None = None
    keys: int = 0
    _asking: dict[PeerId, _Asking] = field(default_factory=dict)
    # After a payment that failed nobody is paid for a while, and this is why.
    _rests_until_at_s: float = float("-inf")
    _why: str = ""

    async def start(self, terms: Sponsoring | None) -> None:
        """Answer from now on, and find out what became of payments that an end interrupted."""
        self.peers.handlers[AskCredits] = self.on_ask
        if terms is None:
            return
        raw = self.store.read(Table.SPONSORED, _PERIOD)
        self.book = FaucetBook(terms) if raw is None else FaucetBook.from_bytes(terms, raw)
        rows: list[Row] = []
        for key, _ in self.store.scan(Table.SPONSORED, prefix=_OPEN, limit=10 * WAITING_MAX):
            peer = PeerId(key[len(_OPEN) :])
            rows.append(Row(Table.SPONSORED, key, None))
            if not self._was_ordered(peer):
                rows.append(Row(Table.SPONSORED, _GIVEN + peer, None))
        if rows:
            await self.store.commit(Write(rows=tuple(rows)))

    async def on_ask(self, call: TypedCall, message: Message) -> None:
        """Pay the key that calls, or refuse in words."""
        assert isinstance(message, AskCredits)
        try:
            if message.network != self.wallet.genesis.id:
                raise Refused("this is another network", code=RefusalCode.STRANGER)
            asking = self._begun(call.peer, message.solution)
        except (Refused, StoreError, WireError) as error:
            await call.send(refusal_of(error))
            return
        await asking.done.wait()
        if asking.ordered is None:
            refusal = Refused(asking.why, code=RefusalCode.FAILED, retry_after_s=RESTS_S)
            await call.send(refusal_of(refusal))
            return
        assert self.book is not None
        digest = order_digest(asking.ordered.order)
        await call.send(CreditsGiven(amount=self.book.terms.each, order=digest))

    def _begun(self, peer: PeerId, solution: bytes = b"") -> _Asking:
        """Have a key paid from now on; Refused if it is not to be, before anything costs much."""
        book = self.book
        if book is None:
            raise Refused("this peer gives no credits to newcomers", code=RefusalCode.NOT_WILLING)
        if (before := self._asking.get(peer)) is not None:
            return before
        if (rest_s := self._rests_until_at_s - trio.current_time()) > 0:
            raise Refused(self._why, retry_after_s=rest_s)
        if len(self._asking) >= WAITING_MAX:
            raise Refused("others are being paid: ask again", retry_after_s=WAITING_AGAIN_S)
        epoch_s = self.wallet.genesis.epoch_s
        period, passed_s = divmod(self.peers.environment.wall_s(), epoch_s)
        book.begin(int(period))
        prefix, left_s = self._prefix_of(peer), max(1.0, epoch_s - passed_s)
        book.check(prefix, left_s)
        if peer == self.peers.me or self.store.read(Table.SPONSORED, _GIVEN + peer) is not None:
            raise Refused(
                "this sponsor has given your key credits before, and gives to each key once",
                code=RefusalCode.NOT_WILLING,
            )
        book.check_work(self._work(peer, solution, int(period)), left_s)
        book.take(prefix)
        asking = self._asking[peer] = _Asking(peer, prefix, book.period)
        self.nursery.start_soon(self._pay, asking)
        return asking

    def _work(self, peer: PeerId, solution: bytes, period: int) -> int:
        """How many bits a solution has, 0 for none; Malformed for one of another period."""
        if not solution or self.book is None or not self.book.terms.puzzle:
            return 0
        said, nonce = unpacked(solution)
        if said not in (period, period - 1):
            raise Malformed(f"a solution of period {said}, and {period} runs: is your clock right?")
        return bits_of(words_of(self.wallet.genesis.id, self.peers.me, peer, said), nonce)

    async def _write(self, *rows: Row) -> None:
        assert self.book is not None
        period = Row(Table.SPONSORED, _PERIOD, self.book.to_bytes())
        await self.store.commit(Write(rows=(*rows, period)))

    async def _pay(self, asking: _Asking) -> None:
        """Pay one key, and write what became of it."""
        assert self.book is not None
        peer, each = asking.peer, self.book.terms.each
        given = Row(Table.SPONSORED, _GIVEN + peer, pack([asking.period, each]))
        try:
            await self._write(given, Row(Table.SPONSORED, _OPEN + peer, b""))
            asking.ordered = await self.wallet.pay(peer, each, unheard)
            self.keys += 1
            await self._write(Row(Table.SPONSORED, _OPEN + peer, None))
        except BatonError as error:
            self.peers.note_problem("sponsor", error.message)
            if asking.ordered is None:
                await self._not_paid(asking, error)
        finally:
            del self._asking[peer]
            asking.done.set()

    async def _not_paid(self, asking: _Asking, error: BatonError) -> None:
        """Let a key ask again if it is certain that it will not be paid."""
        assert self.book is not None
        # A try costs a look at the members: they are not asked for every key that comes.
        self._rests_until_at_s = trio.current_time() + RESTS_S
        self._why = asking.why = f"the sponsor could not pay: {error.message}"
        if self._was_ordered(asking.peer):
            asking.why = "the sponsor's payment is not settled yet, and goes on"
            return
        self.book.put_back(asking.period, asking.prefix)
        rows = [Row(Table.SPONSORED, it + asking.peer, None) for it in (_GIVEN, _OPEN)]
        try:
            await self._write(*rows)
        except StoreError as also:
            # The next start finds out.
            self.peers.note_problem("sponsor", also.message)

    def _was_ordered(self, peer: PeerId) -> bool:
        """Whether an order that is or will be settled pays a key."""
        return any(
            payment.to == peer
            for it in self.wallet.log(ORDERS_LOOKED_AT)
            if it.state is not OrderState.REFUSED
            for payment in it.order.record.pay
        )

    def _prefix_of(self, peer: PeerId) -> str:
        """What a caller is counted by; all that call through relays are one."""
        endpoint = self.peers.endpoint
        if endpoint.is_relayed(peer):
            return "relayed"
        return prefix_of(host_of(endpoint.remote_address(peer) or ""))

    def statistics(self) -> Mapping[str, Any]:
        """For `status`."""
        book = self.book
        if book is None:
            return {}
        return {
            "per_epoch": book.terms.per_epoch,
            "each": book.terms.each,
            "given": book.given,
            "keys": self.keys,
        }


async def _asked(wallet: Wallet, sponsor: PeerId) -> CreditsGiven:
    """Ask one sponsor, with more and more work as long as it asks for more."""
    work, solution = _Work(wallet, sponsor), b""
    while True:
        try:
            async with wallet.peers.call(sponsor, deadline_s=stretched(ASK_DEADLINE_S)) as call:
                await call.send(AskCredits(network=wallet.genesis.id, solution=solution))
                return await call.expect(CreditsGiven)
        except Refused as error:
            if error.code is not RefusalCode.NOT_PAID or work.bits > BITS_TRIED_MAX:
                raise
        solution = await work.more()


@dataclass(slots=True)
class _Work:
    """What a newcomer has tried for one sponsor, in the period that runs."""

    wallet: Wallet
    sponsor: PeerId
    period: int = -1
    bits: int = BITS_FIRST
    tried: int = 0

    async def more(self) -> bytes:
        """A solution with more bits than the one before; what was tried is not tried again."""
        period = int(self.wallet.peers.environment.wall_s() // self.wallet.genesis.epoch_s)
        if period != self.period:
            self.period, self.bits, self.tried = period, BITS_FIRST, 0
        words = words_of(self.wallet.genesis.id, self.sponsor, self.wallet.key.peer, period)
        # A thread, in pieces: the loop has its turns.
        while (nonce := await to_thread.run_sync(solve, words, self.bits, self.tried)) is None:
            self.tried += TRIES_AT_ONCE
        self.tried = nonce + 1
        self.bits = max(self.bits, bits_of(words, nonce)) + BITS_STEP
        return packed(period, nonce)


async def ask_credits(wallet: Wallet, sponsors: Sequence[PeerId]) -> tuple[PeerId, CreditsGiven]:
    """Ask peers in turn until one has given credits; Refused, with what each said, if none has."""
    said = []
    again_s: list[float] = []
    for sponsor in sponsors:
        try:
            return sponsor, await _asked(wallet, sponsor)
        except Refused as error:
            said.append(f"{sponsor.short}: {error.message}")
            again_s += [] if error.retry_after_s is None else [error.retry_after_s]
        except (TransportError, WireError, RemoteProtocolError) as error:
            said.append(f"{sponsor.short}: {error}")
    if not sponsors:
        raise InputError(
            "no other peer is connected that could be asked for credits",
            todo="name one: python -m node wallet faucet --sponsor KEY",
        )
    todo = "ask another peer with --sponsor KEY; its owner has to join with --sponsor"
    if again_s:
        todo = f"ask again in {max(1, round(min(again_s)))} s"
    raise Refused(
        f"nobody gave credits ({'; '.join(said)})",
        todo=todo,
        retry_after_s=min(again_s, default=None),
    )
