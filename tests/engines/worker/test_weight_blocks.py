"""Weights in their file's blocks: unpacked as their makers do, multiplied with the same bits."""

import functools
from pathlib import Path

import gguf
import numpy as np
import pytest

from node.engines.formats.gguf import describe
from node.engines.formats.gguf_file import BLOCKS, GgufTensor
from node.engines.formats.gguf_model import KEPT_AS_IT_IS, kept_bytes
from node.engines.worker.weight_blocks import (
    BF16,
    F16,
    F32,
    FORMS,
    LANES,
    BlockRows,
    joined,
    row_bytes,
)
from tests.engines.tiny_gguf import random_blocks, write_gguf
from tests.engines.worker.test_language_model import run
from wire.errors import ModelRefused

ROWS, COLUMNS = 40, 512
NAMES = {kind: BLOCKS[kind][0] for kind in FORMS}


def random_rows(kind: int, seed: int = 0) -> BlockRows:
    raw = random_blocks(np.random.default_rng(seed), kind, ROWS, COLUMNS)
    return BlockRows(f"blk.0.{NAMES[kind]}", kind, COLUMNS, raw)


@pytest.mark.parametrize("kind", FORMS, ids=NAMES.get)
def test_numbers_are_those_of_the_makers_of_the_format(kind: int) -> None:
    rows = random_rows(kind)
    theirs = gguf.quants.dequantize(rows.raw, gguf.GGMLQuantizationType(kind))
    found = rows.floats()
    assert found.dtype == np.float32
    assert len(np.unique(found)) > 1000
    np.testing.assert_array_equal(found, np.asarray(theirs, np.float32).reshape(ROWS, COLUMNS))
    np.testing.assert_array_equal(rows.taken([7, 3]).floats(), found[[7, 3]])


