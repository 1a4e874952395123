"""GPUs that are not here: tinygrad compiles for them wherever it finds their compiler."""

import os
from ctypes.util import find_library

import pytest

# What it loads for each, and the variable that says where that is.
_COMPILERS = {
    "NULL:WGSL": (),
    "NULL:CUDA:sm_86": ("NVRTC_PATH", "nvrtc"),
    "NULL:CUDA:sm_120": ("NVRTC_PATH", "nvrtc"),
    "NULL:AMDLLVM:gfx1100": ("LLVM_PATH", "LLVM-21", "LLVM-20", "LLVM-19", "LLVM-18"),
}
# What brings a compiler that is not here.
_PACKAGES = {
    "NVRTC_PATH": "pip install --no-deps nvidia-cuda-nvrtc-cu12, NVRTC_PATH=.../libnvrtc.so.12",
    "LLVM_PATH": "apt-get install libllvm19",
}
_VARIABLES = ("NVRTC_PATH", "LLVM_PATH", "LD_LIBRARY_PATH")


def _is_here(names: tuple[str, ...]) -> bool:
    return not names or names[0] in os.environ or any(map(find_library, names[1:]))


def environment(device: str) -> dict[str, str]:
    """What a process needs to compile for `device`."""
    paths = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return {"DEV": device, **paths}


ABSENT_GPUS = [
    pytest.param(
        device,
        id=device.removeprefix("NULL:"),
        marks=pytest.mark.skipif(
            not _is_here(names),
            reason=f"no compiler for {device} here: {_PACKAGES[names[0]]}" if names else "",
        ),
    )
    for device, names in _COMPILERS.items()
]
