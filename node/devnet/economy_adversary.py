"""Peers that cheat with credits; no code of Baton is changed, each has another part in its place.

An asker signs one voucher for each peer and asks on; a payee keeps what was paid ahead; an owner
signs two orders with one number, and shows each to another part of the members.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import trio

from node.ledger.committee import collected, proof_of
from node.ledger.wallet import OrderState, Wallet, unheard
from node.paying.channels import PaidChannel
from node.paying.paying_channels import PayingChannels
from node.peer import Node
from p2p.peers import Handler
from p2p.typed_call import CallChannel, TypedCall, refusal_of
from wire.check_message import Check
from wire.checks import OpenChecks
from wire.content import ContentId, PeerId
from wire.errors import BatonError, Disconnected, Refused
from wire.kinds import RefusalCode
from wire.ledger import AccountOrder, Certificate, Payment, Vote, order_digest
from wire.ledger_message import Confirm, SubmitOrder, Voted
from wire.message import Message, Offer
from wire.order import Open
from wire.signed import Signed, open_signed, sign
from wire.tariff import Tariff

# What a thief does after it was paid ahead.
THEFTS = ("refuses", "cuts", "makes nonsense")
# Messages of an answer that a thief sends before it cuts it or makes nonsense of it.
HONEST_MESSAGES = 1
NONSENSE_BYTES = 64
CALL_DEADLINE_S = 5.0
# An equivocator waits up to this part of an epoch before it does it again.
DEED_EVERY = 0.8
LOOK_EVERY_S = 1.0
STOLEN = 5000


# An asker that does not pay


class NeverPaying(PayingChannels):
    """Channels of an asker that signs one voucher in each, and gives out work all the same."""

    def ready(
        self, tariff: Signed[Tariff], need: int, *, fresh: bool = False, relays: bool = False
    ) -> bool:
        """As if everything were paid, once the payee has something in its hands."""
        channel = self.by_peer.get(tariff.signer)
        if channel is not None and channel.heard:
            return True
        return super().ready(tariff, need, fresh=fresh, relays=relays)

    def _pay_soon(self, channel: PaidChannel, named: ContentId, need: int) -> None:
        # Once its one voucher is there it has nothing more to say.
        if not channel.heard:
            super()._pay_soon(channel, named, need)

    def _voucher(self, channel: PaidChannel, need: int, *, names_models: bool) -> bytes | None:
        if channel.signed:
            return None
        return PayingChannels._voucher(self, channel, need, names_models=names_models)


def pay_never_again(node: Node) -> Callable[[], None]:
    """Have an asker's peer sign no second voucher to anybody; returns the call that ends it."""
    assert node.paying is not None
    payer = node.paying.payer
    before = payer.channels
    mine = NeverPaying(before.peers, before.store, before.wallet, before.nursery)
    mine.by_peer, mine.by_gateway = before.by_peer, before.by_gateway
    mine.used_up, mine.spare = before.used_up, before.spare
    payer.channels = mine

    def end() -> None:
        payer.channels = before

    return end


# A payee that keeps what was paid ahead


def steal(node: Node, random: Random) -> Callable[[], None]:
    """Have a peer keep what it was paid; returns the call that ends it."""
    handlers = node.peers.handlers
    honest = dict(handlers)

    def end() -> None:
        handlers.clear()
        handlers.update(honest)

    theft = random.choice(THEFTS)
    # Whoever has many legs for it asks with one call for each.
    handlers[Open] = _refuse
    del handlers[OpenChecks]
    if theft == "refuses":
        handlers[Offer] = handlers[Check] = _refuse
    else:
        nonsense = random if theft == "makes nonsense" else None
        handlers[Offer] = _spoilt(honest[Offer], nonsense)
        handlers[Check] = _spoilt(honest[Check], nonsense)
    return end


async def _refuse(call: TypedCall, _message: Message) -> None:
    await call.send(refusal_of(Refused("not today", code=RefusalCode.NOT_WILLING)))


def _spoilt(honest: Handler, nonsense: Random | None) -> Handler:
    async def answer(call: TypedCall, message: Message) -> None:
        await honest(TypedCall(_Spoilt(call.channel, nonsense), call.conversation), message)

    return answer


class _Spoilt:
    """An exchange that breaks after a message, or goes on with nonsense."""

    def __init__(self, inner: CallChannel, nonsense: Random | None) -> None:
        self._inner, self._nonsense = inner, nonsense
        self._left = HONEST_MESSAGES
        self.peer = inner.peer
        self.receive = inner.receive

    async def send(self, payload: bytes) -> None:
        if self._left:
            self._left -= 1
        elif self._nonsense is None:
            raise Disconnected("cut on purpose")
        else:
            payload = self._nonsense.randbytes(NONSENSE_BYTES)
        await self._inner.send(payload)


# An owner that signs two orders with one number


