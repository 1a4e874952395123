"""Checking a receipt offline: what holds, what does not, and what cannot be known.

Pure: the audit reads the signed answer and the content that is at hand, and asks no peer. It judges
these bytes only; the last lines of a report say what no receipt can prove.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from node.checking.odds import odds_of_draw, odds_of_task
from node.checking.verdict import check_kept_verdict
from node.checking.votes import Votes
from wire import limits
from wire.chain import check_chain, legs_to_check, source_of
from wire.content import ContentId
from wire.errors import WireError
from wire.kinds import Kind, Level
from wire.lottery import attempt_of, draw
from wire.operations import EMBED_PASSAGES, by_rows
from wire.payload import Passages, Texts, Vectors
from wire.receipt import Answer, Receipt, Verdict
from wire.signed import Signed, open_signed
from wire.task import CheckPolicy as Terms
from wire.task import Task
from wire.tree import name_of

Have = Callable[[ContentId], bytes | None]


class Status(Enum):
    """The result for one point."""

    HOLDS = "holds"
    FAILS = "fails"
    # One verdict proves it wrong, and too few of the others looked at what it names.
    DISPUTED = "disputed"
    UNKNOWN = "cannot be known"


@dataclass(frozen=True, slots=True)
class Point:
    """One thing that was checked."""

    status: Status
    what: str
    detail: str = ""


@dataclass(slots=True)
class AuditReport:
    """The points in the order of checking; parts that could not be read are empty."""

    points: list[Point] = field(default_factory=list)
    answer: Signed[Answer] | None = None
    task: Signed[Task] | None = None
    receipts: list[Signed[Receipt]] = field(default_factory=list)
    verdicts: list[Signed[Verdict]] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing failed, and nothing is disputed."""
        bad = (Status.FAILS, Status.DISPUTED)
        return bool(self.points) and all(it.status not in bad for it in self.points)

    @property
    def disputed(self) -> bool:
        """Whether a verdict names a wrong row, and it is not decided."""
        return any(it.status is Status.DISPUTED for it in self.points)

    def note(self, good: bool | None, what: str, detail: str = "") -> None:
        """Add a point: what it is about, and whether it holds; None if that cannot be known."""
        status = Status.UNKNOWN if good is None else Status.HOLDS if good else Status.FAILS
        self.points.append(Point(status, what, detail))


# A list of four things, the kind, and the head of a string of bytes.
_HEADS = (b"\x94", bytes([Kind.ANSWER]), b"\xc4\xc5\xc6")


def begins_as_receipt(raw: bytes) -> bool:
    """Whether this may be a receipt, even a damaged one with a wrong byte among the first."""
    right = sum(byte in head for byte, head in zip(raw, _HEADS, strict=False))
    return right >= min(len(raw), len(_HEADS)) - 1


def audit(raw: bytes, have: Have) -> AuditReport:
    """Check a signed answer; `have` returns content that is at hand, or None."""
    report = AuditReport()
    try:
        _read(report, raw)
    except WireError as error:
        report.note(False, "the receipt can be read", str(error))
        return report
    assert report.answer is not None
    assert report.task is not None
    _check_terms(report, report.answer, report.task)
    for stage in legs_to_check(report.receipts):
        _check_votes(report, report.answer.record, report.task, stage)
    _check_clocks(report, report.answer, report.task)
    _check_content(report, report.task, have)
    _say_limits(report, report.task)
    return report


def _read(report: AuditReport, raw: bytes) -> None:
    answer = report.answer = open_signed(raw, Answer)
    report.note(True, "the answer is as it was signed", f"by {answer.signer}")
    task = report.task = open_signed(answer.record.task, Task)
    report.note(True, "the task is as it was signed", f"by {task.signer}")
    theirs, ours = task.record.version, limits.TASK_VERSION
    if theirs != ours:
        detail = f"it is of version {theirs}, this Baton reads {ours}"
        report.note(False, "the task is of the protocol version that is read here", detail)
    report.receipts = [open_signed(it, Receipt) for it in answer.record.receipts]
    for receipt in report.receipts:
        leg = f"leg {receipt.record.stage + 1}, {receipt.record.operation}"
        report.note(True, f"the receipt of {leg} is as it was signed", f"by {receipt.signer}")
    report.verdicts = [open_signed(it, Verdict) for it in answer.record.verdicts]
    if report.verdicts:
        count = len(report.verdicts)
        report.note(True, f"{count} verdict{'s' * (count > 1)} as signed", _peers(report.verdicts))


