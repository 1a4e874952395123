"""Operations: what a stage may ask for. One record says all that differs from one to another.

A name that is not in this table is legal on the wire, but every peer refuses it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from wire.kinds import Role

# Asked of a data peer: passages of one source, or the names of its sources.
FETCH = "fetch"
LIST = "list"
# Asked of a model: vectors of texts, or of passages that are stored elsewhere; the passages of an
# index nearest to a question; how well texts answer a query (`wire.payload.QueryText`); what
# follows a text, as plain text; the answer to a `wire.generation.Generation`; a function of
# `wire.tensors`.
EMBED = "embed"
EMBED_PASSAGES = "embed-passages"
NEAREST = "nearest"
RERANK = "rerank"
COMPLETE = "complete"
GENERATE = "generate"
CALL = "call"
# Asked of an engine that has a part of a model's layers; no task has it, so it is not in the table.
STAGE = "stage"


class Unit(Enum):
    """What the work of an operation is counted in."""

    NAME = auto()
    PASSAGE = auto()
    TEXT = auto()
    QUESTION = auto()
    TOKEN = auto()
    CALL = auto()


class Comparison(Enum):
    """How a verifier compares what it recomputed with what was signed."""

    # Rows that the lottery draws are compared, each within the model's tolerance.
    ROWS = auto()
    # All hits are compared: the same passages in the same order, scores within the tolerance.
    HITS = auto()
    # The tokens are judged by how far they are from what the verifier would have drawn; their
    # texts and the ending have to be the same.
    REPLAY = auto()
    # The outputs are compared byte for byte.
    BYTES = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation: who does it, what its work is counted in, how its output is checked.

    `streams`: the output comes token by token, and another peer can go on with it. `comparison` is
    None for what no verifier can recompute. `engine` is what a model's engine is asked for; None
    where no model is run.
    """

    name: str
    role: Role
    unit: Unit
    streams: bool = False
    comparison: Comparison | None = None
    engine: str | None = None

    @property
    def by_rows(self) -> bool:
        """Whether a part of the rows can be recomputed by itself."""
        return self.comparison is Comparison.ROWS


def _data(name: str, unit: Unit) -> Operation:
    return Operation(name=name, role=Role.DATA, unit=unit)


def _infer(
    name: str, unit: Unit, comparison: Comparison, engine: str, *, streams: bool = False
) -> Operation:
    return Operation(
        name=name,
        role=Role.INFER,
        unit=unit,
        streams=streams,
        comparison=comparison,
        engine=engine,
    )


OPERATIONS: Mapping[str, Operation] = {
    it.name: it
    for it in (
        _data(FETCH, Unit.PASSAGE),
        _data(LIST, Unit.NAME),
        _infer(EMBED, Unit.TEXT, Comparison.ROWS, EMBED),
        _infer(EMBED_PASSAGES, Unit.PASSAGE, Comparison.ROWS, EMBED),
        _infer(NEAREST, Unit.QUESTION, Comparison.HITS, EMBED),
        _infer(RERANK, Unit.TEXT, Comparison.ROWS, RERANK),
        _infer(COMPLETE, Unit.TOKEN, Comparison.BYTES, COMPLETE, streams=True),
        _infer(GENERATE, Unit.TOKEN, Comparison.REPLAY, GENERATE, streams=True),
        _infer(CALL, Unit.CALL, Comparison.BYTES, CALL),
    )
}


def streams(name: str) -> bool:
    """Whether the output of the operation comes token by token; False for an unknown one."""
    return name in OPERATIONS and OPERATIONS[name].streams


def by_rows(name: str) -> bool:
    """Whether rows of the operation's output are checked by sample; False for an unknown one."""
    return name in OPERATIONS and OPERATIONS[name].by_rows
