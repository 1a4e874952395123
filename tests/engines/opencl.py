"""OpenCL, the one path of GPUs that runs without a GPU: by a driver on the processor (pocl)."""

import subprocess
import sys
from functools import cache

import pytest

CL = "CL"
_PROGRAM = "from tinygrad import Device; Device['CL']"


@cache
def why_absent() -> str:
    """Why nothing can run on OpenCL here; empty if it can."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False
    )
    return "" if not done.returncode else (done.stderr.splitlines() or ["it said nothing"])[-1]


def need_opencl() -> None:
    """Skip the test, in words, where there is no OpenCL driver."""
    if why := why_absent():
        pytest.skip(f"no OpenCL driver ({why}): apt-get install pocl-opencl-icd ocl-icd-libopencl1")
