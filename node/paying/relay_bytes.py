"""What this peer pays relays for the bytes that they pass on for it, by its own count alone.

A relay that asks for no more than the owner allows is paid out of a channel to it, as others are
for work: vouchers go ahead of what moves. One that asks for more is used last, and only as far as
it asks for nothing. So is one that counts more bytes than moved: it has one promise at most.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import trio

from node.paying.bill import Booking
from node.paying.channels import PaidChannel
from node.paying.payer import Payer
from node.paying.relay_price import ByteBill, cost_of_bytes, relay_price
from node.paying.uncalled_bytes import UncalledBytes
from p2p.ip_address import is_relayed, relay_of
from p2p.token_bucket import TokenBucket
from p2p.transport import Lined, Moved
from wire.amount import show_credits
from wire.content import PeerId
from wire.errors import WireError
from wire.latest import Latest
from wire.signed import Signed
from wire.tariff import Tariff

LOOK_S, IDLE_LOOK_S = 0.25, 1.0
# No channel is opened for less, since this peer began: greetings are free.
UNPAID_BYTES = 64 << 10
# What a relay is promised ahead at least: two seconds at its full rate.
AHEAD_BYTES = 4 << 20
# For so many relays that were never paid a channel is opened at once, and for one more after so
# long: keys of relays cost nothing, and what each has locked comes back after a week.
STRANGERS_AT_ONCE, STRANGERS_PER_S = 8.0, 1 / 600
# A relay may count so much more than moved here: what is under way on a line, or was when it ended,
# and this part of all.
IN_FLIGHT_BYTES = 1 << 20
TOLERATED_PART = 10
# What relays cost beyond any price, if they ask for more than is paid.
DEAR = 2.0**64
# A relay that counted more is used last for so long.
AVOIDED_S = 3600.0
RELAYS_KEPT = 256
# Why lines are left: the relay counted too much, or the other end had too much moved.
METER, UNCALLED = "meter", "uncalled"


@dataclass(slots=True)
class RelayAccount:
    """What moved through one relay, in bytes, as this peer counts it. Pure."""

    seen: int = 0
    # What may have been charged since the relay was told that it is paid for bytes.
    pending: int = 0
    # Its prices when this was looked at last, and the most that it ever asked for.
    tariff: Signed[Tariff] | None = None
    dearest: int = 0
    lines: frozenset[PeerId] = frozenset()
    lines_ended: int = 0
    # By how much the relay's count was ahead when it was first heard, in which channel.
    ahead_at_first: tuple[bytes, int] = (b"", 0)
    # Of its lines, those over which no connection was made.
    failed_lines: int = 0
    # Whether a channel to it may be opened, as there were few others before.
    may_open: bool = False
    _bill: ByteBill = field(default_factory=ByteBill)

    def count(self, moved: Moved) -> int:
        """How many bytes moved since the last time."""
        total, before, self.seen = moved.size_bytes, self.seen, moved.size_bytes
        return total - before if total >= before else total

    def has_failed(self, moved: Moved) -> bool:
        """Whether a line came to nothing since the last time."""
        before, self.failed_lines = self.failed_lines, moved.failed_lines
        return moved.failed_lines > before

    def look_at(self, lines: frozenset[PeerId]) -> int:
        """How many lines have ended since the last time."""
        ended, self.lines = len(self.lines - lines), lines
        self.lines_ended += ended
        return ended

    def add(self, size_bytes: int, price: int) -> int:
        """Count so many bytes that the relay charges; what they come to, in millionths."""
        self.dearest = max(self.dearest, price)
        return self._bill.add(size_bytes, price)

    def counts_too_much(self, channel: PaidChannel, *, was_kept: bool) -> bool:
        """Whether the relay has counted more than it can have passed on, in millionths.

        `was_kept`: its channel was used by an earlier start of this peer.
        """
        if channel.tariff is None or not channel.relays:
            # It was not heard since this peer began, or is not to count any more.
            return False
        beyond = channel.told_relayed - channel.relayed
        if channel.bytes_alone and not channel.tasks and not channel.held:
            # Whatever it says that it was for, nothing else was. Where it asks for verdicts too, or
            # for work, what it has done may not be booked here yet.
            beyond = max(beyond, channel.told - channel.charged)
        if self.ahead_at_first[0] != channel.name:
            # What was forgotten by an earlier start of this peer is not the relay's fault, as far
            # as it was promised.
            forgotten = min(beyond, channel.signed - channel.relayed) if was_kept else 0
            self.ahead_at_first = (channel.name, max(0, forgotten))
        # One more, that is being made.
        under_way = (1 + len(self.lines) + self.lines_ended) * IN_FLIGHT_BYTES
        tolerated = cost_of_bytes(under_way, self.dearest) + channel.relayed // TOLERATED_PART
        return beyond > self.ahead_at_first[1] + tolerated


@dataclass(slots=True)
class RelayPayer:
    """Pays relays, at most `most` millionths for a million KiB."""

    payer: Payer
    most: int
    # Of those whose bytes the endpoint counts, which are not many.
    _accounts: dict[PeerId, RelayAccount] = field(default_factory=dict)
    _strangers: TokenBucket = field(
        default_factory=lambda: TokenBucket(STRANGERS_AT_ONCE, STRANGERS_PER_S)
    )
    _uncalled: UncalledBytes = field(default_factory=UncalledBytes)
    # The channels that an earlier start of this peer has opened.
    _kept: frozenset[bytes] = field(init=False)
    # Whether any line stood at the last look: without one the next may be late.
    _has_lines: bool = True
    # Until when those that counted too much are avoided, and of whom it was said that it is dear.
    _avoided_until_at_s: Latest[PeerId, float] = field(default_factory=lambda: Latest(RELAYS_KEPT))
    _dear: Latest[PeerId, int] = field(default_factory=lambda: Latest(RELAYS_KEPT))
    # Since this peer began: what was paid, for how much, and why lines were left.
    paid: int = 0
    paid_bytes: int = 0
    left: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._kept = frozenset(it.name for it in self.payer.channels.all())

    async def run(self) -> None:
        """Look at what moved, until cancelled."""
        endpoint = self.payer.peers.endpoint
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(LOOK_S if self._has_lines else IDLE_LOOK_S)
                for peer in self.look():
                    nursery.start_soon(endpoint.leave_line, peer)

    def look(self) -> list[PeerId]:
        """Pay for what moved since the last time; the peers whose lines are to be left."""
        endpoint = self.payer.peers.endpoint
        left: list[PeerId] = []
        standing = endpoint.lines()
        lines = {peer: it for peer, it in standing.items() if it.dialed}
        self._has_lines = bool(standing)
        through: defaultdict[PeerId, list[PeerId]] = defaultdict(list)
        for peer, line in lines.items():
            through[line.relay].append(peer)
        totals = endpoint.relayed()
        # Only with them: whoever was forgotten sooner would begin with what was counted already.
        for relay in self._accounts.keys() - totals.keys():
            del self._accounts[relay]
        for relay, moved in totals.items():
            account = self._accounts.get(relay)
            if account is None:
                account = self._accounts[relay] = RelayAccount()
            now = frozenset(through.get(relay, ()))
            if account.look_at(now):
                # It may have ended them as it knows of no promise: its disk may have been lost.
                self._ask_how_it_stands(relay)
            more, has_failed = account.count(moved), account.has_failed(moved)
            channel = self.payer.channels.by_peer.get(relay)
            is_asked = channel is not None and (
                (channel.unsure and channel.relays) or (channel.is_new and account.may_open)
            )
            if more or now or is_asked or has_failed:
                self._pay(relay, account, more)
            if channel is not None and account.counts_too_much(
                channel, was_kept=channel.name in self._kept
            ):
                self._avoid(relay, channel)
                left += now
                self.left[METER] += len(now)
        return left + self._leave_uncalled(lines)

    def _leave_uncalled(self, lines: Mapping[PeerId, Lined]) -> list[PeerId]:
        """The peers that move too much of what nobody here called for, over lines that are paid."""
        paid = {peer: it for peer, it in lines.items() if self._is_paid_now(it.relay)}
        left = self._uncalled.look_at(paid, trio.current_time())
        self.left[UNCALLED] += len(left)
        for peer in left:
            self.payer.peers.note_problem(
                f"line to {peer}",
                "more came over it, or was fetched from here, than this peer called for, which it"
                " would have to pay: the line was left, and is again while that goes on",
            )
        return left

    def _is_paid_now(self, relay: PeerId) -> bool:
        channel = self.payer.channels.by_peer.get(relay)
        return channel is not None and channel.relays

    def as_map(self) -> dict[str, object]:
        """What was paid since this peer began, and what is not, for `status`."""
        return {
            "paid": self.paid,
            "paid_bytes": self.paid_bytes,
            # Those that ask for more than is paid, of the ones that something moved through.
            "unpaid": sum(self.relay_cost(str(it)) >= DEAR for it in self._accounts),
            "lines_left": {why: self.left[why] for why in (METER, UNCALLED)},
        }

    def relay_cost(self, relay: str) -> float:
        """For the order in which relays are used, by their ids: free, cheap, dear, untrue ones."""
        try:
            peer = PeerId.parse(relay)
        except WireError:
            return 0.0
        if self._is_avoided(peer):
            return math.inf
        tariff = self._tariff_of(peer)
        if tariff is None:
            heard = self.payer.peers.view.advert_of(peer)
            # It may ask for something: those that ask for nothing come first.
            return 0.0 if heard is None or heard.record.tariff is None else 0.5
        price = relay_price(tariff.record)
        if not self._is_paid(tariff.record):
            return DEAR + price
        # Of two that ask for the same, the one that has a channel: one more locks credits.
        return price - 0.25 if peer in self.payer.channels.by_peer and price else float(price)

    def are_dear(self, addresses: Sequence[str]) -> bool:
        """Whether calls are passed on there only by relays that this peer does not pay.

        A line that it asked for would end when others, who would pay, have much to say over it.
        """
        return all(is_relayed(it) and self.relay_cost(relay_of(it)) >= DEAR for it in addresses)

    def _pay(self, relay: PeerId, account: RelayAccount, more: int) -> None:
        """Pay for so many bytes that moved, if it is paid at all."""
        channels, tariff = self.payer.channels, self._tariff_of(relay)
        known, before = channels.by_peer.get(relay), account.tariff
        size_bytes, account.tariff = account.pending + more, tariff
        if known is not None and before is not None and before is not tariff:
            if known.relays and known.tariff == before.id:
                # What moved until the other prices were heard of goes by those before.
                self._book(account, known, size_bytes, relay_price(before.record))
            size_bytes = account.pending = 0
        # From when it was told that it is paid on it may charge what moves, and after a start of
        # this peer what it was told before.
        charges = known is not None and (
            (known.pays_relays and channels.is_paying(relay))
            or (known.relays and known.tariff is None)
        )
        account.pending = size_bytes if charges else 0
        price = relay_price(None if tariff is None else tariff.record)
        if tariff is None or not price:
            return
        if not self._is_paid(tariff.record) or self._is_avoided(relay):
            self._say_dear(relay, tariff.record)
            channels.stop_relaying(relay)
            return
        # Where a line came to nothing, others may have had all that is free.
        greeted = account.seen < UNPAID_BYTES and not account.failed_lines
        if greeted and (known is None or not known.relays):
            return
        if known is None and not self._may_open(account):
            return
        channel = channels.ready_to_relay(tariff, cost_of_bytes(AHEAD_BYTES, price))
        if channel is not None:
            account.pending = 0
            self._book(account, channel, size_bytes, price)

    def _book(
        self, account: RelayAccount, channel: PaidChannel, size_bytes: int, price: int
    ) -> None:
        amount = account.add(size_bytes, price)
        channel.relayed += amount
        channel.relayed_bytes += size_bytes
        self.paid += amount
        self.paid_bytes += size_bytes
        self.payer.channels.book(channel.payee, Booking(charged=amount))

    def _tariff_of(self, relay: PeerId) -> Signed[Tariff] | None:
        """The prices that a relay's advert names; they are asked for if they are not known."""
        heard = self.payer.peers.view.advert_of(relay)
        if heard is None or heard.record.tariff is None:
            return None
        if (tariff := self.payer.tariffs.of(heard)) is None:
            self.payer.tariffs.learn_soon(heard)
        return tariff

    def _ask_how_it_stands(self, relay: PeerId) -> None:
        channel = self.payer.channels.by_peer.get(relay)
        if channel is not None and channel.relays:
            self.payer.channels.ask_again(relay)

    def _is_avoided(self, relay: PeerId) -> bool:
        return self._avoided_until_at_s.get(relay, -math.inf) > trio.current_time()

    def _avoid(self, relay: PeerId, channel: PaidChannel) -> None:
        self._avoided_until_at_s[relay] = trio.current_time() + AVOIDED_S
        self.payer.channels.stop_relaying(relay)
        self.payer.peers.doubted(relay)
        said = show_credits(max(channel.told_relayed, channel.told))
        self.payer.peers.note_problem(
            f"relay {relay}",
            f"it says that what it passed on comes to {said} credits, and here"
            f" {show_credits(channel.relayed)} were counted: it is paid for no more, and used last",
        )

    def _may_open(self, account: RelayAccount) -> bool:
        account.may_open = account.may_open or self._strangers.take(trio.current_time())
        return account.may_open

    def _is_paid(self, tariff: Tariff) -> bool:
        """Whether a relay that asks for so much is paid; what goes ahead must be promised whole."""
        price = relay_price(tariff)
        return price <= self.most and cost_of_bytes(AHEAD_BYTES, price) <= tariff.increment

    def _say_dear(self, relay: PeerId, tariff: Tariff) -> None:
        price = relay_price(tariff)
        if self._dear.get(relay) == price or self._is_avoided(relay):
            return
        self._dear[relay] = price
        allowed = f"at most {show_credits(self.most)} are" if self.most else "nothing is"
        why = (
            f"it asks for {show_credits(price)} credits for a million KiB, and {allowed} to be"
            f" paid: it passes on little; allow more: join --relay-pay-max {show_credits(price)}"
        )
        if price <= self.most:
            why = (
                f"it lets no more than {show_credits(tariff.increment)} credits be promised ahead,"
                f" too little for {AHEAD_BYTES >> 20} MiB: it is not paid, and passes on little"
            )
        self.payer.peers.note_problem(f"relay {relay}", why)
