"""How much work a leg is, in units, as far as is known before it is done."""

from wire import limits
from wire.errors import WireError
from wire.kinds import Role
from wire.operations import FETCH, OPERATIONS, Unit, streams
from wire.payload import Passages, Texts
from wire.task import Stage

# Passages of one leg: enough to fill an engine's batch, and cheap to do again at another peer.
PASSAGES_PER_LEG = 32
# Tokens that an engine generates if the task does not say how many.
TOKENS_DEFAULT = 16
# More than any engine generates for one prompt.
TOKENS_MAX = 1 << 20
# An upper bound for the guess of another peer: the most texts that one leg has.
GUESS_MAX = limits.PASSAGES_MAX


def streamed_max(stage: Stage) -> int:
    """How many units of a leg may come in pieces: 0 unless its output is streamed."""
    return units_of(stage, None) if streams(stage.operation) else 0


def fetched_max(stage: Stage) -> int:
    """How many passages or names a data leg brings in at most."""
    most = PASSAGES_PER_LEG if stage.operation == FETCH else limits.PASSAGES_MAX
    count = stage.parameters.get("count", most)
    # A bad value counts as the most; the data peer refuses it with a better reason.
    return min(count, most) if type(count) is int and count > 0 else most


def units_of(stage: Stage, data: bytes | None, guess: int = 1) -> int:
    """Units of `stage` on the input `data`; without `data`, the `guess`."""
    operation = OPERATIONS.get(stage.operation)
    if operation is not None and operation.streams:
        tokens = stage.parameters.get("tokens", TOKENS_DEFAULT)
        # A bad value counts as 1 here; the peer that reads it refuses it with a better reason.
        return tokens if type(tokens) is int and 0 < tokens <= TOKENS_MAX else 1
    unit = None if operation is None or operation.role is not Role.INFER else operation.unit
    if unit in (Unit.QUESTION, Unit.CALL):
        return 1
    try:
        match unit:
            case Unit.TEXT if data is not None:
                return len(Texts.from_bytes(data).texts)
            case Unit.PASSAGE if data is not None:
                return len(Passages.from_bytes(data).passages)
    except WireError:
        # The input is malformed; the peer that does the leg refuses it and says why.
        return 1
    return max(1, min(guess, GUESS_MAX))
