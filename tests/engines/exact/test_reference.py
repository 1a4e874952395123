"""The reference computes what its page says: beside plain whole numbers of any size."""

import hashlib

import numpy as np
import pytest

from node.engines.exact.file import read_file
from node.engines.exact.model import ExactLayer
from node.engines.exact.overflow import SUM_MAX
from node.engines.exact.reference import quantised, run, run_layer, run_layers, shifted
from tests.engines.exact.samples import WINDOW, random_model, random_rows, raw
from tests.engines.onnx_models import FOLDER, golden

SEEDS = range(20)
KEPT = "074676d5f290a5afcd36de13584b28400da49560948f86e2e39208d6bb98a623"


def plain_dot(layer: ExactLayer, terms: list[int]) -> list[int]:
    """One row of a weighted layer in Python's integers, which have no bounds to overflow."""
    outputs, count = layer.shape[0], len(terms)
    weights = np.frombuffer(layer.weights, np.int8).reshape(count, outputs)
    block = min(layer.block, count)
    multipliers = np.frombuffer(layer.multipliers, "<i4").reshape(-1, outputs)
    found = []
    for output in range(outputs):
        total = int(np.frombuffer(layer.bias, "<i4")[output])
        for number, at in enumerate(range(0, count, block)):
            pairs = zip(terms[at : at + block], weights[at : at + block, output], strict=True)
            scaled = sum(one * int(other) for one, other in pairs)
            scaled *= int(multipliers[number, output])
            assert abs(scaled) <= SUM_MAX
            total += (scaled + (1 << layer.block_shift >> 1)) >> layer.block_shift
            assert abs(total) <= SUM_MAX
        total = (total + (1 << layer.shift >> 1)) >> layer.shift
        found.append(min(layer.high, max(layer.low, total)))
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_weighted_layers_are_what_unbounded_integers_say_and_never_overflow(seed: int) -> None:
    model = random_model(seed)
    rows = random_rows(model, 3, seed)
    states = run_layers(model, rows)
    conv, linear = model.layers[2], model.layers[8]
    # Where the window lies at its second place across, in the first row.
    top, left = -WINDOW.pads[0], 1 - WINDOW.pads[1]
    source = states[0][0].astype(int)
    terms = [
        int(source[channel, top + down, left + across])
        if 0 <= top + down < source.shape[1] and 0 <= left + across < source.shape[2]
        else 0
        for channel in range(source.shape[0])
        for down in range(3)
        for across in range(2)
    ]
    assert states[2][0, :, 0, 1].tolist() == plain_dot(conv, terms)
    for row in range(3):
        flat = states[7][row].tolist()
        assert states[8][row].tolist() == plain_dot(linear, flat)


@pytest.mark.parametrize("seed", SEEDS[:5])
def test_a_row_is_the_same_alone_and_beside_others(seed: int) -> None:
    model = random_model(seed)
    rows = random_rows(model, 9, seed)
    whole = run(model, rows)
    for at in range(9):
        alone = run(model, [it[at : at + 1] for it in rows])
        assert [it[0].tobytes() for it in alone] == [it[at].tobytes() for it in whole]


def test_halves_go_up_and_shifts_round_down_below_zero() -> None:
    assert shifted(np.array([-3, -2, -1, 0, 1, 2, 3]), 1).tolist() == [-1, -1, 0, 0, 1, 1, 2]
    assert shifted(np.array([-5, 5]), 0).tolist() == [-5, 5]


def test_what_is_no_number_is_zero_and_what_is_too_large_is_the_edge() -> None:
    layer = ExactLayer(
        operator="input", sources=(0,), shape=(7,), kind="int8", low=-127, high=127, block=1,
        multipliers=raw(np.full(7, 3)), shift=1,
    )  # fmt: skip
    data = np.array([[np.nan, np.inf, -np.inf, 1e38, 1.0, -1.0, 3.0]], np.float32)
    # 1.5 and 4.5 are halves: they go to the even neighbour.
    assert quantised(layer, data).tolist() == [[0, 127, -127, 127, 2, -2, 4]]


def test_the_figures_of_a_layer_by_hand() -> None:
    layer = ExactLayer(
        operator="linear", sources=(0,), shape=(1,), kind="int8", low=-127, high=127, block=16,
        weights=bytes([1] * 16 + [255] * 2), multipliers=raw(np.array([2, 3])),
        bias=raw(np.array([7])), block_shift=1, shift=2,
    )  # fmt: skip
    row = np.arange(18, dtype=np.int8)[None]
    # 120 x 2 / 2 = 120, and -(16 + 17) x 3 / 2 = -49.5, so -49. With the bias 78; / 4 = 19.5.
    assert run_layer(layer, [row]).tolist() == [[20]]


def test_a_kept_model_gives_what_it_gave_when_it_was_kept() -> None:
    """These bytes never change: receipts of today are checked with the reference of then."""
    model = read_file(FOLDER / "torch_cnn.exact")
    (answer,) = run(model, list(golden("torch_cnn")[0].values()))
    assert hashlib.sha256(answer.tobytes()).hexdigest() == KEPT
