"""How large everything is that an ONNX graph computes, worked out without computing it. Pure.

Shapes are worked out for given shapes of the inputs, in exact integers: 2^60 numbers are seen as
2^60, and refused before any library is asked for them. What small integers say of shapes (`Shape`,
`Gather`, `Concat` and so on) is computed along. Where a shape cannot be known from the file it is
None, and the worker looks at it when it is there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from node.engines.formats import onnx_layer_rules as layers
from node.engines.formats import onnx_shape_rules as rules
from node.engines.formats.onnx_graph import GraphNode, OnnxModel
from node.engines.formats.onnx_operators import ELEMENTWISE, LEARNED, STANDARD
from node.engines.formats.onnx_protobuf import Array
from node.engines.formats.onnx_shape_rules import Rule, Sized, known_kind
from node.engines.formats.onnx_values import ELEMENTS_MAX
from node.engines.formats.onnx_wire import CALL_BYTES_MAX, is_batch, row_bytes
from wire.errors import ModelRefused

_SAME = """
BatchNormalization CumSum EyeLike GroupNormalization Hardmax InstanceNormalization LRN
LayerNormalization LogSoftmax LpNormalization MeanVarianceNormalization RMSNormalization
RotaryEmbedding
ScatterElements ScatterND Softmax Trilu
"""
_IN_STEPS = frozenset(
    (
        *("BatchNormalization", "CumSum", "Einsum", "GroupNormalization", "Hardmax"),
        *("GridSample", "InstanceNormalization", "LRN", "LayerNormalization", "LogSoftmax"),
        *("MeanVarianceNormalization", "RMSNormalization", "ScatterElements", "ScatterND"),
        *("Softmax", "TopK"),
    )
)
_PRODUCTS = frozenset(("Conv", "Gemm", "MatMul"))
# Columns of a product are computed so many at a time; and so many times what it is given a
# convolution may take to pad it.
PRODUCT_COLUMNS = 8
CONV_PADDED_MAX = 2
_NOTHING = Sized((0,), "float32")
_REDUCE = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"
_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, rules.elementwise),
    **dict.fromkeys(_SAME.split(), rules.same),
    **{f"Reduce{name}": rules.reduce for name in _REDUCE.split()},
    "ArgMax": rules.arg,
    "ArgMin": rules.arg,
    "Attention": layers.attention,
    "AveragePool": layers.pool,
    "Concat": rules.concat,
    "Constant": rules.constant,
    "ConstantOfShape": rules.constant_of_shape,
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "DepthToSpace": layers.depth_to_space,
    "Dropout": rules.with_mask,
    "Einsum": layers.einsum,
    "Expand": rules.expand,
    "Flatten": rules.flatten,
    "Gather": rules.gather,
    "GatherElements": rules.like_places,
    "GatherND": rules.gather_nd,
    "Gemm": rules.gemm,
    "GlobalAveragePool": layers.global_pool,
    "GlobalMaxPool": layers.global_pool,
    "GridSample": layers.grid_sample,
    "MatMul": rules.matmul,
    "MaxPool": layers.pool,
    "OneHot": rules.one_hot,
    "Pad": rules.pad,
    "Range": rules.range_of,
    "Reshape": rules.reshape,
    "Shape": rules.shape_of,
    "Size": rules.size_of,
    "Slice": rules.slice_of,
    "SpaceToDepth": layers.space_to_depth,
    "Split": rules.split,
    "Squeeze": rules.squeeze,
    "Tile": rules.tile,
    "TopK": rules.top_k,
    "Transpose": rules.transpose,
    "Unsqueeze": rules.unsqueeze,
}
_LEARNED: Mapping[str, Rule] = dict.fromkeys(
    ("Binarizer", "Imputer", "Normalizer", "Scaler"), rules.same
)
RULES: Mapping[tuple[str, str], Rule] = {
    **{(STANDARD, name): rule for name, rule in _RULES.items()},
    **{(LEARNED, name): rule for name, rule in _LEARNED.items()},
}
Shape = tuple[int, ...]
# Rows that are computed at once, where a model is a function of rows: a graph for each.
BUCKETS = (1, 8, 64)
# What a run of more than one row, or of shapes that a caller chose, may have in memory at once.
RUN_BYTES_MAX = 1 << 30
# What a rule raises of what does not fit: the worker names it in words.
_MISFITS = (ArithmeticError, IndexError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Footprint:
    """`work_bytes`: the most that lies in memory at once of what is computed.

    Constants and inputs are not in it. `whole` is False where some shape could not be known.
    """

    work_bytes: int
    whole: bool
    outputs: tuple[Shape | None, ...]


def input_shapes(model: OnnxModel, rows: int = 1) -> tuple[Shape, ...]:
    """Shapes of the inputs, with `rows` for an open first dimension and one for all others."""
    found = []
    for value in model.inputs:
        sizes = [it if isinstance(it, int) else 1 for it in value.shape or ()]
        if sizes and value.shape and not isinstance(value.shape[0], int):
            sizes[0] = rows
        found.append(tuple(sizes))
    return tuple(found)


def footprint(
    model: OnnxModel, shapes: Sequence[Shape], numbers: Mapping[str, Array] | None = None
) -> Footprint:
    """What a run on inputs of these shapes computes; ModelRefused if one array is too large.

    `numbers` has the inputs, by name, whose numbers are known: shapes may be made of them.
    """
    found = {name: _constant(it) for name, it in model.graph.constants.items()}
    for value, shape in zip(model.inputs, shapes, strict=True):
        known = (numbers or {}).get(value.name)
        found[value.name] = Sized(shape, value.kind) if known is None else _constant(known)
    free = set(found) | {""}
    last = _last_uses(model)
    live, most, whole = _Live(), 0, True
    for at, node in enumerate(model.graph.nodes):
        results = _results(node, found)
        for name, result in zip(node.outputs, results, strict=False):
            found[name] = result
            whole = whole and result.shape is not None
            if result.elements > ELEMENTS_MAX:
                raise ModelRefused(f"{node.operator} gives {result.elements} numbers at once")
            live.add(name, result.size_bytes)
        given = [_NOTHING if it in model.graph.constants else found.get(it) for it in node.inputs]
        most = max(most, live.size_bytes + _meanwhile(node, given, results))
        for name in {*node.inputs, *node.outputs} - free:
            if last.get(name, -1) <= at:
                live.drop(name)
    outputs = tuple(found[it.name].shape if it.name in found else None for it in model.outputs)
    return Footprint(most, whole, outputs)


def fits(model: OnnxModel, shapes: Sequence[Shape]) -> bool:
    """Whether a run on inputs of these shapes is within the memory that a run may take."""
    try:
        return footprint(model, shapes).work_bytes <= RUN_BYTES_MAX
    except ModelRefused:
        return False


def bucket_rows(model: OnnxModel) -> list[int]:
    """The buckets that a model is tried with: one row always, more where that fits."""
    size_bytes = sum(map(row_bytes, model.inputs))
    return [
        rows
        for rows in BUCKETS
        if rows == 1
        or (rows * size_bytes <= CALL_BYTES_MAX and fits(model, input_shapes(model, rows)))
    ]


def memory_bytes(model: OnnxModel) -> int:
    """What a model takes besides its file: constants as they are computed with, and all graphs."""
    constants = sum(it.nbytes for it in model.graph.constants.values())
    rows = bucket_rows(model) if is_batch(model.inputs) else [1]
    return constants + sum(footprint(model, input_shapes(model, it)).work_bytes for it in rows)


@dataclass(slots=True)
class _Live:
    """What lies in memory now."""

    size_bytes: int = 0
    _sizes: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, size_bytes: int) -> None:
        self._sizes[name] = size_bytes
        self.size_bytes += size_bytes

    def drop(self, name: str) -> None:
        self.size_bytes -= self._sizes.pop(name, 0)


def _meanwhile(node: GraphNode, given: Sequence[Sized | None], results: Sequence[Sized]) -> int:
    """What a node keeps of its own while it works: another result, where it has several steps.

    Products lay out what they are given as they read it, and write columns in blocks of eight.
    """
    if node.operator in _PRODUCTS and results and results[0].shape:
        copies = sum(it.size_bytes for it in given[:2] if it is not None)
        columns = results[0].shape[1 if node.operator == "Conv" else -1]
        blocks = -(-max(1, columns) // PRODUCT_COLUMNS) * PRODUCT_COLUMNS
        return copies * CONV_PADDED_MAX + results[0].size_bytes * blocks // max(1, columns)
    if node.operator == "Attention" and len(results) > 3:
        # Scores, and what each of them counts.
        return 2 * results[3].size_bytes
    return results[0].size_bytes if node.operator in _IN_STEPS and results else 0


def _last_uses(model: OnnxModel) -> Mapping[str, int]:
    """By value: the last node that reads it. Outputs are kept to the end."""
    found = {name: at for at, node in enumerate(model.graph.nodes) for name in node.inputs}
    return found | {it.name: len(model.graph.nodes) for it in model.outputs}


def _constant(array: Array) -> Sized:
    return Sized(tuple(array.shape), array.dtype.name, _plain(array))


def _plain(array: Array) -> Array | None:
    # In exact integers: nothing overflows.
    few = array.size <= Sized.PLAIN_MAX and array.dtype.kind in "iu"
    return array.astype(object) if few else None


def _results(node: GraphNode, found: Mapping[str, Sized]) -> list[Sized]:
    """What a node gives, one for each of its outputs."""
    given = [found.get(name, Sized(None, "float32")) for name in node.inputs]
    unknown = [Sized(None, known_kind(node, given)) for _ in node.outputs]
    rule = RULES.get((node.domain, node.operator))
    if rule is None:
        return unknown
    value = node.attributes.get("value")
    if node.operator == "Constant" and isinstance(value, np.ndarray):
        return [_constant(value)]
    try:
        results = list(rule(node, given))
    except _MISFITS:
        return unknown
    if any(it.shape is not None and min(it.shape, default=0) < 0 for it in results):
        return unknown
    return [*results, *unknown[len(results) :]]
