"""How likely a draw of verifiers is one owner's, by how many of the candidates are.

Pure. No signature tells whose a key is, so this says what a receipt is worth under each guess.
"""

from math import comb


def odds_of_draw(owned: int, candidates: int, needed: int, verifiers: int) -> float:
    """The probability that of `verifiers` drawn at least `needed` are among the `owned` ones."""
    drawn = min(verifiers, candidates)
    if drawn < needed:
        return 0.0
    ways = sum(
        comb(owned, mine) * comb(candidates - owned, drawn - mine)
        for mine in range(needed, drawn + 1)
    )
    return ways / comb(candidates, drawn)


def odds_of_task(owned: int, candidates: int, needed: int, verifiers: int, attempts: int) -> float:
    """The probability that one of `attempts` is won, where every one is made by the same owner.

    After each that is rejected one verdict more is needed, and one verifier more asked.
    """
    lost = 1.0
    for rejected in range(attempts):
        raised = raised_by(rejected, candidates, verifiers)
        lost *= 1 - odds_of_draw(owned, candidates, needed + raised, verifiers + raised)
    return 1 - lost


def odds_of_share(share: float, needed: int, verifiers: int) -> float:
    """The probability that of `verifiers` drawn by weight at least `needed` are of this share.

    Of many keys: each draw is of the share, however many were drawn before. With few keys it is
    less, because who was drawn is not drawn again.
    """
    return sum(
        comb(verifiers, mine) * share**mine * (1 - share) ** (verifiers - mine)
        for mine in range(needed, verifiers + 1)
    )


def odds_of_attempts(share: float, needed: int, verifiers: int, attempts: int) -> float:
    """The probability that one of `attempts` is won, each with one verdict more that is needed."""
    lost = 1.0
    for rejected in range(attempts):
        lost *= 1 - odds_of_share(share, needed + rejected, verifiers + rejected)
    return 1 - lost


def share_needed(odds: float, needed: int, verifiers: int, *, attempts: int = 1) -> float:
    """The share of the weight with which an attacker has these odds."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if odds_of_attempts(middle, needed, verifiers, attempts) < odds:
            low = middle
        else:
            high = middle
    return high


def raised_by(rejected: int, candidates: int, verifiers: int) -> int:
    """How many verdicts more are needed, of as many verifiers more, after rejected attempts.

    Else whoever owns some verifiers would win by trying often. Where too few are known, none.
    """
    return max(0, min(rejected, candidates - verifiers))
