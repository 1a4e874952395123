"""What the orders of an epoch make of the books, and the header that says so. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from node.ledger.books import Draft, applied_all
from node.ledger.slashing import end_stakes
from node.ledger.use_lines import lines_of
from wire.checkpoint import CheckpointHeader, buckets_of
from wire.errors import Malformed
from wire.ledger import AccountOrder, Genesis, order_digest
from wire.signed import Signed
from wire.usage import UseLine, lines_digest


@dataclass(slots=True)
class EpochOutcome:
    """A set of orders, what it makes of the books, and the header that says so."""

    header: CheckpointHeader
    draft: Draft
    orders: tuple[bytes, ...]
    lines: tuple[UseLine, ...] = ()


def outcome_of(
    running: Draft,
    tip: CheckpointHeader | None,
    genesis: Genesis,
    orders: Sequence[Signed[AccountOrder]],
) -> EpochOutcome:
    """End the epoch that `running` is a draft of, after the checkpoint `tip`, with these orders.

    Malformed if they are not complete: one is missing that another rests on.
    """
    books, draft = running.books, Draft(running.books, running.epoch)
    if applied_all(draft, orders) or draft.overdrawn():
        raise Malformed("the orders of the epoch are not complete")
    end_stakes(draft)
    balances, deposits = draft.sums()
    state, stake_table = draft.digests()
    lines = lines_of(draft)
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
        members=genesis.members if tip is None else tip.members,
        stakes=draft.staked,
        stake_table=stake_table,
        usage=lines_digest(lines),
    )
    return EpochOutcome(header, draft, digests, lines)
