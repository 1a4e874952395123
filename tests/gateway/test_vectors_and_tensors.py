"""Embeddings, and models that are functions of named tensors."""

import io
import json
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from node.engines.hash_engine import hash_manifest
from node.engines.hash_vector import hash_vector
from node.gateway.tensors import NPY_TYPE, SAFETENSORS_TYPE, from_safetensors, to_safetensors
from wire.tensors import ELEMENT_BYTES, Tensor


def vector(text: str) -> list[float]:
    return np.frombuffer(hash_vector(hash_manifest().id, text, 64), "<f4").tolist()


def test_texts_are_embedded_in_order_in_either_encoding(client: openai.OpenAI) -> None:
    # The client asks for base64 where nothing is said.
    found = client.embeddings.create(model="hash", input=["one", "two"])
    assert [it.embedding for it in found.data] == [vector("one"), vector("two")]
    as_floats = client.embeddings.create(model="hash", input="one", encoding_format="float")
    assert as_floats.data[0].embedding == vector("one")
    assert client.embeddings.create(model="hash", input="one", dimensions=64).data


def test_more_texts_than_one_task_takes_are_several_tasks(client: openai.OpenAI) -> None:
    texts = [f"text {number}" for number in range(200)]
    raw = client.embeddings.with_raw_response.create(model="hash", input=texts)
    found = raw.parse()
    assert [it.embedding for it in found.data] == [vector(it) for it in texts]
    assert [it.index for it in found.data] == list(range(200))
    assert len(raw.headers["x-baton-receipt"].split(",")) == 4
    assert len(set(raw.headers["x-baton-task"].split(","))) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dimensions": 10}, "64 dimensions"),
        ({"input": []}, "input"),
        ({"input": [1.5, 2]}, "input"),
        ({"input": [-1]}, "input"),
        ({"input": ["fine", ""]}, "text 1 is empty"),
        ({"input": "x" * 40_000}, "40000 bytes"),
        ({"model": "doubling"}, "only call"),
    ],
    ids=str,
)
def test_what_cannot_be_embedded_is_told(
    client: openai.OpenAI, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        client.embeddings.create(**{"model": "hash", "input": "x", **options})


def ask(http: httpx.Client, *inputs: dict[str, Any]) -> httpx.Response:
    return http.post("/v1/infer", json={"model": "doubling", "inputs": list(inputs)})


def test_tensors_in_json_are_doubled(http: httpx.Client) -> None:
    found = ask(
        http,
        {"name": "a", "dtype": "float32", "shape": [2, 2], "data": [[1, 2], [3, 4.5]]},
        {"name": "b", "dtype": "int64", "shape": [], "data": [7]},
    )
    assert found.status_code == 200, found.text
    assert found.json()["outputs"] == [
        {"name": "a", "dtype": "float32", "shape": [2, 2], "data": [2, 4, 6, 9]},
        {"name": "b", "dtype": "int64", "shape": [], "data": [14]},
    ]
    assert found.headers["x-baton-receipt"] == found.json()["x_baton"]["receipt"]


@pytest.mark.parametrize("kind", sorted(set(ELEMENT_BYTES) - {"bool"}))
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npy_file_is_answered_with_one(http: httpx.Client, kind: str, order: str) -> None:
    values = np.asarray(np.arange(6).reshape(2, 3), dtype=kind, order=order)
    sink = io.BytesIO()
    np.save(sink, values)
    found = http.post(
        "/v1/infer?model=doubling&name=x",
        content=sink.getvalue(),
        headers={"content-type": NPY_TYPE, "accept": "*/*"},
    )
    assert found.status_code == 200, found.text
    assert found.headers["content-type"] == NPY_TYPE
    answer = np.load(io.BytesIO(found.content), allow_pickle=False)
    assert (answer == values * 2).all()
    assert answer.dtype == values.dtype


def test_a_safetensors_file_is_answered_with_one(http: httpx.Client) -> None:
    sent = [
        Tensor(name="a", kind="float32", shape=(2,), data=np.float32([1, 2]).tobytes()),
        Tensor(name="b", kind="uint8", shape=(0, 3), data=b""),
    ]
    found = http.post(
        "/v1/infer?model=doubling",
        content=to_safetensors(sent),
        headers={"content-type": SAFETENSORS_TYPE, "accept": "*/*"},
    )
    assert found.status_code == 200, found.text
    back = from_safetensors(found.content)
    assert [it.name for it in back] == ["a", "b"]
    assert np.frombuffer(back[0].data, "<f4").tolist() == [2, 4]


def safetensors(head: object, body: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + body


HOSTILE_NPY = {
    "nothing": b"",
    "no magic": b"x" * 64,
    "cut short": b"\x93NUMPY\x01\x00\xff\xff",
    "objects": b"\x93NUMPY\x01\x00\x3c\x00"
    + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(60),
    "a call": b"\x93NUMPY\x01\x00\x1e\x00" + b"__import__('os').system('id')".ljust(30),
    "too deep": b"\x93NUMPY\x01\x00\x00\x40" + b"(" * 0x4000,
    "negative": b"\x93NUMPY\x01\x00\x3c\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }".ljust(60),
    "endless": b"\x93NUMPY\x01\x00\x3c\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1e999,), }".ljust(60),
    "huge": b"\x93NUMPY\x01\x00\x50\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 9), }".ljust(80),
}
HOSTILE_SAFETENSORS = {
    "nothing": b"",
    "a long head": b"\xff" * 8,
    "no map": safetensors([1]),
    "no offsets": safetensors({"a": {"dtype": "F32", "shape": [1]}}),
    "beyond the end": safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
    "another size": safetensors(
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "a wrong type": safetensors(
        {"a": {"dtype": "BF17", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "shapes in words": safetensors(
        {"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "no tensor": safetensors({}),
}


@pytest.mark.parametrize("name", HOSTILE_NPY)
def test_an_npy_file_that_is_none_is_refused(http: httpx.Client, name: str) -> None:
    found = http.post(
        "/v1/infer?model=doubling",
        content=HOSTILE_NPY[name],
        headers={"content-type": NPY_TYPE},
    )
    assert found.status_code == 400, found.text
    assert found.json()["error"]["message"]


@pytest.mark.parametrize("name", HOSTILE_SAFETENSORS)
def test_a_safetensors_file_that_is_none_is_refused(http: httpx.Client, name: str) -> None:
    found = http.post(
        "/v1/infer?model=doubling",
        content=HOSTILE_SAFETENSORS[name],
        headers={"content-type": SAFETENSORS_TYPE},
    )
    assert found.status_code == 400, found.text


@pytest.mark.parametrize(
    "changed",
    [
        {"dtype": "object"},
        {"shape": [3]},
        {"shape": [-1]},
        {"data": ["1", "2"]},
        {"data": [True, False]},
        {"data": [1.5, 2]},
        {"data": [2**70, 1]},
        {"data": "AAAA"},
        {"name": ""},
    ],
    ids=str,
)
def test_tensors_that_make_no_sense_are_refused(
    http: httpx.Client, changed: dict[str, Any]
) -> None:
    found = ask(http, {"name": "a", "dtype": "int32", "shape": [2], "data": [1, 2], **changed})
    assert found.status_code == 400, found.text


def test_a_name_twice_and_a_model_that_is_no_function_are_refused(http: httpx.Client) -> None:
    one = {"name": "a", "dtype": "int32", "shape": [1], "data": [1]}
    assert ask(http, one, one).status_code == 400
    found = http.post("/v1/infer", json={"model": "hash", "inputs": [one]})
    assert found.status_code == 400
    assert "does not do 'call'" in found.json()["error"]["message"]
    assert http.post("/v1/infer", content=b"x").status_code == 400
