"""An ONNX file that came from anybody is refused in words, before any library sees it."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from node.engines.formats.onnx_file import describe
from node.engines.formats.onnx_operators import LEARNED, OPERATORS, STANDARD
from tests.engines.onnx_models import FLOAT, FOLDER, TensorProto, kept_at, made, value
from wire.errors import ModelRefused

X, Y = value("x", FLOAT, "n", 2), value("y", FLOAT, "n", 2)
RELU = helper.make_node("Relu", ["x"], ["y"])
FOREST = (FOLDER / "sklearn_forest_binary.onnx").read_bytes()


def plain(**changes) -> onnx.ModelProto:
    return made(**({"nodes": [RELU], "inputs": [X], "outputs": [Y]} | changes))


def refused(folder: Path, model: onnx.ModelProto | bytes, said: str) -> None:
    path = folder / "made.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(ModelRefused, match=said):
        describe(path)


def test_a_file_says_what_it_reads_and_gives() -> None:
    model = describe(FOLDER / "torch_cnn.onnx")
    assert [str(it) for it in model.inputs] == ["image: float32[batch, 1, 8, 8]"]
    assert [str(it) for it in model.outputs] == ["answer: float32[batch, 10]"]
    assert ("ai.onnx", "Conv", 18) in model.operators
    assert model.producer == "pytorch"
    assert model.weights == 1900


def test_what_is_read_is_what_the_onnx_library_reads() -> None:
    for path in FOLDER.glob("*.onnx"):
        ours, theirs = describe(path).graph, onnx.load(path).graph
        assert list(ours.constants) == [it.name for it in theirs.initializer]
        for tensor in theirs.initializer:
            assert np.array_equal(ours.constants[tensor.name], numpy_helper.to_array(tensor))
        assert [it.operator for it in ours.nodes] == [it.op_type for it in theirs.node]
        for node, other in zip(ours.nodes, theirs.node, strict=True):
            for attribute in other.attribute:
                wanted = helper.get_attribute_value(attribute)
                if isinstance(wanted, onnx.TensorProto):
                    wanted = numpy_helper.to_array(wanted)
                elif isinstance(wanted, list):
                    wanted = [it.decode() if isinstance(it, bytes) else it for it in wanted]
                elif isinstance(wanted, bytes):
                    wanted = wanted.decode()
                assert np.array_equal(node.attributes[attribute.name], wanted)


@pytest.mark.parametrize(
    "kind", ["float32", "float64", "float16", "int64", "int32", "int8", "uint8", "bool", "uint64"]
)
def test_constants_are_read_from_either_of_their_places(tmp_path: Path, kind: str) -> None:
    array = np.array([[0, 1, 3], [1, 0, 100]]).astype(kind)
    kind_number = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensors = [
        numpy_helper.from_array(array, "raw"),
        helper.make_tensor("listed", kind_number, array.shape, array.ravel().tolist()),
    ]
    model = plain()
    model.graph.initializer.extend(tensors)
    constants = describe(kept_at(tmp_path, model)).graph.constants
    for name in ("raw", "listed"):
        assert constants[name].dtype == array.dtype
        assert np.array_equal(constants[name], array)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    refused(tmp_path, FOREST[: int(len(FOREST) * share)], "no whole ONNX file|0 bytes")


@pytest.mark.parametrize(
    "data", [b"{}", b"\x89PNG\r\n\x1a\n", b"GGUF" + bytes(64), bytes(1000), b"\x08\x0a" * 10]
)
def test_something_else_altogether_is_refused(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, data, "no whole ONNX file")


@settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(at=st.integers(0, len(FOREST) - 1), data=st.binary(min_size=1, max_size=8))
def test_any_bytes_are_read_or_refused(tmp_path: Path, at: int, data: bytes) -> None:
    path = tmp_path / "fuzzed.onnx"
    path.write_bytes(FOREST[:at] + data + FOREST[at + len(data) :])
    try:
        describe(path)
    except ModelRefused as error:
        assert len(str(error)) < 1000  # noqa: PT017 - either end is right


@pytest.mark.parametrize("place", ["../../../etc/passwd", "/etc/passwd", "weights.bin"])
def test_data_outside_the_file_is_never_looked_at(tmp_path: Path, place: str) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(8))
    model = plain()
    tensor = model.graph.initializer.add(name="w", data_type=FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    refused(tmp_path, model, "w lies in another file")


def test_a_graph_that_goes_in_a_circle_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    refused(tmp_path, plain(nodes=nodes), "Add reads 'b', and .* has a cycle")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nodes": [helper.make_node("Add", ["x", "q"], ["y"])]}, "'q', and nothing gives it"),
        ({"nodes": [RELU, RELU]}, "'y' is given twice"),
        ({"outputs": [value("z", FLOAT, 1)]}, "nothing gives its output 'z'"),
        ({"outputs": []}, "0 outputs"),
        ({"inputs": [value("x", TensorProto.STRING, "n")]}, "x is of string"),
        ({"inputs": [value("x", TensorProto.BFLOAT16, "n")]}, "x is of bfloat16"),
        ({"inputs": [value("x", FLOAT, *[1] * 9)]}, "x has 9 dimensions"),
        ({"inputs": [value("x", FLOAT, 2**40)]}, "dimension of 1099511627776"),
    ],
)
def test_a_graph_that_cannot_be_right_is_refused(tmp_path: Path, changes, said: str) -> None:
    refused(tmp_path, plain(**changes), said)


def test_a_constant_that_claims_more_than_it_brings_is_refused(tmp_path: Path) -> None:
    model = plain()
    model.graph.initializer.add(name="w", data_type=FLOAT, dims=[2**20, 2**20], raw_data=bytes(8))
    refused(tmp_path, model, "w has the shape")
    model.graph.initializer[0].dims[:] = [1000]
    refused(tmp_path, model, "wants 1000 numbers, 2 came")
    model.graph.initializer[0].dims[:] = [-2]
    refused(tmp_path, model, "w has the shape")


def test_graphs_within_graphs_have_an_end(tmp_path: Path) -> None:
    inner = helper.make_graph([RELU], "inner", [], [Y])
    for _ in range(12):
        node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
        del node.attribute[1:]
        inner = helper.make_graph([node], "inner", [], [Y])
    refused(tmp_path, plain(nodes=inner.node), "graphs lie more than 8 deep")


@pytest.mark.parametrize(
    ("operator", "domain", "said"),
    [
        ("LinearAttention", "", "the operator LinearAttention of ai.onnx is not run here"),
        ("Loop", "", "the operator Loop of ai.onnx is not run here"),
        ("Scan", "", "Scan"),
        ("RoiAlign", "", "RoiAlign"),
        ("NonMaxSuppression", "", "as many numbers as the numbers that come in decide"),
        ("RandomNormal", "", "RandomNormal"),
        ("NonZero", "", "NonZero"),
        ("ZipMap", LEARNED, "zipmap=False"),
        ("SVMClassifier", LEARNED, "SVMClassifier"),
        ("Whatever", "org.example", "org.example, which is not imported"),
    ],
)
def test_an_operator_that_is_not_run_is_named(
    tmp_path: Path, operator: str, domain: str, said: str
) -> None:
    node = helper.make_node(operator, ["x"], ["y"], domain=domain)
    refused(tmp_path, plain(nodes=[node]), said)


def test_a_foreign_domain_and_another_version_are_named(tmp_path: Path) -> None:
    model = plain(
        nodes=[helper.make_node("FusedMatMul", ["x", "x"], ["y"], domain="com.microsoft")]
    )
    model.opset_import.add(domain="com.microsoft", version=1)
    refused(tmp_path, model, "FusedMatMul of com.microsoft is not run here")
    model = plain(nodes=[helper.make_node("Softmax", ["x"], ["y"])])
    model.opset_import[0].version = 6
    refused(tmp_path, model, "Softmax of ai.onnx version 6 .* 7 to")
    model.opset_import[0].version = 99
    refused(tmp_path, model, "version 99")


def test_sequences_training_and_functions_are_refused(tmp_path: Path) -> None:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, [1]))
    refused(tmp_path, plain(outputs=[helper.make_value_info("y", kind)]), "y is a sequence")
    node = helper.make_node("Dropout", ["x", "", "on"], ["y"])
    refused(tmp_path, plain(nodes=[node], constants={"on": np.array(True)}), "training mode")
    model = plain()
    model.functions.add(name="mine", domain="")
    refused(tmp_path, model, "functions of its own")


def trees(**changes):
    given = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
        "n_targets": 1,
    }
    return helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain=LEARNED, **given | changes
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nodes_values": [0.5]}, "not of one length"),
        ({"nodes_truenodeids": [0, 0, 0]}, "no root, or several"),
        ({"nodes_truenodeids": [9, 0, 0]}, "leads nowhere"),
        ({"nodes_nodeids": [0, 1, 1]}, "there twice"),
        ({"nodes_featureids": [-1, 0, 0]}, "out of its range"),
        ({"nodes_featureids": [2**40, 0, 0]}, "small numbers"),
        ({"nodes_missing_value_tracks_true": [2**35, 0, 0]}, "tracks_true holds .* small numbers"),
        ({"nodes_values": ["a", "b", "c"]}, "nodes_values holds something else than numbers"),
        ({"target_weights": ["a", "b"]}, "target_weights holds something else than numbers"),
        ({"nodes_modes": ["BRANCH_MEMBER", "LEAF", "LEAF"]}, "branch by BRANCH_MEMBER"),
        ({"target_ids": [0, 5]}, "target that is not there"),
        ({"n_targets": 2**40}, "out of its range"),
        (
            {
                "nodes_treeids": [0] * 4,
                "nodes_nodeids": [0, 1, 2, 3],
                "nodes_featureids": [0] * 4,
                "nodes_values": [0.0] * 4,
                "nodes_modes": ["BRANCH_LEQ"] * 3 + ["LEAF"],
                "nodes_truenodeids": [1, 2, 1, 0],
                "nodes_falsenodeids": [3, 2, 1, 0],
                "target_nodeids": [3, 3],
            },
            "in a circle",
        ),
    ],
)
def test_trees_that_are_none_are_refused(tmp_path: Path, changes, said: str) -> None:
    describe(kept_at(tmp_path, plain(nodes=[trees()])))
    refused(tmp_path, plain(nodes=[trees(**changes)]), said)


def test_many_small_fields_do_not_keep_us_busy(tmp_path: Path) -> None:
    # Four million empty fields, one hundred nodes' worth of nothing.
    began_at_s = time.process_time()
    refused(tmp_path, b"\x08\x0a" + b"\x18\x01" * 4_100_000, "more than 4000000 fields")
    assert time.process_time() - began_at_s < 30


def test_every_operator_of_the_list_is_there() -> None:
    program = (
        "from tinygrad.nn.onnx import onnx_ops\n"
        "from node.engines.worker.onnx_ops import OPERATORS\n"
        "from node.engines.worker.onnx_standard import STANDARD\n"
        "print(*onnx_ops, *OPERATORS, *STANDARD)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert OPERATORS[STANDARD] | OPERATORS[LEARNED] <= set(done.stdout.decode().split())


def test_sizes_that_are_called_by_a_question_mark_need_not_be_the_same(tmp_path: Path) -> None:
    model = made(
        [helper.make_node("Neg", ["x"], ["y"])],
        [value("x", FLOAT, "n", "?", "?")],
        [value("y", FLOAT, "n", "?", "?")],
    )
    assert describe(kept_at(tmp_path, model)).inputs[0].shape == ("n", None, None)
