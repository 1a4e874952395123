"""Which rows of an answer are wrong, of models that everybody computes to the same bits. Pure.

These are models in whole numbers, whose file has to be at hand, and hash models, which have none.
Of any other model a stranger cannot know what an honest peer would have measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from node.engines.compare import worst_differences
from node.engines.exact import model as exact
from node.engines.exact.file import read_bytes
from node.engines.exact.overflow import work_of
from node.engines.exact.states import first_wrong_row, inputs_of
from node.engines.hash_vector import hash_vector
from wire.errors import Malformed, ModelRefused
from wire.model import Manifest
from wire.operations import CALL, EMBED
from wire.payload import Texts, Vectors
from wire.receipt import Receipt
from wire.task import Task
from wire.tree import name_of

PPB = 1_000_000_000
HASH = "hash"
# Whoever judges does it between other things: so many multiplications at most, in all rows.
WORK_MAX = 1 << 25
HASH_NUMBERS_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Recomputed:
    """A leg, computed again: for each row how far the claim is off, and whether it is too far.

    `misstated`: the receipt or the output is wrong whatever the rows are.
    """

    worst_ppb: tuple[int, ...]
    tolerance_ppb: int
    misstated: str = ""

    def is_wrong(self, row: int) -> bool:
        """Whether a row is further off than honest peers may differ."""
        return self.worst_ppb[row] > self.tolerance_ppb

    @property
    def is_right(self) -> bool:
        """Whether all that the receipt says of its output is so, bit for bit."""
        return not self.misstated and not any(self.worst_ppb)


def recomputed(task: Task, leg: Receipt, content: Sequence[bytes]) -> Recomputed:
    """What a leg should have given, beside what its receipt names.

    `content` is the manifest, the input, the output, and the model's file if it has one. WireError
    unless they are what the receipt names, and of a model that can be computed here.
    """
    if len(content) not in (3, 4):
        raise Malformed("a manifest, an input and an output are needed, and the model's file")
    manifest, source, output = Manifest.from_bytes(content[0]), content[1], content[2]
    if leg.model != manifest.id or leg.input != name_of(source) or leg.output != name_of(output):
        raise Malformed("the model, the input or the output is not the one that was signed for")
    if leg.stage >= len(task.stages):
        raise Malformed("the task has no such leg")
    stage = task.stages[leg.stage]
    if (stage.operation, stage.model) != (leg.operation, leg.model) or stage.parameters:
        raise Malformed("the leg is not the one that was asked for, or has settings of its own")
    if leg.layers:
        raise Malformed("the leg was not computed by its signer alone")
    if manifest.format == HASH and leg.operation == EMBED and len(content) == 3:
        return _hashed(manifest, leg, source, output)
    if manifest.format == exact.FORMAT and leg.operation == CALL and len(content) == 4:
        return _called(manifest, leg, source, output, content[3])
    raise Malformed("nobody can compute this leg again to the same bits")


def _sizes(leg: Receipt, output: bytes, units: int) -> str:
    if leg.output_size_bytes != len(output):
        return f"it signed for {leg.output_size_bytes} bytes, and the answer has {len(output)}"
    return "" if leg.units == units else f"it signed for {leg.units} units, and there are {units}"


def _hashed(manifest: Manifest, leg: Receipt, source: bytes, output: bytes) -> Recomputed:
    texts = Texts.from_bytes(source).texts
    dimensions = manifest.parameters.get("dimensions")
    if type(dimensions) is not int or not 1 <= dimensions * len(texts) <= HASH_NUMBERS_MAX:
        raise Malformed("a hash model of another shape")
    tolerance_ppb = int(manifest.tolerance * PPB)
    nothing = Recomputed((PPB,) * len(texts), tolerance_ppb)
    try:
        claimed = Vectors.from_bytes(output)
    except Malformed as error:
        return Recomputed(nothing.worst_ppb, tolerance_ppb, f"the output cannot be read: {error}")
    if claimed.rows != len(texts) or claimed.dimensions != dimensions:
        shape = f"{claimed.rows} rows of {claimed.dimensions} numbers for {len(texts)} texts"
        return Recomputed(nothing.worst_ppb, tolerance_ppb, shape)
    data = b"".join(hash_vector(manifest.id, text, dimensions) for text in texts)
    right = Vectors(dimensions=dimensions, rows=len(texts), data=data)
    worst = worst_differences(claimed, right, range(len(texts)))
    return Recomputed(worst, tolerance_ppb, _sizes(leg, output, len(texts)))


def _called(
    manifest: Manifest, leg: Receipt, source: bytes, output: bytes, file: bytes
) -> Recomputed:
    if manifest.file(exact.FILE).content != name_of(file):
        raise Malformed("the model's file is not the one that the manifest names")
    try:
        model = read_bytes(file)
    except ModelRefused as error:
        raise Malformed(f"the model cannot be run: {error.message}") from error
    inputs = inputs_of(model, source)
    if work_of(model) * len(inputs[0]) > WORK_MAX:
        raise Malformed("the call is too much work to be judged here: show a dispute about it")
    with np.errstate(all="ignore"):
        wrong = first_wrong_row(model, inputs, output) is not None
    # A call is compared byte for byte, as one row.
    return Recomputed((PPB if wrong else 0,), 0, _sizes(leg, output, 1))
