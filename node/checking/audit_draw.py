"""The part of an audit that is about the draw: whether somebody could know it before it was made.

Pure.
"""

from collections.abc import Collection, Mapping, Sequence

from node.checking.odds import odds_of_draw
from node.checking.report import AuditReport, ReceiptPart
from wire import limits
from wire.content import PeerId
from wire.contribution import draws_to_choose_from, opened_mix
from wire.errors import WireError
from wire.lottery import weighted_draw
from wire.plural import plural
from wire.receipt import Answer, MixedDraw, Receipt
from wire.signed import Signed

_PART = ReceiptPart.SELECTION


def drawn_order(
    report: AuditReport,
    answer: Answer,
    asker: PeerId,
    receipt: Signed[Receipt],
    agree: Collection[PeerId],
) -> list[PeerId]:
    """The candidates in the order in which a leg's verifiers were to be asked.

    Says what the order rests on. `agree` are the verifiers that decided.
    """
    stage = receipt.record.stage
    weights = answer.weights or (0,) * len(answer.candidates)
    weighed = dict(zip(answer.candidates, weights, strict=True))
    draw = next((it for it in answer.mixed if it.stage == stage), None)
    if draw is None:
        report.note_limit(
            _PART,
            f"whether the draw for leg {stage + 1} was tried until it suited the asker",
            f"no candidates contributed to it: fewer than {limits.CONTRIBUTION_CANDIDATES_MIN} were"
            " known, or too many of them were silent or speak an older version; who makes both the"
            " task and its receipt can try as many draws at home as it likes",
        )
        return weighted_draw(answer.secret, receipt.id, weighed)
    what = f"what candidates contributed to the draw for leg {stage + 1} is their own"
    left_out = {answer.candidates[it] for it in draw.besides if it < len(answer.candidates)}
    among = {peer: weight for peer, weight in weighed.items() if peer not in left_out}
    try:
        mix = opened_mix(asker, answer.secret, receipt.id, among, draw)
    except WireError as error:
        report.note(_PART, False, what, str(error))
        return weighted_draw(answer.secret, receipt.id, weighed)
    report.note(
        _PART,
        True,
        what,
        f"{limits.CONTRIBUTORS} of them, drawn by the receipt, which nobody else could know before",
    )
    _say_home_odds(report, among, draw)
    _say_absent(report, draw)
    _say_later(report, [it for it in agree if it in left_out], stage)
    later = {peer: weighed[peer] for peer in left_out}
    return weighted_draw(answer.secret, receipt.id, among, mix) + weighted_draw(
        answer.secret, receipt.id, later, mix
    )


def _say_home_odds(report: AuditReport, among: Mapping[PeerId, int], draw: MixedDraw) -> None:
    """How often an owner of so many candidates meets contributors that are all its own."""
    count, asked = len(among), limits.CONTRIBUTORS + len(draw.absent)
    told = [
        f"{owned}: {odds_of_draw(owned, count, limits.CONTRIBUTORS, asked):.1g}"
        for owned in sorted({-(-count // 10), -(-count // 3), -(-count // 2)})
    ]
    by_weight = ", or of the stake," if any(among.values()) else ""
    report.note_limit(
        _PART,
        f"whether all contributors to the draw for leg {draw.stage + 1} are the asker's own",
        "then it could try draws at home. Who owns so many of the"
        f" {plural(count, 'candidate')}{by_weight} is"
        f" in that place once in so many tries: {', '.join(told)}; every other try has to be asked"
        " of peers that are not its own",
    )


def _say_absent(report: AuditReport, draw: MixedDraw) -> None:
    """What an asker gains that says of contributors that they were silent."""
    if draw.absent:
        names = ", ".join(it.short for it in draw.absent)
        report.note_limit(
            _PART,
            f"why {len(draw.absent)} contributed nothing to the draw for leg {draw.stage + 1}",
            f"{names}: silent, busy, of an older version, or left out; an asker that leaves out"
            " whom it likes chooses among"
            f" {plural(draws_to_choose_from(len(draw.absent)), 'draw')}",
        )


def _say_later(report: AuditReport, later: Sequence[PeerId], stage: int) -> None:
    """Verifiers that were no candidates when others contributed."""
    if later:
        names = ", ".join(it.short for it in later)
        report.note_limit(
            _PART,
            f"whether {len(later)} of the verifiers of leg {stage + 1} were drawn",
            f"{names}: the asker named them after it knew what candidates had contributed",
        )


def say_made_up(report: AuditReport, answer: Answer, legs: Sequence[int]) -> None:
    """What of the selection rests on the asker's honesty, whatever was drawn."""
    why = "it chose the secret and the candidates"
    if set(legs) <= {it.stage for it in answer.mixed}:
        why = "it chose the candidates, so all of them may be its own: compare them with the peers"
        why += " that you know"
    report.note_limit(
        _PART,
        "whether the asker made all of it up with friends",
        f"{why}, so this proves to the asker what it may not prove to others: to be sure, run the"
        " model again, or ask yourself",
    )
