"""The file of an integer model: which layers it has, and every number in them. Pure.

A file is the canonical encoding of one `ExactModel`, so the same model has one content id. A layer
reads values that came before it, never its own or later ones, so there are no cycles. What each
operator computes, `node.engines.exact.reference` says in numpy; that nothing can overflow,
`node.engines.exact.overflow` proves before anything is run.

A value is, for each row of a call, an array of 8-bit or 32-bit integers. The parameters of a layer
that works element by element are spread over the flat row: parameter `i // block` is element `i`'s.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.annotations import Between, Name, Omitted, Parameters
from wire.errors import Malformed
from wire.schema import Record

FORMAT = "exact"
FILE = "model.exact"
VERSION = 1
MODEL_BYTES_MAX = 64 << 20
LAYERS_MAX = limits.EXACT_LAYERS_MAX
SOURCES_MAX = 2
RANK_MAX = 4
# The most elements that one value has in one row: a referee is sent whole rows of a layer's inputs.
ELEMENTS_MAX = 1 << 17
# Weights are scaled in blocks of so many terms, and so are the values between fully connected
# layers.
BLOCK = 32
# What softmax calls one.
SOFTMAX_BITS = 15

Size = Annotated[int, Between(1, ELEMENTS_MAX)]
Shape = Annotated[tuple[Size, ...], Between(0, RANK_MAX)]
Raw = Annotated[bytes, Omitted(b"")]
Shift = Annotated[int, Between(0, 30), Omitted(0)]
Bound = Annotated[int, Between(-(2**31), 2**31 - 1), Omitted(0)]
KINDS = ("int8", "int32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window(Record):
    """How a convolution or a pool moves over rows of (channels, height, width); (down, across)."""

    kernel: Annotated[tuple[Annotated[int, Between(1, 64)], ...], Between(2, 2)]
    strides: Annotated[tuple[Annotated[int, Between(1, 64)], ...], Between(2, 2)]
    # Above, left, below, right.
    pads: Annotated[tuple[Annotated[int, Between(0, 63)], ...], Between(4, 4)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactLayer(Record):
    """One layer: its operator, what it reads, the shape of a row of what it gives, its numbers.

    Integers in bytes are little-endian: `weights` of 8 bits as [terms, outputs], `multipliers`,
    `bias` and, for softmax and arg_max, `table` of 32; the table of `table` has 8. `sources` are
    numbers of earlier layers; for `input` the number of the model's input.
    """

    operator: Name
    sources: Annotated[tuple[Annotated[int, Between(0, LAYERS_MAX)], ...], Between(1, SOURCES_MAX)]
    shape: Shape
    kind: Annotated[str, Between(1, 8)]
    block: Annotated[int, Between(1, ELEMENTS_MAX), Omitted(ELEMENTS_MAX)] = ELEMENTS_MAX
    window: Annotated[tuple[Window, ...], Between(0, 1), Omitted(())] = ()
    weights: Raw = b""
    multipliers: Raw = b""
    bias: Raw = b""
    table: Raw = b""
    block_shift: Shift = 0
    shift: Shift = 0
    low: Bound = 0
    high: Bound = 0

    def check(self) -> None:
        """Malformed unless the kind is known and the bounds are in order and fit it."""
        if self.kind not in KINDS:
            raise Malformed(f"a layer gives int8 or int32, not {self.kind!r}")
        most = 127 if self.kind == "int8" else 2**31 - 1
        if not -most <= self.low <= self.high <= most:
            raise Malformed(f"{self.operator}: {self.low} to {self.high} are no {self.kind} bounds")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactInput(Record):
    """An input by its name: floats of 32 bits, of this shape in each row."""

    name: Name
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactOutput(Record):
    """An output by its name: a layer's integers / 2**shift as float32, or themselves as int64."""

    name: Name
    layer: Annotated[int, Between(0, LAYERS_MAX - 1)]
    kind: Annotated[str, Between(1, 8)]
    shift: Shift = 0

    def check(self) -> None:
        """Malformed unless the kind is one that a model gives."""
        if self.kind not in ("float32", "int64") or (self.kind == "int64" and self.shift):
            raise Malformed(f"{self.name}: an output is float32, or int64 without a shift")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactModel(Record):
    """A whole model. `accuracy` is what making it from floats cost, as it was measured then."""

    SIZE_BYTES_MAX: ClassVar[int] = MODEL_BYTES_MAX

    version: Annotated[int, Between(VERSION, VERSION)]
    inputs: Annotated[tuple[ExactInput, ...], Between(1, 8)]
    outputs: Annotated[tuple[ExactOutput, ...], Between(1, 8)]
    layers: Annotated[tuple[ExactLayer, ...], Between(2, LAYERS_MAX)]
    accuracy: Parameters

    def check(self) -> None:
        """Malformed unless each layer reads only what is there before it, and names differ."""
        for at, layer in enumerate(self.layers):
            most = len(self.inputs) if layer.operator == "input" else at
            if any(source >= most for source in layer.sources):
                raise Malformed(
                    f"layer {at} ({layer.operator}) reads what is not there before it:"
                    f" {', '.join(map(str, layer.sources))}"
                )
        if any(it.layer >= len(self.layers) for it in self.outputs):
            raise Malformed("an output is of a layer that the model has not")
        for names in ([it.name for it in self.inputs], [it.name for it in self.outputs]):
            if len(set(names)) != len(names):
                raise Malformed("two inputs, or two outputs, have one name")
