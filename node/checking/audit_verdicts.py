"""The part of an audit that is about who checked a leg: the draw, the verdicts, and their worth.

Pure.
"""

from collections.abc import Sequence

from node.checking.audit_commitments import check_commitments
from node.checking.audit_draw import drawn_order, say_made_up
from node.checking.audit_owners import say_owners, weights_by_owner
from node.checking.odds import odds_of_draw, odds_of_task, share_needed
from node.checking.report import AuditReport, ReceiptPart
from node.checking.segments import judge_segments, leave_unjudged
from node.checking.verdict import check_kept_verdict
from node.checking.votes import Votes
from wire import limits
from wire.chain import doers_of, legs_to_check
from wire.errors import WireError
from wire.kinds import Level
from wire.lottery import attempt_of, is_drawn
from wire.operations import by_rows
from wire.plural import plural
from wire.receipt import Answer, Receipt, ReplayStatistics, Verdict
from wire.signed import Signed
from wire.task import CheckPolicy, Task


def check_selection_and_verdicts(
    report: AuditReport, answer: Signed[Answer], task: Signed[Task]
) -> None:
    """Say whether those who checked were drawn as the task demands, and whether they agree."""
    if task.record.checking.level is Level.SIGNED:
        report.note(
            ReceiptPart.SELECTION, None, "who checked", "nobody was to: the level is signed"
        )
        report.note(
            ReceiptPart.VERDICTS, None, "what checks found", "nobody was to: the level is signed"
        )
        leave_unjudged(report)
        return
    attempt = attempt_of(answer.record.secret, task.record.checking.secret_hash)
    report.note(
        ReceiptPart.SELECTION,
        attempt == answer.record.attempts,
        "the lottery's secret is the one the task was signed with",
    )
    if not report.is_chain:
        report.note(
            ReceiptPart.VERDICTS, None, "what checks found", "the receipts are not the task's own"
        )
        return
    if task.record.checking.level is Level.SPOT_CHECKED and not report.verdicts:
        _check_spared(report, answer.record)
        leave_unjudged(report)
        return
    legs = legs_to_check(report.receipts)
    if not legs:
        report.note(ReceiptPart.VERDICTS, True, "no leg ran a model that could be checked")
    for stage in legs:
        _check_votes(report, answer.record, task, stage)
    say_made_up(report, answer.record, legs)
    say_owners(report, answer.record, task.signer)


def _check_spared(report: AuditReport, answer: Answer) -> None:
    """An answer of the level spot without verdicts: the lottery must not have drawn it."""
    drawn = is_drawn(answer.secret, report.receipts[-1].id)
    odds = f"one answer in {limits.SPOT_ONE_IN} is drawn, once it was signed"
    what = "the lottery spared this answer, so it needs no verdict"
    report.note(ReceiptPart.SELECTION, not drawn, what, odds)
    found = "it was drawn, and there is no verdict" if drawn else "none were due"
    report.note(ReceiptPart.VERDICTS, not drawn, "there are the verdicts that were due", found)
    report.note_limit(
        ReceiptPart.SELECTION,
        "whether the asker knew beforehand that it would be spared",
        "it made the secret; who answered could not know",
    )


def _check_votes(report: AuditReport, answer: Answer, task: Signed[Task], stage: int) -> None:
    terms = task.record.checking
    receipt = report.receipts[stage]
    doers = {it for leg in report.receipts for it in doers_of(leg)} | {task.signer}
    votes = Votes(terms.needed, terms.verifiers)
    heard = [it for it in report.verdicts if it.record.receipt == receipt.id]
    # After each rejected attempt one verdict more is needed, so there is one part more.
    parts = range(terms.needed, terms.needed + answer.attempts)
    for verdict in heard:
        try:
            check_kept_verdict(receipt, answer.secret, verdict, parts)
        except WireError as error:
            counts = f"the verdict of {verdict.signer.short} counts"
            report.note(ReceiptPart.VERDICTS, False, counts, str(error))
            continue
        if verdict.signer in doers:
            report.note(
                ReceiptPart.SELECTION, False, f"{verdict.signer.short} did not check its own work"
            )
        else:
            votes.add(verdict)
    agree = {it.signer for it in votes.agreeing}
    _check_disputes(report, votes, stage)
    report.note(
        ReceiptPart.VERDICTS,
        len(agree) + len(votes.not_looked) >= terms.needed,
        f"{len(agree) + len(votes.not_looked)} of {plural(terms.needed, 'needed verdict')}"
        " agree on leg"
        f" {stage + 1}",
        _looked(heard, exact=terms.level is Level.EXACT),
    )
    if terms.level is Level.EXACT:
        equal = all(it.record.sampled and not any(it.record.worst_ppb) for it in votes.agreeing)
        what = f"the verdicts that agree found no difference at all in leg {stage + 1}"
        report.note(ReceiptPart.VERDICTS, equal, what, "the level exact tolerates none")
    judge_segments(report, receipt, list(votes.latest.values()), terms.needed)
    check_commitments(report, answer, stage, heard, votes.needed)
    _say_coverage(report, votes, receipt)
    _say_odds(report, answer, terms, stage)
    order = drawn_order(report, answer, task.signer, receipt, agree)
    strangers = [it for it in agree if it not in order]
    report.note(ReceiptPart.SELECTION, not strangers, "the verifiers were among the candidates")
    if not agree or strangers:
        return
    last = max(order.index(it) for it in agree)
    silent = [it for it in order[:last] if it not in {vote.signer for vote in heard}]
    report.note(
        ReceiptPart.SELECTION, True, "the verifiers stand in the order that the lottery drew"
    )
    if silent:
        report.note_limit(
            ReceiptPart.SELECTION,
            f"why {len(silent)} drawn before them gave no verdict on leg {stage + 1}",
            "gone, or busy, or left out, or tied to one of them; an asker that left them out on"
            f" purpose chose {len(agree)} of {last + 1}",
        )


