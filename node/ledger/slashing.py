"""What the end of an epoch makes of stakes: penalties, then what has left is given back. Pure.

Evidence comes in orders, and what it costs is taken only here, so that no order depends on it.
"""

from node.evidence.offences import LEAST, OffenceFinding, judged
from node.ledger.books import Draft
from node.ledger.stake_shelf import released, slashed
from wire.amount import show_credits
from wire.content import ContentId
from wire.errors import Malformed, WireError
from wire.ledger import Accusation

# What an accuser puts up, so that nobody has members look at things for nothing.
BOND_MIN = 1_000_000


def end_stakes(draft: Draft) -> None:
    """Take what evidence takes, and give back what leaves with this epoch.

    `draft` has all its orders. What is taken is the fund's.
    """
    for order in sorted(draft.accusations):
        accuser, accusation = draft.accusations[order]
        taken = _taken(draft, accusation)
        draft.growth += taken
        if taken:
            draft.credit(accuser, accusation.bond)
        else:
            draft.growth += accusation.bond
    for account in sorted({*draft.books.stakes.rows, *draft.stakes}):
        row, back = released(draft.stake(account), draft.epoch)
        if back:
            draft.stakes[account] = row
            draft.credit(account, back)


def _taken(draft: Draft, accusation: Accusation) -> int:
    """Take what one accusation costs the culprits, each act once; how much it is."""
    try:
        finding = judged(accusation.evidence)
    except WireError:
        # Members vote for no such order; a quorum that does so all the same takes the bond alone.
        return 0
    sum_taken = 0
    for conviction in finding.convictions:
        if was_punished(draft, conviction.act):
            continue
        row, taken = slashed(draft.stake(conviction.culprit), finding.share_millionths, LEAST)
        if taken:
            draft.stakes[conviction.culprit] = row
            draft.acts[conviction.act] = draft.epoch
            sum_taken += taken
    return sum_taken


def was_punished(draft: Draft, act: bytes) -> bool:
    """Whether stake was taken for this act before."""
    return act in draft.acts or act in draft.books.stakes.acts


def check_evidence(accusation: Accusation, network: ContentId) -> OffenceFinding:
    """What an accusation proves; Malformed if that is nothing, or is of another network."""
    try:
        finding = judged(accusation.evidence)
    except WireError as error:
        raise Malformed(f"the evidence does not hold: {error.message}") from error
    if finding.network not in (None, network):
        raise Malformed("the evidence is of another network")
    return finding


def check_accusation(draft: Draft, accusation: Accusation, network: ContentId) -> None:
    """Malformed unless it holds, and there is stake to be taken for it that was not taken before.

    What leaves can be taken up to the end of the epoch with which it is given back.
    """
    if accusation.bond < BOND_MIN:
        raise Malformed(f"an accuser puts up at least {show_credits(BOND_MIN)} credits")
    finding = check_evidence(accusation, network)
    fresh = [it for it in finding.convictions if not was_punished(draft, it.act)]
    if not fresh:
        raise Malformed("stake was taken for this act before")
    if not any(draft.stake(it.culprit).total for it in fresh):
        who = ", ".join(it.culprit.short for it in fresh)
        raise Malformed(f"{who} has no stake that could be taken")
