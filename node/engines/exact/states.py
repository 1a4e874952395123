"""What each layer of an integer model gives for one row, and the Merkle tree over that. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from node.engines.exact.model import ExactModel
from node.engines.exact.reference import outputs_of, run, run_layer, run_layers
from node.engines.formats.onnx_protobuf import Array
from wire import limits, merkle
from wire.dispute import state_leaf
from wire.errors import Malformed
from wire.tensors import Tensor, Tensors


@dataclass(frozen=True, slots=True)
class RowStates:
    """The states of one row, in the order of the layers, and every level of their tree."""

    states: tuple[bytes, ...]
    levels: merkle.Levels

    @classmethod
    def of(cls, states: Sequence[bytes]) -> "RowStates":
        """The tree over these states."""
        leaves = [state_leaf(layer, state) for layer, state in enumerate(states)]
        return cls(tuple(states), merkle.levels_of(leaves))

    @property
    def root(self) -> bytes:
        return self.levels[-1][0]

    def path(self, layer: int) -> bytes:
        """The path from a layer's leaf to the root."""
        return merkle.path_of(self.levels, layer)

    def nodes_below(self, level: int, index: int) -> tuple[bytes, bytes]:
        """The two nodes below one; Malformed where there are not two."""
        below = self.levels[level - 1] if 1 <= level < len(self.levels) else []
        if 2 * index + 1 >= len(below):
            raise Malformed(f"node {index} of level {level} has no two nodes below it")
        return below[2 * index], below[2 * index + 1]


def inputs_of(model: ExactModel, data: bytes) -> list[Array]:
    """The inputs of a call in the model's order; Malformed unless they are what it reads."""
    tensors = {it.name: it for it in Tensors.from_bytes(data).tensors}
    found = []
    for given in model.inputs:
        tensor = tensors.pop(given.name, None)
        if tensor is None or tensor.kind != "float32" or tensor.shape[1:] != given.shape:
            raise Malformed(f"the model reads {given.name} as rows of {list(given.shape)}")
        found.append(_array(tensor))
    rows = {len(it) for it in found}
    if tensors or len(rows) != 1 or not 1 <= min(rows) <= limits.CALL_ROWS_MAX:
        raise Malformed("a call has the model's inputs, each with the same number of rows")
    return found


def output_row(model: ExactModel, layer: int, data: bytes, row: int, rows: int) -> bytes:
    """What a call's answer says of the outputs of one layer for one row, name by name.

    Malformed unless the answer is one that the model could give to so many rows.
    """
    tensors = Tensors.from_bytes(data).tensors
    if [(it.name, it.kind) for it in tensors] != [(it.name, it.kind) for it in model.outputs]:
        raise Malformed("the answer is not made of the model's outputs")
    found = b""
    for tensor, output in zip(tensors, model.outputs, strict=True):
        if tensor.shape != (rows, *model.layers[output.layer].shape):
            raise Malformed(f"the answer's {output.name} has another shape than the model gives")
        if output.layer == layer:
            found += _array(tensor)[row].tobytes()
    return found


def answered_by(model: ExactModel, layer: int, state: bytes) -> bytes:
    """What a layer's state makes of the outputs that are of it, as `output_row` reads it."""
    shape = model.layers[layer].shape
    own = [it for it in model.outputs if it.layer == layer]
    values = _numbers(model, layer, state).reshape(1, *shape)
    nothing: Array = np.zeros(0, np.int32)
    states = [values if at == layer else nothing for at in range(len(model.layers))]
    found = outputs_of(model, states)
    pairs = zip(model.outputs, found, strict=True)
    return b"".join(array[0].tobytes() for output, array in pairs if output in own)


def states_of(model: ExactModel, inputs: Sequence[Array], row: int) -> list[bytes]:
    """What each layer gives for one row of a call."""
    alone = [it[row : row + 1] for it in inputs]
    return [it[0].tobytes() for it in run_layers(model, alone)]


def run_one_layer(
    model: ExactModel, layer: int, inputs: Sequence[Array], row: int, sources: Sequence[bytes]
) -> bytes:
    """What one layer gives for one row, from the call's inputs or from the states that it reads.

    Malformed unless there is a state of the right size for each.
    """
    made = model.layers[layer]
    if made.operator == "input":
        given = [inputs[it][row : row + 1] for it in made.sources]
    else:
        pairs = zip(made.sources, sources, strict=True)
        given = [
            _numbers(model, at, state).reshape(1, *model.layers[at].shape) for at, state in pairs
        ]
    found: bytes = run_layer(made, given)[0].tobytes()
    return found


def first_wrong_row(
    model: ExactModel,
    inputs: Sequence[Array],
    answer: bytes,
    before_pass: Callable[[], None] = lambda: None,
) -> int | None:
    """The first row in which an answer is not what the model gives; None if it is all right.

    `before_pass` as in `reference.run`.
    """
    try:
        claimed = [_array(it) for it in Tensors.from_bytes(answer).tensors]
        for output in model.outputs:
            output_row(model, output.layer, answer, 0, len(inputs[0]))
    except Malformed:
        return 0
    wrong = np.zeros(len(inputs[0]), bool)
    for ours, theirs in zip(run(model, inputs, before_pass), claimed, strict=True):
        if ours.shape != theirs.shape:
            return 0
        size = ours[0].nbytes
        rows = [np.frombuffer(it.tobytes(), np.uint8).reshape(-1, size) for it in (ours, theirs)]
        wrong |= (rows[0] != rows[1]).any(axis=1)
    return int(np.argmax(wrong)) if wrong.any() else None


def _array(tensor: Tensor) -> Array:
    return np.frombuffer(tensor.data, tensor.kind).reshape(tensor.shape)


def _numbers(model: ExactModel, layer: int, state: bytes) -> Array:
    """The integers of a state; Malformed unless they are as many as the layer gives, in bounds.

    The proof that no sum overflows holds for values within their layer's bounds.
    """
    made = model.layers[layer]
    kind = np.dtype("<i1" if made.kind == "int8" else "<i4")
    size = int(np.prod(made.shape, dtype=np.int64))
    if len(state) != size * kind.itemsize:
        raise Malformed(f"layer {layer} gives {size * kind.itemsize} bytes, not {len(state)}")
    values: Array = np.frombuffer(state, kind)
    if values.size and not made.low <= int(values.min()) <= int(values.max()) <= made.high:
        raise Malformed(f"layer {layer} gives numbers from {made.low} to {made.high}")
    return values
