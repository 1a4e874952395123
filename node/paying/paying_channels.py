"""The channels that this peer pays from: opened ahead of need, and filled up in the background.

No task waits for one of its vouchers: the next is signed when half of what was promised ahead is
used. Vouchers are cumulative, so one that is lost or late is made good by the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from node.ledger.wallet import Wallet, unheard
from node.paying.bill import Booking
from node.paying.channels import PaidChannel
from node.paying.deposits import WantedChannel, deposits, too_few
from node.paying.own_tariff import INCREMENT_MIN
from node.paying.pay_calls import CALL_DEADLINE_S, hear, pay
from node.paying.relay_price import asks_for_bytes_alone
from node.paying.settled_orders import opened_by
from p2p.peers import Peers
from p2p.score import Offence
from p2p.timeouts import stretched
from store import Row, Store, Table, Write
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import BatonError, InputError, Malformed, RemoteProtocolError, WireError
from wire.kinds import RefusalCode
from wire.latest import Latest
from wire.ledger import Opening, Voucher
from wire.signed import Signed, sign
from wire.tariff import Tariff

# Of channels for tasks, and for requests over HTTP; and what was charged since the last voucher.
OUT, WEB, SPENT = b"out:", b"web:", b"spent:"
CHANNELS_MAX = 10_000
# What wants a channel within this is opened by one order.
GATHER_S = 0.05
# A deposit: so many increments, or so many times what this many tasks need if that is less, in the
# first channel to a peer, twice as many in each further one up to the most; or this part of the
# balance among those that are opened together.
DEPOSIT_INCREMENTS, DEPOSIT_INCREMENTS_MAX = 8, 64
# For bytes alone that a payee passes on: so many times what is promised first.
DEPOSIT_TASKS, DEPOSIT_RELAYED = 128, 16
BALANCE_PART = 4
EXPIRY_EPOCHS = 24 * 7
# After a failure a channel is tried again so much later.
AGAIN_S = 2.0
# What a payee told of a channel is believed so long, where others give it work too.
TOLD_FOR_S = 5.0
# A relay whose lines are open is asked so often: one that counts more than moved holds bytes back
# that are paid by our count, and nothing else would tell.
RELAY_TOLD_FOR_S = 20.0
# So many legs that others give on are promised ahead, within what is risked anyway.
GIVEN_ON_AT_ONCE = 8
# A payee that is owed something and cannot be reached is called again so much later at most.
OWED_AGAIN_S_MAX = 600.0


@dataclass(slots=True)
class PayingChannels:
    """One channel for each peer that is paid."""

    peers: Peers
    store: Store
    wallet: Wallet
    nursery: trio.Nursery
    by_peer: dict[PeerId, PaidChannel] = field(default_factory=dict)
    # Those in whose place another is used: what is left in them comes back when they have expired.
    used_up: list[PaidChannel] = field(default_factory=list)
    # Those that take the place of one that is nearly used up: they are open, and not shown yet.
    spare: dict[PeerId, PaidChannel] = field(default_factory=dict)
    # Those that pay for requests over HTTP: the payee says with each answer what it came to.
    by_gateway: dict[PeerId, PaidChannel] = field(default_factory=dict)
    # The epoch that runs, as far as it was looked up.
    epoch: int = 0
    # Why the last channels could not be opened; None once some were.
    trouble: InputError | None = None
    vouchers: int = 0
    orders: int = 0
    # Set, and another put in its place, when a payee has said what it has.
    filled: trio.Event = field(default_factory=trio.Event)
    # Peers that have no channel, or soon none.
    _lacking: dict[PeerId, WantedChannel] = field(default_factory=dict)
    _opening: bool = False
    _paying: set[PeerId] = field(default_factory=set)
    _not_before: Latest[PeerId, float] = field(default_factory=lambda: Latest(CHANNELS_MAX))
    # When a payee is called again to whom something is owed, and how long after that.
    _owed_again: Latest[bytes, tuple[float, float]] = field(
        default_factory=lambda: Latest(CHANNELS_MAX)
    )
    # Channels whose charges are not kept yet.
    _unkept: dict[bytes, PaidChannel] = field(default_factory=dict)

    def load(self) -> None:
        """Go on with the channels that are kept here."""
        for prefix, kept in ((OUT, self.by_peer), (WEB, self.by_gateway)):
            for key, value in self.store.scan(Table.CHANNELS, prefix=prefix, limit=CHANNELS_MAX):
                channel = PaidChannel.from_bytes(key.removeprefix(prefix), value)
                if (spent := self.store.read(Table.CHANNELS, SPENT + channel.name)) is not None:
                    # The row of its voucher may be older than this one.
                    channel.take_charges(spent)
                if not channel.settlement:
                    self.used_up.append(channel)
                    continue
                before = kept.get(channel.payee)
                if before is not None:
                    # The one with more left is used, the other taken back once it has expired.
                    channel, worse = sorted((channel, before), key=lambda it: it.left, reverse=True)
                    self.used_up.append(worse)
                kept[channel.payee] = channel

    def rows(self) -> list[dict[str, Any]]:
        """What is kept of each, for people and programs."""
        return [it.as_map() for it in (*self.all(), *self.by_gateway.values())]

    def all(self) -> list[PaidChannel]:
        """All channels to peers, those of which nothing is left too."""
        return [*self.by_peer.values(), *self.spare.values(), *self.used_up]

    # Whether work can be paid

    def ready(
        self, tariff: Signed[Tariff], need: int, *, fresh: bool = False, relays: bool = False
    ) -> bool:
        """Whether a peer can be given work that needs so much; if not, it will be soon.

        `fresh`: others give it work too that this peer pays, so it is asked how it stands by now.
        `relays`: it only passes bytes on, for which less is locked.
        """
        peer = tariff.signer
        channel = self.by_peer.get(peer)
        if channel is not None and not channel.held and channel.is_over(need, self.epoch):
            channel = self._change(channel)
        elif channel is not None and peer not in self.spare and channel.is_low:
            self._open_soon(tariff, need, relays)
        if channel is None:
            if len(self.by_peer) < CHANNELS_MAX:
                self._open_soon(tariff, need, relays)
            return False
        channel.need = max(channel.need, need)
        if channel.tariff != tariff.id or channel.unsure:
            channel.increment = tariff.record.increment
            self._pay_soon(channel, tariff.id, need)
            return False
        is_old = fresh and channel.told_at_s + TOLD_FOR_S < trio.current_time()
        # What others give on is not held here while it is under way: more is promised ahead.
        ahead = need * GIVEN_ON_AT_ONCE if fresh else need
        if is_old or channel.wants(ahead):
            self._pay_soon(channel, tariff.id, ahead)
        return channel.available >= need

    def ready_to_relay(self, tariff: Signed[Tariff], need: int) -> PaidChannel | None:
        """The channel out of which a relay is paid for bytes; None before it was told of one."""
        if (channel := self.by_peer.get(tariff.signer)) is not None:
            channel.pays_relays = True
        self.ready(tariff, need, relays=channel is None or not channel.tasks)
        if (channel := self.by_peer.get(tariff.signer)) is None:
            return None
        is_told = channel.pays_relays and channel.relays
        channel.pays_relays, channel.bytes_alone = True, asks_for_bytes_alone(tariff.record)
        if channel.tariff != tariff.id:
            return None
        if not is_told or channel.told_at_s + RELAY_TOLD_FOR_S < trio.current_time():
            self._pay_soon(channel, tariff.id, need)
        return channel if is_told else None

    def stop_relaying(self, relay: PeerId) -> None:
        """Pay a relay for bytes no more, and tell it so."""
        channel = self.by_peer.get(relay)
        if channel is None or not (channel.relays or channel.pays_relays):
            return
        channel.pays_relays = False
        if channel.relays and channel.tariff is not None:
            self._pay_soon(channel, channel.tariff, 1)

    def is_paying(self, peer: PeerId) -> bool:
        """Whether a call to a payee is under way."""
        return peer in self._paying

    def _change(self, channel: PaidChannel) -> PaidChannel | None:
        """Use a channel no more; the one that takes its place, if that is open already."""
        self.used_up.append(self.by_peer.pop(channel.payee))
        if (found := self.spare.pop(channel.payee, None)) is not None:
            found.pays_relays = channel.pays_relays
            self._use(found)
        return found

    def _use(self, channel: PaidChannel) -> None:
        """Pay out of this channel from now on; what its payee did before counts for it."""
        known = [it for it in self.used_up if it.payee == channel.payee]
        channel.before = max((it.before + it.charged for it in known), default=0)
        # Who was promised much ahead is in the next one, too, from the beginning.
        channel.ahead = max((it.ahead for it in known), default=0)
        self.by_peer[channel.payee] = channel

    def book(self, peer: PeerId, booking: Booking) -> None:
        """Take in how the account of a peer changes."""
        channel = self.by_peer.get(peer)
        if channel is None:
            return
        channel.held += booking.held
        channel.shown += booking.shown
        channel.charged += booking.charged
        channel.tasks += booking.tasks
        if booking.charged:
            self._unkept[channel.name] = channel
        if booking.model is not None:
            channel.note_model(booking.model, booking.charged)
        if channel.tariff is None:
            return
        is_over = peer in self.spare and channel.is_over(channel.need, self.epoch)
        if is_over and not channel.held:
            # Work waits for this: what was under way had to end in the channel where it began.
            if (found := self._change(channel)) is not None:
                found.increment, found.need = channel.increment, channel.need
                self._pay_soon(found, channel.tariff, channel.need)
        elif channel.wants(1):
            self._pay_soon(channel, channel.tariff, 1)

    def is_filling(self, peer: PeerId) -> bool:
        """Whether a peer's next voucher is on its way, or the channel for it.

        Who let the last one fail is no reason not to look for others.
        """
        if peer in self._not_before:
            return False
        return peer in self._paying or peer in self._lacking or peer in self.spare

    def ask_again(self, peer: PeerId) -> None:
        """A peer has refused work as not paid: it has less than was thought, perhaps a new disk."""
        if (channel := self.by_peer.get(peer)) is not None:
            channel.unsure = True

    def take_unkept(self) -> list[PaidChannel]:
        """The channels whose charges are not kept yet; from now on they count as kept."""
        unkept, self._unkept = self._unkept, {}
        return list(unkept.values())

    def pay_owed(self) -> None:
        """Sign for what is charged and not promised yet: perhaps no further task brings it there.

        A payee that cannot be reached is called more and more rarely.
        """
        now_at_s = trio.current_time()
        for channel in (*self.by_peer.values(), *self.used_up):
            if not channel.owes or channel.tariff is None:
                continue
            at_s, pause_s = self._owed_again.get(channel.name, (now_at_s, AGAIN_S))
            if at_s <= now_at_s:
                later = (now_at_s + pause_s, min(OWED_AGAIN_S_MAX, 2 * pause_s))
                self._owed_again[channel.name] = later
                self._pay_soon(channel, channel.tariff, 1)

    # Opening

    def _open_soon(self, tariff: Signed[Tariff], need: int, relays: bool) -> None:
        known, peer = self._lacking.get(tariff.signer), tariff.signer
        if known is None or known.need < need:
            self._lacking[peer] = WantedChannel(peer, self._deposit(tariff, need, relays), need)
        if not self._opening:
            self._opening = True
            self.nursery.start_soon(self._open_all)

    async def _open_all(self) -> None:
        try:
            while self._lacking:
                await trio.sleep(GATHER_S)
                some = dict(list(self._lacking.items())[: limits.ACTIONS_MAX])
                try:
                    await self._open(some)
                    self.trouble = None
                except InputError as error:
                    # Of a channel that only takes another's place work hears when it needs it.
                    is_told = not some.keys() <= self.by_peer.keys() and not self._is_beginning()
                    self.trouble = error if is_told else None
                    await trio.sleep(AGAIN_S)
                except BatonError as error:
                    self.peers.note_problem("channels", f"none could be opened: {error.message}")
                    await trio.sleep(AGAIN_S)
                for peer in some:
                    self._lacking.pop(peer, None)
        finally:
            self._opening = False

    def _is_beginning(self) -> bool:
        """Whether a channel was just opened, and its payee is asked: work may wait for that."""
        return any(it.is_new and it.payee not in self._not_before for it in self.by_peer.values())

    async def _open(self, some: Mapping[PeerId, WantedChannel]) -> None:
        view = await self.wallet.look()
        self.epoch = max(self.epoch, view.epoch)
        share, least = view.balance // (BALANCE_PART * len(some)), self.wallet.genesis.account_min
        found = deposits(wanted := [*some.values()], share, view.balance - least, least)
        if not found:
            raise too_few(self.wallet.key.peer, view.balance, wanted, least)
        expiry = view.epoch + EXPIRY_EPOCHS
        openings = tuple(Opening(payee=it, deposit=found[it], expiry=expiry) for it in found)
        ordered = await self.wallet.order(unheard, open=openings)
        self.orders += 1
        channels = opened_by(ordered.order, ordered.settlement)
        rows = [Row(Table.CHANNELS, OUT + it.name, it.to_bytes()) for it in channels]
        await self.store.commit(Write(rows=tuple(rows)))
        for channel in channels:
            self.adopt(channel)
        if not ordered.settlement:
            raise Malformed("the order was settled by a checkpoint, which shows others nothing")

    def _deposit(self, tariff: Signed[Tariff], need: int, relays: bool = False) -> int:
        """What a channel is opened with, as its payee's prices and such tasks bear it out."""
        before = sum(it.payee == tariff.signer for it in self.all())
        if relays:
            return DEPOSIT_RELAYED * need << min(before, 8)
        increments = min(DEPOSIT_INCREMENTS_MAX, DEPOSIT_INCREMENTS << min(before, 8))
        usual = min(tariff.record.increment, max(INCREMENT_MIN, DEPOSIT_TASKS * need))
        return increments * usual

    def locks(self, tariff: Signed[Tariff], need: int) -> int:
        """What a channel to a peer would be opened with, at most; 0 where there is one."""
        return 0 if tariff.signer in self.by_peer else self._deposit(tariff, need)

    def adopt(self, channel: PaidChannel) -> None:
        """Go on with a channel that was opened, and of which nothing was known here."""
        if not channel.settlement:
            # Nothing shows its payee that it is open: it is taken back once it has expired.
            self.used_up.append(channel)
        elif channel.payee not in self.by_peer:
            self._use(channel)
        elif channel.payee not in self.spare:
            self.spare[channel.payee] = channel
        else:
            self.used_up.append(channel)

    # Paying

    def _pay_soon(self, channel: PaidChannel, named: ContentId, need: int) -> None:
        peer = channel.payee
        if peer in self._paying or self._not_before.get(peer, 0.0) > trio.current_time():
            return
        self._paying.add(peer)
        self.nursery.start_soon(self._pay, channel, named, need)

    async def _pay(self, channel: PaidChannel, named: ContentId, need: int) -> None:
        is_first = channel.tariff is None or channel.unsure
        try:
            # Until the payee has said what it has, nothing is signed: a disk may have been lost.
            # Nothing is lost of a channel that was opened since this peer began.
            voucher = None
            if not is_first or channel.is_new:
                names = await self._reads_models(channel.payee)
                voucher = self._voucher(channel, need, names_models=names)
            paid = await pay(self.peers, channel, named, voucher, shows=is_first)
            hear(channel, paid, self.wallet.key.peer, self.wallet.genesis.id)
            if not channel.owes:
                self._owed_again.pop(channel.name, None)
            self._not_before.pop(channel.payee, None)
            channel.tariff, channel.unsure, channel.is_new = named, False, False
            self.filled.set()
            self.filled = trio.Event()
        except (WireError, RemoteProtocolError) as error:
            self.peers.offended(channel.payee, Offence.MALFORMED)
            self._failed(channel, error)
        except BatonError as error:
            # A payee that has lost its disk knows no channel: it is shown again.
            if error.code is RefusalCode.NOT_FOUND:
                channel.unsure, channel.is_new = True, False
            self._failed(channel, error)
        finally:
            self._paying.discard(channel.payee)
        if is_first and channel.tariff is not None and channel.wants(need):
            self._pay_soon(channel, named, need)

    async def _reads_models(self, payee: PeerId) -> bool:
        """Whether a payee reads what vouchers say of models."""
        deadline_s = stretched(CALL_DEADLINE_S)
        version = await self.peers.neighbours.version_of(payee, deadline_s=deadline_s)
        return version >= limits.SHARES_VERSION

    def _voucher(self, channel: PaidChannel, need: int, *, names_models: bool) -> bytes | None:
        """The next voucher; it joins the next commit, and a lost one is told by the payee."""
        channel.signed = channel.next_total(need)
        if not channel.signed:
            return None
        record = Voucher(
            network=self.wallet.genesis.id,
            channel=channel.name,
            total=channel.signed,
            tasks=max(0, channel.tasks),
            receipt=None,
            models=channel.name_models() if names_models else (),
        )
        self.store.write_soon(Table.CHANNELS, OUT + channel.name, channel.to_bytes())
        self.vouchers += 1
        return sign(record, self.wallet.key).raw

    def _failed(self, channel: PaidChannel, error: BatonError) -> None:
        self._not_before[channel.payee] = trio.current_time() + AGAIN_S
        self.peers.note_problem(
            f"channel {channel.payee.short}", f"it could not be paid: {error.message}"
        )
