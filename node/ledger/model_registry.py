"""Which models have an author who shares in what is redeemed for them, as motions have said. Pure.

Of claims to one model the first that passed holds; of those that pass at the end of one epoch that
is the one with the smallest id. Another one passes only after the first was ended by a motion too.
"""

from collections.abc import Mapping

from node.ledger.motion_shelf import motions_in
from wire.content import ContentId
from wire.errors import Malformed
from wire.motion import ModelClaim, MotionState, RegisteredModel

MODEL = b"r"
Rows = Mapping[bytes, bytes | None]


def registered(rows: Rows, model: ContentId) -> RegisteredModel | None:
    """Whose a model is; None if nobody's."""
    raw = rows.get(MODEL + model)
    return None if raw is None else RegisteredModel.from_bytes(raw)


def models_in(rows: Mapping[bytes, bytes]) -> dict[ContentId, RegisteredModel]:
    """All models that have an author, in order."""
    keys = sorted(key for key in rows if key[:1] == MODEL)
    return {ContentId(key[1:]): RegisteredModel.from_bytes(rows[key]) for key in keys}


def check_claim(rows: Mapping[bytes, bytes], claim: ModelClaim) -> None:
    """Malformed if a claim could not hold as things are now, or is made already."""
    holds = registered(rows, claim.model)
    if not claim.share:
        if holds is None or holds.author != claim.author:
            raise Malformed("a share of 0 ends a registration, and there is none of this author")
        return
    if holds is not None:
        whose = "this author's" if holds.author == claim.author else f"of {holds.author}"
        raise Malformed(
            f"the model is {whose} already, with {holds.share} millionths: a motion with the share"
            " 0 ends that first"
        )
    for name, row in motions_in(rows).items():
        claimed = {(it.model, it.author) for it in row.motion.claims if it.share}
        if row.state is MotionState.OPEN and (claim.model, claim.author) in claimed:
            raise Malformed(f"the open motion {name.hex()} claims this model for this author")


def outcome_of_claim(
    rows: Rows, motion: bytes, claim: ModelClaim
) -> tuple[MotionState, dict[bytes, bytes | None]]:
    """What a claim that has passed comes to, and the row that it changes."""
    key, holds = MODEL + claim.model, registered(rows, claim.model)
    if not claim.share:
        if holds is None or holds.author != claim.author:
            return MotionState.TAKEN, {}
        return MotionState.PASSED, {key: None}
    if holds is not None:
        return MotionState.TAKEN, {}
    row = RegisteredModel(author=claim.author, share=claim.share, motion=motion)
    return MotionState.PASSED, {key: row.to_bytes()}
