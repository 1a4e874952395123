"""Whether a verdict may be counted: on this receipt, with this secret, of the rows that were drawn.

Pure; used while a leg is checked and when its receipt is audited years later, offline.
"""

from wire import limits
from wire.content import PeerId
from wire.errors import BadSignature, Malformed
from wire.lottery import rows_due, rows_to_check
from wire.operations import by_rows
from wire.receipt import Receipt, Verdict
from wire.signed import Signed


def check_verdict(
    receipt: Signed[Receipt],
    secret: bytes,
    verdict: Signed[Verdict],
    verifier: PeerId | None = None,
) -> None:
    """WireError unless this is a verdict on `receipt`, of the rows that the secret demands."""
    found = verdict.record
    if verifier is not None and verdict.signer != verifier:
        raise BadSignature("the verdict was not signed by the peer that was asked")
    if found.receipt != receipt.id or found.secret != secret:
        raise Malformed("the verdict is on another receipt")
    if not found.agrees:
        return
    if by_rows(receipt.record.operation):
        if found.rows != receipt.record.units or found.rows > limits.PASSAGES_MAX:
            raise Malformed("the verdict is on another number of rows than the leg has")
        due = rows_to_check(secret, receipt.id, verdict.signer, found.rows, rows_due(found.rows))
        if found.sampled != due:
            raise Malformed("the verdict is not on the rows that the lottery drew")
    elif not found.sampled:
        raise Malformed("the verdict agrees but checked no row")
