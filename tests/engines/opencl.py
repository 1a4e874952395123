"""OpenCL and WebGPU, the paths of GPUs that run without one: by drivers on the processor.

pocl is OpenCL's; Vulkan's lavapipe is what WebGPU's library (Dawn) runs on.
"""

import os
import subprocess
import sys
from functools import cache

import pytest

CL, WEBGPU = "CL", "WEBGPU"
# Where WebGPU's library lies, and which of Vulkan's drivers it takes.
VARIABLES = ("WEBGPU_PATH", "VK_ICD_FILENAMES", "VK_DRIVER_FILES")
_PROGRAM = "import sys; from tinygrad import Device; Device[sys.argv[1]]"


def driver_environment() -> dict[str, str]:
    """What a process needs to know of the drivers."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


@cache
def why_absent(device: str = CL) -> str:
    """Why nothing can run on the device here; empty if it can."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, device], capture_output=True, text=True, check=False
    )
    return "" if not done.returncode else (done.stderr.splitlines() or ["it said nothing"])[-1]


def need_opencl() -> None:
    """Skip the test, in words, where there is no OpenCL driver."""
    if why := why_absent():
        pytest.skip(f"no OpenCL driver ({why}): apt-get install pocl-opencl-icd ocl-icd-libopencl1")


def need_webgpu() -> None:
    """Skip the test, in words, where there is no WebGPU with a driver."""
    if why := why_absent(WEBGPU):
        pytest.skip(
            f"no WebGPU ({why}): apt-get install mesa-vulkan-drivers libvulkan1; pip install"
            " --no-deps dawn-python; WEBGPU_PATH=.../pydawn/lib/libwebgpu_dawn_x86_64.so"
        )
