"""Public numbers of a circuit: of what was asked and answered, canonical, within bounds."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest

from node.engines.formats.onnx_file import read_model
from node.engines.formats.onnx_graph import OnnxModel, Value
from node.engines.proving.circuit import (
    MODULUS,
    NUMBER_MAX,
    ROWS_MAX,
    WEIGHTS_MAX,
    Circuit,
    PublicTensor,
    canonical,
    check_provable,
    check_size,
    from_field,
    open_sizes,
    public_of,
    rows_asked,
    to_field,
)
from tests.engines.onnx_models import FOLDER
from tests.engines.proving.samples import asked, digit
from wire.errors import Malformed, ModelRefused
from wire.limits import PROOF_MODEL_BYTES_MAX
from wire.tensors import Tensor, Tensors

CIRCUIT = Circuit(
    inputs=(PublicTensor("x", "float32", (1, 3), 7),),
    outputs=(PublicTensor("label", "int64", (1,), 0), PublicTensor("p", "float32", (1, 2), 7)),
    key=bytes(32),
)


def tensor(name: str, kind: str, shape: tuple[int, ...], *values: float) -> Tensor:
    return Tensor(name=name, kind=kind, shape=shape, data=np.array(values, kind).tobytes())


def given(*values: float) -> bytes:
    return Tensors(tensors=(tensor("x", "float32", (1, 3), *values),)).to_bytes()


def output(label: int, *values: float) -> Tensors:
    label_tensor = tensor("label", "int64", (1,), label)
    return Tensors(tensors=(label_tensor, tensor("p", "float32", (1, 2), *values)))


def mlp() -> OnnxModel:
    return read_model(FOLDER / "sklearn_mlp.onnx")


def with_input(model: OnnxModel, value: Value) -> OnnxModel:
    return replace(model, graph=replace(model.graph, inputs=(value,)))


def test_an_input_is_rounded_half_away_from_zero_to_the_steps_of_the_circuit() -> None:
    half = 0.5 / 128
    assert CIRCUIT.numbers_in(given(1.0, half, -half)) == [128, 1, -1]
    assert CIRCUIT.numbers_in(given(0.49 / 128, -0.49 / 128, -2.0)) == [0, 0, -256]


def test_outputs_come_back_from_their_numbers_and_give_the_same_again() -> None:
    numbers = [7, 64, -3]
    made = CIRCUIT.tensors_of(numbers)
    assert np.frombuffer(made[1].data, "<f4").tolist() == [0.5, -3 / 128]
    assert CIRCUIT.numbers_out(Tensors(tensors=made)) == numbers


@pytest.mark.parametrize(
    "values",
    [(0.501, 0.0), (-0.0, 0.0), (float("nan"), 0.0), (float("inf"), 0.0), (1e30, 0.0)],
)
def test_an_output_that_no_circuit_gives_is_refused(values: tuple[float, float]) -> None:
    with pytest.raises(Malformed):
        CIRCUIT.numbers_out(output(7, *values))


def test_numbers_that_do_not_fit_in_an_output_are_refused() -> None:
    with pytest.raises(Malformed, match="are not the outputs"):
        CIRCUIT.tensors_of([1, 2])
    with pytest.raises(Malformed, match="larger"):
        CIRCUIT.tensors_of([1, 2, NUMBER_MAX + 1])
    # A float of 32 bits has 24 for the number.
    with pytest.raises(Malformed, match="does not fit in float32"):
        CIRCUIT.tensors_of([1, 2, (1 << 25) + 1])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (given(float("nan"), 0, 0), "too large, or none"),
        (given(1e30, 0, 0), "too large, or none"),
        (Tensors(tensors=(tensor("y", "float32", (1, 3), 1, 2, 3),)).to_bytes(), "reads x, and y"),
        (Tensors(tensors=(tensor("x", "float32", (3,), 1, 2, 3),)).to_bytes(), "where the circuit"),
        (Tensors(tensors=(tensor("x", "int64", (1, 3), 1, 2, 3),)).to_bytes(), "where the circuit"),
    ],
)
def test_an_input_that_does_not_fit_the_circuit_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        CIRCUIT.numbers_in(data)


@pytest.mark.parametrize("number", [0, 1, -1, NUMBER_MAX, -NUMBER_MAX])
def test_a_number_has_one_form_in_the_field(number: int) -> None:
    assert from_field(to_field(number)) == number


@pytest.mark.parametrize(
    "text",
    [
        MODULUS.to_bytes(32, "little").hex(),
        (b"\xff" * 32).hex(),
        "00" * 31,
        "00" * 33,
        "0x" + "00" * 32,
        to_field(1).replace("0", "O", 1),
        to_field(-1).upper(),
        "",
    ],
)
def test_a_number_that_is_not_canonical_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        from_field(text)


def test_a_model_that_is_too_large_or_has_open_sizes_is_refused_with_the_limit() -> None:
    check_provable(mlp())
    heavy = {"w": np.broadcast_to(np.float32(0), (WEIGHTS_MAX + 1,))}
    large = replace(mlp(), graph=replace(mlp().graph, constants=heavy))
    with pytest.raises(ModelRefused, match=f"models of up to {WEIGHTS_MAX} are proved"):
        check_provable(large)
    with pytest.raises(ModelRefused, match=f"models of up to {PROOF_MODEL_BYTES_MAX} bytes"):
        check_size(PROOF_MODEL_BYTES_MAX + 1)
    with pytest.raises(ModelRefused, match="not fixed beside its rows"):
        check_provable(with_input(mlp(), Value("x", "float32", ("batch", "length"))))
    with pytest.raises(ModelRefused, match="cannot be public"):
        check_provable(with_input(mlp(), Value("x", "bool", (1, 3))))


def test_a_circuit_is_for_as_many_rows_as_are_asked_up_to_a_limit() -> None:
    assert rows_asked(mlp(), digit(0, 3)) == 3
    fixed = with_input(mlp(), Value("X", "float32", (1, 64)))
    assert rows_asked(fixed, digit()) == 1
    for rows in (np.zeros((0, 64)), np.zeros((ROWS_MAX + 1, 64))):
        with pytest.raises(Malformed, match=f"one proof is of 1 to {ROWS_MAX}"):
            rows_asked(mlp(), asked(rows))
    named = with_input(mlp(), Value("X", "float32", ("rows", 64)))
    assert open_sizes(named) == ["batch_size", "rows"]


def test_the_order_in_which_a_library_lists_what_it_laid_out_decides_nothing() -> None:
    settings = {"run_args": {"logrows": 14}, "timestamp": 7}
    lookups: list[object] = [{"Tanh": {"scale": 1.0}}, {"Exp": {"scale": 1.0, "base": 2.0}}]
    checks = [[0, 4095], [-1, 1], [0, 1]]
    found = [
        canonical(
            settings | {"required_lookups": some, "required_range_checks": ranges, "timestamp": at}
        )
        for at, (some, ranges) in enumerate(product(permutations(lookups), permutations(checks)))
    ]
    assert all(it == found[0] for it in found)
    assert found[0]["run_args"] == settings["run_args"]


def test_a_circuit_of_other_sizes_than_the_model_is_refused() -> None:
    settings = {
        "model_instance_shapes": [[1, 64], [1], [1, 10]],
        "model_input_scales": [7],
        "model_output_scales": [0, 7],
    }
    made = public_of(mlp(), settings, b"k" * 32)
    assert Circuit.of(made.to_plain()) == made
    other = settings | {"model_instance_shapes": [[1, 63], [1], [1, 10]]}
    with pytest.raises(ModelRefused, match="its circuit has"):
        public_of(mlp(), other, b"k" * 32)
    with pytest.raises(ModelRefused, match="other inputs or outputs"):
        public_of(mlp(), settings | {"model_instance_shapes": [[1, 64]]}, b"k" * 32)
