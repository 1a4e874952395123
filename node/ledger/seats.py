"""Who keeps the ledger in the next epoch, by the motions that have passed. Pure.

A change that is due is made at the end of an epoch, and the header says the members of the next
one: whoever follows the chain of headers knows them, and no more is needed to judge what they
sign. So that the quorums of two epochs that follow each other have an honest member in common, no
more weight changes at once than may be bad; what is too much waits for the epoch after.

A new member is seated at the end of an epoch in which it has said that it is there, by a ballot on
the motion that seats it: one that is off, in a ledger of one, would keep every later epoch from
ending. Until then the change waits, and a motion that gives it no weight takes it back at once.
"""

from collections.abc import Iterator, Mapping, Sequence

from node.ledger.motion_shelf import BALLOT, RowChanges
from wire import limits
from wire.content import PeerId
from wire.errors import Malformed
from wire.ledger import Member
from wire.motion import SeatClaim

# A change that waits: its key is the epoch from which on it is to be so, then its motion.
SEAT = b"c"
EPOCH_BYTES = 8
# A motion names an epoch that is at most so far away.
SINCE_EPOCHS_MAX = 100_000
# Who has not been there for so many epochs after that is not seated by this motion any more.
WAITING_EPOCHS_MAX = 672
Rows = Mapping[bytes, bytes]


def seat_row(motion: bytes, claim: SeatClaim) -> tuple[bytes, bytes]:
    """A change that has passed, as it waits for its epoch."""
    return SEAT + claim.since.to_bytes(EPOCH_BYTES, "big") + motion, claim.to_bytes()


def waiting_seats(rows: Rows) -> Iterator[tuple[bytes, SeatClaim]]:
    """The changes that wait, with their keys, in the order in which they are made."""
    for key in sorted(key for key in rows if key[:1] == SEAT):
        yield key, SeatClaim.from_bytes(rows[key])


def taken_back(rows: Rows, members: Sequence[Member], claim: SeatClaim) -> RowChanges:
    """Without the seats that wait for an account, where a claim gives it none; nothing otherwise.

    Of a member nothing is taken back: its change has its epoch, as any other.
    """
    if claim.weight or any(it.key == claim.member for it in members):
        return {}
    keys = [key for key, it in waiting_seats(rows) if it.weight and it.member == claim.member]
    marks = (_mark(_motion_of(key), claim.member) for key in keys)
    return dict.fromkeys((*keys, *(it for it in marks if it in rows)))


def is_to_be_seated(
    rows: Rows, account: PeerId, motion: bytes, claims: Sequence[SeatClaim]
) -> bool:
    """Whether an account gets a seat by a motion with these claims, once it is there."""
    own = (it for it in claims if it.weight and it.member == account)
    return any(seat_row(motion, it)[0] in rows for it in own)


def seat_due(rows: Rows, account: PeerId, epoch: int) -> bytes | None:
    """The motion by which an account may be seated with this epoch, if it is there."""
    for key, claim in waiting_seats(rows):
        if claim.since <= epoch and claim.weight and claim.member == account:
            return _motion_of(key)
    return None


def is_there(rows: Rows, motion: bytes, member: PeerId) -> bool:
    """Whether who is to be seated has said in this epoch that it is there."""
    return rows.get(_mark(motion, member)) == b"\1"


def _motion_of(key: bytes) -> bytes:
    return key[len(SEAT) + EPOCH_BYTES :]


def _mark(motion: bytes, member: PeerId) -> bytes:
    return BALLOT + motion + member


def seats_after(
    rows: Rows, members: Sequence[Member], epoch: int
) -> tuple[tuple[Member, ...], RowChanges]:
    """The members of the epoch `epoch`, after these of the one before; and the rows done with."""
    weights = {it.key: it.weight for it in members}
    total, moved = sum(weights.values()), 0
    waiting = list(waiting_seats(rows))
    # It was said for the end of this epoch alone.
    marks = (_mark(_motion_of(key), it.member) for key, it in waiting)
    done = dict.fromkeys(mark for mark in marks if mark in rows)
    for key, claim in waiting:
        if claim.since > epoch:
            break
        weight = _weight_for(weights, claim)
        is_new = weight and claim.member not in weights
        if is_new and not is_there(rows, _motion_of(key), claim.member):
            if epoch - claim.since >= WAITING_EPOCHS_MAX:
                done[key] = None
            continue
        step = 0 if weight is None else abs(weight - weights.get(claim.member, 0))
        # One change is always made, or a committee of one could never become one of two.
        if moved and step and (moved + step) * 3 >= total:
            break
        done[key] = None
        if not step:
            continue
        moved += step
        if weight:
            weights[claim.member] = weight
        else:
            del weights[claim.member]
    if not moved:
        return tuple(members), done
    return tuple(Member(key=it, weight=weights[it]) for it in sorted(weights)), done


def agreed_to(claim: SeatClaim, author: PeerId, ballots: Mapping[bytes, bool]) -> bool:
    """Whether who is to keep the ledger has said so: its key is in use, and its owner knows.

    A member that nobody runs could keep every later epoch from ending.
    """
    return not claim.weight or claim.member == author or ballots.get(claim.member, False)


def _weight_for(weights: Mapping[PeerId, int], claim: SeatClaim) -> int | None:
    """What a member weighs once a claim is followed, None where it cannot be.

    Nobody is given more than the heaviest of the others has, and nobody leaves an empty committee.
    """
    others = [it for key, it in weights.items() if key != claim.member]
    if not others or (claim.member not in weights and len(weights) >= limits.LEDGER_MEMBERS_MAX):
        # A new member has others; the only one stays as it is.
        return None
    if claim.member not in weights and not claim.weight:
        return None
    return min(claim.weight, max(others))


def check_seat(rows: Rows, members: Sequence[Member], claim: SeatClaim, epoch: int) -> None:
    """Malformed for a claim that changes nothing, could not be followed, or is too far away."""
    if not epoch < claim.since <= epoch + SINCE_EPOCHS_MAX:
        raise Malformed(
            f"members change from epoch {epoch + 1} to {epoch + SINCE_EPOCHS_MAX} on, not"
            f" {claim.since}"
        )
    weights = {it.key: it.weight for it in members}
    if taken_back(rows, members, claim):
        return
    if weights.get(claim.member, 0) == claim.weight:
        raise Malformed("this account is such a member already" if claim.weight else "no member")
    if _weight_for(weights, claim) is None:
        full = len(weights) >= limits.LEDGER_MEMBERS_MAX
        raise Malformed("the committee is full" if full else "a ledger without members is none")
    heaviest = max(it for key, it in weights.items() if key != claim.member)
    if claim.weight > heaviest:
        raise Malformed(
            f"no other member weighs more than {heaviest}, so {claim.weight} is refused"
        )
