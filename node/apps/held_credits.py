"""What an account has held for two epochs: one balance opens one door."""

from node.ledger.following import LedgerFollower
from wire.content import PeerId
from wire.errors import Refused
from wire.kinds import RefusalCode


def held_by(follower: LedgerFollower | None, account: PeerId | None) -> int:
    """The least that an account had when the last two epochs ended, in millionths.

    What is moved on to another account after one of them is held by neither. Refused while it
    cannot be known here.
    """
    if follower is None or account is None:
        raise Refused("in a network without a ledger nobody holds credits", code=RefusalCode.FAILED)
    if follower.problem:
        raise Refused(
            f"what accounts hold is not known here: {follower.problem}", retry_after_s=5.0
        )
    held = follower.held(account)
    if held is None:
        raise Refused("no two epochs of this network have ended yet", retry_after_s=60.0)
    return held
