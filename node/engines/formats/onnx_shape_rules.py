"""For each ONNX operator the shapes of what it gives, by the shapes of what it gets. Pure.

A rule raises whatever it likes of what does not fit: its node's shapes then count as not known.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from node.engines.formats.onnx_graph import GraphNode
from node.engines.formats.onnx_protobuf import Array
from node.engines.formats.onnx_values import KINDS

_UNIT_BYTES: Mapping[str, int] = {"float64": 8, "int64": 8, "uint64": 8}
_TRUTH = frozenset(
    (
        *("And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual"),
        *("Not", "Or", "Xor"),
    )
)


@dataclass(frozen=True, slots=True)
class Sized:
    """A value: its shape (None: not known), its kind, and what it is where that is few integers.

    `plain` has the dtype `object`: its integers are exact.
    """

    PLAIN_MAX: ClassVar[int] = 1024

    shape: tuple[int, ...] | None
    kind: str
    plain: Array | None = None

    @property
    def elements(self) -> int:
        return 0 if self.shape is None else math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.elements * _UNIT_BYTES.get(self.kind, 4)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape, of what must have one."""
        if self.shape is None:
            raise ValueError("a shape that is not known")
        return self.shape

    def numbers(self) -> list[int]:
        """The integers it is, of what must be known."""
        if self.plain is None:
            raise ValueError("numbers that are not known")
        return [int(it) for it in self.plain.reshape(-1)]


Given = Sequence[Sized]
Rule = Callable[[GraphNode, Given], Sequence[Sized]]


def known_kind(node: GraphNode, given: Given) -> str:
    """The kind of numbers a node gives, as far as their size matters."""
    if node.operator in _TRUTH:
        return "bool"
    if node.operator in ("Shape", "Size", "ArgMax", "ArgMin"):
        return "int64"
    to = node.attributes.get("to", node.attributes.get("dtype"))
    if isinstance(to, int):
        return KINDS.get(to, "float32")
    if node.operator == "Where":
        return given[1].kind
    return given[0].kind if given else "float32"


def same(node: GraphNode, given: Given) -> Sequence[Sized]:
    return [Sized(given[0].shape, known_kind(node, given))]


def with_mask(_: GraphNode, given: Given) -> Sequence[Sized]:
    return [Sized(given[0].shape, given[0].kind), Sized(given[0].shape, "bool")]


def _quotient(left: int, right: int) -> int:
    if not right:
        return 0
    whole = abs(left) // abs(right)
    return whole if (left < 0) == (right < 0) else -whole


def _remainder(left: int, right: int) -> int:
    return left % right if right else 0


_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Max": np.maximum,
    "Min": np.minimum,
    "Div": np.vectorize(_quotient, otypes=[object]),
    "Mod": np.vectorize(_remainder, otypes=[object]),
}


