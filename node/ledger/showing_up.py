"""A peer that is to get a seat says in each epoch that it is there, until it has it."""

import trio

from node.ledger.member_role import LOOK_PART, LOOK_S_MAX, TELL_AGAIN_S, LedgerMember
from node.ledger.seats import seat_due
from node.ledger.wallet import Wallet, unheard
from wire.errors import BatonError
from wire.motion import Ballot


async def show_up(member: LedgerMember, wallet: Wallet) -> None:
    """Say so for ever, in the epochs at whose end this peer may be seated."""
    said_in, replica = -1, member.replica
    pause_s = max(TELL_AGAIN_S, min(LOOK_S_MAX, replica.genesis.epoch_s / LOOK_PART))
    while True:
        rows, epoch = replica.books.motions.rows, replica.epoch
        motion = None if replica.place is not None else seat_due(rows, wallet.key.peer, epoch + 1)
        if motion is not None and said_in < epoch:
            try:
                ordered = await wallet.order(unheard, ballot=(Ballot(motion=motion, yes=True),))
                said_in = ordered.order.record.epoch
            except BatonError as error:
                member.peers.note_problem("seat", f"it was not said that it is there: {error}")
        await trio.sleep(pause_s)
