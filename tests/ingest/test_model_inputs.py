"""Tensors of sources as the inputs of functions: what fits, and what is refused."""

import numpy as np
import pytest

from node.ingest.model_inputs import (
    FETCHED,
    ModelInput,
    fetched_parameter,
    inputs_from,
    model_inputs,
    read_fetched,
    same_numbers,
)
from wire.content import ContentId
from wire.errors import InputError, WireError
from wire.tensors import Tensor, Tensors


def tensor(*shape: int, name: str = "x", kind: str = "float32") -> Tensor:
    values = np.arange(int(np.prod(shape)), dtype=kind)
    return Tensor(name=name, kind=kind, shape=shape, data=values.tobytes())


def wanted(*shape: int | None, name: str = "X", kind: str = "float32") -> ModelInput:
    return ModelInput(name, kind, shape)


@pytest.mark.parametrize(
    ("shape", "sizes", "becomes"),
    [
        ((6, 64), (None, 64), (6, 64)),
        ((60, 5), (1, 60, 5), (1, 60, 5)),
        ((60, 5), (None, 60, 5), (1, 60, 5)),
        ((3, 60, 5), (None, 60, 5), (3, 60, 5)),
        ((60, 1), (1, 60), (1, 60)),
        ((60, 1), (60,), (60,)),
        # Row by row, as they came.
        ((60, 5), (1, 300), (1, 300)),
        ((60, 5), (None, 300), (1, 300)),
        ((1,), (), ()),
        ((4,), (None, None), (4, 1)),
        # A size in another place is another table.
        ((60, 5), (1, 5, 60), None),
        ((60, 5), (None, 64), None),
        ((6, 64), (6, 64, 2), None),
        ((0, 4), (None, 4), (0, 4)),
    ],
)
def test_sizes_of_one_come_and_go_and_no_other_changes_its_place(
    shape: tuple[int, ...], sizes: tuple[int | None, ...], becomes: tuple[int, ...] | None
) -> None:
    given = tensor(*shape)
    if becomes is None:
        with pytest.raises(InputError, match="the model takes X, float32"):
            inputs_from([given], [wanted(*sizes)])
        return
    data = inputs_from([given], [wanted(*sizes)])
    (found,) = Tensors.from_bytes(data).tensors
    assert (found.name, found.shape, found.data) == ("X", becomes, given.data)
    assert same_numbers([Tensors(tensors=(given,)).to_bytes()], data)


def test_tensors_are_matched_by_name_where_all_names_are_the_models_and_else_by_order() -> None:
    ids, mask = tensor(4, name="ids"), tensor(4, name="mask")
    sides = [wanted(4, name="mask"), wanted(4, name="ids")]
    found = Tensors.from_bytes(inputs_from([ids, mask], sides)).tensors
    assert [it.name for it in found] == ["ids", "mask"]
    found = Tensors.from_bytes(inputs_from([ids, tensor(4)], sides)).tensors
    assert [it.name for it in found] == ["mask", "ids"]
    with pytest.raises(InputError, match="give 1 tensors, and the model takes 2: mask"):
        inputs_from([ids], sides)


def test_another_type_of_numbers_is_refused_with_what_the_model_takes() -> None:
    with pytest.raises(InputError, match=r'gives float64.*kind = "float32" of stack'):
        inputs_from([tensor(4, kind="float64")], [wanted(4)])


def test_other_numbers_are_not_the_same() -> None:
    fetched = Tensors(tensors=(tensor(4),)).to_bytes()
    assert same_numbers([fetched], fetched)
    assert not same_numbers([fetched, fetched], fetched)
    assert not same_numbers([fetched], Tensors(tensors=(tensor(4, kind="int32"),)).to_bytes())
    with pytest.raises(WireError):
        same_numbers([b"odd"], fetched)


@pytest.mark.parametrize(
    ("told", "inputs"),
    [
        ({"input 0": "X: float32[any, 64]"}, (wanted(None, 64),)),
        ({"input 0": "a: b: int64[2]", "input 1": "c: bool"}, None),
        ({"input 0": "X: float32[n, -1, 99999999999]"}, (wanted(None, None, None),)),
        ({"input 0": "X: float32[]"}, (wanted(),)),
        ({"input 0": "X: float99[1]"}, ()),
        ({"input 0": "X: float32[" + "1, " * 9 + "1]"}, ()),
        ({"input 0": 7}, ()),
        ({"input 1": "X: float32"}, ()),
        ({}, ()),
    ],
)
def test_what_a_manifest_tells_is_read_or_left(
    told: dict[str, str | int], inputs: tuple[ModelInput, ...] | None
) -> None:
    if inputs is None:
        inputs = (wanted(2, name="a: b", kind="int64"), ModelInput("c", "bool", None))
    assert model_inputs(told) == inputs


def test_the_receipts_of_fetches_are_named_in_a_parameter() -> None:
    names = [ContentId.of(bytes([it])) for it in range(3)]
    assert read_fetched({FETCHED: fetched_parameter(names)}) == tuple(names)
    assert read_fetched({}) == ()
    for odd in (7, "bafkodd", b"x"):
        with pytest.raises(WireError):
            read_fetched({FETCHED: odd})
