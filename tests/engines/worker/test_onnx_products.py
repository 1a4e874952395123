"""MatMul, Gemm and Conv by our own kernels: right, and each row with the same bits alone."""

from pathlib import Path

import numpy as np
from onnx import helper

from node.engines.formats.onnx_file import describe
from node.engines.formats.onnx_shapes import footprint
from node.engines.worker.onnx_products import ConvWindow, Product
from tests.engines.onnx_models import FLOAT, kept_at, made, value
from tests.engines.worker.test_language_model import run

COMPUTE = """
import numpy as np
from tinygrad import Tensor
from node.engines.worker import onnx_products as products

chance = np.random.default_rng(7)
kernels = []
program = products.program


def noted(name, *rest, **given):
    kernels.append(name)
    return program(name, *rest, **given)

products.program = noted

def numbers(*shape):
    return chance.standard_normal(shape).astype(np.float32)

def near(found, wanted):
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    assert np.abs(found - wanted).max() < 1e-5 * max(1, np.abs(wanted).max())

# Few rows and many; columns that are no whole panel; more terms than one packed piece.
for left, right in (((2, 31), (31, 33)), ((70, 300), (300, 29)), ((2, 9, 20), (2, 20, 12))):
    a, b = numbers(*left), numbers(*right)
    whole = products.matmul(Tensor(a), Tensor(b)).numpy()
    near(whole, a.astype(float) @ b)
    if len(right) == 2:
        alone = products.matmul(Tensor(a[1:2]), Tensor(b)).numpy()
        assert alone.tobytes() == whole[1].tobytes(), (left, right)
assert len(set(kernels)) == 5, "each has its kernel"

a, b, c = numbers(6, 9), numbers(5, 6), numbers(5)
found = products.gemm(Tensor(a), Tensor(b), Tensor(c), alpha=0.5, beta=2.0, transA=1, transB=1)
near(found.numpy(), 0.5 * (a.T.astype(float) @ b.T) + 2.0 * c)

def convolved(x, w, bias, pads, strides, dilations):
    '''Term by term, in doubles.'''
    axes = w.ndim - 2
    if axes == 1:
        x, w = x[:, :, None], w[:, :, None]
        pads, strides, dilations = [0, pads[0], 0, pads[1]], [1, *strides], [1, *dilations]
    x = np.pad(x.astype(float), ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    spans = [(w.shape[2 + it] - 1) * dilations[it] + 1 for it in (0, 1)]
    sizes = [(x.shape[2 + it] - spans[it]) // strides[it] + 1 for it in (0, 1)]
    found = np.zeros((x.shape[0], w.shape[0], *sizes))
    for row in range(sizes[0]):
        for column in range(sizes[1]):
            top, left = row * strides[0], column * strides[1]
            rows = slice(top, top + spans[0], dilations[0])
            part = x[:, :, rows, left : left + spans[1] : dilations[1]]
            found[:, :, row, column] = np.tensordot(part, w, ((1, 2, 3), (1, 2, 3))) + bias
    return found[:, :, 0] if axes == 1 else found

for x, w, pads, strides, dilations in (
    ((2, 3, 12), (5, 3, 3), [1, 1], [2], [1]),
    ((2, 3, 9, 11), (13, 3, 3, 2), [1, 0, 2, 1], [2, 1], [1, 2]),
    ((1, 300, 4, 4), (9, 300, 1, 1), [0, 0, 0, 0], [1, 1], [1, 1]),
):
    before = len(kernels)
    x, w, bias = numbers(*x), numbers(*w), numbers(w[0])
    given = {"pads": pads, "strides": strides, "dilations": dilations}
    found = products.conv(Tensor(x), Tensor(w), Tensor(bias), **given).numpy()
    near(found, convolved(x, w, bias, pads, strides, dilations))
    assert len(kernels) > before, "it was one of ours"

# What is not ours is tinygrad's: padding by name, groups, other types.
x, w = numbers(1, 4, 5, 5), numbers(4, 2, 3, 3)
before = len(kernels)
products.conv(Tensor(x), Tensor(w), group=2)
products.conv(Tensor(x), Tensor(numbers(4, 4, 3, 3)), auto_pad="SAME_UPPER")
# A small image in a wide frame would take far more memory than it has.
products.conv(Tensor(x), Tensor(numbers(4, 4, 1, 1)), pads=[400] * 4, strides=[400, 400])
assert len(kernels) == before
print("all of it")
"""


def test_products_are_right_and_rows_have_their_bits_alone(cache: Path) -> None:
    assert run(cache, cache, program=COMPUTE) == "all of it"


def test_a_window_fits_where_the_standard_says() -> None:
    window = ConvWindow(size=(1, 9, 11, 3), kernel=(3, 2), strides=(2, 1), dilations=(1, 2))
    assert window.places == (4, 9)
    product = Product(stack=1, rows=36, terms=18, columns=5, window=window)
    assert product.wide == 8
    assert product.has_table


def test_what_products_lay_out_counts_as_memory(tmp_path: Path) -> None:
    """A convolution takes what comes in once more, padded; a column alone is written as eight."""
    conv = made(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        [value("x", FLOAT, 1, 16, 64, 64)],
        [value("y", FLOAT, 1, 8, 64, 64)],
        {"w": np.zeros((8, 16, 3, 3), np.float32)},
    )
    model = describe(kept_at(tmp_path, conv))
    image, answer = 16 * 64 * 64 * 4, 8 * 64 * 64 * 4
    assert footprint(model, [(1, 16, 64, 64)]).work_bytes >= answer + image + answer
    column = made(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", FLOAT, 1000, 4)],
        [value("y", FLOAT, 1000, 1)],
        {"w": np.zeros((4, 1), np.float32)},
    )
    model = describe(kept_at(tmp_path, column, "column"))
    assert footprint(model, [(1000, 4)]).work_bytes >= 1000 * 8 * 4
