"""How much work a leg is, in units, as far as can be told before it is done."""

from wire import limits
from wire.errors import WireError
from wire.kinds import Role
from wire.operations import OPERATIONS, Unit, streams
from wire.payload import Passages, Texts
from wire.task import Stage

# One leg's worth of text: enough to fill an engine's batch, cheap to do again elsewhere.
PASSAGES_PER_LEG = 32
# What an engine makes of a prompt where nobody says how much.
TOKENS_DEFAULT = 16
# More than any engine makes at once.
TOKENS_MAX = 1 << 20
# A guess of somebody else counts for no more than this: the most texts that one leg has.
GUESS_MAX = limits.PASSAGES_MAX


def streamed_max(stage: Stage) -> int:
    """How many units of a leg may come in pieces: none but of a completion."""
    return units_of(stage, None) if streams(stage.operation) else 0


def units_of(stage: Stage, data: bytes | None, guess: int = 1) -> int:
    """Units of `stage` on the input `data`, if that is at hand; else as somebody guesses."""
    operation = OPERATIONS.get(stage.operation)
    if operation is not None and operation.streams:
        tokens = stage.parameters.get("tokens", TOKENS_DEFAULT)
        # What makes no sense is refused by whoever reads it, in better words than "too long".
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
        # Whoever does the leg will say so.
        return 1
    return max(1, min(guess, GUESS_MAX))
