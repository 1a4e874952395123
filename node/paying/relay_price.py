"""What bytes that a relay passes on cost, and which of them it passes on for nothing. Pure."""

from dataclasses import dataclass, field

from p2p.token_bucket import TokenBucket, TokenBuckets
from wire.amount import AMOUNT_MAX
from wire.content import PeerId
from wire.tariff import RELAYED, UNITS, Tariff

# A price is for UNITS KiB.
_PARTS = 1024 * UNITS
# Of one asker that has promised nothing, at once and a second: enough to meet somebody, to gossip,
# and to open a channel. Keys cost nothing, so of all together it is bounded too.
FREE_BYTES, FREE_BYTES_PER_S = 1 << 20, 2 << 10
ALL_FREE_BYTES, ALL_FREE_BYTES_PER_S = 64 << 20, 128 << 10
ASKERS_MAX = 4096


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


@dataclass(slots=True)
class FreeBytes:
    """What a relay passes on although nobody has promised to pay for it."""

    _each: TokenBuckets = field(
        default_factory=lambda: TokenBuckets(FREE_BYTES, FREE_BYTES_PER_S, ASKERS_MAX)
    )
    _all: TokenBucket = field(
        default_factory=lambda: TokenBucket(ALL_FREE_BYTES, ALL_FREE_BYTES_PER_S)
    )

    def take(self, asker: PeerId, size_bytes: int, now_at_s: float) -> bool:
        """Whether so many bytes are free now; the last piece may be more than there is left."""
        key = asker.hex()
        if self._all.wait_s(now_at_s) or self._each.wait_s(key, now_at_s):
            return False
        self._all.spend(size_bytes, now_at_s)
        self._each.spend(key, size_bytes, now_at_s)
        return True
