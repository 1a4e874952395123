"""What bytes that a relay passes on cost. Pure."""

from dataclasses import dataclass

from wire.amount import AMOUNT_MAX
from wire.tariff import RELAYED, UNITS, Tariff

# A price is for UNITS KiB.
_PARTS = 1024 * UNITS


def relay_price(tariff: Tariff | None) -> int:
    """What is asked for UNITS KiB that are passed on, in millionths; 0 if that is free."""
    price = None if tariff is None else tariff.price_of(RELAYED)
    return 0 if price is None else price.given


def asks_for_bytes_alone(tariff: Tariff) -> bool:
    """Whether nothing else that a peer does is paid."""
    return not tariff.verdict and all(it.model == RELAYED for it in tariff.models)


def cost_of_bytes(size_bytes: int, price: int) -> int:
    """What so many bytes cost, and no more than a millionth beyond that."""
    return min(AMOUNT_MAX, -(-size_bytes * price // _PARTS))


@dataclass(slots=True)
class ByteBill:
    """Bytes that come one piece after the other, of which whole millionths are charged.

    What is left of one is carried on, so that both ends come to the same in however many pieces.
    """

    _parts: int = 0

    def needs(self, size_bytes: int, price: int) -> int:
        """What has to be promised before so many more are passed on."""
        return -(-(self._parts + size_bytes * price) // _PARTS)

    def add(self, size_bytes: int, price: int) -> int:
        """Count so many more; what is charged now."""
        charged, self._parts = divmod(self._parts + size_bytes * price, _PARTS)
        return charged
