"""What this peer pays others for its own tasks: quotes before, and whom it can have work for it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import trio

from node.paying.bill import Bill, Booking, Held
from node.paying.paying_channels import PayingChannels
from node.paying.pricing import LegUnits, cost, cost_and_need, cost_of_keeping
from node.paying.tariffs import Tariffs
from p2p.peers import Peers
from p2p.timeouts import stretched
from wire.advert import Advert
from wire.amount import show_credits
from wire.content import PeerId
from wire.errors import BatonError, InputError, Refused
from wire.kinds import RefusalCode
from wire.signed import Signed
from wire.tariff import Tariff
from wire.task import Stage, Task

# Of what a task may cost, verifiers get this part at most.
CHECKS_PART = 2
# A task waits for its first channel at most so long before it is refused.
READY_DEADLINE_S = 30.0
LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class PriceQuote:
    """What a task would cost at the peers that could do it, at most, in millionths."""

    # For each leg, of each peer whose prices are known; 0 for those that ask for nothing.
    legs: tuple[tuple[int, ...], ...]
    checks: int = 0
    # What channels that are opened for it lock at most, of which nothing is paid by that.
    locks: int = 0

    @property
    def least(self) -> int:
        """At the cheapest peers, with its checks."""
        return sum(min(it, default=0) for it in self.legs) + self.checks

    @property
    def most(self) -> int:
        """At the dearest ones."""
        return sum(max(it, default=0) for it in self.legs) + self.checks

    def above(self, amount: int) -> int | None:
        """What it costs without the cheapest peers, as many for each leg as make it more than this.

        None if it is not more anywhere.
        """
        legs = [sorted(it) for it in self.legs if it]
        for left_out in range(max(map(len, legs), default=0)):
            whole = self.checks + sum(it[min(left_out, len(it) - 1)] for it in legs)
            if whole > amount:
                return whole
        return None

    @property
    def is_known(self) -> bool:
        """Whether the prices of a peer are known for each leg."""
        return all(self.legs)


@dataclass(slots=True)
class Payer:
    """The paying side of one peer."""

    peers: Peers
    tariffs: Tariffs
    channels: PayingChannels

    # Before a task

    async def quote(
        self, adverts: Sequence[Signed[Advert]], stage: Stage, most: LegUnits
    ) -> tuple[int, ...]:
        """What this leg would cost at most at each of these peers whose prices are known."""
        await self.tariffs.learn(adverts)
        prices = [self._cost(it, stage, most) for it in adverts]
        return tuple(it for it in prices if it is not None)

    def locks(self, adverts: Sequence[Signed[Advert]], stage: Stage, most: LegUnits) -> int:
        """What further channels to these peers are opened with, at most: it is locked, not paid."""
        found = 0
        for heard in adverts:
            tariff = None if heard.signer == self.peers.me else self.tariffs.of(heard)
            if tariff is None:
                continue
            price, need = cost_and_need(tariff.record, stage, most)
            if price:
                found += self.channels.locks(tariff, need)
        return found

    def least(self, adverts: Sequence[Signed[Advert]], stage: Stage, most: LegUnits) -> int:
        """What this leg costs at most at the cheapest of these peers, by what is known now."""
        prices = (self._cost(it, stage, most) for it in adverts)
        return min((it for it in prices if it is not None), default=0)

    async def check_quote(self, adverts: Sequence[Signed[Advert]], needed: int) -> int:
        """What so many verdicts cost at most, by the cheapest of these verifiers."""
        await self.tariffs.learn(adverts)
        prices = sorted(it for heard in adverts if (it := self._check_price(heard)) is not None)
        return sum(prices[:needed])

    async def until_ready(
        self,
        able: Callable[[], Iterable[Signed[Advert]]],
        stage: Stage,
        most: LegUnits,
        price_max: int,
        *,
        given_on: bool = False,
    ) -> None:
        """Wait until one of those that are `able` can be paid; InputError says why none can.

        Who becomes known meanwhile counts too. `given_on`: by whoever did the leg before.
        """
        self.channels.trouble = None
        with trio.move_on_after(stretched(READY_DEADLINE_S)):
            while not any(
                self.price_at(it.signer, stage, most, price_max, given_on=given_on) is not None
                for it in able()
            ):
                if (why := self.channels.trouble) is not None:
                    raise why
                await trio.sleep(LOOK_EVERY_S)
            return
        raise InputError(
            f"no peer that does the leg {stage.operation!r} could be paid in time: its channel is"
            " not open yet",
            todo="ask again in a moment; see how it stands: python -m node wallet",
        )

    async def until_checkable(
        self, able: Callable[[], Sequence[Signed[Advert]]], price_max: int, needed: int
    ) -> None:
        """Wait until so many of these verifiers can be paid; InputError if the account cannot.

        Verifiers that ask for more than the task may cost are not waited for.
        """
        await self.tariffs.learn(able())
        with trio.move_on_after(stretched(READY_DEADLINE_S)):
            while True:
                verifiers = [it.signer for it in able()]
                if sum(self.may_check(it, price_max, needed) for it in verifiers) >= needed:
                    return
                if not any(self._is_lacking(it, price_max, needed) for it in verifiers):
                    return
                if (why := self.channels.trouble) is not None:
                    raise why
                await trio.sleep(LOOK_EVERY_S)

    def _is_lacking(self, verifier: PeerId, price_max: int, needed: int) -> bool:
        """Whether a verifier would be paid once there is a channel to it, with credits in it."""
        heard = self.peers.view.advert_of(verifier)
        tariff = None if heard is None else self.tariffs.of(heard)
        if tariff is None or not tariff.record.verdict:
            return False
        affordable = tariff.record.verdict * max(1, needed) * CHECKS_PART <= price_max
        return affordable and not self.channels.ready(tariff, tariff.record.verdict)

    def _cost(self, heard: Signed[Advert], stage: Stage, units: LegUnits) -> int | None:
        """What a peer asks for a leg; None as long as its prices are not known."""
        if heard.record.tariff is None or heard.signer == self.peers.me:
            return 0
        tariff = self.tariffs.of(heard)
        return None if tariff is None else cost(tariff.record, stage, units)

    def _check_price(self, heard: Signed[Advert]) -> int | None:
        if heard.record.tariff is None:
            return 0
        tariff = self.tariffs.of(heard)
        return None if tariff is None else tariff.record.verdict

    async def until_keepable(self, peer: PeerId, size_bytes: int, left: int) -> int:
        """What a peer asks for keeping content, once that can be paid; Refused if it is too much.

        InputError says why it cannot be paid.
        """
        heard = self.peers.view.advert_of(peer)
        if heard is None or heard.record.tariff is None:
            return 0
        await self.tariffs.learn([heard])
        tariff = self.tariffs.of(heard)
        price = 0 if tariff is None else cost_of_keeping(tariff.record, size_bytes)
        if tariff is None or not price:
            return 0
        if price > left:
            allowed = f"at most {show_credits(left)} are" if left else "nothing is"
            raise Refused(
                f"it asks for {show_credits(price)} credits, and {allowed} to be paid",
                code=RefusalCode.NOT_PAID,
            )
        self.channels.trouble = None
        with trio.move_on_after(stretched(READY_DEADLINE_S)):
            while not self.channels.ready(tariff, price):
                if (why := self.channels.trouble) is not None:
                    raise why
                await trio.sleep(LOOK_EVERY_S)
            return price
        raise Refused("its channel is not open yet", code=RefusalCode.NOT_PAID, retry_after_s=1.0)

    # While a task is on its way

    def price_at(
        self, peer: PeerId, stage: Stage, most: LegUnits, left: int, *, given_on: bool = False
    ) -> int | None:
        """What a peer would ask for a leg at most; None if it cannot be asked for that now.

        Of a leg that another gives on nobody here sees how it goes: it is promised as a whole.
        """
        heard = self.peers.view.advert_of(peer)
        if heard is None or heard.record.tariff is None or peer == self.peers.me:
            return 0
        tariff = self.tariffs.of(heard)
        if tariff is None:
            self.tariffs.learn_soon(heard)
            return None
        price, need = cost_and_need(tariff.record, stage, most)
        if price > left:
            return None
        if given_on:
            need = price
        return price if not price or self.channels.ready(tariff, need, fresh=given_on) else None

    def note_given(
        self, bill: Bill, peer: PeerId, number: int, stage: Stage, most: LegUnits, begun: int
    ) -> bool:
        """Note that a leg is given to a peer, by its prices as they are now.

        Whether what it needs is promised: others may have been given work since that was looked at.
        """
        bill.book, channel = self.book, self.channels.by_peer.get(peer)
        heard = self.peers.view.advert_of(peer)
        tariff = None if heard is None or peer == self.peers.me else self.tariffs.of(heard)
        if tariff is None or tariff.record.price_for(stage) is None:
            return True
        price, need = cost_and_need(tariff.record, stage, most)
        is_promised = channel is not None and channel.available >= need
        bill.note_given(peer, Held(tariff, number, stage, min(need, bill.left), begun, most=price))
        return is_promised

    def note_done(
        self, bill: Bill, peer: PeerId, number: int, stage: Stage, most: LegUnits
    ) -> None:
        """Note who did a leg that others gave on, by the prices that were agreed on with it."""
        bill.book, tariff = self.book, self._agreed_with(peer)
        if tariff is not None and tariff.record.price_for(stage) is not None:
            price = cost(tariff.record, stage, most)
            bill.note_given(peer, Held(tariff, number, stage, most=price))

    def _agreed_with(self, peer: PeerId) -> Signed[Tariff] | None:
        """The prices that were agreed on with a peer; else those that its advert names.

        Whoever went away after its work is known no more, and is paid all the same.
        """
        channel, heard = self.channels.by_peer.get(peer), self.peers.view.advert_of(peer)
        tariff = None if channel is None else self.tariffs.agreed(channel.tariff, peer)
        return self.tariffs.of(heard) if tariff is None and heard is not None else tariff

    def note_refused(self, peer: PeerId, error: BatonError) -> None:
        """Note that a peer refused work: if as not paid, it is asked what it has."""
        if error.code is RefusalCode.NOT_PAID:
            self.channels.ask_again(peer)

    def book(self, peer: PeerId, booking: Booking) -> None:
        """Take in what a bill says of a peer's account."""
        self.channels.book(peer, booking)

    def may_check(self, verifier: PeerId, price_max: int, needed: int) -> bool:
        """Whether a verifier's verdict can be paid, of so many that are needed."""
        heard = self.peers.view.advert_of(verifier)
        if heard is None or heard.record.tariff is None:
            return True
        tariff = self.tariffs.of(heard)
        if tariff is None:
            self.tariffs.learn_soon(heard)
            return False
        price = tariff.record.verdict
        if price * max(1, needed) * CHECKS_PART > price_max:
            return not price
        return not price or self.channels.ready(tariff, price)

    def payable(self, verifiers: Iterable[PeerId], task: Task) -> set[PeerId]:
        """Those whose verdicts on a task can be paid, with those of as many as it needs."""
        needed = task.checking.needed
        return {it for it in verifiers if self.may_check(it, task.price_max, needed)}

    def charge_checks(
        self,
        bill: Bill,
        verifiers: Iterable[PeerId],
        number: int,
        stage: Stage,
        *,
        accepted: bool = True,
    ) -> None:
        """Charge the verdicts of these verifiers, whichever way they went."""
        bill.book = self.book
        for verifier in verifiers:
            if (tariff := self._agreed_with(verifier)) is not None:
                bill.check(tariff, number, stage, accepted=accepted)


def check_affordable(quote: PriceQuote, price_max: int, model: str) -> None:
    """InputError if no peer would do it for as much as is to be paid."""
    if not quote.is_known or quote.least <= price_max:
        return
    allowed = f"at most {show_credits(price_max)} are" if price_max else "nothing is"
    cheapest = f"peer that runs {model}" if len(quote.legs) == 1 else "peers for its legs"
    raise InputError(
        f"this costs up to {show_credits(quote.least)} credits at the cheapest {cheapest}, and"
        f" {allowed} to be paid",
        todo=f"allow more: --pay-max {show_credits(quote.least)}; or ask for less (--max-tokens)",
    )
