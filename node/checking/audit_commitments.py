"""The part of an audit that is about commitments: whether a verdict could be made to fit another.

Pure.
"""

from collections.abc import Sequence

from node.checking.report import AuditReport, ReceiptPart
from wire.commitment import commitment_to, shown_hash
from wire.content import PeerId
from wire.plural import plural
from wire.receipt import Answer, Verdict, VerdictOpening
from wire.signed import Signed


def check_commitments(
    report: AuditReport, answer: Answer, stage: int, heard: Sequence[Signed[Verdict]], needed: int
) -> None:
    """Say whether the verdicts on a leg were committed to before any of them was told."""
    made = [it for it in answer.commitments if it.stage == stage]
    places = {(it.verifier, it.commitment): at for at, it in enumerate(made)}
    hashes = [it.commitment for it in made]
    part, leg = ReceiptPart.VERDICTS, f"leg {stage + 1}"
    opened: dict[PeerId, tuple[int, VerdictOpening]] = {}
    salts: dict[bytes, PeerId] = {}
    for verdict in heard:
        for opening in verdict.record.opening:
            signer = verdict.signer
            commitment = commitment_to(verdict.record, opening.salt, signer)
            at = places.get((signer, commitment))
            shown = hashes[: opening.count]
            fits = at is not None and at < opening.count <= len(made)
            if at is None or not fits or shown_hash(shown) != opening.shown:
                what = f"the verdict of {signer.short} is the one that it had committed to"
                report.note(part, False, what, f"{leg}; no commitment that it names fits it")
                return
            first = salts.setdefault(opening.salt, signer)
            if first != signer:
                what = f"the verdicts of {first.short} and {signer.short} are their own"
                report.note(part, False, what, "both have one salt, so one is a copy")
                return
            opened[signer] = (at, opening)
    what = f"verdicts of {leg}: committed before they were revealed"
    without = [it.signer for it in heard if it.signer not in opened]
    if without:
        names = ", ".join(it.short for it in without)
        why = "one was needed" if needed < 2 else f"{names}: asked by, or is, an older version"
        report.note_limit(part, what, why)
        return
    if not opened:
        return
    first_told = min(opening.count for _, opening in opened.values())
    late = [it.short for it, (at, _) in opened.items() if at >= first_told]
    if late:
        names = ", ".join(late)
        report.note_limit(part, what, f"{names}: asked, or done, after others had told theirs")
        return
    silent = len(made) - len(opened)
    told = plural(len(made), "commitment")
    if silent:
        told = f"{len(opened)} of {told}"
    report.note(part, True, what, f"{told}, each with a salt and a key of its own")
