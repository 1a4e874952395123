"""A leg that another peer signed, what is done again to check it, and what that finds."""

from collections.abc import Callable
from dataclasses import dataclass

from node.serving.role import Done, LegInput
from wire.payload import Texts
from wire.receipt import Receipt, ReplayStatistics
from wire.signed import Signed
from wire.task import Stage

# Differences are reported in parts per billion; larger ones are reported as PPB.
PPB = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What recomputing gave: for each sampled row, how far off the claim is."""

    rows: int
    sampled: tuple[int, ...] = ()
    worst_ppb: tuple[int, ...] = ()
    reason: str = ""
    replay: tuple[ReplayStatistics, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedLeg:
    """A leg that another peer signed, with its input and output at hand."""

    stage: Stage
    receipt: Signed[Receipt]
    source: LegInput
    output: bytes
    # The passages' texts, if the input names passages.
    texts: Texts | None


@dataclass(frozen=True, slots=True)
class Again:
    """A leg that is to be done again, or a part of it, and what its output says of the claim."""

    stage: Stage
    source: LegInput
    judge: Callable[[Done], Found]


def wrong(rows: int, reason: str) -> Found:
    """What is found where the claim is false whatever the tolerance."""
    return Found(rows=rows, sampled=(0,), worst_ppb=(PPB,), reason=reason)


def wrong_units(rows: int, units: int) -> Found:
    """What is found where more or less work was claimed than was done."""
    return wrong(rows, f"the work was {units} units")
