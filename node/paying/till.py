"""What this peer asks of others for its work: it works for what was promised, and no further.

Work of a task is paid by who signed the task. A leg holds what its prompt and first tokens cost; a
stream that has shown what was promised waits for the next voucher, and goes on where it stood. A
leg after the first is given on by a peer that pays nothing: all that it may cost is held for it,
and one task costs its signer no more here than it allows, however often it is given on.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto

import trio

from node.engines.interface import Part
from node.paying.channels import EarningChannel
from node.paying.earning_channels import EarningChannels
from node.paying.own_tariff import OwnTariff
from node.paying.pricing import (
    LegUnits,
    cost,
    cost_and_need,
    cost_of_keeping,
    cost_of_leg,
    cost_of_part,
    units_at_most,
)
from p2p.timeouts import stretched
from wire.amount import show_credits
from wire.content import ContentId, PeerId
from wire.errors import Refused
from wire.kinds import RefusalCode
from wire.latest import Latest
from wire.receipt import Receipt
from wire.signed import Signed
from wire.tariff import KEPT, Tariff, work_of
from wire.task import Stage, Task

# A stream that is not paid waits so long.
UNPAID_DEADLINE_S = 20.0
AGAIN_S = 0.5
# Tasks of which it is remembered what they cost here, where others gave them on.
TASKS_KEPT = 10_000
Relay = Callable[[Part], Awaitable[None]]


class GivenBy(Enum):
    """Who offers a leg that costs something."""

    # Who signed the task, as its first leg.
    PAYER = auto()
    # Who did the leg before.
    DOER = auto()
    OTHER = auto()

    @classmethod
    def of(cls, by: PeerId, me: PeerId, signer: PeerId, done: Sequence[PeerId]) -> "GivenBy":
        """`done`: who signed the legs before, in order."""
        if not done:
            return cls.PAYER if by == signer else cls.OTHER
        # A peer that did the leg before may have this one too.
        return cls.DOER if done[-1] in (by, me) else cls.OTHER


@dataclass(slots=True, eq=False)
class Seat:
    """One leg that is paid for: what is held for it out of its payer's channel."""

    channel: EarningChannel
    channels: EarningChannels
    tariff: Tariff
    stage: Stage
    price_max: int
    given: int
    held: int
    begun: int
    # Of a leg that was given on: its task, and what it may come to, which is noted.
    given_on: ContentId | None = None
    spent: Latest[ContentId, int] = field(default_factory=lambda: Latest(1))
    noted: int = 0
    shown: int = 0
    # Whether its payer gave it up while it was worked on.
    abandoned: bool = False
    _over: bool = False

    def cover(self, data: bytes | None) -> None:
        """The input is here: hold what it needs, not what was said of it; Refused if it is more."""
        most = units_at_most(self.stage, data)
        price, need = cost_and_need(self.tariff, self.stage, most)
        if price > self.price_max:
            raise _too_little("the leg", price, self.price_max)
        if self.given_on is not None:
            need = price
        if not self._hold(need):
            raise _unpaid(need, "the input is more than was said, and that much is not promised")
        self.given = most.given

    def charge(self, receipt: Receipt, source: bytes | None, output: bytes | None) -> None:
        """The leg is done and durable."""
        amount = cost_of_leg(self.tariff, self.stage, receipt, source, output, self.begun)
        self._end(min(amount, self.price_max))

    def close(self) -> None:
        """The leg is over; what was shown of one that is not done is charged.

        What was read for one that its payer gave up is not, and is remembered.
        """
        if self.abandoned and not self._over:
            read = cost(self.tariff, self.stage, LegUnits(self.given, 0))
            self.channels.give_up(self.channel, min(read, self.price_max))
        self._end(min(cost_of_part(self.tariff, self.stage, self.shown), self.price_max))

    def _end(self, amount: int) -> None:
        if self._over:
            return
        self._over = True
        self.channel.set_aside(-self.held, work_of(self.stage))
        if self.given_on is not None:
            self.spent[self.given_on] = self.spent.get(self.given_on, 0) + amount - self.noted
        self.channels.charge(self.channel, amount, work_of(self.stage))

    def paced(self, relay: Relay) -> Relay:
        """A relay that passes on what is paid for, and waits for the next voucher before more."""

        async def pass_on(part: Part) -> None:
            # What others are said to have shown, and was made here all the same, is paid here.
            self.begun = min(self.begun, part.position)
            await self._until_paid(part.position + part.units - self.begun)
            await relay(part)
            self.shown = max(self.shown, part.position + part.units - self.begun)

        return pass_on

    async def _until_paid(self, shown: int) -> None:
        """Wait until so many tokens are promised; Refused if they are not in time."""
        units = LegUnits(self.given, max(0, shown))
        running = min(cost(self.tariff, self.stage, units), self.price_max)
        with trio.move_on_after(stretched(UNPAID_DEADLINE_S)):
            while not self._hold(running):
                await self.channels.changed(self.channel)
            return
        raise Refused(
            f"{show_credits(running)} credits of this stream are not paid",
            code=RefusalCode.NOT_PAID,
            retry_after_s=AGAIN_S,
        )

    def _hold(self, amount: int) -> bool:
        """Hold so much at least; whether it is promised."""
        more = amount - self.held
        if more <= 0:
            return True
        if self.channel.available_for(work_of(self.stage)) < more:
            return False
        self.channel.set_aside(more, work_of(self.stage))
        self.held = amount
        return True


