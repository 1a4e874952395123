"""What the orders of an epoch make of the books, and the header that says so. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from node.ledger.books import Draft
from node.ledger.governing import end_motions
from node.ledger.juries import NO_JURIES, JuriesEnded
from node.ledger.matching import Matched
from node.ledger.past_work import note_past_work
from node.ledger.seats import seats_after
from node.ledger.slashing import end_stakes
from node.ledger.use_lines import Transfer, lines_of, moved_in
from wire.checkpoint import NO_DRAW, CheckpointHeader, JuryDraw, buckets_of
from wire.errors import Malformed
from wire.jury import juries_digest
from wire.ledger import AccountOrder, Genesis, Member, order_digest
from wire.signed import Signed
from wire.usage import UseLine, lines_digest


@dataclass(slots=True)
class EpochOutcome:
    """A set of orders, what it makes of the books, and the header that says so."""

    header: CheckpointHeader
    draft: Draft
    orders: tuple[bytes, ...]
    # Who kept the ledger in that epoch; the header says who keeps it in the next.
    members: tuple[Member, ...]
    lines: tuple[UseLine, ...] = ()
    juries: JuriesEnded = NO_JURIES
    # What builders were given out of the fund.
    matched: Matched = field(default_factory=dict)
    # Between whom credits moved, but from a payer to its payee.
    moved: tuple[Transfer, ...] = ()


def applied_all(draft: Draft, orders: Iterable[Signed[AccountOrder]]) -> list[Signed[AccountOrder]]:
    """Apply orders, each once those that it awaits are applied; those that are left over."""
    left = sorted(orders, key=lambda it: it.record.sequence)
    while left:
        later = []
        for order in left:
            if draft.awaits(order):
                later.append(order)
            else:
                draft.apply(order)
        if len(later) == len(left):
            return later
        left = later
    return []


def outcome_of(
    running: Draft,
    tip: CheckpointHeader | None,
    genesis: Genesis,
    orders: Sequence[Signed[AccountOrder]],
    beacon: bytes = b"",
) -> EpochOutcome:
    """End the epoch that `running` is a draft of, after the checkpoint `tip`, with these orders.

    Malformed if they are not complete: one is missing that another rests on. `beacon` is what
    members' secrets came to: by it juries are drawn.
    """
    books, draft = running.books, Draft(running.books, running.epoch)
    if applied_all(draft, orders) or draft.overdrawn():
        raise Malformed("the orders of the epoch are not complete")
    juries = end_stakes(draft, beacon)
    lines = lines_of(draft)
    moved = moved_in(draft, orders)
    matched = end_motions(draft, genesis, lines, moved)
    note_past_work(draft)
    before = genesis.members if tip is None else tip.members
    members, seated = seats_after(draft.motion_rows(), before, draft.epoch + 1)
    draft.motions.update(seated)
    balances, deposits = draft.sums()
    state, stake_table = draft.digests()
    draw = JuryDraw(
        secrets_of=0, beacon=beacon, juries=juries_digest(it.digest for it in juries.drawn)
    )
    digests = tuple(sorted(map(order_digest, orders)))
    header = CheckpointHeader(
        network=genesis.id,
        epoch=draft.epoch,
        previous=None if tip is None else tip.id,
        count=len(digests),
        buckets=buckets_of(digests),
        state=state,
        balances=balances,
        deposits=deposits,
        fund=books.fund + draft.growth,
        members=members,
        usage=lines_digest(lines),
        stakes=draft.staked,
        stake_table=stake_table,
        bonds=books.motions.bonds_after(draft.motions),
        draw=() if draw == NO_DRAW else (draw,),
    )
    return EpochOutcome(header, draft, digests, before, lines, juries, matched, moved)
