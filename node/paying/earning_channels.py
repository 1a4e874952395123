"""The channels out of which this peer is paid: shown, drawn on, and redeemed by itself.

Once a channel is shown to be settled, each higher voucher counts; many are redeemed by one order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from node.ledger.wallet import OrderState, Wallet, unheard
from node.paying.channels import EarningChannel
from node.paying.earned_sums import EarnedSum, EarnedSums
from node.paying.own_tariff import OwnTariff
from node.paying.settled_orders import opening_in
from p2p.peers import Peers
from p2p.score import Offence
from p2p.typed_call import TypedCall, refusal_of
from store import Store, Table
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import BatonError, Refused, StoreError, TransportError, WireError
from wire.kinds import RefusalCode
from wire.latest import Latest
from wire.ledger import Redemption, Voucher
from wire.message import Message
from wire.payment_message import Paid, Pay
from wire.signed import Signed, open_signed
from wire.tariff import RELAYED

# Channels that are used, and channels in whose place another was shown.
IN, OLD = b"in:", b"old:"
CHANNELS_MAX = 10_000
# Of one payer: one that is used, and others that are used up.
CHANNELS_PER_PAYER = 4
# Redeemed at the latest after this part of an epoch, and no sooner than after so long.
EPOCH_PART = 4
# Charges are kept so often, for all tasks since the last time.
KEEP_EVERY_S = 1.0
REDEEM_S_MIN, REDEEM_S_MAX = 5.0, 600.0
# Which epoch runs is looked up so often at most, however many channels are shown.
LOOK_EVERY_S = 5.0


@dataclass(slots=True)
class EarningChannels:
    """The channels of others to this peer, by their names, and the latest of each payer."""

    peers: Peers
    store: Store
    wallet: Wallet
    own: OwnTariff
    by_name: dict[bytes, EarningChannel] = field(default_factory=dict)
    vouchers: int = 0
    orders: int = 0
    # The epoch that runs, as far as it was looked up.
    epoch: int = 0
    # By payer and model.
    sums: EarnedSums = field(init=False)
    _unkept: dict[tuple[bytes, ContentId | None], EarningChannel] = field(default_factory=dict)
    _latest: dict[PeerId, EarningChannel] = field(default_factory=dict)
    _changed: dict[bytes, trio.Event] = field(default_factory=dict)
    _admitting: trio.Lock = field(default_factory=trio.Lock)
    _old: int = 0
    _due: trio.Event = field(default_factory=trio.Event)
    # Channels whose redemption members refused, and in which epoch that was.
    _refused: Latest[bytes, int] = field(default_factory=lambda: Latest(CHANNELS_MAX))

    def __post_init__(self) -> None:
        self.sums = EarnedSums(self.store)

    def load(self) -> None:
        """Go on with the channels that are kept here."""
        for key, value in self.store.scan(Table.CHANNELS, prefix=IN, limit=CHANNELS_MAX):
            channel = EarningChannel.from_bytes(key.removeprefix(IN), value)
            self.by_name[channel.name] = channel
            before = self._latest.get(channel.payer)
            # One without a tariff pays for requests over HTTP alone.
            is_for_tasks = channel.tariff is not None
            if is_for_tasks and (before is None or before.left < channel.left):
                self._latest[channel.payer] = channel
        self._old = len(self.store.scan(Table.CHANNELS, prefix=OLD, limit=CHANNELS_MAX))
        self.sums.load()

    def of(self, payer: PeerId) -> EarningChannel | None:
        """The channel that a payer uses now; None for one of which too little is left to redeem."""
        found = self._latest.get(payer)
        return found if found is not None and found.expiry > self.epoch else None

    def charge(
        self,
        channel: EarningChannel,
        amount: int,
        model: ContentId | None,
        *,
        tasks: int = 1,
        size_bytes: int = 0,
    ) -> None:
        """Note what work with a model came to, a verdict, or bytes; it is kept before long.

        What a crash forgets was charged out of what was promised: it is worked for once more.
        """
        if not amount and not size_bytes:
            return
        channel.charged += amount
        channel.given_up = max(0, channel.given_up - amount)
        channel.tasks += tasks
        if model is not None:
            channel.models[model] = channel.models.get(model, 0) + amount
        self.sums.note(channel.payer, model, EarnedSum(amount, tasks, size_bytes))
        self._unkept[channel.name, model] = channel

    def give_up(self, channel: EarningChannel, read: int) -> None:
        """Note what was read for a task that its payer gave up: no restart forgives it."""
        channel.given_up += read
        self.keep_soon(channel)

    def keep_charges(self) -> None:
        """Keep what was charged since the last time, with the next commit."""
        unkept, self._unkept = self._unkept, {}
        for (_, model), channel in unkept.items():
            if self.by_name.get(channel.name) is channel:
                self.keep_soon(channel)
            self.sums.keep_soon(channel.payer, model)

    async def keep_forever(self) -> None:
        """Keep what is charged, every now and then."""
        while True:
            await trio.sleep(KEEP_EVERY_S)
            self.keep_charges()

    def rows(self) -> list[dict[str, Any]]:
        """What is kept of each, for people and programs."""
        return [
            {
                "peer": str(it.payer),
                "channel": it.name.hex(),
                "deposit": it.deposit,
                "promised": it.highest,
                "charged": it.charged,
                "redeemed": it.redeemed,
                "unredeemed": it.unredeemed,
                # Redeemed or not, for work still to come; and worked for and not promised.
                "ahead": max(0, it.highest - it.charged),
                "lost": max(0, it.charged - it.highest),
                "tasks": it.tasks,
                "expires_after_epoch": it.expiry,
            }
            for it in self.by_name.values()
        ]

    async def changed(self, channel: EarningChannel) -> None:
        """Wait for the next voucher of a channel."""
        await self._changed.setdefault(channel.name, trio.Event()).wait()

    def keep_soon(self, channel: EarningChannel) -> None:
        """Keep what is known of a channel, with the next commit."""
        self.store.write_soon(Table.CHANNELS, IN + channel.name, channel.to_bytes())

    # Vouchers

    async def on_pay(self, call: TypedCall, message: Message) -> None:
        """Answer a Pay with what is here of the channel, or refuse."""
        assert isinstance(message, Pay)
        try:
            channel = await self.shown(call.peer, message.channel, message.settlement)
            self._agree(channel, message)
            self._take(channel, message.voucher)
            self._latest[call.peer] = channel
        except WireError as error:
            self.peers.offended(call.peer, Offence.MALFORMED)
            await call.send(refusal_of(error))
        except (Refused, StoreError, TransportError) as error:
            await call.send(refusal_of(error))
        else:
            if channel.relays is not message.relays:
                channel.relays = message.relays
                self.keep_soon(channel)
            voucher = channel.voucher or None
            relayed = channel.models.get(RELAYED, 0) if channel.relays else 0
            await call.send(Paid(charged=channel.charged, voucher=voucher, relayed=relayed))

    async def shown(
        self, payer: PeerId, name: bytes, settlement: bytes | None, *, over_http: bool = False
    ) -> EarningChannel:
        """A channel of a payer, by name or the order that opens it; WireError or Refused."""
        channel = self.by_name.get(name)
        if channel is None:
            # Shown on many streams at once it is begun by the first alone.
            async with self._admitting:
                channel = self.by_name.get(name)
                if channel is None:
                    channel = await self._brought(payer, name, settlement, over_http=over_http)
        if channel is None or channel.payer != payer:
            raise Refused("the channel is another's", code=RefusalCode.NOT_WILLING)
        return channel

    async def _brought(
        self, payer: PeerId, name: bytes, settlement: bytes | None, *, over_http: bool
    ) -> EarningChannel | None:
        # One that was used before goes on as it was: what was charged stays charged.
        row = self.store.read(Table.CHANNELS, OLD + name)
        found = None if row is None else EarningChannel.from_bytes(name, row)
        # Who kept the ledger when it was opened has to be known.
        self.epoch = max(self.epoch, await self.wallet.epoch_now(LOOK_EVERY_S))
        if found is None:
            found = self._begun(payer, name, settlement)
        if found.payer != payer:
            return None
        await self._admit(found, kept=row is not None, over_http=over_http)
        self.by_name[name] = found
        return found

    def _begun(self, payer: PeerId, name: bytes, settlement: bytes | None) -> EarningChannel:
        """A channel that is shown here for the first time."""
        if settlement is None:
            raise Refused(
                "this channel is not known here: show its settlement",
                code=RefusalCode.NOT_FOUND,
                retry_after_s=1.0,
            )
        committees = self.wallet.committees
        opening = opening_in(settlement, committees, payer, self.peers.me, name)
        return EarningChannel(payer, name, opening.deposit, opening.expiry)

    async def _admit(self, found: EarningChannel, *, kept: bool, over_http: bool) -> None:
        """Keep a channel in place of those of its payer that are used up; Refused without room."""
        if found.expiry <= self.epoch:
            raise Refused(
                "the channel expires before all of it can be redeemed: open another one",
                code=RefusalCode.NOT_WILLING,
            )
        own = [it for it in self.by_name.values() if it.payer == found.payer]
        # Its payer shows another in its place: of one that is redeemed nothing comes any more.
        over = [it for it in own if not it.unredeemed and not it.held]
        if over_http:
            # Tasks go on with the one that they use.
            over = [it for it in over if it is not self._latest.get(found.payer)]
        if len(self.by_name) - len(over) >= CHANNELS_MAX or self._old >= CHANNELS_MAX:
            raise Refused("no room for further channels", retry_after_s=60.0)
        if (room := CHANNELS_PER_PAYER - len(own) + len(over)) <= 1:
            # Who pays much uses up one after the other: room is made before there is none.
            self._due.set()
        if room <= 0:
            raise Refused("too many channels of yours", code=RefusalCode.NOT_WILLING)
        for channel in over:
            await self._put_away(channel)
        self.keep_soon(found)
        if kept:
            self._old -= 1
            self.store.write_soon(Table.CHANNELS, OLD + found.name, None)

    async def _put_away(self, channel: EarningChannel) -> None:
        """Use a channel no more, and know what was charged to it until it has expired."""
        row = channel.to_bytes()
        if channel.highest:
            await self.store.write(Table.CHANNELS, OLD + channel.name, row)
            self._old += 1
        if channel.to_bytes() == row and not channel.held:
            # Otherwise its payer went on with it meanwhile.
            self._forget(channel.name)

    def _forget(self, name: bytes) -> None:
        channel = self.by_name.pop(name, None)
        if channel is not None and self._latest.get(channel.payer) is channel:
            del self._latest[channel.payer]
        self.store.write_soon(Table.CHANNELS, IN + name, None)

    def _forget_old(self) -> None:
        """Forget the channels of which nothing can be shown any more: they have expired."""
        rows = self.store.scan(Table.CHANNELS, prefix=OLD, limit=CHANNELS_MAX)
        kept = 0
        for key, row in rows:
            if EarningChannel.from_bytes(key.removeprefix(OLD), row).expiry < self.epoch:
                self.store.write_soon(Table.CHANNELS, key, None)
            else:
                kept += 1
        self._old = kept

    def _agree(self, channel: EarningChannel, message: Pay) -> None:
        now = self.own.now
        if now is None or message.tariff != now.id:
            raise Refused(
                "the prices here have changed: read them again",
                code=RefusalCode.NOT_PAID,
                retry_after_s=1.0,
            )
        if channel.tariff != now.id:
            channel.tariff = now.id
            self.keep_soon(channel)

    def _take(self, channel: EarningChannel, raw: bytes | None) -> None:
        """Keep a voucher if it is the highest; WireError for one that is none of this channel."""
        if raw is None or raw == channel.voucher:
            return
        voucher = open_signed(raw, Voucher)
        record = voucher.record
        named = (voucher.signer, record.network, record.channel)
        if named != (channel.payer, self.wallet.genesis.id, channel.name):
            raise Refused("the voucher is not of this channel", code=RefusalCode.MALFORMED)
        if record.total > channel.deposit:
            raise Refused("the voucher is beyond the deposit", code=RefusalCode.NOT_COVERED)
        if why := channel.misnamed(record):
            raise Refused(why, code=RefusalCode.MALFORMED)
        self.take(channel, voucher)

    def take(self, channel: EarningChannel, voucher: Signed[Voucher]) -> None:
        """Keep a voucher of this channel, whose signature holds, if it is the highest."""
        if channel.take(voucher.record, voucher.raw):
            self.vouchers += 1
            self.keep_soon(channel)
            self._changed.pop(channel.name, trio.Event()).set()

    async def keep(self, channel: EarningChannel) -> None:
        """Have what is known of a channel durable."""
        await self.store.write(Table.CHANNELS, IN + channel.name, channel.to_bytes())

    # Redeeming

    async def redeem_forever(self) -> None:
        """Take what was promised out of the channels, now and then."""
        every_s = min(REDEEM_S_MAX, max(REDEEM_S_MIN, self.wallet.genesis.epoch_s / EPOCH_PART))
        while True:
            await trio.sleep(REDEEM_S_MIN)
            with trio.move_on_after(every_s - REDEEM_S_MIN):
                await self._due.wait()
            self._due = trio.Event()
            try:
                await self.redeem()
            except BatonError as error:
                self.peers.note_problem("redeeming", f"not redeemed yet: {error.message}")

    async def redeem(self) -> int:
        """Redeem what is promised now, in one order; how much that was, in millionths."""
        if not self.by_name and not self._old:
            return 0
        owed = any(it.unredeemed > 0 for it in self.by_name.values())
        epoch_s = self.wallet.genesis.epoch_s
        if not owed and trio.current_time() < self.wallet.looked_at_s + epoch_s:
            # No epoch can have ended in which a channel expires.
            return 0
        # The order itself looks again.
        self.epoch = max(self.epoch, await self.wallet.epoch_now(epoch_s))
        self._forget_old()
        for channel in [it for it in self.by_name.values() if it.expiry < self.epoch]:
            # From now on what is left in it is its payer's.
            self._forget(channel.name)
        owing = sorted(
            (
                it
                for it in self.by_name.values()
                if it.is_due and self._refused.get(it.name) != self.epoch
            ),
            key=lambda it: it.expiry,
        )[: limits.ACTIONS_MAX]
        return await self._redeem(owing) if owing else 0

    async def _redeem(self, owing: Sequence[EarningChannel]) -> int:
        """Redeem these; of those that are refused, the ones that are not at fault by themselves."""
        totals = {it.name: it.highest for it in owing}
        try:
            ordered = await self.wallet.order(
                unheard,
                redeem=tuple(
                    Redemption(channel=it.name, voucher=it.voucher, release=False) for it in owing
                ),
            )
        except Refused as error:
            if error.retry_after_s is not None:
                raise
            if len(owing) == 1:
                self._refused[owing[0].name] = self.epoch
                self.peers.note_problem("redeeming", f"a voucher is refused: {error.message}")
                return 0
            half = len(owing) // 2
            return await self._redeem(owing[:half]) + await self._redeem(owing[half:])
        if ordered.state is not OrderState.SETTLED:
            return 0
        self.orders += 1
        taken = 0
        for channel in owing:
            taken += totals[channel.name] - channel.redeemed
            channel.redeemed = totals[channel.name]
            self.keep_soon(channel)
        return taken
