"""Whatever bytes a file has, it is a model whose sums fit, or is refused in words. Nothing else."""

from dataclasses import replace
from pathlib import Path
from random import Random
from unittest.mock import Mock

import numpy as np
import pytest

from node.engines.exact import reference
from node.engines.exact.file import read_bytes, read_file
from node.engines.exact.model import ELEMENTS_MAX, LAYERS_MAX, ExactInput, ExactModel
from node.engines.exact.overflow import memory_elements, prove, work_of
from node.engines.exact.reference import run
from tests.engines.exact.samples import made, random_model, random_rows, raw
from wire.codec import pack, unpack
from wire.errors import ModelRefused, WireError

MLP = made("sklearn_mlp")


def with_layer(at: int, **changes: object) -> ExactModel:
    """The sample with one layer changed, as an attacker writes it."""
    layers = list(MLP.layers)
    layers[at] = replace(layers[at], **changes)
    return replace(MLP, layers=tuple(layers))


@pytest.mark.parametrize(
    ("at", "changes", "words"),
    [
        (1, {"multipliers": raw(np.full(64, 2**31 - 1))}, "beyond 31 bits"),
        (1, {"bias": raw(np.full(32, 2**31 - 1))}, "beyond 31 bits"),
        (1, {"multipliers": raw(np.full(64, -1))}, "a scale below 0"),
        (1, {"weights": MLP.layers[1].weights[:-1]}, "bytes of numbers"),
        (1, {"bias": MLP.layers[1].bias[:-4]}, "bytes of numbers"),
        (1, {"block": 1}, "its blocks have 1 terms"),
        (1, {"kind": "int32", "operator": "table"}, "it reads 1 values and gives int32"),
        (1, {"operator": "exec"}, "not known"),
        (1, {"shape": (32, 1)}, "one dimension"),
        (1, {"sources": (0, 0)}, "it reads 2 values"),
        (1, {"table": b"\0"}, "a needless table"),
        (1, {"low": 0, "high": 0}, "nothing but 0"),
        (0, {"multipliers": raw(np.zeros(64))}, "a scale of 0"),
        (3, {"multipliers": raw(np.zeros(1))}, "a scale of 0"),
        (3, {"multipliers": raw(np.array([2**30]))}, "beyond 31 bits"),
        (3, {"table": raw(np.zeros(4))}, "begins with 0"),
        (3, {"table": raw(np.array([1, 2**15 + 1]))}, "numbers of its table"),
        (4, {"table": raw(np.full(10, 99))}, "bounds of its labels"),
    ],
)  # fmt: skip
def test_what_could_overflow_or_does_not_fit_is_refused_by_its_layer(
    at: int, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ModelRefused, match=words) as caught:
        prove(with_layer(at, **changes))
    assert f"layer {at} " in caught.value.message


@pytest.mark.parametrize(
    "changes",
    [
        {"shift": 31},
        {"shift": -1},
        {"block_shift": 2**40},
        {"shape": (2**17 + 1,)},
        {"shape": (-1,)},
        {"shape": (1, 1, 1, 1, 1)},
        {"sources": ()},
        {"sources": (1,)},
        {"sources": (2,)},
        {"sources": (LAYERS_MAX + 1,)},
        {"low": -128},
        {"low": 5, "high": 4},
        {"kind": "float32"},
    ],
)
def test_shifts_shapes_and_cycles_outside_their_bounds_are_no_model(
    changes: dict[str, object],
) -> None:
    """A layer that reads itself, or a later one, is a cycle: it cannot even be written down."""
    fields = unpack(MLP.to_bytes(), size_bytes_max=1 << 20)
    plain = {name: list(it) if isinstance(it, tuple) else it for name, it in changes.items()}
    fields["layers"][1] |= plain
    with pytest.raises(ModelRefused, match="is no whole integer model"):
        read_bytes(pack(fields))


