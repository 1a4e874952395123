"""Resize and Upsample of ONNX, axis by axis. Runs in the worker only.

Along each axis a result is a sum of a few of the axis's numbers; where they lie and how they weigh
is computed from the axis's position alone. tinygrad's own gives other numbers in many modes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinygrad import Tensor, dtypes

from node.engines.formats.onnx_values import ELEMENTS_MAX
from wire.errors import ModelRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manner:
    """How places in the result are places in the input, as ONNX's attributes say."""

    coordinates: str
    mode: str
    nearest: str
    cubic: float
    exclude: bool
    outside: float


def resize(
    x: Tensor,
    roi: Sequence[float] | None = None,
    scales: Sequence[float] | None = None,
    sizes: Sequence[int] | None = None,
    **given: Any,
) -> Tensor:
    """As ONNX has it from version 11 on."""
    if given.get("antialias"):
        raise ModelRefused("Resize with antialias is not run here")
    axes = [it % x.ndim for it in given.get("axes") or range(x.ndim)]
    old = [int(x.shape[it]) for it in axes]
    if sizes:
        new, factors = _by_sizes(old, sizes, given.get("keep_aspect_ratio_policy", "stretch"))
    elif scales:
        factors = list(scales)
        new = [math.floor(size * by) for size, by in zip(old, factors, strict=True)]
    else:
        raise ModelRefused("Resize says neither a scale nor a size")
    kept = math.prod(int(it) for it in x.shape) // max(1, math.prod(old))
    most = kept * math.prod(max(pair) for pair in zip(old, new, strict=True))
    if most > ELEMENTS_MAX or min(new, default=0) < 0:
        raise ModelRefused(f"Resize gives {most} numbers at once")
    manner = _Manner(
        coordinates=given.get("coordinate_transformation_mode", "half_pixel"),
        mode=given.get("mode", "nearest"),
        nearest=given.get("nearest_mode", "round_prefer_floor"),
        cubic=given.get("cubic_coeff_a", -0.75),
        exclude=bool(given.get("exclude_outside", 0)),
        outside=given.get("extrapolation_value", 0.0),
    )
    kind, count = x.dtype, len(axes)
    crops = manner.coordinates == "tf_crop_and_resize"
    for at, axis in enumerate(axes):
        part = (roi[at], roi[at + count]) if crops and roi else (0.0, 1.0)
        if new[at] != old[at] or factors[at] != 1 or part != (0.0, 1.0):
            x = _along(x, axis, new[at], factors[at], part, manner)
    return x.cast(kind)


def resize_10(x: Tensor, scales: Sequence[float], mode: str = "nearest") -> Tensor:
    """As `Resize` of version 10 and `Upsample` have it."""
    return resize(
        x,
        None,
        scales,
        mode=mode,
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def upsample(x: Tensor, scales: Sequence[float], mode: str = "nearest") -> Tensor:
    return resize_10(x, scales, mode)


def _by_sizes(
    old: Sequence[int], sizes: Sequence[int], policy: str
) -> tuple[list[int], list[float]]:
    factors = [new / size for new, size in zip(sizes, old, strict=True)]
    if policy == "stretch":
        return [int(it) for it in sizes], factors
    factor = min(factors) if policy == "not_larger" else max(factors)
    return [math.floor(factor * size + 0.5) for size in old], [factor] * len(old)


def _places(old: int, new: int, factor: float, part: tuple[float, float], how: str) -> Tensor:
    """For each place of the result where it lies in the input, a fraction. Shape [new]."""
    at = Tensor.arange(new).cast(dtypes.float32)
    match how:
        case "half_pixel":
            return (at + 0.5) / factor - 0.5
        case "pytorch_half_pixel":
            return (at + 0.5) / factor - 0.5 if new > 1 else at * 0
        case "half_pixel_symmetric":
            wide = factor * old
            return old / 2 * (1 - new / wide) + (at + 0.5) / factor - 0.5
        case "align_corners" if abs(old * factor - new) > 1e-3:
            # The standard and the engines that people use differ in what they make of it.
            raise ModelRefused("Resize with align_corners is run to whole sizes alone")
        case "align_corners":
            return at * (old - 1) / (new - 1) if new > 1 else at * 0
        case "asymmetric":
            return at / factor
        case "tf_crop_and_resize":
            begin, end = part
            if new > 1:
                return begin * (old - 1) + at * ((end - begin) * (old - 1) / (new - 1))
            return at * 0 + 0.5 * (begin + end) * (old - 1)
    raise ModelRefused(f"Resize by {how[:40]!r} is not run here")


def _along(
    x: Tensor, axis: int, new: int, factor: float, part: tuple[float, float], manner: _Manner
) -> Tensor:
    old = int(x.shape[axis])
    place = _places(old, new, factor, part, manner.coordinates)
    if manner.mode == "nearest":
        if (rounding := _NEAREST.get(manner.nearest)) is None:
            raise ModelRefused(f"Resize to the nearest by {manner.nearest[:40]!r} is not run here")
        found = _taken(x, axis, rounding(place).clip(0, old - 1).cast(dtypes.int32))
    else:
        # [new, old]: what each number of the axis counts for each of the result.
        weights = _weights(place, old, manner)
        found = (x.float().transpose(axis, -1) @ weights.T).transpose(axis, -1)
    if manner.coordinates == "tf_crop_and_resize":
        shape = [new if at == axis else 1 for at in range(x.ndim)]
        inside = ((place >= 0) & (place <= old - 1)).reshape(shape)
        found = inside.where(found, manner.outside)
    return found


def _taken(x: Tensor, axis: int, at: Tensor) -> Tensor:
    return x[tuple(at if it == axis else slice(None) for it in range(x.ndim))]


def _weights(place: Tensor, old: int, manner: _Manner) -> Tensor:
    if manner.mode == "linear":
        taps: Sequence[int] = (0, 1)
        kernel: Callable[[Tensor], Tensor] = lambda far: (1 - far).relu()  # noqa: E731
    elif manner.mode == "cubic":
        taps, kernel = (-1, 0, 1, 2), lambda far: cubic(far, manner.cubic)
    else:
        raise ModelRefused(f"Resize of the mode {manner.mode[:40]!r} is not run here")
    base = place.floor()
    column = Tensor.arange(old).cast(dtypes.float32).reshape(1, -1)
    total = None
    for tap in taps:
        at = base + tap
        weight = kernel((place - at).abs())
        if manner.exclude:
            weight = ((at >= 0) & (at <= old - 1)).where(weight, 0.0)
        one = (at.clip(0, old - 1).reshape(-1, 1) == column).where(weight.reshape(-1, 1), 0.0)
        total = one if total is None else total + one
    assert total is not None, "there are taps"
    return total / total.sum(-1, keepdim=True) if manner.exclude else total


def cubic(far: Tensor, a: float) -> Tensor:
    """What a number counts that lies `far` from a place, up to two places on each side."""
    near = ((a + 2) * far - (a + 3)) * far * far + 1
    beyond = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    return (far <= 1).where(near, (far < 2).where(beyond, 0.0))


_NEAREST: Mapping[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda at: (at - 0.5).ceil(),
    "round_prefer_ceil": lambda at: (at + 0.5).floor(),
    "floor": lambda at: at.floor(),
    "ceil": lambda at: at.ceil(),
}
