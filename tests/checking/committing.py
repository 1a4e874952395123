"""What a verifier says that commits to its verdict before it tells it."""

from p2p.typed_call import TypedCall
from wire.check_message import Check
from wire.commitment import TellVerdict, VerdictCommitted, commitment_to, opened
from wire.message import VerdictReply
from wire.receipt import Verdict
from wire.signed import Signed, sign
from wire.signing import SigningKey


async def tell(call: TypedCall, check: Check, verdict: Signed[Verdict], key: SigningKey) -> None:
    """Answer a check with a verdict, committed to first if the check says so.

    Each key has a salt of its own.
    """
    raw = verdict.raw
    if check.commit:
        salt = bytes(key.peer)
        committed = commitment_to(verdict.record, salt, key.peer)
        await call.send(VerdictCommitted(digest=committed))
        telling = await call.expect(TellVerdict)
        raw = sign(opened(verdict.record, salt, telling.shown, telling.count), key).raw
    await call.send(VerdictReply(verdict=raw))
