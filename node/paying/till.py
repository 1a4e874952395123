"""What this peer asks of others for the work that it does for them."""

from dataclasses import dataclass

from node.paying.own_tariff import OwnTariff
from node.paying.pricing import cost, units_at_most
from wire.amount import show_credits
from wire.content import PeerId
from wire.errors import Refused
from wire.kinds import RefusalCode
from wire.signed import Signed
from wire.task import Stage, Task


@dataclass(slots=True)
class Till:
    """The receiving side of one peer. `me` pays nothing for its own tasks."""

    me: PeerId
    own: OwnTariff

    def check_leg(self, task: Signed[Task], leg: Stage, data: bytes | None, units: int) -> None:
        """Refused unless a task may cost what this leg of it may come to here."""
        tariff = self.own.now
        if tariff is None or task.signer == self.me or tariff.record.price_of(leg.model) is None:
            return
        price = cost(tariff.record, leg, units_at_most(leg, data, units))
        if price > task.record.price_max:
            raise _not_paid("the leg", price, task)

    def check_verdict(self, task: Signed[Task]) -> None:
        """Refused unless a task may cost what a verdict on it costs here."""
        tariff = self.own.now
        if tariff is None or task.signer == self.me:
            return
        if tariff.record.verdict > task.record.price_max:
            raise _not_paid("a check", tariff.record.verdict, task)


def _not_paid(what: str, price: int, task: Signed[Task]) -> Refused:
    return Refused(
        f"{what} costs up to {show_credits(price)} credits here, and the task pays at most"
        f" {show_credits(task.record.price_max)}",
        code=RefusalCode.NOT_PAID,
    )
