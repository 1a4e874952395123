"""Whether a verdict may be counted: on this receipt, with this secret, of the rows that were due.

Pure; used while a leg is checked and when its receipt is audited years later, offline.
"""

from collections.abc import Iterable

from wire import limits
from wire.content import PeerId
from wire.errors import BadSignature, Malformed
from wire.lottery import OWN_DRAW, Share, rows_of_part
from wire.operations import by_rows
from wire.receipt import Receipt, Verdict
from wire.signed import Signed


def check_verdict(
    receipt: Signed[Receipt],
    secret: bytes,
    verdict: Signed[Verdict],
    verifier: PeerId | None = None,
    share: Share = OWN_DRAW,
) -> None:
    """WireError unless this is a verdict on `receipt`, of exactly the rows that were asked for."""
    if verifier is not None and verdict.signer != verifier:
        raise BadSignature("the verdict was not signed by the peer that was asked")
    rows = _rows_agreed_on(receipt, secret, verdict)
    sampled = verdict.record.sampled
    if rows is not None and sampled != share.due(secret, receipt.id, verdict.signer, rows):
        raise Malformed("the verdict is not on the rows that the lottery drew")


def check_kept_verdict(
    receipt: Signed[Receipt], secret: bytes, verdict: Signed[Verdict], parts: Iterable[int]
) -> None:
    """WireError unless this is a verdict of rows that some peer may have been asked for.

    `parts` are the numbers of parts that the leg may have been checked in. How much all verdicts
    cover together is another question.
    """
    rows = _rows_agreed_on(receipt, secret, verdict)
    if rows is None:
        return
    sampled = verdict.record.sampled
    if tuple(sorted(set(sampled))) != sampled or not all(it < rows for it in sampled):
        raise Malformed("the verdict is not on rows of the leg, each once")
    looked = set(sampled)
    if looked.issuperset(OWN_DRAW.due(secret, receipt.id, verdict.signer, rows)):
        return
    for count in parts:
        for part in range(1, count + 1):
            if looked.issuperset(rows_of_part(secret, receipt.id, rows, part, count)):
                return
    raise Malformed("the verdict is not on the rows that the lottery drew")


def _rows_agreed_on(
    receipt: Signed[Receipt], secret: bytes, verdict: Signed[Verdict]
) -> int | None:
    """How many rows the leg has, where the verdict agrees and rows are drawn; else None."""
    found = verdict.record
    if found.receipt != receipt.id or found.secret != secret:
        raise Malformed("the verdict is on another receipt")
    units, segments = receipt.record.units, len(receipt.record.segments)
    if segments and found.agrees and found.sampled != tuple(range(segments + 1)):
        raise Malformed("the verdict agrees but has not looked at every segment")
    if not found.agrees:
        rows = max(1, units) if by_rows(receipt.record.operation) else limits.SAMPLE_MAX
        rows = segments + 1 if segments else rows
        if any(row >= rows for row in found.sampled):
            raise Malformed("the verdict names a row that the leg has not")
        return None
    if by_rows(receipt.record.operation):
        if found.rows != units or found.rows > limits.PASSAGES_MAX:
            raise Malformed("the verdict is on another number of rows than the leg has")
        return found.rows
    if not found.sampled:
        raise Malformed("the verdict agrees but checked no row")
    return None
