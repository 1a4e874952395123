"""The input of a leg: as the handoff brings it, or fetched from who has it."""

from node.dispatch.handoff import Handoff
from p2p.blobs import Blobs
from p2p.timeouts import stretched
from wire.content import ContentId, PeerId
from wire.errors import Malformed, Refused, WireError
from wire.kinds import RefusalCode
from wire.tree import name_of

INPUT_BYTES_MAX = 16 << 20
INPUT_DEADLINE_S = 15.0


async def input_of(
    blobs: Blobs,
    handoff: Handoff,
    source_id: ContentId | None,
    holders: tuple[PeerId, ...],
    left_s: float,
) -> bytes | None:
    """The input of the next leg; Refused if it cannot be had, Malformed if it is another."""
    if source_id is None:
        return None
    if handoff.input is not None:
        if name_of(handoff.input) != source_id:
            raise Malformed("the input is not the one that the task or the last receipt names")
        return handoff.input
    try:
        return await blobs.get(
            source_id,
            holders,
            deadline_s=min(left_s, stretched(INPUT_DEADLINE_S)),
            size_bytes_max=INPUT_BYTES_MAX,
        )
    except WireError as error:
        # The content is too large or no tree: its signer is at fault, not who passes it on.
        raise Refused(
            f"the input cannot be had: {error.message}", code=RefusalCode.NOT_FOUND
        ) from error