def _check_terms(report: AuditReport, answer: Signed[Answer], task: Signed[Task]) -> None:
    report.note(answer.signer == task.signer, "the answer was put together by the peer that asked")
    try:
        check_chain(task, report.receipts)
        whole = len(report.receipts) == len(task.record.stages)
        report.note(whole, "each leg has its receipt, linked to the one before")
    except WireError as error:
        report.note(False, "the receipts belong to the task", str(error))
    if task.record.checking.level is not Level.SIGNED:
        attempt = attempt_of(answer.record.secret, task.record.checking.secret_hash)
        report.note(
            attempt == answer.record.attempts,
            "the lottery's secret is the one the task was signed with",
        )
    issued_ms, ended_ms = task.record.issued_at_ms, answer.record.answered_at_ms
    report.note(
        issued_ms <= ended_ms <= issued_ms + task.record.deadline_s * 1000 + 300_000,
        "the answer came within the task's deadline",
        f"after {(ended_ms - issued_ms) / 1000:.1f} s of {task.record.deadline_s} s"
        if issued_ms <= ended_ms
        else f"the clock of {answer.signer.short} was set back by at least"
        f" {(issued_ms - ended_ms) / 1000:.1f} s in between",
    )


def _check_clocks(report: AuditReport, answer: Signed[Answer], task: Signed[Task]) -> None:
    """Name clocks that differ from the asker's by more than clocks may, and by how much.

    A time is its signer's word, so a wrong one makes nothing else that was signed untrue.
    """
    from_ms, to_ms = task.record.issued_at_ms, answer.record.answered_at_ms
    said = [
        (f"leg {it.record.stage + 1} was done", it.signer, it.record.started_at_ms)
        for it in report.receipts
    ]
    said += [("a verdict was given", it.signer, it.record.checked_at_ms) for it in report.verdicts]
    # How far each clock was ahead of the asker's, at least; 0 if it may have been right.
    ahead_s = [(min(0, at_ms - from_ms) or max(0, at_ms - to_ms)) / 1000 for _, _, at_ms in said]
    for (what, signer, _), skew_s in zip(said, ahead_s, strict=True):
        if signer == answer.signer or abs(skew_s) <= limits.CLOCK_SKEW_S_MAX:
            continue
        like = sum(abs(it - skew_s) <= limits.CLOCK_SKEW_S_MAX for it in ahead_s)
        odd = "the asker's" if 2 * like > len(said) and like > 1 else f"that of {signer.short}"
        way = "ahead of" if skew_s > 0 else "behind"
        report.note(
            None,
            f"when {what}",
            f"the clock of {signer.short} was {abs(skew_s):.0f} s {way} the asker's, by what both"
            f" signed; of {len(said)} times {like} {'is' if like == 1 else 'are'} like that, so the"
            f" odd one is {odd}",
        )


