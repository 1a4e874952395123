"""GridSample of ONNX: numbers between those of a picture, at places that a grid names. Worker only.

Every place is a sum of a few of the picture's numbers near it. What a picture is beyond its edge,
the padding says: nothing, its last number, or the picture mirrored there.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinygrad import Tensor, dtypes

from node.engines.formats.onnx_values import ELEMENTS_MAX
from node.engines.worker.onnx_resize import cubic
from wire.errors import ModelRefused

_MODES: Mapping[str, str] = {"bilinear": "linear", "bicubic": "cubic"}
_PADDINGS = ("zeros", "border", "reflection")
_CUBIC = -0.75
# So far beyond an edge everything is nothing, and every number fits an integer.
_BEYOND = 8


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of the picture: how long it is, and what lies beyond its first and last place."""

    size: int
    padding: str
    corners: bool

    @property
    def edges(self) -> tuple[float, float]:
        return (0.0, self.size - 1.0) if self.corners else (-0.5, self.size - 0.5)

    def place(self, share: Tensor) -> Tensor:
        """Where -1 to 1 lies in places of this axis."""
        if self.corners:
            return (share + 1) / 2 * (self.size - 1)
        return ((share + 1) * self.size - 1) / 2

    def within(self, place: Tensor) -> Tensor:
        """Places beyond the edges as the padding has them; with `zeros` they stay beyond."""
        low, high = self.edges
        if self.padding == "border":
            outside = (place < low) | (place > high)
            place = outside.where(place.clip(0, self.size - 1), place)
        elif self.padding == "reflection":
            wide = high - low
            if wide <= 0:
                return place * 0
            far = (place - low).abs() % (2 * wide)
            place = low + (far > wide).where(2 * wide - far, far)
        return place.clip(-_BEYOND, self.size + _BEYOND)

    def number(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """The whole place to read, and whether there is anything at it."""
        there = (at >= 0) & (at < self.size) if self.padding == "zeros" else at == at
        if self.padding == "reflection":
            at = self.within(at).round()
        return at.cast(dtypes.int32).clip(0, self.size - 1), there


def grid_sample(
    x: Tensor,
    grid: Tensor,
    mode: str = "linear",
    padding_mode: str = "zeros",
    align_corners: int = 0,
) -> Tensor:
    """[rows, channels, the grid's sizes] of `x` [rows, channels, sizes], at `grid`'s places.

    `grid` has the shape [rows, sizes, axes]; the axes are named from the last to the first.
    """
    mode = _MODES.get(mode, mode)
    sizes = [int(it) for it in x.shape[2:]]
    if mode not in ("linear", "nearest", "cubic") or padding_mode not in _PADDINGS:
        raise ModelRefused(f"GridSample by {mode[:40]!r}, {padding_mode[:40]!r} is not run here")
    if not 1 <= len(sizes) <= 3 or grid.shape[-1] != len(sizes) or grid.ndim != x.ndim:
        raise ModelRefused(f"GridSample of {list(x.shape)} at {list(grid.shape)} does not fit")
    if mode == "cubic" and len(sizes) != 2:
        raise ModelRefused(f"GridSample in cubes is run of pictures, not of {len(sizes)} axes")
    rows, channels = int(x.shape[0]), int(x.shape[1])
    found = [int(it) for it in grid.shape[1:-1]]
    if rows * channels * math.prod(found) > ELEMENTS_MAX:
        raise ModelRefused("GridSample gives too many numbers at once")
    axes = [_Axis(size, padding_mode, bool(align_corners)) for size in sizes]
    taps = [
        _taps(axis, axis.place(grid[..., -1 - at].float()).reshape(rows, -1), mode)
        for at, axis in enumerate(axes)
    ]
    flat, total = x.reshape(rows, channels, -1), None
    for chosen in itertools.product(*taps):
        part = _read(flat, sizes, chosen)
        total = part if total is None else total + part
    assert total is not None, "there are taps"
    return total.reshape(rows, channels, *found).cast(x.dtype)


def _taps(axis: _Axis, place: Tensor, mode: str) -> list[tuple[Tensor, Tensor]]:
    """The whole places to read along one axis, and how much each counts."""
    if mode == "nearest":
        at, there = axis.number(axis.within(place.round()))
        return [(at, there.float())]
    place = axis.within(place)
    base, found = place.floor(), []
    for tap in (0, 1) if mode == "linear" else (-1, 0, 1, 2):
        far = (place - base - tap).abs()
        weight = 1 - far if mode == "linear" else cubic(far, _CUBIC)
        at, there = axis.number(base + tap)
        found.append((at, there.where(weight, 0.0)))
    return found


def _read(flat: Tensor, sizes: Sequence[int], chosen: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """[rows, channels, places]: the numbers at one tap of each axis, by their weights."""
    index, weight = chosen[0]
    for size, (at, more) in zip(sizes[1:], chosen[1:], strict=True):
        index, weight = index * size + at, weight * more
    wide = (flat.shape[0], flat.shape[1], index.shape[1])
    read = flat.gather(2, index.unsqueeze(1).expand(wide))
    # Nothing times what is no number would be no number.
    weight = weight.unsqueeze(1)
    return (weight == 0).where(0.0, read.float() * weight)