@pytest.mark.parametrize("kind", FORMS, ids=NAMES.get)
def test_what_is_kept_is_as_large_as_it_was_said_to_be(kind: int) -> None:
    form = random_rows(kind).form
    kept = sum(np.dtype(dtype).itemsize * count for dtype, count in form.fields.values())
    size = ROWS * row_bytes(kind, COLUMNS)
    assert kept == kept_bytes(GgufTensor(kind, (ROWS, COLUMNS), 64, 64 + size))
    assert set(KEPT_AS_IT_IS) == set(FORMS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", FORMS, ids=NAMES.get)
def test_a_number_that_is_not_finite_is_refused_by_its_tensors_name(kind: int, bad: float) -> None:
    rows = random_rows(kind)
    parts = FORMS[kind].parts
    dtype = np.dtype([(name, form, (count,)) for name, (form, count) in parts.items()])
    blocks = rows.raw.view(dtype)
    for name in [it for it in ("scale", "minimum", "numbers") if it in parts]:
        kept = blocks[name][33 % ROWS, -1, 0]
        wrong = np.float32(bad).view(np.uint32) >> 16 if kind == BF16 else bad
        blocks[name][33 % ROWS, -1, 0] = wrong
        targets = [np.empty(count, dtype) for dtype, count in rows.form.fields.values()]
        panels = functools.partial(rows.write_panels, targets)
        for refused in (rows.floats, rows.checked, panels):
            with pytest.raises(ModelRefused, match=rf"blk\.0\.{NAMES[kind]} .*not finite"):
                refused()
        blocks[name][33 % ROWS, -1, 0] = kept
    rows.checked()


def test_tensors_of_one_type_are_kept_as_one_and_others_apart() -> None:
    parts = [random_rows(kind, seed) for seed, kind in enumerate((F32, F32, F16, F32))]
    found = joined(parts)
    assert [(it.kind, len(it.raw)) for it in found] == [(F32, 80), (F16, 40), (F32, 40)]
    together = np.concatenate([it.floats() for it in found])
    np.testing.assert_array_equal(together, np.concatenate([it.floats() for it in parts]))


def test_rows_of_nothing_fill_a_panel() -> None:
    rows = random_rows(12).taken(slice(0, 35)).padded(LANES)
    assert len(rows.raw) == 40
    assert not rows.floats()[35:].any()


PRODUCTS = """
import numpy as np
from tinygrad import Tensor
from node.engines.worker.buffers import placed
from node.engines.worker.matmul import Matmul, _linear_kernel, _run
from node.engines.worker.weight_blocks import FORMS
from tests.engines.worker.test_weight_blocks import random_rows

products, rng = Matmul(blocked=True), np.random.default_rng(3)
for kind in FORMS:
    rows = random_rows(kind)
    bias = rng.standard_normal(len(rows.raw)).astype(np.float32)
    forms, tensors = products.packed([rows], bias)
    weight = products.weight(rows.floats())
    alone = {}
    for count in (8, 1, 4, 32):
        given = np.random.default_rng(4).standard_normal((32, rows.columns)).astype(np.float32)
        source = placed(given[:count])
        found = products.linear_of(source, forms, iter(tensors)).numpy()
        floats = products.linear(source, weight, placed(bias)).numpy()
        assert np.array_equal(found, floats), (kind, count)
        whole = alone.setdefault("rows", found)
        assert np.array_equal(found[:8], whole[: len(found)][:8]), (kind, count)
        if kind == 0:
            out = Tensor.empty(count, len(rows.raw))
            plain = _run(_linear_kernel, out, source, weight, placed(bias)).numpy()
            assert np.array_equal(found, plain), count
    exact = given.astype(np.float64) @ rows.floats().astype(np.float64).T + bias
    assert np.abs(found - exact).max() < 1e-5 * np.abs(exact).max(), kind
    print(kind)
"""


def test_products_have_the_bits_of_the_same_weights_in_floats(tmp_path: Path, cache: Path) -> None:
    found = run(tmp_path, cache, program=PRODUCTS).split()
    assert found == [str(kind) for kind in FORMS]


MODELS = """
import sys
from pathlib import Path
import numpy as np
from node.engines.formats.gguf import describe
from node.engines.worker.load_progress import LoadProgress
from node.engines.worker.matmul import Matmul
from node.engines.worker.slots import SlotRow
from node.engines.worker.transformer import LanguageModel

found = []
for path in sys.argv[1:]:
    model = LanguageModel(describe(Path(path)), 1, Matmul(blocked=True), LoadProgress(lambda _: 0))
    graphs = model.capture(1)
    model.ready({1: graphs})
    print(len(graphs))
    found.append(np.concatenate([model.run([SlotRow(3 + at, 0, at, (0,))]) for at in range(5)]))
print(np.array_equal(*found), len(np.unique(found[0])) > 2000)
"""


def test_a_model_of_mixed_types_computes_what_its_copy_in_floats_does(
    tmp_path: Path, cache: Path
) -> None:
    # As files of the kind Q4_K_M have them, layer by layer.
    sizes = (256, 3, 256, 4, 2, 500)
    mixed = {"attn_v": 14, "ffn_down": 6, "blk.1.attn_v": 12, "token_embd": 13, "attn_output": 8}
    path = write_gguf(tmp_path / "mixed.gguf", kind="q4_K", sizes=sizes, tied=True, mixed=mixed)
    copy = write_gguf(
        tmp_path / "copy.gguf", kind="q4_K", sizes=sizes, tied=True, mixed=mixed, floats=True
    )
    assert {it.kind for it in describe(path).tensors.values()} == {0, 6, 8, 12, 13, 14}
    assert {it.kind for it in describe(copy).tensors.values()} == {0}
    assert describe(path).weights_bytes < describe(copy).weights_bytes / 5
    # Two graphs of layers, and one of what comes after the last; then one and one.
    assert run(path, cache, str(copy), program=MODELS).split() == ["3", "2", "True", "True"]