def _check_disputes(report: AuditReport, votes: Votes, stage: int) -> None:
    """Say whether the rows that a verdict calls wrong were decided by who looked at them."""
    disputed = sorted(votes.disputed)
    if not disputed:
        return
    rows = ", ".join(map(str, disputed))
    named = f"row{'s' * (len(disputed) > 1)} {rows} of leg {stage + 1}"
    looked = len(votes.agreeing)
    if looked >= votes.needed:
        decided = f"a dispute about {named} was decided"
        report.note(ReceiptPart.VERDICTS, True, decided, f"{looked} looked at it and agree")
        return
    report.note_dispute(
        f"whether {named} may be believed",
        f"a verdict calls it wrong, and {looked} of the"
        f" {plural(votes.needed, 'needed verifier')} that"
        " agree looked at it",
    )


def _say_coverage(report: AuditReport, votes: Votes, receipt: Signed[Receipt]) -> None:
    """How much the verifiers that agree looked at together, and what they would have found."""
    rows, agree = receipt.record.units, votes.agreeing
    if not agree or not by_rows(receipt.record.operation) or not rows:
        return
    samples = [frozenset(it.record.sampled) for it in agree]
    together = len(frozenset[int]().union(*samples))
    without = [samples[:at] + samples[at + 1 :] for at in range(len(samples))]
    lied = min(len(frozenset[int]().union(*it)) for it in without)
    report.note_limit(
        ReceiptPart.VERDICTS,
        f"whether one wrong row of leg {receipt.record.stage + 1} would have been found",
        f"with a probability of {_percent(together, rows)}: the verifiers looked at {together} of"
        f" {plural(rows, 'row')} together; with {_percent(lied, rows)} if one of them lied",
    )


def _say_odds(report: AuditReport, answer: Answer, terms: CheckPolicy, stage: int) -> None:
    """How likely one owner had this draw, and one of these attempts, by how many it owns."""
    apart = weights_by_owner(answer)
    count, keys = len(apart), len(answer.candidates)
    if not count:
        return
    guesses = sorted({-(-count // 10), -(-count // 3), -(-count // 2)})
    asked = (terms.needed, terms.verifiers)
    if answer.weights:
        _say_shares(report, sorted(apart.values()), asked, stage)
    told = [
        f"{owned}: {odds_of_draw(owned, count, *asked):.1%}"
        f" ({odds_of_task(owned, count, *asked, limits.ATTEMPTS_MAX):.1%} if it tries"
        f" {limits.ATTEMPTS_MAX} times)"
        for owned in guesses
    ]
    report.note_limit(
        ReceiptPart.SELECTION,
        f"how many of the {plural(count, 'candidate')} of leg {stage + 1} are one owner's",
        (
            f"they are {plural(keys, 'key')}, of which those of a declared owner are one; "
            * (keys > count)
        )
        + f"one draw of {terms.verifiers} is won by who owns so many of them: {', '.join(told)}",
    )
    if answer.tied:
        report.note_limit(
            ReceiptPart.SELECTION,
            f"whether {answer.tied} of the verifiers that agree belong together",
            "they came by one neighbour or sit at addresses side by side, or at private ones; the"
            " asker knew too few others",
        )


def _say_shares(
    report: AuditReport, weights: Sequence[int], asked: tuple[int, int], stage: int
) -> None:
    """What share of the weight an attacker needs, for which odds to have this draw."""
    total = sum(weights)
    told = [
        f"{share_needed(odds, *asked):.1%} for {odds:.0%}"
        f" ({share_needed(odds, *asked, attempts=limits.ATTEMPTS_MAX):.1%} if it tries"
        f" {limits.ATTEMPTS_MAX} times)"
        for odds in (0.01, 0.1, 0.5)
    ]
    report.note_limit(
        ReceiptPart.SELECTION,
        f"what share of the stake behind the candidates of leg {stage + 1} is one owner's",
        f"the draw of {asked[1]} went by {total} credits, staked or earned by those who staked,"
        f" {weights[-1]} of them of one; who has so much of them wins it: {', '.join(told)}; the"
        " asker listed them, and the"
        " ledger tells whether they were so: ledger check FILE --account KEY",
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def _looked(votes: list[Signed[Verdict]], *, exact: bool) -> str:
    return "; ".join(f"{it.signer.short} {_measured(it.record, exact)}" for it in votes)


def _measured(verdict: Verdict, exact: bool) -> str:
    if not verdict.replay:
        return (
            f"recomputed {len(verdict.sampled)} of {plural(verdict.rows, 'row')},"
            f" worst {max(verdict.worst_ppb, default=0) / 1e9:.1e}"
        )
    judged = _drawn_again if exact else _judged
    return "; ".join(judged(verdict.profile, it) for it in verdict.replay)


def _drawn_again(profile: str, found: ReplayStatistics) -> str:
    others = f"{found.mismatches} of them are others" if found.mismatches else "all are the same"
    return f"drew {plural(found.positions, 'token')} again in whole numbers on {profile}: {others}"


def _judged(profile: str, found: ReplayStatistics) -> str:
    states = (
        f"; states are {found.sketch_millionths / 1e6:.2g} off" if found.sketch_millionths else ""
    )
    return (
        f"judged {plural(found.positions, 'token')} on {profile}: {found.mismatches} are others, by"
        f" {found.greatest_millionths / 1e6:.2g} of a logit at most and"
        f" {found.sum_millionths / 1e6:.2g} together, by table {found.table.short}{states}"
    )