@dataclass(slots=True)
class TwoOrders:
    """What came of all pairs of orders with one number in a run."""

    signed: int = 0
    # By account, epoch and number: the orders that have a certificate.
    certified: defaultdict[tuple[PeerId, int, int], set[bytes]] = field(
        default_factory=lambda: defaultdict(set)
    )
    # The epochs in which each owner signed two, and in which one of its orders was settled.
    deeds: defaultdict[PeerId, set[int]] = field(default_factory=lambda: defaultdict(set))
    settled: defaultdict[PeerId, set[int]] = field(default_factory=lambda: defaultdict(set))

    @property
    def doubled(self) -> int:
        """Numbers of accounts for which two orders have a certificate."""
        return sum(len(it) > 1 for it in self.certified.values())

    @property
    def with_one(self) -> int:
        """Pairs of which one order has a certificate."""
        return sum(len(it) == 1 for it in self.certified.values())

    def stuck(self, ended: int) -> list[PeerId]:
        """Owners none of whose orders was settled in an epoch after a deed."""
        return [
            owner
            for owner, epochs in self.deeds.items()
            if min(epochs) + 1 < ended
            if not any(it > min(epochs) for it in self.settled[owner])
        ]


async def equivocate(node: Node, random: Random, found: TwoOrders) -> None:
    """By turns sign two orders with one number, and in the next epoch one, until cancelled."""
    assert node.ledger is not None
    wallet = node.ledger.wallet
    while True:
        await trio.sleep(wallet.genesis.epoch_s * DEED_EVERY * random.random())
        try:
            epoch = await _two_orders(wallet, random, found)
            # Every peer follows the headers of checkpoints.
            while (ended := node.ledger.stakes.epoch) is None or ended < epoch:
                await trio.sleep(LOOK_EVERY_S)
            await _one_order(wallet, random, found)
        except BatonError as error:
            node.note(f"equivocating: {error.message}")


def _payees(wallet: Wallet, random: Random) -> list[PeerId]:
    others = [it.account for it in wallet.genesis.grants if it.account != wallet.key.peer]
    return random.sample(others, 2)


async def _one_order(wallet: Wallet, random: Random, found: TwoOrders) -> None:
    paid = await wallet.pay(_payees(wallet, random)[0], STOLEN, unheard)
    if paid.state is OrderState.SETTLED:
        found.settled[wallet.key.peer].add(paid.order.record.epoch)


async def _two_orders(wallet: Wallet, random: Random, found: TwoOrders) -> int:
    """The epoch in which it was."""
    view = await wallet.look()
    orders = [
        sign(
            AccountOrder(
                network=wallet.genesis.id,
                epoch=view.epoch,
                sequence=view.sequence,
                pay=(Payment(to=payee, amount=STOLEN),),
            ),
            wallet.key,
        )
        for payee in _payees(wallet, random)
    ]
    found.signed += 1
    found.deeds[wallet.key.peer].add(view.epoch)
    committee = wallet.committees.of(view.epoch)
    members = [it.key for it in committee.members]
    random.shuffle(members)
    # Either as many members are shown each, or nearly all the first one.
    cut = random.choice((len(members) // 2, len(members) - 1))
    parts = (members[:cut], members[cut:])
    votes = [await _votes(wallet, order, some) for order, some in zip(orders, parts, strict=True)]
    # Then the others are shown what they have not seen.
    for order, first, rest in zip(orders, votes, reversed(parts), strict=True):
        have = first | await _votes(wallet, order, rest)
        if committee.is_quorum(have):
            certificate = Certificate(order=order.raw, votes=collected(have)).to_bytes()
            key = (wallet.key.peer, view.epoch, view.sequence)
            found.certified[key].add(order_digest(order))
            await _tell(wallet, certificate, members)
    return view.epoch


async def _votes(
    wallet: Wallet, order: Signed[AccountOrder], members: Sequence[PeerId]
) -> dict[int, bytes]:
    proofs: dict[int, bytes] = {}

    async def ask(member: PeerId) -> None:
        try:
            async with wallet.peers.call(member, deadline_s=CALL_DEADLINE_S) as call:
                await call.send(SubmitOrder(order=order.raw))
                vote = open_signed((await call.expect(Voted)).vote, Vote)
        except BatonError:
            return
        if vote.signer == member and vote.record.order == order_digest(order):
            proofs[wallet.committees.latest.index[member]] = proof_of(Vote, vote.raw)

    async with trio.open_nursery() as nursery:
        for member in members:
            nursery.start_soon(ask, member)
    return proofs


async def _tell(wallet: Wallet, certificate: bytes, members: Sequence[PeerId]) -> None:
    async def tell(member: PeerId) -> None:
        try:
            async with wallet.peers.call(member, deadline_s=CALL_DEADLINE_S) as call:
                await call.send(Confirm(certificate=certificate))
        except BatonError:
            return

    async with trio.open_nursery() as nursery:
        for member in members:
            nursery.start_soon(tell, member)