def test_a_million_layers_are_refused_before_they_are_built() -> None:
    fields = unpack(MLP.to_bytes(), size_bytes_max=1 << 20)
    fields["layers"] = [0] * 1_000_000
    with pytest.raises(ModelRefused, match="items"):
        read_bytes(pack(fields))


def test_two_windows_that_would_fill_memory_are_refused() -> None:
    """A file of a few kilobytes whose patches take gigabytes in one row."""
    model = random_model(0)
    conv = model.layers[2]
    window = replace(conv.window[0], kernel=(64, 64), strides=(1, 1), pads=(0, 0, 0, 0))
    given = replace(model.inputs[0], shape=(1, 360, 360))
    first = replace(model.layers[0], shape=given.shape)
    big = replace(
        conv,
        shape=(1, 297, 297),
        window=(window,),
        weights=bytes([1] * 4096),
        block=4096,
        multipliers=raw(np.ones(1)),
        bias=raw(np.zeros(1)),
    )
    with pytest.raises(ModelRefused, match="numbers in memory"):
        prove(
            replace(
                model,
                inputs=(given,),
                layers=(first, big),
                outputs=(replace(model.outputs[0], layer=0),),
            )
        )


def test_a_file_cut_anywhere_or_with_any_byte_changed_is_refused_or_safe(tmp_path: Path) -> None:
    """What still reads as a model computes without an overflow: the proof is of those bytes."""
    data, chance = MLP.to_bytes(), Random(3)
    for size in [*range(60), *(chance.randrange(len(data)) for _ in range(100))]:
        with pytest.raises(ModelRefused):
            read_bytes(data[:size])
    rows = random_rows(MLP, 2, 1)
    taken = 0
    for _ in range(300):
        at, bit = chance.randrange(len(data)), 1 << chance.randrange(8)
        altered = bytearray(data)
        altered[at] ^= bit
        try:
            model = read_bytes(bytes(altered))
        except ModelRefused:
            continue
        taken += 1
        with np.errstate(all="raise"):
            run(model, rows)
    assert taken > 50
    for content, words in ((b"", "0 bytes"), (b"\x93", "whole integer model")):
        path = tmp_path / "bad.exact"
        path.write_bytes(content)
        with pytest.raises(ModelRefused, match=words):
            read_file(path)


def test_one_model_has_one_encoding() -> None:
    data = MLP.to_bytes()
    assert ExactModel.from_bytes(data).to_bytes() == data
    fields = unpack(data, size_bytes_max=1 << 20)
    fields["layers"][1]["table"] = b""
    with pytest.raises(WireError, match="left out"):
        ExactModel.from_bytes(pack(fields))


def test_states_that_are_too_many_together_are_refused() -> None:
    """Each layer is of a size that it may have; all of them would fill the machine's memory."""
    wide = ExactInput(name="x", shape=(ELEMENTS_MAX,))
    first = replace(
        MLP.layers[0], shape=wide.shape, block=ELEMENTS_MAX, multipliers=raw(np.ones(1))
    )
    numbers = {"operator": "reshape", "sources": (0,), "multipliers": b"", "shift": 0}
    more = replace(first, **numbers)
    model = replace(MLP, inputs=(wide,), layers=(first, *[more] * (LAYERS_MAX - 1)))
    prove(replace(model, layers=model.layers[:100]))
    with pytest.raises(ModelRefused, match="numbers in memory for one row"):
        prove(model)


def test_a_run_stops_between_passes_which_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what its rows take in memory, and by how much there is to multiply."""
    rows = random_rows(MLP, 6, 1)
    for name, most, passes in (
        ("PASS_ELEMENTS_MAX", 2 * memory_elements(MLP), 3),
        ("WORK_MAX", work_of(MLP), 6),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(reference, name, most)
            begun = Mock()
            run(MLP, rows, begun)
            assert begun.call_count == passes

    def stop() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        run(MLP, rows, stop)
