"""Exponentials and logarithms from sums, products and powers of two alone. Pure.

IEEE 754 says the bits of those, but not of a library's `exp` and `log`, which differ between
machines in the last bit. A token that is drawn by these is the same everywhere.
"""

import math
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]

# The logarithm of two in two parts: the first times a whole number of eleven bits is exact.
_TWO_HIGH = float.fromhex("0x1.62e42fefap-1")
_TWO_LOW = float.fromhex("0x1.cf79abc9e3b3ap-40")
_ROOT_HALF = float.fromhex("0x1.6a09e667f3bcdp-1")
# Below it nothing is left.
_LEAST = -700.0
_EXP_TERMS = tuple(1.0 / math.factorial(at) for at in range(15, -1, -1))
_LOG_TERMS = tuple(2.0 / (2 * at + 1) for at in range(11, -1, -1))


def exponentials(values: Any) -> Floats:
    """e to the power of numbers that are 0 or less; of less than -700 it is 0."""
    x: Floats = np.maximum(np.asarray(values, np.float64), _LEAST)
    twos = np.rint(x * (1.0 / (_TWO_HIGH + _TWO_LOW)))
    rest = (x - twos * _TWO_HIGH) - twos * _TWO_LOW
    found: Floats = np.ldexp(_series(rest, _EXP_TERMS), twos.astype(np.int32))
    return np.where(np.asarray(values) < _LEAST, 0.0, found)


def logarithms(values: Any) -> Floats:
    """The natural logarithms of numbers above 0."""
    part, twos = np.frexp(np.asarray(values, np.float64))
    small = part < _ROOT_HALF
    part, twos = np.where(small, part * 2.0, part), twos - small
    ratio = (part - 1.0) / (part + 1.0)
    found: Floats = twos * _TWO_HIGH + (
        twos * _TWO_LOW + ratio * _series(ratio * ratio, _LOG_TERMS)
    )
    return found


def _series(values: Floats, terms: tuple[float, ...]) -> Floats:
    """The sum of a series, by its terms from the highest power on."""
    found = np.full_like(values, terms[0])
    for term in terms[1:]:
        found = found * values + term
    return found