@dataclass(slots=True, eq=False)
class VerdictSeat:
    """One verdict that is made: its price is held, so that many at once are paid as one is."""

    channel: EarningChannel
    channels: EarningChannels
    price: int
    _over: bool = False

    def charge(self) -> None:
        """The verdict was made, whichever way it went."""
        if not self._over:
            self.close()
            self.channels.charge(self.channel, self.price, None)

    def close(self) -> None:
        """Nothing is charged any more."""
        if not self._over:
            self._over = True
            self.channel.set_aside(-self.price, None)


@dataclass(slots=True)
class Till:
    """The receiving side of one peer. `me` pays nothing for its own tasks."""

    me: PeerId
    own: OwnTariff
    channels: EarningChannels
    unpaid: int = field(default=0)
    # What tasks that were given on cost here, with what they may come to that are under way.
    _spent: Latest[ContentId, int] = field(default_factory=lambda: Latest(TASKS_KEPT))

    def seat(
        self,
        task: Signed[Task],
        stage: Stage,
        data: bytes | None,
        units: int,
        begun: int = 0,
        *,
        given_by: GivenBy = GivenBy.PAYER,
    ) -> Seat | None:
        """Hold what a leg needs; None if it is free, Refused if it is not paid for."""
        tariff, work = self.own.now, work_of(stage)
        if task.signer == self.me:
            return None
        if tariff is None or tariff.record.price_of(work) is None:
            if self.own.awaits(work):
                raise Refused(
                    "the price of this is not in the tariff yet: read it again in a moment",
                    code=RefusalCode.NOT_PAID,
                    retry_after_s=AGAIN_S,
                )
            return None
        if given_by is GivenBy.OTHER:
            raise Refused(
                "a leg that costs something is offered by who pays it, or did the leg before",
                code=RefusalCode.NOT_PAID,
            )
        given_on = task.id if given_by is GivenBy.DOER else None
        most, price_max = units_at_most(stage, data, units), task.record.price_max
        if given_on is not None:
            # What was forgotten of it may have been given back since: no task pays more by that.
            spent = max(0, self._spent.get(given_on, 0))
            price_max, begun = max(0, price_max - spent), 0
        price, need = cost_and_need(tariff.record, stage, most)
        if price > price_max:
            raise _too_little("the leg", price, price_max)
        if not price:
            return None
        if given_on is not None:
            need = price
        channel = self._channel(task.signer, need, work)
        channel.set_aside(need, work)
        seat = Seat(
            *(channel, self.channels, tariff.record, stage, price_max, most.given, need, begun)
        )
        if given_on is not None:
            seat.given_on, seat.spent, seat.noted = given_on, self._spent, price
            self._spent[given_on] = self._spent.get(given_on, 0) + price
        return seat

    @contextmanager
    def keeping(self, payer: PeerId, size_bytes: int) -> Iterator[None]:
        """Charge content that is kept for a payer; Refused unless that is promised.

        Nothing is charged if it ends with an error.
        """
        tariff = self.own.now
        price = 0 if tariff is None else cost_of_keeping(tariff.record, size_bytes)
        if not price:
            yield
            return
        channel = self._channel(payer, price, KEPT)
        channel.set_aside(price, KEPT)
        try:
            yield
            self.channels.charge(channel, price, KEPT)
        finally:
            channel.set_aside(-price, KEPT)

    def check_verdict(self, task: Signed[Task]) -> None:
        """Refused unless a verdict on this task is paid for."""
        price = self._verdict_price(task)
        if price > task.record.price_max:
            raise _too_little("a verdict", price, task.record.price_max)
        if price:
            self._channel(task.signer, price, None)

    def verdict_seat(self, task: Signed[Task]) -> VerdictSeat | None:
        """Hold what a verdict costs its payer; None if it is free.

        Refused if more than one increment would be owed: checks that came together were each
        found to be paid by the same promise.
        """
        price, tariff = self._verdict_price(task), self.own.now
        if not price or tariff is None:
            return None
        channel = self._channel(task.signer, price, None, tariff.record.increment)
        channel.set_aside(price, None)
        return VerdictSeat(channel, self.channels, price)

    def _verdict_price(self, task: Signed[Task]) -> int:
        tariff = self.own.now
        return 0 if tariff is None or task.signer == self.me else tariff.record.verdict

    def _channel(
        self, payer: PeerId, need: int, work: ContentId | None, owed: int = 0
    ) -> EarningChannel:
        """The channel of a payer that has promised so much more; Refused if there is none.

        `owed` may be missing of it.
        """
        channel, tariff = self.channels.of(payer), self.own.now
        assert tariff is not None
        if channel is not None and channel.given_up > tariff.record.increment:
            self.unpaid += 1
            raise _unpaid(need, "tasks of yours that you gave up cost more to read than you paid")
        available = 0 if channel is None else channel.available_for(work)
        if channel is not None and channel.tariff == tariff.id and available + owed >= need:
            return channel
        self.unpaid += 1
        why = "no channel of yours is open here"
        if channel is not None:
            why = "the prices here are others than you agreed to"
            if channel.tariff == tariff.id:
                why = f"{show_credits(max(0, available))} credits are promised for it and not used"
        raise _unpaid(need, why)


def _unpaid(need: int, why: str) -> Refused:
    return Refused(
        f"{show_credits(need)} credits are to be promised first: {why}",
        code=RefusalCode.NOT_PAID,
        retry_after_s=AGAIN_S,
    )


def _too_little(what: str, price: int, price_max: int) -> Refused:
    return Refused(
        f"{what} costs up to {show_credits(price)} credits here, and the task pays at most"
        f" {show_credits(price_max)}",
        code=RefusalCode.NOT_PAID,
    )
