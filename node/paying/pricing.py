"""What a leg costs by a tariff: at most, before it is done, and exactly, by its receipt. Pure.

Asker, worker and auditor compute the same number from the same bytes: the tariff, the stage, the
signed receipt, and the input and the output that it names.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from node.task.units import GUESS_MAX, TOKENS_MAX, fetched_max, streamed_max, units_of
from wire import limits
from wire.amount import AMOUNT_MAX
from wire.errors import WireError
from wire.generation import Ending, read_frames
from wire.kinds import Role
from wire.operations import FETCH, GENERATE, streams
from wire.payload import Passages, Texts
from wire.receipt import Receipt
from wire.tariff import KEPT, UNITS, Charge, ChargeKind, Tariff
from wire.task import Stage

# An output that was computed for an earlier task costs this part of it.
REUSED_PART = 4
# Tokens of a stream that are paid for before it begins; the others as it goes on.
FIRST_TOKENS = 32


class LegUnits(NamedTuple):
    """What a leg is charged for: units given to the model, and tokens that it made."""

    given: int
    made: int


def units_at_most(stage: Stage, data: bytes | None, guess: int = 1) -> LegUnits:
    """The most that a leg can be charged for; `data` is its input, where it is at hand."""
    if stage.role is Role.DATA:
        return LegUnits(fetched_max(stage), 0)
    if not streams(stage.operation):
        return LegUnits(units_of(stage, data, guess), 0)
    return LegUnits(_prompt_max(stage, data), streamed_max(stage))


def legs_at_most(stages: Sequence[Stage], data: bytes | None, guess: int = 1) -> list[LegUnits]:
    """As `units_at_most`, of each leg of a task; what a later leg is given is not known yet."""
    found = [units_at_most(stages[0], data, guess)]
    for before, stage in pairwise(stages):
        given = fetched_max(before) if before.role is Role.DATA else GUESS_MAX
        found.append(units_at_most(stage, None, given))
    return found


def _prompt_max(stage: Stage, data: bytes | None) -> int:
    """A token of a prompt has at least one byte of the input."""
    if stage.operation != GENERATE:
        return 0
    return limits.PROMPT_BYTES_MAX if data is None else len(data)


def units_counted(
    stage: Stage, receipt: Receipt, source: bytes | None, output: bytes | None
) -> LegUnits:
    """What a leg is charged for by its receipt, as far as its input and its output bear it out.

    Without the output the receipt's units count, up to what the task asked for.
    """
    if stage.role is Role.DATA:
        return LegUnits(_fetched(stage, min(receipt.units, fetched_max(stage)), output), 0)
    if not streams(stage.operation):
        given = receipt.units
        return LegUnits(min(given, units_of(stage, source, given)), 0)
    made = min(receipt.units, streamed_max(stage))
    if stage.operation != GENERATE or output is None:
        return LegUnits(0, made)
    tokens, prompt_tokens = _counted_frames(output)
    return LegUnits(min(prompt_tokens, _prompt_max(stage, source)), min(made, tokens))


def _fetched(stage: Stage, units: int, output: bytes | None) -> int:
    """The passages or names that a data leg brought in, by its output where it is at hand."""
    if output is None:
        return units
    try:
        if stage.operation == FETCH:
            return min(units, len(Passages.from_bytes(output).passages))
        return min(units, len(Texts.from_bytes(output).texts))
    except WireError:
        return 0


def _counted_frames(output: bytes) -> tuple[int, int]:
    """The tokens that an answer has, and those of the prompt, by its frames; 0 for no answer."""
    # Only the heads of frames are read: the last one says how long the prompt was.
    at, tokens, last = 0, 0, 0
    while at + 3 <= len(output):
        tokens += output[at : at + 1] == b"t"
        last = at
        at += 3 + int.from_bytes(output[at + 1 : at + 3], "big")
    try:
        ending = next(iter(read_frames(output[last:])), None)
    except WireError:
        return tokens, 0
    return tokens, ending.prompt_tokens if isinstance(ending, Ending) else 0


def cost(tariff: Tariff, stage: Stage, units: LegUnits) -> int:
    """What a leg with so many units costs, in millionths; 0 for what the tariff does not name."""
    price = tariff.price_for(stage)
    if price is None:
        return 0
    by_units = units.given * price.given + units.made * price.made
    return min(AMOUNT_MAX, price.base + -(-by_units // UNITS))


def cost_of_keeping(tariff: Tariff, size_bytes: int) -> int:
    """What it costs that a peer keeps content until the time that it says, in millionths."""
    price = tariff.price_of(KEPT)
    if price is None:
        return 0
    kib = (size_bytes + 1023) // 1024
    return min(AMOUNT_MAX, price.base + -(-kib * price.given // UNITS))


def cost_and_need(tariff: Tariff, stage: Stage, most: LegUnits) -> tuple[int, int]:
    """What a leg costs at most, and what of it has to be promised before the leg begins.

    Of a stream that is its prompt and its first tokens.
    """
    whole = cost(tariff, stage, most)
    if most.made <= FIRST_TOKENS:
        return whole, whole
    return whole, cost(tariff, stage, LegUnits(most.given, FIRST_TOKENS))


def cost_of_part(tariff: Tariff, stage: Stage, shown: int) -> int:
    """What `shown` tokens of a leg cost that another peer finished: no base, and no prompt."""
    price = tariff.price_for(stage)
    if price is None:
        return 0
    return min(AMOUNT_MAX, -(-min(shown, TOKENS_MAX) * price.made // UNITS))


def cost_of_leg(
    tariff: Tariff,
    stage: Stage,
    receipt: Receipt,
    source: bytes | None,
    output: bytes | None,
    begun: int = 0,
) -> int:
    """What a leg is charged by its receipt; `begun` tokens of it were shown by others before."""
    counted = units_counted(stage, receipt, source, output)
    whole = cost(tariff, stage, LegUnits(counted.given, max(0, counted.made - begun)))
    return -(-whole // REUSED_PART) if receipt.reused else whole


def charge_by(
    charge: Charge,
    tariff: Tariff,
    stage: Stage,
    receipt: Receipt,
    source: bytes | None,
    output: bytes | None,
) -> int:
    """What a charge of an answer has to be at most, for whoever checks the answer."""
    match charge.kind:
        case ChargeKind.CHECK | ChargeKind.REJECTED:
            return tariff.verdict
        case ChargeKind.PART:
            return cost_of_part(tariff, stage, charge.units)
        case ChargeKind.LEG:
            return cost_of_leg(tariff, stage, receipt, source, output, charge.units)
