"""Sums, products, shifts and rounding in whole numbers, as exact transformers are made of. Pure.

Arrays are of 64-bit integers, and no step leaves 63 bits: `node.engines.exact.text_file` refuses a
model for which that would not follow from its numbers. Long sums of products may be made in 64-bit
floats, which hold every whole number below 2**53: then each order of adding gives the same.
"""

from dataclasses import dataclass

import numpy as np

from node.engines.formats.onnx_protobuf import Array

# So many terms share a scale.
BLOCK = 32
# The largest number of a row is brought to so many bits before a row is cut into 8-bit numbers.
ROW_BITS = 18
# What 8-bit numbers are multiplied by then has at most so much.
SCALE_MAX = -(-(1 << ROW_BITS) // 127)
# What every number that is kept between two steps is cut off at.
MOST = 2**31 - 1
ROOT_STEPS = 6
# Squares are of numbers of so many bits.
SQUARE_BITS = 20

_POWERS = np.array([1 << bit for bit in range(63)], np.int64)


def bit_length(values: Array) -> Array:
    """How many bits each number has that is 0 or more: 0 has none."""
    return np.searchsorted(_POWERS, values, side="right").astype(np.int64)


def shifted(values: Array, shift: Array | int, most: int = MOST) -> Array:
    """Divided by 2**shift, a half rounded up, and cut off at `most`; a shift below 0 multiplies.

    By more than 62 bits nothing is left, and by more than 31 upwards all is cut off.
    """
    by = np.asarray(shift, np.int64)
    down = np.minimum(np.maximum(by, 0), 62)
    found = _cut((values + ((np.int64(1) << down) >> 1)) >> down, most)
    if by.min() >= 0:
        return found
    return _cut(found << np.minimum(np.maximum(-by, 0), 31), most)


def _cut(values: Array, most: int) -> Array:
    return np.asarray(np.minimum(np.maximum(values, -most), most))


def divided(values: Array, by: Array) -> Array:
    """Rounded to the nearest whole number, a half away from 0; `by` is above 0."""
    sizes = (2 * np.abs(values) + by) // (2 * by)
    return np.asarray(np.where(values < 0, -sizes, sizes))


def root(squares: Array) -> Array:
    """The square root of numbers from 2**60 to 2**62, by six steps that begin at 2**31."""
    found = np.full_like(squares, 1 << 31)
    for _ in range(ROOT_STEPS):
        found = (found + squares // found) >> 1
    return found


@dataclass(frozen=True, slots=True)
class Blocks:
    """Rows in 8-bit numbers: number i is `numbers[i] * scales[i // block] * 2**exponent`.

    `numbers` is [..., width], `scales` [..., blocks], `exponents` [..., 1].
    """

    numbers: Array
    scales: Array
    exponents: Array

    @property
    def products(self) -> Array:
        """Numbers times their scales, as 64-bit floats, which hold them exactly."""
        block = self.numbers.shape[-1] // self.scales.shape[-1]
        found = self.numbers * np.repeat(self.scales, block, axis=-1)
        return np.asarray(found.astype(np.float64))


def in_blocks(values: Array, block: int = BLOCK) -> Blocks:
    """Rows in 8-bit numbers, the largest of each row first brought to `ROW_BITS` bits."""
    exponents = bit_length(np.abs(values).max(axis=-1, keepdims=True)) - ROW_BITS
    numbers, scales = narrowed(shifted(values, exponents), block)
    return Blocks(numbers, scales, exponents)


def narrowed(values: Array, block: int) -> tuple[Array, Array]:
    """8-bit numbers, and what each block of them is multiplied by to be about the values again."""
    parts = values.reshape(*values.shape[:-1], -1, block)
    scales = np.maximum(1, (np.abs(parts).max(axis=-1) + 126) // 127)
    return divided(parts, scales[..., None]).reshape(values.shape), scales


@dataclass(frozen=True, slots=True)
class Norm:
    """Rows over the root of their mean square, times weights; see `of`.

    `weights` have `NORM_BITS` bits after the point, `epsilon` is in squares of the rows' unit.
    """

    weights: Array
    epsilon: int

    @property
    def width(self) -> int:
        return len(self.weights)

    @property
    def spread(self) -> tuple[int, int]:
        """The root of the width with 16 bits after the point, brought to 47 bits; by how many."""
        side = integer_root(self.width << 32)
        up = 47 - side.bit_length()
        return side << up, up

    def of(self, rows: Array) -> Array:
        """The normed rows, [rows, width], with 16 bits after the point."""
        down = np.maximum(0, bit_length(np.abs(rows).max(axis=-1, keepdims=True)) - SQUARE_BITS)
        small = shifted(rows, down)
        squares = (small * small).sum(axis=-1, keepdims=True)
        squares = np.maximum(1, squares + ((self.width * self.epsilon) >> (2 * down)))
        pairs = (62 - bit_length(squares)) >> 1
        side, up = self.spread
        factor = side // root(squares << (2 * pairs))
        return shifted(small * self.weights * factor, 16 + up - pairs)


def integer_root(value: int) -> int:
    """The largest whole number whose square is not above `value`."""
    found = 1 << ((value.bit_length() + 1) >> 1)
    while (better := (found + value // found) >> 1) < found:
        found = better
    return found


def sums(rows: Array, matrix: Array) -> Array:
    """[..., terms] times [outputs, terms], both whole numbers in 64-bit floats: exact below 2**53.

    The order in which a library adds is of no matter: no sum on the way is rounded.
    """
    return np.asarray(rows @ matrix.T).astype(np.int64)
