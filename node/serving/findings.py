"""What a verifier finds of a stream that several peers made, segment by segment."""

from dataclasses import replace

from node.serving.claimed_leg import PPB, Found
from wire.chain import doers_of, segments_of
from wire.receipt import Receipt
from wire.signed import Signed


def right() -> Found:
    """What is found of an output that is as it should be, and has no rows."""
    return Found(rows=1, sampled=(0,), worst_ppb=(0,))


def wrong_segments(
    receipt: Signed[Receipt], rows: frozenset[int], reason: str, found: Found
) -> Found:
    """`found`, which says that these segments of a stream are wrong, and that the others are not.

    Segments stand in for rows, and every one is looked at.
    """
    count = len(doers_of(receipt))
    return replace(
        found,
        rows=count,
        sampled=tuple(range(count)),
        worst_ppb=tuple(PPB if it in rows else 0 for it in range(count)),
        reason=reason,
    )


def by_segment(receipt: Signed[Receipt], found: Found) -> Found:
    """What is found of the whole output, as it is said of the segments of a leg that has some.

    What is wrong with all of it is the fault of who signed for all of it: of the last.
    """
    count = len(doers_of(receipt))
    if count == 1 or found.rows == count or not found.sampled:
        return found
    last = frozenset((count - 1,)) if any(found.worst_ppb) else frozenset[int]()
    return wrong_segments(receipt, last, found.reason, found)


def segment_of_byte(receipt: Signed[Receipt], at: int) -> int:
    """The segment of a leg in which a byte of its output stands."""
    sizes = [it.record.size_bytes for it in segments_of(receipt)]
    return sum(size <= at for size in sizes)
