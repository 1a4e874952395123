"""What a float graph becomes while integer layers are made of it: values, some not layers yet.

Pure. What is linear waits for what follows it: a sum that only goes into a Relu is kept from 0 on,
and one that only goes into softmax or is an output is kept in 32 bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from node.engines.exact import emitting
from node.engines.exact.emitting import Target, narrow_target, wide_shift, wide_target
from node.engines.exact.model import BLOCK, LAYERS_MAX, ExactLayer, ExactOutput, Window
from node.engines.formats.onnx_protobuf import Array
from wire.errors import ModelRefused


@dataclass(frozen=True, slots=True)
class Waiting:
    """A linear map that is no layer yet: of one value with weights or factors, or a sum of two."""

    operator: str
    sources: "tuple[Traced, ...]"
    # [terms, outputs] of linear and conv; for affine one factor, or one for each element.
    weights: Array
    bias: Array
    window: Window | None = None


@dataclass(slots=True, eq=False)
class Traced:
    """A value of the graph: in floats for the measured inputs, and the layer that gives it.

    `scale` is what its 8-bit integers are multiplied with to be the floats: one number, or one for
    each element of a flat row. `labels`: the integers are an answer themselves.
    """

    floats: Array
    waiting: Waiting | None = None
    positive: bool = False
    layer: int | None = None
    scale: Array = field(default_factory=lambda: np.ones(1))
    wide: tuple[int, int] | None = None
    labels: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.floats.shape[1:])


_SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.17, 0.12, 0.08)


@dataclass(slots=True)
class LayerBuilder:
    """The layers made so far. `block` is how many terms share a scale."""

    block: int = BLOCK
    layers: list[ExactLayer] = field(default_factory=list)

    def add(self, layer: ExactLayer) -> int:
        """The number of a new layer; ModelRefused if there are too many."""
        if len(self.layers) >= LAYERS_MAX:
            raise ModelRefused(f"an exact model has at most {LAYERS_MAX} layers")
        self.layers.append(layer)
        return len(self.layers) - 1

    def narrow(self, traced: Traced, share: float = 1.0) -> int:
        """The layer that gives a value in 8 bits, made now if it is none yet.

        What is beyond `share` of the largest number measured becomes that.
        """
        if traced.layer is None:
            if traced.waiting is None:
                raise ModelRefused("whole numbers such as labels can only be outputs here")
            floats = traced.floats * share
            target = narrow_target(floats, self.block, positive=traced.positive)
            traced.layer = self.add(self._made(traced, target))
            traced.scale = target.scale
        return traced.layer

    def share(self, traced: Traced, function: Callable[[Array], Array]) -> float:
        """How much of a value's range is kept in steps before a function of it.

        Many functions are flat further out, and need finer steps in the middle.
        """

        def error(share: float) -> float:
            floats = traced.floats
            target = narrow_target(floats * share, self.block, positive=traced.positive)
            scale = target.scale.reshape(-1, *(1,) * (len(traced.shape) - 1))
            steps = np.clip(np.rint(floats / scale), target.low, target.high)
            return float(np.square(function(steps * scale) - function(floats)).mean())

        return min(_SHARES, key=error) if traced.layer is None else 1.0

    def widened(self, traced: Traced) -> tuple[int, int]:
        """The layer that gives a value in 32 bits, and by how many bits it is shifted."""
        if traced.wide is None:
            shift = wide_shift(traced.floats)
            if traced.waiting is None:
                self.narrow(traced)
                one, none = np.ones(1), np.zeros(1)
                traced.waiting = Waiting("affine", (traced,), one, none)
            target = wide_target(shift, positive=traced.positive)
            traced.wide = self.add(self._made(traced, target)), shift
        return traced.wide

    def _made(self, traced: Traced, target: Target) -> ExactLayer:
        waiting = traced.waiting
        assert waiting is not None, "only what waits is made"
        numbers = [self.narrow(it) for it in waiting.sources]
        scale = waiting.sources[0].scale
        match waiting.operator:
            case "affine":
                return emitting.affine_layer(
                    numbers[0], traced.shape, waiting.weights, waiting.bias, scale, target
                )
            case "add":
                scales = (scale, waiting.sources[1].scale)
                return emitting.add_layer((numbers[0], numbers[1]), traced.shape, scales, target)
        terms = len(waiting.weights)
        weights = waiting.weights * np.broadcast_to(scale, (terms,))[:, None]
        return emitting.weighted_layer(
            numbers[0],
            weights,
            waiting.bias,
            target,
            shape=traced.shape,
            block=self.block,
            window=waiting.window,
        )


def needed(
    layers: Sequence[ExactLayer], outputs: Sequence[ExactOutput]
) -> tuple[tuple[ExactLayer, ...], tuple[ExactOutput, ...]]:
    """Without the layers that no output needs; every input stays."""
    wanted = {it.layer for it in outputs}
    for at in range(len(layers) - 1, -1, -1):
        if layers[at].operator == "input":
            wanted.add(at)
        elif at in wanted:
            wanted.update(layers[at].sources)
    places = {at: number for number, at in enumerate(sorted(wanted))}
    kept = tuple(
        layers[at]
        if layers[at].operator == "input"
        else replace(layers[at], sources=tuple(places[it] for it in layers[at].sources))
        for at in sorted(wanted)
    )
    return kept, tuple(replace(it, layer=places[it.layer]) for it in outputs)
