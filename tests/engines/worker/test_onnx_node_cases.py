"""ONNX's own cases: none silently wrong, none ends a process."""

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.engines.onnx_node_cases import cases, of_floats

FAMILIES = ("test_lstm", "test_gru", "test_simple_rnn", "test_rnn", "test_softmax", "test_hardmax")
QUANTISED = (
    *("test_quantizelinear", "test_dequantizelinear", "test_dynamicquantizelinear"),
    *("test_matmulinteger", "test_basic_convinteger", "test_convinteger", "test_qlinear"),
)
# What is refused of the families: by the beginning of the case's name, why.
REFUSED = {
    "test_quantizelinear_e": "float8",
    "test_quantizelinear_float4": "float4",
    "test_quantizelinear_int": "int4 or int2",
    "test_quantizelinear_uint": "uint4 or uint2",
    "test_dequantizelinear_e": "float8",
    "test_dequantizelinear_float4": "float4",
    "test_dequantizelinear_int": "int4 or int2",
    "test_dequantizelinear_uint": "uint4 or uint2",
    "test_resize_downsample_scales_cubic_a": "antialias; align_corners to a size that is not whole",
    "test_resize_downsample_scales_linear_a": "as above",
    "test_resize_downsample_sizes_cubic_antialias": "antialias",
    "test_resize_downsample_sizes_linear_antialias": "antialias",
}
# Operators that are not run, by why; none of their cases is compared with anything.
NOT_RUN = {
    "as many numbers as what comes in decides": "Compress NonMaxSuppression Unique",
    "by chance": "Bernoulli",
    "of training": "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss",
    "no tensors": "OptionalGetElement OptionalHasElement",
    "hardly any file has them": (
        "BitCast CausalConvWithState CenterCropPad Col2Im CumProd DFT DeformConv Det"
        " LinearAttention Loop LpPool MaxUnpool ReverseSequence RoiAlign STFT Scan Scatter SwiGLU"
        " TensorScatter TfIdfVectorizer"
    ),
}
# What is refused of operators that are run.
REFUSED_OF_RUN = {
    "BatchNormalization": "training mode",
    "Resize": "align_corners is run to whole sizes alone",
    "SpaceToDepth": "an unexpected keyword argument 'mode'",
}
LEAST_RIGHT = 0.5
LEAST_RIGHT_OF_FLOATS = 0.75


def outcomes(
    prefixes: Sequence[str], seconds: float, *, floats_only: bool = False
) -> dict[str, str]:
    program = (
        "import sys\n"
        "from tests.engines.onnx_node_cases import cases, of_floats, outcomes\n"
        f"wanted = {tuple(prefixes)!r}\n"
        "outcomes(it.name for it in cases() if it.name.startswith(wanted)\n"
        "         and '_expanded' not in it.name"
        f"         and ({not floats_only} or of_floats(it)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=seconds, check=False
    )
    found = dict(json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 0, (done.stderr[-400:], list(found.items())[-1:])
    return found


@pytest.mark.parametrize(
    ("prefixes", "cases_min"),
    [
        (
            ("test_softmax_axis", "test_attention_4d_gqa_causal", "test_gridsample_bilinear"),
            5,
        ),
        # Each case is compiled: these take minutes.
        pytest.param(FAMILIES, 15, marks=pytest.mark.soak),
        pytest.param(QUANTISED, 15, marks=pytest.mark.soak),
        pytest.param(("test_resize", "test_upsample"), 15, marks=pytest.mark.soak),
        pytest.param(("test_attention", "test_gridsample"), 90, marks=pytest.mark.soak),
    ],
    ids=["some", "recurrent", "quantised", "resized", "attention"],
)
def test_no_case_of_a_family_is_wrong(prefixes: Sequence[str], cases_min: int) -> None:
    found = outcomes(prefixes, 300)
    assert len(found) > cases_min
    assert [(name, it) for name, it in found.items() if it.startswith(("wrong", "began"))] == []
    refused = [name for name, it in found.items() if it.startswith("refused")]
    assert [it for it in refused if not it.startswith(tuple(REFUSED))] == []
    assert sum(it == "right" for it in found.values()) >= LEAST_RIGHT * len(found)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_of_all_cases_of_floats_most_are_right_and_none_is_wrong() -> None:
    floats = {
        it.name: {node.op_type for node in it.model.graph.node} for it in cases() if of_floats(it)
    }
    found = outcomes(("",), 1800, floats_only=True)
    assert found.keys() == floats.keys()
    assert [(name, it) for name, it in found.items() if it.startswith(("wrong", "began"))] == []
    not_run = {operator for operators in NOT_RUN.values() for operator in operators.split()}
    for name, said in found.items():
        if said != "right" and not floats[name] & not_run and "is empty" not in said:
            reasons = [REFUSED_OF_RUN.get(it, "!") for it in floats[name]]
            assert any(it in said for it in reasons), (name, said)
    right = sum(it == "right" for it in found.values())
    assert right >= LEAST_RIGHT_OF_FLOATS * len(found), f"{right} of {len(found)}"
