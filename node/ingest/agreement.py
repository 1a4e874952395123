"""Whether several fetches of one source agree, by terms that the task names. Pure.

Each rule says which fetches are outliers and what the others say. A count of the same outputs gives
the same result anywhere, so an auditor repeats it.
"""

import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from node.ingest.parsing import Cell, to_lines
from node.ingest.table import DataTable
from wire.errors import InputError, WireError
from wire.fetch import QUORUM_MAX

# What a fetch is late or early by, if the terms do not say.
WINDOW_S_DEFAULT = 60
_TERMS = re.compile(
    r"(?P<rule>exact|majority|median (?P<percent>\d{1,3}(?:\.\d{1,6})?)%)"
    r"(?: within (?P<window>\d{1,5})s)?"
)


@dataclass(frozen=True, slots=True)
class AgreementTerms:
    """How many fetches there are, and when they agree.

    `exact`: all outputs are the same bytes. `majority`: more than half of them are. `median`: more
    than half are tables whose numbers lie within `tolerance` of the median, as a share of it, and
    that are otherwise the same. Those that agree were fetched within `window_s` of their middle.
    """

    quorum: int
    rule: str
    tolerance: float = 0.0
    window_s: int = WINDOW_S_DEFAULT

    @classmethod
    def read(cls, quorum: int, text: str) -> "AgreementTerms":
        """The terms as they stand in a task; InputError if they are none."""
        if not 1 <= quorum <= QUORUM_MAX:
            raise InputError(f"a quorum of {quorum} is not possible", todo=f"2 to {QUORUM_MAX}")
        found = _TERMS.fullmatch(text)
        if found is None:
            raise InputError(
                f"{text[:60]!r} says not when fetches agree",
                todo="write exact, majority, or median 0.5%; and, if need be, within 30s",
            )
        percent, window = found["percent"], found["window"]
        return cls(
            quorum=quorum,
            rule=found["rule"].partition(" ")[0],
            tolerance=float(percent or 0) / 100,
            window_s=int(window or WINDOW_S_DEFAULT),
        )

    @property
    def needed(self) -> int:
        """How many have to agree."""
        return self.quorum if self.rule == "exact" else self.quorum // 2 + 1


@dataclass(frozen=True, slots=True)
class Agreed:
    """Which fetches agree, by number, and what they say; None without a quorum."""

    agreeing: tuple[int, ...]
    output: bytes | None


def agree(terms: AgreementTerms, outputs: Sequence[bytes], times_ms: Sequence[int]) -> Agreed:
    """Count the outputs of as many fetches as there are, each with the time of its fetch."""
    middle_ms = statistics.median_low(times_ms)
    timely = [
        number
        for number, time_ms in enumerate(times_ms)
        if abs(time_ms - middle_ms) <= terms.window_s * 1000
    ]
    if terms.rule == "median":
        found = _near_the_median(terms, {it: outputs[it] for it in timely})
    else:
        found = _most({it: outputs[it] for it in timely})
    return found if len(found.agreeing) >= terms.needed else Agreed(found.agreeing, None)


def _most(outputs: dict[int, bytes]) -> Agreed:
    """Those with the output that most have; of several, the one that came first."""
    ((output, _),) = Counter(outputs.values()).most_common(1)
    return Agreed(tuple(number for number, it in outputs.items() if it == output), output)


def _near_the_median(terms: AgreementTerms, outputs: dict[int, bytes]) -> Agreed:
    tables: dict[int, DataTable] = {}
    for number, output in outputs.items():
        try:
            tables[number] = DataTable.from_bytes(output)
        except WireError:
            # Whatever it is, it is not what the others say.
            continue
    shapes = Counter(_words_of(it) for it in tables.values())
    if not shapes:
        return Agreed((), None)
    ((shape, _),) = shapes.most_common(1)
    alike = {number: _numbers(it) for number, it in tables.items() if _words_of(it) == shape}
    medians = [statistics.median(column) for column in zip(*alike.values(), strict=True)]
    near = tuple(
        number
        for number, numbers in alike.items()
        if all(
            abs(it - middle) <= terms.tolerance * abs(middle)
            for it, middle in zip(numbers, medians, strict=True)
        )
    )
    if not near:
        return Agreed((), None)
    # A number that somebody said, and not one between two.
    said = [statistics.median_low(it) for it in zip(*(alike[it] for it in near), strict=True)]
    return Agreed(near, _with_numbers(tables[near[0]], said))


def _number_of(cell: Cell) -> float | None:
    """A number, also as CSV and many servers write one; None for whatever else."""
    if isinstance(cell, bool) or cell is None:
        return None
    try:
        number = float(cell)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None


def _words_of(table: DataTable) -> tuple[object, ...]:
    """All of a table but its numbers, and where they stand."""
    rows = tuple(
        tuple("" if _number_of(it) is not None else (type(it).__name__, it) for it in row)
        for row in table.rows
    )
    return (table.columns, rows)


def _numbers(table: DataTable) -> list[float]:
    found = (_number_of(it) for row in table.rows for it in row)
    return [it for it in found if it is not None]


def _with_numbers(table: DataTable, numbers: Sequence[float]) -> bytes:
    left = iter(numbers)
    rows = [[it if _number_of(it) is None else next(left) for it in row] for row in table.rows]
    return to_lines(list(table.columns), rows)
