"""Which share of the answers that nobody checked is checked afterwards, by who gave them and what
they cost. Pure.

The share of a stranger is four times the share that was asked for. Checks that hold lower it: after
8 it is the share itself, after 40 a quarter of it, and never less. Who has offended lately is a
stranger again. An answer is drawn once more often for each credit that it cost, up to eight times.
"""

from p2p.score import Standing
from wire.amount import CREDIT

STRANGER_TIMES = 4.0
PROVEN_TIMES = 0.25
KNOWN_AFTER = 8
PRICE_TIMES_MAX = 8.0
# Nothing is drawn more often than this.
TIMES_MAX = STRANGER_TIMES * PRICE_TIMES_MAX


def audited_share(share: float, held: int, standing: Standing, paid: int) -> float:
    """The share of such answers that is checked: `held` of its signer's checks held so far.

    `paid` is what the answer cost, in millionths of a credit.
    """
    times = STRANGER_TIMES
    if standing is Standing.GOOD:
        # Four for a stranger, one after KNOWN_AFTER checks that held.
        falling = STRANGER_TIMES * KNOWN_AFTER / (KNOWN_AFTER + (STRANGER_TIMES - 1) * held)
        times = max(PROVEN_TIMES, falling)
    dear = min(PRICE_TIMES_MAX, 1 + paid / CREDIT)
    return min(1.0, share * times * dear)
