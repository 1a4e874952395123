"""Looking at a network with credits: its checkpoints, and both ends of each channel, once a second.

What is looked at is only what peers have in their hands. Everything is added up again here, so that
a sum which a peer keeps wrongly is found.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import trio

from node.devnet.economy_plan import EconomyPlan
from node.devnet.invariants import Violations
from node.devnet.peer import DevPeer
from node.ledger.books import Books
from node.paying.channels import EarningChannel, PaidChannel
from node.paying.earning_channels import CHANNELS_MAX, IN, OLD
from node.paying.paying_channels import OUT
from store import Store, Table
from wire.checkpoint import CheckpointHeader
from wire.content import ContentId, PeerId

SUPPLY = "the supply is constant"
ONE_END = "an epoch has one end"
LOSS = "nobody loses more than one increment to another"

# A payer and a payee, by their keys.
Pair = tuple[PeerId, PeerId]


def supply_of(books: Books) -> int:
    """All credits in some books, added up from their rows."""
    balances = sum(it.balance for shelf in books.accounts for it in shelf.values())
    deposits = sum(it.locked for shelf in books.channels for it in shelf.values())
    stakes = sum(it.total for it in books.stakes.rows.values())
    return balances + deposits + stakes + books.fund + books.motions.bonds


def earning(store: Store) -> Iterator[EarningChannel]:
    """The channels that a peer is paid from, as its disk has them."""
    for prefix in (OLD, IN):
        for key, row in store.scan(Table.CHANNELS, prefix=prefix, limit=CHANNELS_MAX):
            yield EarningChannel.from_bytes(key.removeprefix(prefix), row)


def paying(store: Store) -> Iterator[PaidChannel]:
    """The channels that a peer pays from, as its disk has them."""
    for key, row in store.scan(Table.CHANNELS, prefix=OUT, limit=CHANNELS_MAX):
        yield PaidChannel.from_bytes(key.removeprefix(OUT), row)


def earning_of(peer: DevPeer) -> list[EarningChannel]:
    """The channels that a peer is paid from, also one that is down."""
    found = {} if peer.store is None else {it.name: it for it in earning(peer.store)}
    if peer.node is not None and peer.node.paying is not None:
        found |= peer.node.paying.till.channels.by_name
    return list(found.values())


def paying_of(peer: DevPeer) -> list[PaidChannel]:
    """The channels that a peer pays from, also one that is down."""
    if peer.node is not None and peer.node.paying is not None:
        channels = peer.node.paying.payer.channels
        return [*channels.by_peer.values(), *channels.spare.values(), *channels.used_up]
    return [] if peer.store is None else list(paying(peer.store))


@dataclass(slots=True)
class ChannelSeen:
    """The most that either end ever had of one channel, in millionths."""

    pair: Pair
    # By its payer: promised, and what that paid for.
    signed: int = 0
    received: int = 0
    # By its payee: promised, and what it worked for.
    highest: int = 0
    charged: int = 0

    @property
    def payer_loss(self) -> int:
        """What was promised for nothing."""
        return max(0, max(self.signed, self.highest) - self.received)

    @property
    def payee_loss(self) -> int:
        """What was worked for and not promised."""
        return max(0, self.charged - self.highest)


@dataclass(slots=True)
class EpochSeen:
    """One epoch that has ended: when that was first seen, and how."""

    at_s: float
    header: ContentId


@dataclass(slots=True)
class EconomyWatch:
    """What was seen of one run so far."""

    plan: EconomyPlan
    violations: Violations
    channels: dict[bytes, ChannelSeen] = field(default_factory=dict)
    epochs: dict[int, EpochSeen] = field(default_factory=dict)
    # The increment of each payee, the highest that it ever named.
    increments: defaultdict[PeerId, int] = field(default_factory=lambda: defaultdict(int))
    # Of each pair the most that either lost to the other at any moment.
    losses: dict[Pair, tuple[int, int]] = field(default_factory=dict)
    # The epoch that ran when the load began.
    first_epoch: int = 0
    restarts: int = 0
    disks_lost: int = 0
    # Restarts that were left out, for as many members as may be bad were out already.
    spared: int = 0
    sat_out: set[tuple[int, int]] = field(default_factory=set)
    _told: set[Pair] = field(default_factory=set)
    _checked: dict[int, int] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        """How many epochs have ended since genesis, as far as a member has told."""
        return max(self.epochs, default=-1) + 1

    def look(self, peers: Sequence[DevPeer]) -> None:
        """Look at all peers that are up."""
        for peer in peers:
            if peer.node is None or peer.node.ledger is None:
                continue
            if (member := peer.node.ledger.member) is not None:
                replica = member.replica
                if replica.sits_out:
                    self.sat_out.add((peer.number, replica.epoch))
                if replica.tip is not None and self._checked.get(peer.number) != replica.epoch:
                    self._checked[peer.number] = replica.epoch
                    self.see_checkpoint(peer.number, replica.tip, replica.books)
            self._look_at_channels(peer)
        self._compare()

    # Checkpoints

    def see_checkpoint(self, number: int, header: CheckpointHeader, books: Books) -> None:
        """A member has ended an epoch: its books sum up, and all have ended it alike."""
        supply = self.plan.genesis.supply
        for what, summed in (("its books", supply_of(books)), ("its checkpoint", header.supply)):
            if summed != supply:
                self.violations.note(
                    SUPPLY, number, f"epoch {header.epoch}: {what} have {summed}, not {supply}"
                )
        seen = self.epochs.setdefault(header.epoch, EpochSeen(trio.current_time(), header.id))
        if seen.header != header.id:
            self.violations.note(ONE_END, number, f"epoch {header.epoch} has two ends")

    def lengths_s(self) -> list[float]:
        """How long each epoch took since the load began."""
        at_s = [self.epochs[it].at_s for it in sorted(self.epochs) if it >= self.first_epoch - 1]
        return [later - before for before, later in pairwise(at_s)]

    # Channels

    def _look_at_channels(self, peer: DevPeer) -> None:
        node, me = peer.node, peer.key.peer
        if node is None or node.paying is None:
            return
        tariff = node.paying.own.now
        if tariff is not None:
            self.increments[me] = max(self.increments[me], tariff.record.increment)
        channels = node.paying.payer.channels
        self.see_paying(
            me, (*channels.by_peer.values(), *channels.spare.values(), *channels.used_up)
        )
        self.see_earning(me, node.paying.till.channels.by_name.values())

    def see_paying(self, payer: PeerId, channels: Iterable[PaidChannel]) -> None:
        """The payer's ends of some channels."""
        for channel in channels:
            seen = self._seen((payer, channel.payee), channel.name)
            seen.signed = max(seen.signed, channel.signed)
            seen.received = max(seen.received, channel.charged + channel.shown)

    def see_earning(self, payee: PeerId, channels: Iterable[EarningChannel]) -> None:
        """The payee's ends of some channels."""
        for channel in channels:
            seen = self._seen((channel.payer, payee), channel.name)
            seen.highest = max(seen.highest, channel.highest)
            seen.charged = max(seen.charged, channel.charged)

    def _seen(self, pair: Pair, name: bytes) -> ChannelSeen:
        seen = self.channels.get(name)
        if seen is None:
            seen = self.channels[name] = ChannelSeen(pair)
        return seen

    def _compare(self) -> None:
        """Add up what each lost to each other, over all channels between them."""
        payers: defaultdict[Pair, int] = defaultdict(int)
        payees: defaultdict[Pair, int] = defaultdict(int)
        for channel in self.channels.values():
            payers[channel.pair] += channel.payer_loss
            payees[channel.pair] += channel.payee_loss
        for pair in payers:
            lost = (payers[pair], payees[pair])
            before = self.losses.get(pair, (0, 0))
            self.losses[pair] = (max(lost[0], before[0]), max(lost[1], before[1]))
            increment = self.increments[pair[1]]
            if max(lost) > increment and pair not in self._told:
                self._told.add(pair)
                number = self.plan.numbers.get(pair[0])
                self.violations.note(
                    LOSS,
                    number,
                    f"between payer {number} and payee {self.plan.numbers.get(pair[1])}:"
                    f" {lost[0]} and {lost[1]} millionths, an increment is {increment}",
                )
