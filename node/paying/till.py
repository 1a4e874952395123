"""What this peer asks of others for its work: it works for what was promised, and no further.

Work of a task is paid by who signed the task. A leg holds what its prompt and first tokens cost; a
stream that has shown what was promised waits for the next voucher, and goes on where it stood.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from node.engines.interface import Part
from node.paying.channels import EarningChannel
from node.paying.earning_channels import EarningChannels
from node.paying.own_tariff import OwnTariff
from node.paying.pricing import (
    LegUnits,
    cost,
    cost_of_leg,
    cost_of_part,
    need_of,
    units_at_most,
)
from p2p.timeouts import stretched
from wire.amount import show_credits
from wire.content import PeerId
from wire.errors import Refused
from wire.kinds import RefusalCode
from wire.receipt import Receipt
from wire.signed import Signed
from wire.tariff import Tariff
from wire.task import Stage, Task

# A stream that is not paid waits so long.
UNPAID_DEADLINE_S = 20.0
AGAIN_S = 0.5
Relay = Callable[[Part], Awaitable[None]]


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
    shown: int = 0
    # Whether its payer gave it up while it was worked on.
    abandoned: bool = False
    _over: bool = False

    def cover(self, data: bytes | None) -> None:
        """The input is here: hold what it needs, not what was said of it; Refused if it is more."""
        most = units_at_most(self.stage, data)
        price = cost(self.tariff, self.stage, most)
        if price > self.price_max:
            raise _too_little("the leg", price, self.price_max)
        need = min(price, need_of(self.tariff, self.stage, most))
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
            self.channel.given_up += min(read, self.price_max)
        self._end(min(cost_of_part(self.tariff, self.stage, self.shown), self.price_max))

    def _end(self, amount: int) -> None:
        if self._over:
            return
        self._over = True
        self.channel.held -= self.held
        self.channels.charge(self.channel, amount, self.stage.model)

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
        if self.channel.available < more:
            return False
        self.channel.held += more
        self.held = amount
        return True


@dataclass(slots=True)
class Till:
    """The receiving side of one peer. `me` pays nothing for its own tasks."""

    me: PeerId
    own: OwnTariff
    channels: EarningChannels
    unpaid: int = field(default=0)

    def seat(
        self,
        task: Signed[Task],
        stage: Stage,
        data: bytes | None,
        units: int,
        begun: int = 0,
        *,
        is_payer: bool = True,
    ) -> Seat | None:
        """Hold what a leg needs; None if it is free, Refused if it is not paid for.

        `is_payer`: whoever offers it signed the task, and it is the first leg. Nobody spends what
        another has promised.
        """
        tariff = self.own.now
        if tariff is None or task.signer == self.me:
            return None
        if tariff.record.price_of(stage.model) is None:
            return None
        if not is_payer:
            raise Refused(
                "a leg that costs something is offered by who pays it",
                code=RefusalCode.NOT_PAID,
            )
        most, price_max = units_at_most(stage, data, units), task.record.price_max
        price = cost(tariff.record, stage, most)
        if price > price_max:
            raise _too_little("the leg", price, price_max)
        if not price:
            return None
        need = min(price, need_of(tariff.record, stage, most))
        channel = self._channel(task.signer, need)
        channel.held += need
        given = most.given
        return Seat(channel, self.channels, tariff.record, stage, price_max, given, need, begun)

    def check_verdict(self, task: Signed[Task]) -> None:
        """Refused unless a verdict on this task is paid for."""
        price = self._verdict_price(task)
        if price > task.record.price_max:
            raise _too_little("a verdict", price, task.record.price_max)
        if price:
            self._channel(task.signer, price)

    def charge_verdict(self, task: Signed[Task]) -> None:
        """A verdict was given, whichever way it went."""
        price = self._verdict_price(task)
        channel = self.channels.of(task.signer)
        if price and channel is not None:
            self.channels.charge(channel, price, None)

    def _verdict_price(self, task: Signed[Task]) -> int:
        tariff = self.own.now
        return 0 if tariff is None or task.signer == self.me else tariff.record.verdict

    def _channel(self, payer: PeerId, need: int) -> EarningChannel:
        """The channel of a payer that has promised so much more; Refused if there is none."""
        channel, tariff = self.channels.of(payer), self.own.now
        assert tariff is not None
        if channel is not None and channel.given_up > tariff.record.increment:
            self.unpaid += 1
            raise _unpaid(need, "tasks of yours that you gave up cost more to read than you paid")
        if channel is not None and channel.tariff == tariff.id and channel.available >= need:
            return channel
        self.unpaid += 1
        why = "no channel of yours is open here"
        if channel is not None:
            why = "the prices here are others than you agreed to"
            if channel.tariff == tariff.id:
                why = f"{show_credits(max(0, channel.available))} credits are promised and not used"
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
