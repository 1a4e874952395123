"""What the end of an epoch makes of stakes: penalties, then what has left is given back. Pure.

Evidence comes in orders, and what it costs is taken only here, so that no order depends on it.
"""

from node.evidence.charges import charged
from node.evidence.offences import LEAST, OffenceFinding, judged
from node.ledger.books import Draft
from node.ledger.case_places import is_case, open_case, open_charges
from node.ledger.juries import JuriesEnded, end_juries
from node.ledger.stake_shelf import released, slashed
from wire.amount import show_credits
from wire.content import ContentId, PeerId
from wire.errors import Malformed, WireError
from wire.evidence import Evidence, OffenceKind
from wire.jury import ShownCase
from wire.ledger import Accusation

# What an accuser puts up, so that nobody has members look at things for nothing.
BOND_MIN = 1_000_000


def end_stakes(draft: Draft, beacon: bytes = b"") -> JuriesEnded:
    """Take what evidence and juries take, and give back what leaves with this epoch.

    `draft` has all its orders. What is taken is the fund's. What became of juries is told.
    """
    charges: dict[bytes, tuple[PeerId, ShownCase]] = {}
    for order in sorted(draft.accusations):
        accuser, accusation = draft.accusations[order]
        if isinstance(accusation, ShownCase):
            charges[order] = (accuser, accusation)
        elif _asks_jury(accusation):
            open_case(draft, order, accuser, accusation)
        else:
            _accuse(draft, accuser, accusation)
    open_charges(draft, charges)
    juries = end_juries(draft, beacon)
    for account in sorted({*draft.books.stakes.rows, *draft.stakes} - juries.accused):
        row, back = released(draft.stake(account), draft.epoch)
        if back:
            draft.stakes[account] = row
            draft.credit(account, back)
    return juries


def _asks_jury(accusation: Accusation) -> bool:
    try:
        return is_case(accusation.evidence)
    except WireError:
        return False


def _accuse(draft: Draft, accuser: PeerId, accusation: Accusation) -> None:
    """Take what one accusation costs the culprits, and give back its bond or take that too."""
    try:
        finding = judged(accusation.evidence)
    except WireError:
        # Members vote for no such order; a quorum that does so all the same takes the bond alone.
        draft.growth += accusation.bond
        return
    # Nobody knew of another's evidence who showed the same in the same epoch, nor of what others
    # showed that took all that the culprit had.
    was_shown = accusation.with_others and any(
        it.act in draft.acts or it.culprit in draft.stakes for it in finding.convictions
    )
    taken = _taken(draft, finding)
    draft.growth += taken
    if taken or was_shown:
        draft.credit(accuser, accusation.bond)
    else:
        draft.growth += accusation.bond


def _taken(draft: Draft, finding: OffenceFinding) -> int:
    """Take what evidence costs the culprits, each act once; how much it is."""
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


def check_evidence(accusation: Accusation, network: ContentId) -> OffenceFinding | None:
    """What an accusation proves, None where a jury has to look; Malformed if that is nothing, or
    is of another network.
    """
    try:
        if is_case(accusation.evidence):
            charged(Evidence.from_bytes(accusation.evidence))
            return None
        finding = judged(accusation.evidence)
    except WireError as error:
        raise Malformed(f"the evidence does not hold: {error.message}") from error
    if finding.network not in (None, network):
        raise Malformed("the evidence is of another network")
    if finding.offence is OffenceKind.JURY_FINDING:
        raise Malformed("what a jury finds is taken by itself at the end of its epoch")
    return finding


def check_accusation(draft: Draft, accusation: Accusation, network: ContentId) -> None:
    """Malformed unless it holds, and there is stake to be taken for it that was not taken before.

    What leaves can be taken up to the end of the epoch with which it is given back.
    """
    if accusation.bond < BOND_MIN:
        raise Malformed(f"an accuser puts up at least {show_credits(BOND_MIN)} credits")
    finding = check_evidence(accusation, network)
    if finding is None:
        raise Malformed("no rule decides this: a jury is asked, and the case is announced first")
    fresh = [it for it in finding.convictions if not was_punished(draft, it.act)]
    if not fresh:
        raise Malformed("stake was taken for this act before")
    if not any(draft.stake(it.culprit).total for it in fresh):
        who = ", ".join(it.culprit.short for it in fresh)
        raise Malformed(f"{who} has no stake that could be taken")