def elementwise(node: GraphNode, given: Given) -> Sequence[Sized]:
    # The other one of these only says of which kind the result is.
    given = given[:1] if node.operator == "CastLike" else given
    shape = broadcast(*(it.sizes for it in given if it.shape is not None))
    if any(it.shape is None for it in given):
        return [Sized(None, known_kind(node, given))]
    plain = None
    operate = _ARITHMETIC.get(node.operator)
    if node.operator in ("Cast", "CastLike", "Identity"):
        plain = given[0].plain
    elif operate is not None and len(given) == 2 and all(it.plain is not None for it in given):
        plain = np.asarray(operate(given[0].plain, given[1].plain), object)
    return [Sized(tuple(shape), known_kind(node, given), _few(plain))]


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape of what is computed of arrays of these shapes, in exact integers."""
    rank = max(map(len, shapes), default=0)
    found = []
    for sizes in zip(*[(*[1] * (rank - len(it)), *it) for it in shapes], strict=True):
        wide = {it for it in sizes if it != 1}
        if len(wide) > 1:
            raise ValueError(f"sizes of {wide} do not fit each other")
        found.append(wide.pop() if wide else 1)
    return tuple(found)


def _few(plain: Any) -> Array | None:
    return plain if isinstance(plain, np.ndarray) and plain.size <= Sized.PLAIN_MAX else None


def _axes(node: GraphNode, given: Given, rank: int, at: int = 1) -> list[int] | None:
    """The axes a node names, by an attribute or by its input number `at`; None if it names none."""
    axes = node.attributes.get("axes")
    if axes is None and len(given) > at and node.inputs[at]:
        axes = tuple(given[at].numbers())
    if not isinstance(axes, tuple):
        return None
    return [int(it) % rank for it in axes]


def number_of(node: GraphNode, name: str, default: int) -> int:
    found = node.attributes.get(name, default)
    if not isinstance(found, int):
        raise TypeError(name)
    return found


def numbers_of(node: GraphNode, name: str, default: Sequence[int]) -> list[int]:
    found = node.attributes.get(name, tuple(default))
    if not isinstance(found, tuple):
        raise TypeError(name)
    return [int(it) for it in found]


def reduce(node: GraphNode, given: Given) -> Sequence[Sized]:
    shape = given[0].sizes
    axes = _axes(node, given, len(shape))
    if not axes:
        axes = [] if number_of(node, "noop_with_empty_axes", 0) else list(range(len(shape)))
    plain = None
    if node.operator == "ReduceProd" and given[0].plain is not None and len(axes) == len(shape):
        plain = np.array(math.prod(given[0].numbers()), object).reshape((1,) * len(shape))
        plain = plain if number_of(node, "keepdims", 1) else plain.reshape(())
    return [Sized(_without(node, shape, axes), given[0].kind, plain)]


def _without(node: GraphNode, shape: tuple[int, ...], axes: Sequence[int]) -> tuple[int, ...]:
    keep = number_of(node, "keepdims", 1)
    return tuple(1 if at in axes else it for at, it in enumerate(shape) if keep or at not in axes)


def arg(node: GraphNode, given: Given) -> Sequence[Sized]:
    shape = given[0].sizes
    return [Sized(_without(node, shape, [number_of(node, "axis", 0) % len(shape)]), "int64")]


def shape_of(node: GraphNode, given: Given) -> Sequence[Sized]:
    sizes = given[0].sizes
    end = node.attributes.get("end")
    part = sizes[number_of(node, "start", 0) : end if isinstance(end, int) else None]
    return [Sized((len(part),), "int64", np.array(part, object))]


def size_of(_: GraphNode, given: Given) -> Sequence[Sized]:
    return [Sized((), "int64", np.array(math.prod(given[0].sizes), object))]


def constant(node: GraphNode, _: Given) -> Sequence[Sized]:
    for name in ("value_int", "value_ints", "value_float", "value_floats"):
        value = node.attributes.get(name)
        if isinstance(value, int | float | tuple):
            whole = name.startswith("value_int")
            array = np.asarray(value, object)
            return [Sized(array.shape, "int64" if whole else "float32", array if whole else None)]
    raise KeyError("value")


def constant_of_shape(node: GraphNode, given: Given) -> Sequence[Sized]:
    value = node.attributes.get("value")
    array = value if isinstance(value, np.ndarray) else np.zeros(1, np.float32)
    shape = tuple(given[0].numbers())
    plain = None
    if array.dtype.kind in "iu" and math.prod(shape) <= Sized.PLAIN_MAX:
        plain = np.full(shape, int(array.reshape(-1)[0]), object)
    return [Sized(shape, array.dtype.name, plain)]


def expand(_: GraphNode, given: Given) -> Sequence[Sized]:
    shape = broadcast(given[0].sizes, given[1].numbers())
    return [Sized(tuple(shape), given[0].kind)]


def range_of(_: GraphNode, given: Given) -> Sequence[Sized]:
    begin, end, step = (it.numbers()[0] for it in given)
    count = max(0, -((begin - end) // step))
    plain = None
    if count <= Sized.PLAIN_MAX:
        plain = np.array([begin + step * at for at in range(count)], object)
    return [Sized((count,), given[0].kind, plain)]


def tile(_: GraphNode, given: Given) -> Sequence[Sized]:
    pairs = zip(given[0].sizes, given[1].numbers(), strict=True)
    return [Sized(tuple(size * times for size, times in pairs), given[0].kind)]


def concat(node: GraphNode, given: Given) -> Sequence[Sized]:
    axis = number_of(node, "axis", 0) % len(given[0].sizes)
    shape = list(given[0].sizes)
    shape[axis] = sum(it.sizes[axis] for it in given)
    plain = None
    if all(it.plain is not None for it in given) and math.prod(shape) <= Sized.PLAIN_MAX:
        plain = np.concatenate([it.plain for it in given if it.plain is not None], axis)
    return [Sized(tuple(shape), given[0].kind, plain)]


def pad(node: GraphNode, given: Given) -> Sequence[Sized]:
    shape = list(given[0].sizes)
    pads = given[1].numbers() if len(given) > 1 else numbers_of(node, "pads", ())
    axes = _axes(node, given, len(shape), 3) if len(given) > 3 else None
    axes = list(range(len(shape))) if axes is None else axes
    for number, axis in enumerate(axes):
        shape[axis] += pads[number] + pads[number + len(axes)]
    return [Sized(tuple(shape), given[0].kind)]


def reshape(node: GraphNode, given: Given) -> Sequence[Sized]:
    whole, wanted = given[0].sizes, given[1].numbers()
    if not number_of(node, "allowzero", 0):
        wanted = [whole[at] if it == 0 else it for at, it in enumerate(wanted)]
    if -1 in wanted:
        rest = math.prod(it for it in wanted if it != -1)
        wanted[wanted.index(-1)] = math.prod(whole) // rest
    plain = given[0].plain
    return [Sized(tuple(wanted), given[0].kind, None if plain is None else plain.reshape(wanted))]


def flatten(node: GraphNode, given: Given) -> Sequence[Sized]:
    shape, axis = given[0].sizes, number_of(node, "axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return [Sized((math.prod(shape[:axis]), math.prod(shape[axis:])), given[0].kind)]


def squeeze(node: GraphNode, given: Given) -> Sequence[Sized]:
    shape = given[0].sizes
    axes = _axes(node, given, len(shape))
    gone = [at for at, it in enumerate(shape) if it == 1] if axes is None else axes
    left = tuple(it for at, it in enumerate(shape) if at not in gone)
    plain = given[0].plain
    return [Sized(left, given[0].kind, None if plain is None else plain.reshape(left))]


def unsqueeze(node: GraphNode, given: Given) -> Sequence[Sized]:
    shape = list(given[0].sizes)
    named = node.attributes.get("axes")
    count = len(named) if isinstance(named, tuple) else len(given[1].numbers())
    for axis in sorted(_axes(node, given, len(shape) + count) or ()):
        shape.insert(axis, 1)
    plain = given[0].plain
    return [Sized(tuple(shape), given[0].kind, None if plain is None else plain.reshape(shape))]


def transpose(node: GraphNode, given: Given) -> Sequence[Sized]:
    shape = given[0].sizes
    order = numbers_of(node, "perm", range(len(shape))[::-1])
    return [Sized(tuple(shape[it] for it in order), given[0].kind)]


def slice_of(node: GraphNode, given: Given) -> Sequence[Sized]:
    shape = given[0].sizes
    if len(given) > 1:
        parts = [it.numbers() if node.inputs[at + 1] else [] for at, it in enumerate(given[1:])]
    else:
        parts = [numbers_of(node, it, ()) for it in ("starts", "ends", "axes")]
    starts, ends, axes, steps = [*parts, [], []][:4]
    cuts = [slice(None)] * len(shape)
    for number, axis in enumerate(axes or range(len(starts))):
        cuts[axis] = slice(starts[number], ends[number], steps[number] if steps else 1)
    sizes = tuple(len(range(size)[cut]) for size, cut in zip(shape, cuts, strict=True))
    plain = given[0].plain
    return [Sized(sizes, given[0].kind, None if plain is None else plain[tuple(cuts)])]


def split(node: GraphNode, given: Given) -> Sequence[Sized]:
    shape, count = given[0].sizes, len(node.outputs)
    axis = number_of(node, "axis", 0) % len(shape)
    if len(given) > 1 and node.inputs[1]:
        sizes = given[1].numbers()
    else:
        each = -(-shape[axis] // count)
        equal = [min(each, shape[axis] - at * each) for at in range(count)]
        sizes = numbers_of(node, "split", equal)
    return [Sized((*shape[:axis], it, *shape[axis + 1 :]), given[0].kind) for it in sizes]


def gather(node: GraphNode, given: Given) -> Sequence[Sized]:
    shape, places = given[0].sizes, given[1].sizes
    axis = number_of(node, "axis", 0) % len(shape)
    plain = None
    if given[0].plain is not None and given[1].plain is not None:
        plain = np.take(given[0].plain, given[1].plain.astype(np.int64), axis)
        plain = np.asarray(plain, object)
    return [Sized((*shape[:axis], *places, *shape[axis + 1 :]), given[0].kind, _few(plain))]


def gather_nd(node: GraphNode, given: Given) -> Sequence[Sized]:
    shape, places = given[0].sizes, given[1].sizes
    batch = number_of(node, "batch_dims", 0)
    return [Sized((*places[:-1], *shape[batch + places[-1] :]), given[0].kind)]


def like_places(_: GraphNode, given: Given) -> Sequence[Sized]:
    return [Sized(given[1].shape, given[0].kind)]


def one_hot(node: GraphNode, given: Given) -> Sequence[Sized]:
    shape, depth = given[0].sizes, given[1].numbers()[0]
    axis = number_of(node, "axis", -1)
    axis = axis + len(shape) + 1 if axis < 0 else axis
    return [Sized((*shape[:axis], depth, *shape[axis:]), given[2].kind)]


def top_k(node: GraphNode, given: Given) -> Sequence[Sized]:
    shape = list(given[0].sizes)
    shape[number_of(node, "axis", -1)] = given[1].numbers()[0]
    return [Sized(tuple(shape), given[0].kind), Sized(tuple(shape), "int64")]


def matmul(_: GraphNode, given: Given) -> Sequence[Sized]:
    left, right = given[0].sizes, given[1].sizes
    one = left if len(left) > 1 else (1, *left)
    other = right if len(right) > 1 else (*right, 1)
    batch = broadcast(one[:-2], other[:-2])
    sizes = (*batch, *one[-2:-1][: len(left) > 1], *other[-1:][: len(right) > 1])
    return [Sized(tuple(sizes), given[0].kind)]


def gemm(node: GraphNode, given: Given) -> Sequence[Sized]:
    left, right = given[0].sizes, given[1].sizes
    rows = left[1] if number_of(node, "transA", 0) else left[0]
    columns = right[0] if number_of(node, "transB", 0) else right[1]
    return [Sized((rows, columns), given[0].kind)]
