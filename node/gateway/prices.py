"""What a request over HTTP costs: by the gateway's own prices, and what peers ask for its tasks."""

from dataclasses import dataclass

from node.asking.affording import quote_of
from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.paying.pricing import LegUnits, units_at_most, units_counted
from node.paying_config import TypedPrice
from node.peer import Node
from node.task.units import units_of
from wire.amount import AMOUNT_MAX
from wire.operations import GENERATE, streams
from wire.receipt import Receipt
from wire.signed import Envelope
from wire.tariff import UNITS
from wire.task import Stage

FREE = TypedPrice(0, 0, 0)
# A task may cost up to so many times what the cheapest peer asks, so that another can take it over.
HEADROOM = 2
# Of a prompt whose answer was broken off nobody says how many tokens it has: it has about so many.
PROMPT_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class TaskPrice:
    """The most that a task costs, in millionths: for the gateway, and for the peers that do it."""

    own: int
    peers: int

    @property
    def most(self) -> int:
        """All of it."""
        return self.own + self.peers


@dataclass(frozen=True, slots=True)
class HttpPrices:
    """The prices of one gateway."""

    node: Node
    price: TypedPrice = FREE

    async def most(self, request: TaskRequest) -> TaskPrice:
        """What a task may come to."""
        stage = request.stages[0]
        units = max(1, units_of(stage, request.input))
        own = self._cost(units_at_most(stage, request.input, units))
        quote = await quote_of(self.node.leg_server.dispatcher.directory, request)
        if quote is None:
            return TaskPrice(own, 0)
        least = quote.least
        # Verifiers get a half of what a task may cost, at most.
        peers = max(min(quote.most, HEADROOM * least), 2 * quote.checks)
        return TaskPrice(own, peers)

    def cost_of_answer(self, request: TaskRequest, answered: Answered) -> int:
        """What an answer costs for the gateway: by the receipts, as its peers are paid."""
        stage, record = request.stages[0], answered.answer.record
        receipt = Envelope.read(record.receipts[-1], Receipt).claimed()
        return self._cost(units_counted(stage, receipt, request.input, answered.output))

    def cost_of_part(self, request: TaskRequest, shown: int) -> int:
        """What `shown` tokens of an answer that broke off cost for the gateway."""
        stage = request.stages[0]
        if not shown or not streams(stage.operation):
            return 0
        return self._cost(LegUnits(_prompt_about(stage, request.input), shown))

    def _cost(self, units: LegUnits) -> int:
        price = self.price
        by_units = units.given * price.given + units.made * price.made
        return min(AMOUNT_MAX, price.base + -(-by_units // UNITS))


def _prompt_about(stage: Stage, data: bytes | None) -> int:
    if stage.operation != GENERATE or data is None:
        return 0
    return -(-len(data) // PROMPT_BYTES_PER_TOKEN)
