"""Liars among workers and verifiers: how many wrong answers are accepted, simulated and computed.

The lottery draws a task's verifiers from all other peers, without replacement. Two must agree: two
are asked first, a third if they differ. If an answer is rejected, the asker bans the worker, and
another worker answers, with another draw. Liars that know each other confirm each other's wrong
answers, and are honest about right ones, which costs them nothing. Liars that do not know each
other reject each other's wrong answers, so none is ever accepted.
"""

import hashlib
from math import comb
from random import Random

from tests.sim.population import key_of
from wire.content import ContentId, PeerId
from wire.lottery import draw

VERIFIERS, NEEDED = 3, 2


def accepted_wrong(peers: int, share: float, tasks: int, seed: int, *, knowing: bool) -> float:
    """The share of wrong answers among those accepted, in so many simulated tasks."""
    random = Random(f"{seed}:lying")
    keys = [key_of(f"worker {it}") for it in range(peers)]
    # This set is only looked up, never iterated over: its order would differ from run to run.
    liars = set(keys[: round(peers * share)])
    wrong = sum(_is_wrong(keys, liars, random, knowing=knowing) for _ in range(tasks))
    return wrong / tasks


def _is_wrong(keys: list[PeerId], liars: set[PeerId], random: Random, *, knowing: bool) -> bool:
    left = list(keys)
    while True:
        worker = random.choice(left)
        if worker not in liars:
            return False
        secret = random.randbytes(32)
        receipt = ContentId.of(hashlib.sha256(secret + worker).digest())
        drawn = draw(secret, receipt, (it for it in left if it != worker))
        if knowing and _agreed([it in liars for it in drawn[:VERIFIERS]]):
            return True
        left.remove(worker)


def _agreed(confirms: list[bool]) -> bool:
    """Whether two agree: two are asked, the third only if they differ."""
    first = sum(confirms[:NEEDED])
    return first == NEEDED or (first > 0 and confirms[NEEDED])


def predicted(peers: int, liars: int) -> float:
    """The same share, computed.

    A(n, l) = l/n * (C + (1 - C) * A(n - 1, l - 1)), C the chance that two or three of three that
    are drawn from the n - 1 others are among the l - 1 other liars (hypergeometric).
    """
    if liars == 0:
        return 0.0
    others, lying = peers - 1, liars - 1
    confirmed = sum(
        comb(lying, it) * comb(others - lying, VERIFIERS - it)
        for it in range(NEEDED, VERIFIERS + 1)
    ) / comb(others, VERIFIERS)
    return liars / peers * (confirmed + (1 - confirmed) * predicted(peers - 1, liars - 1))
