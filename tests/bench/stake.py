"""Stakes: planted crimes and who paid for them, and what a share of the stake wins in draws.

300 peers, 20 epochs, a fifth of the workers liars, a fifth of the verifiers lazy, one of them with
30 % of the stake. Then, for shares of bad stake from 5 to 40 %, how often two of three verifiers
drawn are bad: by the formula, by draws by stake, and by draws by key where the attacker has half of
the keys.

At last, how often of 100,000 juries ten seats of thirteen are bad, with a fifth and a third of the
stake, by draws and by the binomial formula.

And courts of thirty stakers in which a tenth to a third of the stake is of one mind: lies, copies
what others sealed, abstains, seals and does not tell. Right and wrong answers come before juries of
the real code, in turn; four fifths that lie are the control. A leader tries all sets of seals.

`python -m tests.bench stake [SEEDS] [DRAWS] [COURTS]`: 5 seeds, 20,000 draws and 2 courts of 16
cases for each share and plot if it is not said.
"""

import hashlib
import time
from dataclasses import asdict
from typing import Any

from node.checking.odds import odds_of_share
from tests.ledger.jury_attacks import Plot, grinding, row_of
from tests.ledger.stake_network import NEEDED, VERIFIERS, StakeNetwork, StakePlan
from tests.ledger.test_juries import bad_juries, binomial
from tests.wire.samples import BLOCK
from wire.content import PeerId
from wire.lottery import draw, weighted_draw

SHARES = (0.05, 0.1, 0.2, 0.3, 0.4)
SIDE = 20
# Of thirty stakers.
BAD_JURORS, BAD_CONTROL = (3, 6, 9, 10), 24
JURY_SHARES, JURY_DRAWS = (0.2, 1 / 3), 100_000


def run(arguments: list[str]) -> dict[str, Any]:
    """What the runs and the draws came to; `held` if no honest stake was taken, and all due was."""
    seeds = int(arguments[0]) if arguments else 5
    draws = int(arguments[1]) if len(arguments) > 1 else 20_000
    began_s = time.process_time()
    runs = [StakeNetwork(StakePlan(seed=seed)).run() for seed in range(seeds)]
    totals: dict[str, int] = {}
    for one in runs:
        for name, value in asdict(one).items():
            if isinstance(value, int):
                totals[name] = totals.get(name, 0) + value
    table = [odds_at(share, draws) for share in SHARES]
    juries = [jury_odds(share) for share in JURY_SHARES]
    courts = int(arguments[2]) if len(arguments) > 2 else 2
    attacks = [row_of(plot, bad, courts) for plot in Plot for bad in BAD_JURORS]
    control, ground = row_of(Plot.LIE, BAD_CONTROL, courts), grinding(courts)
    return {
        "seeds": seeds,
        "totals": totals,
        "draws": draws,
        "table": table,
        "juries": juries,
        "attacks": attacks,
        "control": control,
        "grinding": ground,
        "cpu_s": round(time.process_time() - began_s, 1),
        "held": not (
            totals["unpunished"] or totals["honest_slashed"] or totals["false_accusations_taken"]
        )
        and all(it["held"] for it in (*juries, *attacks))
        and control["honest_convicted"] > 0
        and ground["juries"] == ground["draws"],
    }


def odds_at(share: float, draws: int) -> dict[str, float]:
    """How often the bad side has enough of the verifiers drawn."""
    keys = [PeerId(hashlib.sha256(b"staker" + bytes((at,))).digest()) for at in range(2 * SIDE)]
    bad = frozenset(keys[:SIDE])
    mine = int(1000 * share)
    weights = {it: mine if it in bad else 1000 - mine for it in keys}
    by_stake = by_key = 0
    for at in range(draws):
        secret = hashlib.sha256(b"draw" + at.to_bytes(4, "big")).digest()
        drawn = weighted_draw(secret, BLOCK, weights)[:VERIFIERS]
        by_stake += sum(it in bad for it in drawn) >= NEEDED
        by_key += sum(it in bad for it in draw(secret, BLOCK, keys)[:VERIFIERS]) >= NEEDED
    return {
        "share": share,
        "formula": round(odds_of_share(share, NEEDED, VERIFIERS), 4),
        "by_stake": round(by_stake / draws, 4),
        "by_key": round(by_key / draws, 4),
    }


def jury_odds(share: float) -> dict[str, float | bool]:
    """How often a bad share of the stake has enough seats to convict anybody."""
    found, expected = bad_juries(share, JURY_DRAWS), JURY_DRAWS * binomial(share)
    return {
        "share": round(share, 3),
        "draws": JURY_DRAWS,
        "formula": round(expected / JURY_DRAWS, 7),
        "drawn": found / JURY_DRAWS,
        # Within four standard deviations, of which a rare event has one at least.
        "held": abs(found - expected) <= 4 * max(1.0, expected) ** 0.5,
    }