def _check_votes(report: AuditReport, answer: Answer, task: Signed[Task], stage: int) -> None:
    terms = task.record.checking
    if terms.level is Level.SIGNED:
        return
    receipt = report.receipts[stage]
    doers = {it.signer for it in report.receipts} | {task.signer}
    votes = Votes(terms.needed, terms.verifiers)
    heard = [it for it in report.verdicts if it.record.receipt == receipt.id]
    # After each rejected attempt one verdict more is needed, so there is one part more.
    parts = range(terms.needed, terms.needed + answer.attempts)
    for verdict in heard:
        try:
            check_kept_verdict(receipt, answer.secret, verdict, parts)
        except WireError as error:
            report.note(False, f"the verdict of {verdict.signer.short} counts", str(error))
            continue
        if verdict.signer in doers:
            report.note(False, f"{verdict.signer.short} checked its own work")
        else:
            votes.add(verdict)
    agree = {it.signer for it in votes.agreeing}
    _check_disputes(report, votes, stage)
    report.note(
        len(agree) + len(votes.not_looked) >= terms.needed,
        f"{len(agree) + len(votes.not_looked)} of {terms.needed} needed verdicts agree on leg"
        f" {stage + 1}",
        _looked(heard),
    )
    _say_coverage(report, votes, receipt)
    _say_odds(report, answer, terms, stage)
    order = draw(answer.secret, receipt.id, answer.candidates)
    strangers = [it for it in agree if it not in order]
    report.note(not strangers, "the verifiers were among the candidates")
    if not agree or strangers:
        return
    last = max(order.index(it) for it in agree)
    silent = [it for it in order[:last] if it not in {vote.signer for vote in heard}]
    report.note(
        True if not silent else None,
        "the lottery drew these verifiers",
        ""
        if not silent
        else f"{len(silent)} drawn before them gave no verdict: gone, or busy, or left out, or tied"
        " to one of them",
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
        report.note(
            True, f"a dispute about {named} was decided", f"{looked} looked at it and agree"
        )
        return
    report.points.append(
        Point(
            Status.DISPUTED,
            f"whether {named} may be believed",
            f"a verdict calls it wrong, and {looked} of the {votes.needed} needed verifiers that"
            " agree looked at it",
        )
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
    report.note(
        None,
        f"whether one wrong row of leg {receipt.record.stage + 1} would have been found",
        f"with a probability of {_percent(together, rows)}: the verifiers looked at {together} of"
        f" {rows} rows together; with {_percent(lied, rows)} if one of them lied",
    )


def _say_odds(report: AuditReport, answer: Answer, terms: Terms, stage: int) -> None:
    """How likely one owner had this draw, and one of these attempts, by how many it owns."""
    count = len(answer.candidates)
    if not count:
        return
    guesses = sorted({-(-count // 10), -(-count // 3), -(-count // 2)})
    asked = (terms.needed, terms.verifiers)
    told = [
        f"{owned}: {odds_of_draw(owned, count, *asked):.1%}"
        f" ({odds_of_task(owned, count, *asked, limits.ATTEMPTS_MAX):.1%} if it tries"
        f" {limits.ATTEMPTS_MAX} times)"
        for owned in guesses
    ]
    report.note(
        None,
        f"how many of the {count} candidates of leg {stage + 1} are one owner's",
        f"one draw of {terms.verifiers} is won by who owns so many of them: {', '.join(told)}",
    )
    if answer.tied:
        report.note(
            None,
            f"whether {answer.tied} of the verifiers that agree belong together",
            "they came by one neighbour or sit at addresses side by side, or at private ones; the"
            " asker knew too few others",
        )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def _looked(votes: list[Signed[Verdict]]) -> str:
    return "; ".join(
        f"{it.signer.short} recomputed {len(it.record.sampled)} of {it.record.rows}"
        f" rows, worst {max(it.record.worst_ppb, default=0) / 1e9:.1e}"
        for it in votes
    )


def _peers(signed: list[Signed[Verdict]]) -> str:
    return ", ".join(it.signer.short for it in signed)


def _check_content(report: AuditReport, task: Signed[Task], have: Have) -> None:
    for receipt in report.receipts:
        stage = receipt.record.stage
        right: dict[str, bytes] = {}
        for what, content in (
            ("input", source_of(task, report.receipts, stage)),
            ("output", receipt.record.output),
        ):
            if content is None:
                continue
            data = have(content)
            if data is None:
                report.note(None, f"the {what} of leg {stage + 1}", f"not at hand: {content}")
            else:
                if name_of(data) == content:
                    right[what] = data
                report.note(
                    what in right,
                    f"the {what} of leg {stage + 1} is the one that was signed for",
                    f"{len(data)} bytes",
                )
                if what == "output":
                    claimed_bytes = receipt.record.output_size_bytes
                    report.note(
                        len(data) == claimed_bytes,
                        f"the output of leg {stage + 1} is as long as was signed for",
                        f"{claimed_bytes} bytes",
                    )
        _check_rows(report, receipt, right.get("input"), right.get("output"))


def _check_rows(
    report: AuditReport, receipt: Signed[Receipt], source: bytes | None, output: bytes | None
) -> None:
    """Whether the output has a row for each text of the input, and as many as were signed for.

    `source` and `output` are what was signed for, where that is at hand.
    """
    leg = receipt.record
    if not by_rows(leg.operation) or output is None:
        return
    what = f"the output of leg {leg.stage + 1} has a row for each text of its input"
    try:
        rows = Vectors.from_bytes(output).rows
        texts = None
        if source is not None:
            by_name = leg.operation == EMBED_PASSAGES
            texts = len(
                Passages.from_bytes(source).passages if by_name else Texts.from_bytes(source).texts
            )
    except WireError as error:
        report.note(False, what, str(error))
        return
    if rows != leg.units:
        report.note(False, what, f"{rows} rows where {leg.units} were signed for")
    elif texts is not None:
        report.note(rows == texts, what, f"{rows} rows for {texts} texts")


def _say_limits(report: AuditReport, task: Signed[Task]) -> None:
    level = task.record.checking.level
    if level is Level.SIGNED:
        report.note(None, "whether the model was run as claimed", "nobody checked: level signed")
    else:
        report.note(
            None,
            "whether every row is right",
            "verifiers recomputed what each of them says above; here the model was not run again",
        )
    report.note(
        None,
        "whether the verifiers belong to one owner, and whether the candidates were all there were",
        "a signature names a key, not a person",
    )
    report.note(None, "on which device it ran, and who else saw the input")
