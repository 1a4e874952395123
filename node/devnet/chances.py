"""What chance explains of a run with peers that lie.

How many wrong answers are accepted, and how many tasks end without one that enough agree with.
"""

import math
from collections.abc import Sequence

from node.checking.odds import odds_of_draw, odds_of_share
from node.devnet.adversary import LIES_ONE_IN
from node.devnet.faults import FOUND_BY_CHECKS
from node.devnet.net import Devnet
from node.devnet.peer import DevPeer
from node.devnet.tasks import ASKED_FOR
from wire import limits
from wire.amount import CREDIT
from wire.kinds import Role

# The number of wrong answers is too high if chance gives more of them less often than this.
CHANCE = 0.001
# Who agrees with what is wrong; who says no to what is right; who looks at nothing and says yes.
AGREEING = ("liar", "seldom_liar", "lazy_verifier", "copying_verifier", "whale")
DISSENTING = ("liar", "naysaying_verifier")
BLIND = ("lazy_verifier", "copying_verifier", "whale")
# As the tasks of a run ask for.
VERIFIERS, NEEDED = 3, 2


def wrong_chance(net: Devnet) -> float:
    """How likely it is that a wrong answer to one task is accepted, computed for its check level.

    This happens if the peer that answers lies, and two of the three verifiers agree: liars, which
    lie alike, or lazy and copying verifiers, which look at nothing. It is computed for all peers
    that ever started and for those that are up; the worse counts. Bans are ignored: it is an upper
    bound.
    """
    return max(_wrong_chance(net, net.peers), _wrong_chance(net, net.living()))


def _by_name(net: Devnet) -> dict[str, set[int]]:
    """The peers that misbehave in each way that checks are there to find."""
    return {
        name: {it for fault in net.faults if fault.name == name for it in fault.peers}
        for name in FOUND_BY_CHECKS
    }


def _wrong_chance(net: Devnet, peers: Sequence[DevPeer]) -> float:
    by_name = _by_name(net)
    agreeing = set[int]().union(*(by_name[it] for it in AGREEING))
    chance = 0.0
    for model, weight in ASKED_FOR.items():
        able = [it for it in peers if model in it.plan.models]
        doers = [it for it in able if Role.INFER in it.plan.roles]
        verifiers = [it for it in able if Role.VERIFY in it.plan.roles]
        if doers and verifiers:
            lies = sum(
                sum(it.number in by_name[name] for it in doers) / one_in
                for name, one_in in LIES_ONE_IN.items()
            )
            lying = lies / len(doers)
            weights = {it.number: weight_of(net, it.number) for it in verifiers}
            agree = sum(weights[it] for it in weights if it in agreeing)
            two_agree = odds_of_share(agree / sum(weights.values()), NEEDED, VERIFIERS)
            chance += lying * two_agree * weight / sum(ASKED_FOR.values())
    return chance


def weight_of(net: Devnet, number: int) -> int:
    """How much a verifier counts in draws; all count alike where nobody has a stake."""
    economy = net.around.economy
    if economy is None or not economy.stakes:
        return 1
    parts = economy.stakes.get(number, ())
    # A newcomer has none, and is drawn only after all others.
    return sum(it.amount // CREDIT for it in parts if it.role is Role.VERIFY)


def most_by_chance(tasks: int, chance: float) -> int:
    """The number of successes in `tasks` tries that fewer than one run in a thousand exceeds."""
    if chance <= 0.0:
        return 0
    mean = tasks * chance
    # Poisson: tasks are many and the chance is small.
    share, summed, count = math.exp(-mean), math.exp(-mean), 0
    while summed < 1 - CHANCE and count < tasks:
        count += 1
        share *= mean / count
        summed += share
    return count


def not_agreed_chance(net: Devnet) -> float:
    """How likely it is that each attempt at a task is rejected, where its asker cannot look itself.

    One is rejected if two of its verifiers say no: to an honest answer liars and naysayers, to a
    wrong one who looks. After each one verifier more is asked. Verifiers that look at nothing are
    banned sooner or later; it is computed with and without them, and the worse counts.
    """
    by_name = _by_name(net)
    blind = set[int]().union(*(by_name[it] for it in BLIND))
    seeing = [it for it in net.peers if it.number not in blind]
    return max(_not_agreed_chance(by_name, net.peers), _not_agreed_chance(by_name, seeing))


def _not_agreed_chance(by_name: dict[str, set[int]], peers: Sequence[DevPeer]) -> float:
    bad = set[int]().union(*by_name.values())
    dissenting = set[int]().union(*(by_name[it] for it in DISSENTING))
    chance = 0.0
    for model, weight in ASKED_FOR.items():
        able = [it for it in peers if model in it.plan.models and not it.plan.asks]
        doers = [it for it in able if Role.INFER in it.plan.roles]
        # Who did the work checks none of it.
        verifiers = [it for it in able if Role.VERIFY in it.plan.roles][: len(able) - 1]
        if not doers or len(verifiers) < NEEDED:
            continue
        lying = sum(it.number in by_name["liar"] for it in doers) / len(doers)
        nays = sum(it.number in dissenting for it in verifiers)
        honest = sum(it.number not in bad for it in verifiers)
        rejected = 1.0
        for attempt in range(limits.ATTEMPTS_MAX):
            asked = min(VERIFIERS + attempt, len(verifiers))
            odds = [odds_of_draw(it, len(verifiers), NEEDED, asked) for it in (honest, nays)]
            rejected *= lying * odds[0] + (1 - lying) * odds[1]
        chance += rejected * weight / sum(ASKED_FOR.values())
    return chance
