"""What follows from a refusal, by its code alone: whether to ask again, and the HTTP status.

No program decides by the words of another peer's sentence: they are shown to people only.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from wire.errors import BatonError, Refused
from wire.kinds import RefusalCode


@dataclass(frozen=True, slots=True)
class Consequence:
    """What one code leads to.

    `status` and `code` are sent to an HTTP client. `again`: the same peer may be asked again for
    the same task, once the time that it named has passed. `of_request`: the request itself is at
    fault, so that other peers would say the same.
    """

    status: int
    code: str
    again: bool = False
    of_request: bool = False


CONSEQUENCES: Mapping[RefusalCode, Consequence] = {
    RefusalCode.OTHER: Consequence(503, "refused", again=True),
    RefusalCode.BUSY: Consequence(503, "busy", again=True),
    RefusalCode.TOO_LONG: Consequence(408, "deadline_too_short", again=True),
    RefusalCode.NO_SUCH_MODEL: Consequence(503, "model_not_served"),
    RefusalCode.MODEL_FAILED: Consequence(503, "worker_failed", again=True),
    RefusalCode.LOADING: Consequence(503, "model_loading", again=True),
    RefusalCode.NOT_WILLING: Consequence(503, "not_willing"),
    RefusalCode.MALFORMED: Consequence(400, "invalid_value", of_request=True),
    RefusalCode.LATE: Consequence(408, "deadline_passed"),
    RefusalCode.PAUSED: Consequence(503, "paused", again=True),
    RefusalCode.NOT_PAID: Consequence(503, "not_paid", again=True),
    RefusalCode.BANNED: Consequence(503, "banned"),
    RefusalCode.LEAVING: Consequence(503, "leaving"),
    RefusalCode.CLOCK: Consequence(503, "clocks_differ"),
    RefusalCode.UNSUPPORTED: Consequence(400, "unsupported", of_request=True),
    RefusalCode.NOT_FOUND: Consequence(404, "not_found"),
    RefusalCode.STRANGER: Consequence(503, "not_met", again=True),
    RefusalCode.FAILED: Consequence(503, "task_failed", again=True),
    RefusalCode.NOT_COVERED: Consequence(503, "not_covered", again=True),
    RefusalCode.OTHER_EPOCH: Consequence(503, "other_epoch", again=True),
}


def consequence_of(error: BatonError) -> Consequence:
    """What follows from an error, of this peer or from another peer's refusal."""
    return CONSEQUENCES[error.code]


def ask_again_s(error: BatonError) -> float | None:
    """When the peer that refused may be asked again, in seconds; None for never."""
    if not isinstance(error, Refused) or not consequence_of(error).again:
        return None
    return error.retry_after_s
