"""ONNX's own cases: none silently wrong, none ends a process."""

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

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
LEAST_RIGHT = 0.5


def outcomes(prefixes: Sequence[str], seconds: float) -> dict[str, str]:
    program = (
        "import sys\n"
        "from tests.engines.onnx_node_cases import cases, of_floats, outcomes\n"
        f"wanted = {tuple(prefixes)!r}\n"
        "outcomes(it.name for it in cases() if it.name.startswith(wanted)\n"
        "         and '_expanded' not in it.name)"
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
        (("test_softmax_axis",), 2),
        # Each case is compiled: these take minutes.
        pytest.param(FAMILIES, 15, marks=pytest.mark.soak),
        pytest.param(QUANTISED, 15, marks=pytest.mark.soak),
        pytest.param(("test_resize", "test_upsample"), 15, marks=pytest.mark.soak),
    ],
    ids=["softmax", "recurrent", "quantised", "resized"],
)
def test_no_case_of_a_family_is_wrong(prefixes: Sequence[str], cases_min: int) -> None:
    found = outcomes(prefixes, 300)
    assert len(found) > cases_min
    assert [(name, it) for name, it in found.items() if it.startswith(("wrong", "began"))] == []
    refused = [name for name, it in found.items() if it.startswith("refused")]
    assert [it for it in refused if not it.startswith(tuple(REFUSED))] == []
    assert sum(it == "right" for it in found.values()) >= LEAST_RIGHT * len(found)
