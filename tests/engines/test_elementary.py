"""Exponentials and logarithms that are the same bits everywhere, and right."""

import hashlib
import math

import numpy as np
import pytest

from node.engines.elementary import exponentials, logarithms


def test_they_are_right_but_for_the_last_bits() -> None:
    chance = np.random.default_rng(1)
    below = np.concatenate([-chance.uniform(0, 700, 2000), -(10.0 ** chance.uniform(-9, 2, 2000))])
    assert np.abs(exponentials(below) / np.exp(below) - 1).max() < 4e-16
    above = 10.0 ** chance.uniform(-300, 300, 4000)
    near = 1 + chance.uniform(-0.4, 0.4, 2000)
    for values in (above, near, np.array([0.5 / 2**32, 1 - 2**-33])):
        wanted = np.array([math.log(it) for it in values])
        assert np.allclose(logarithms(values), wanted, rtol=1e-15, atol=1e-17)


def test_the_ends() -> None:
    assert exponentials(np.array([0.0, -0.0, -701.0, -np.inf])).tolist() == [1.0, 1.0, 0.0, 0.0]
    assert logarithms(np.array([1.0])).tolist() == [0.0]
    assert logarithms(np.array([2.0**40]))[0] == pytest.approx(40 * math.log(2), rel=1e-15)


def test_their_bits_are_these_on_every_machine() -> None:
    """Whoever computes others draws other tokens: the bits are part of what the sampler is."""
    steps = np.arange(1, 20_000)
    exp = exponentials(-steps / 64.0).astype("<f8").tobytes()
    log = logarithms(steps / 8192.0).astype("<f8").tobytes()
    assert hashlib.sha256(exp).hexdigest()[:16] == "5707007d77e28a7b"
    assert hashlib.sha256(log).hexdigest()[:16] == "1d7fd1b9734a9764"
