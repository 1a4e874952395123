"""Whether a peer gave the rows that its layers give: others run the same rows through their own.

Whoever runs them again has an ordinary session, and cannot tell that it is a check. Two that agree
decide, unless they have one address prefix; where all differ nobody is blamed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import trio

from node.dispatch.layer_link import TROUBLES, LayerLink, Passage
from p2p.peers import Peers
from wire.content import ContentId, PeerId
from wire.errors import BatonError, Disconnected
from wire.layers import LayerRange
from wire.stage import PAGE_BYTES, PAGE_TOKENS, PASS_BYTES_MAX, PLACE_BYTES, StageRows

# So many of a conversation's first rows are run again, so many at once.
ROWS_LOOKED_MAX = 1024
ROWS_AT_ONCE = 32
# Peers that are asked, until two agree.
OTHERS_MAX = 3
# Honest machines differ by rounding: by far less than this part of a row's greatest number.
TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class LayerClaim:
    """Who says that these rows of a model give those in these layers: pairs of both."""

    peer: PeerId
    model: ContentId
    layers: LayerRange
    rows: Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class LayerFinding:
    """Who agrees with whom; `wrong` who does not; nobody agreed: it is not known who is right."""

    agreeing: tuple[PeerId, ...] = ()
    wrong: tuple[PeerId, ...] = ()


async def look_again(peers: Peers, claim: LayerClaim, others: Sequence[PeerId]) -> LayerFinding:
    """Have others run the rows of a claim, one after the other, until two say the same."""
    told = [(claim.peer, [after for _, after in claim.rows])]
    for other in others[:OTHERS_MAX]:
        try:
            found = await _run_again(peers, claim, other)
        except TROUBLES:
            continue
        like = [peer for peer, rows in told if alike(rows, found)]
        if any(_apart(peers, peer, other) for peer in like):
            wrong = tuple(peer for peer, _ in told if peer not in like)
            return LayerFinding((*like, other), wrong)
        told.append((other, found))
    return LayerFinding()


def _apart(peers: Peers, one: PeerId, other: PeerId) -> bool:
    """Whether two peers do not show that they are one owner's."""
    origin = peers.view.origins.of(one, one)
    return not origin or origin != peers.view.origins.of(other, other)


def alike(some: Sequence[bytes], others: Sequence[bytes]) -> bool:
    """Whether two lists of rows are the same but for rounding."""
    for one, other in zip(some, others, strict=True):
        left, right = (np.frombuffer(it, "<f4").astype(np.float64) for it in (one, other))
        if np.abs(left - right).max() > TOLERANCE * max(np.abs(left).max(), np.abs(right).max()):
            return False
    return True


async def _run_again(peers: Peers, claim: LayerClaim, other: PeerId) -> list[bytes]:
    """What another peer makes of the rows; one of TROUBLES if it comes to nothing."""
    link = LayerLink(peers, other, claim.model, claim.layers)
    pages = -(-len(claim.rows) // PAGE_TOKENS)
    found: list[bytes] = []
    problems: list[BatonError] = []
    async with trio.open_nursery() as nursery:

        async def keep() -> None:
            try:
                await link.run(pages, None)
            except TROUBLES as error:
                problems.append(error)
            nursery.cancel_scope.cancel()

        nursery.start_soon(keep)
        await link.opened.wait()
        if link.pages >= pages:
            size = len(claim.rows[0][0])
            at_once = max(1, min(ROWS_AT_ONCE, PASS_BYTES_MAX // size))
            for first in range(0, len(claim.rows), at_once):
                passage = Passage(_pass_of(claim, first, at_once, pages))
                await link.put(passage)
                await passage.done.wait()
                data = passage.rows.data
                found += [data[at : at + size] for at in range(0, len(data), size)]
        link.close()
    if len(found) != len(claim.rows):
        raise problems[0] if problems else Disconnected(f"{other.short} has not enough pages")
    return found


def _pass_of(claim: LayerClaim, first: int, at_once: int, pages: int) -> StageRows:
    rows = claim.rows[first : first + at_once]
    numbers = range(first, first + len(rows))
    return StageRows(
        tables=(b"".join(it.to_bytes(PAGE_BYTES, "little") for it in range(pages)),),
        owners=bytes(len(rows)),
        places=b"".join(it.to_bytes(PLACE_BYTES, "little") for it in numbers),
        data=b"".join(before for before, _ in rows),
    )
