"""The frames of a job's journal as rows of its output: columns, cells, what the receipts keep."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from node.rows.comparing import answer_columns, outputs_in
from node.rows.kept_cells import KeptCell, kinds_of
from node.rows.plan import RowPlan, value_of
from node.rows.tensor_rows import arrays_of
from node.rows.writing import OutCell, OutColumn
from wire.errors import Malformed
from wire.operations import CALL, EMBED

Frame = dict[str, Any]


@dataclass(slots=True)
class RowResults:
    """The results of one job; `frames` reads its journal from the beginning, its head first."""

    plan: RowPlan
    frames: Callable[[], Iterable[Frame]]
    # The outputs of a function, in the order of their columns, and how many dimensions each has.
    _ranks: dict[str, int] = field(default_factory=dict)

    def columns(self) -> list[OutColumn]:
        """The columns of the results: what is copied, and then the answers."""
        keep, plan = self.plan.keep, self.plan
        kinds = kinds_of((it for one in self._bundles() for it in _kept(one)), len(keep))
        columns = [OutColumn(*it) for it in zip(keep, kinds, strict=True)]
        if plan.operation != CALL:
            return [*columns, OutColumn(plan.answer, plan.answer)]
        found = next(
            (it for one in self._bundles() for it in outputs_in(one, plan.operation)), None
        )
        arrays = {} if found is None else arrays_of(found)
        self._ranks = ranks_of(arrays)
        shown = answer_columns(CALL, keep, found)
        columns += [OutColumn(shown[it], of.dtype.name, of.ndim) for it, of in arrays.items()]
        return columns

    def rows(self, frame: Frame) -> Iterator[tuple[int, list[OutCell], str]]:
        """Each row of a bundle: its number, its cells, and why it was not asked."""
        bad = dict(map(tuple, frame["bad"]))
        outputs, kept = iter(outputs_in(frame, self.plan.operation)), iter(_kept(frame))
        width = len(self._ranks) if self.plan.operation == CALL else 1
        for number in range(frame["first"], frame["last"] + 1):
            cells: list[OutCell] = list(next(kept, ()))
            if number in bad:
                yield number, [*cells, *[None] * width], bad[number]
            else:
                yield number, [*cells, *self._answer(next(outputs))], ""

    def without_outputs(self, frame: Frame) -> Frame:
        """What the file of receipts keeps of a bundle.

        A vector in the table is the output that was signed; of another answer the table has only
        what can be read, and the output is kept, so that the two can be compared.
        """
        left = {"kept", "outputs", "charged"}
        if self.plan.operation == EMBED:
            left.add("answered")
        return {name: it for name, it in frame.items() if name not in left}

    def _answer(self, output: bytes) -> list[OutCell]:
        if self.plan.operation != CALL:
            return [value_of(self.plan.operation, output)]
        return list(alike(arrays_of(output), self._ranks))

    def _bundles(self) -> Iterator[Frame]:
        frames = iter(self.frames())
        next(frames)
        return frames


def _kept(frame: Frame) -> list[list[KeptCell]]:
    return json.loads(frame["kept"]) if "kept" in frame else []


def ranks_of(arrays: dict[str, np.ndarray]) -> dict[str, int]:
    """The outputs of a function, and how many dimensions each has."""
    return {name: values.ndim for name, values in arrays.items()}


def alike(arrays: dict[str, np.ndarray], ranks: dict[str, int]) -> list[np.ndarray]:
    """The outputs of one row as those before it; Malformed if they are others."""
    if list(arrays) != list(ranks):
        raise Malformed(
            f"the model gave {', '.join(arrays)[:200]} for some rows, and before that"
            f" {', '.join(ranks)[:200]}"
        )
    return [_of_rank(name, it, ranks[name]) for name, it in arrays.items()]


def _of_rank(name: str, values: np.ndarray, rank: int) -> np.ndarray:
    """Numbers with as many dimensions as those of the first row have."""
    if values.ndim == rank:
        return values
    if {values.ndim, rank} == {0, 1} and values.size == 1:
        return values.reshape((1,) * rank)
    raise Malformed(f"the model gave {name} with {rank} dimensions, and now with {values.ndim}")
