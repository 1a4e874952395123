"""What a GPU's driver means by its errors, and what to do about them, in words. Pure.

The errors are tinygrad's texts around the driver's own numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

ERROR_CHARS = 160
# Compilers that are taken where the better one is missing, and which that is.
FALLBACKS = {
    "PTX": "nvrtc is not there, so kernels are compiled by the driver: pip install"
    " nvidia-cuda-nvrtc-cu12 and set NVRTC_PATH to its libnvrtc.so.12",
}
# How errors of a driver begin, whatever was asked of it.
_DRIVER_FAULTS = (
    *("CUDA Error", "OpenCL Error", "HIP Error", "ioctl returned", "rm_alloc returned"),
    *("rm_control returned", "uvm returned", "Device hang", "Device fault", "Device is in error"),
    *("MMU fault", "HW fault", "GPU failed", "module load failed"),
)


@dataclass(frozen=True, slots=True)
class Advice:
    """What is wrong, in one sentence, and what its reader can do."""

    message: str
    todo: str


@dataclass(frozen=True, slots=True)
class _Kind:
    """`known`: what a part of an error's text means; `otherwise`: what to do about any other."""

    label: str
    known: tuple[tuple[str, Advice], ...]
    otherwise: str


_NO_SUCH = "there is no {label} device {index} here: their numbers begin with 0"
_REPLACED = Advice(
    "NVIDIA's driver was replaced while the system runs: {error}", "restart the machine"
)
_OTHERS = "or choose another device with --device"

_KINDS: Mapping[str, _Kind] = {
    "CL": _Kind(
        "OpenCL",
        (
            (
                "failed to load library",
                Advice(
                    "OpenCL's loader (libOpenCL.so.1) is missing or broken: {error}",
                    "apt-get install --reinstall ocl-icd-libopencl1",
                ),
            ),
            (
                "-1001",
                Advice(
                    "no OpenCL driver is installed, or the one that is cannot be loaded",
                    "install the GPU's (apt-get install intel-opencl-icd, nvidia-opencl-icd or"
                    " mesa-opencl-icd), or pocl-opencl-icd, which runs on the processor; see"
                    " /etc/OpenCL/vendors",
                ),
            ),
            ("invalid index", Advice(_NO_SUCH, "clinfo -l lists them, " + _OTHERS)),
        ),
        "install the driver anew; clinfo shows what it says",
    ),
    "CUDA": _Kind(
        "NVIDIA",
        (
            (
                "failed to load library cuda",
                Advice(
                    "NVIDIA's driver is missing: there is no libcuda.so.1",
                    "apt-get install nvidia-driver (Ubuntu: ubuntu-drivers install), " + _OTHERS,
                ),
            ),
            (
                "CUDA Error 100,",
                Advice(
                    "NVIDIA's driver is installed, and sees no GPU",
                    "see nvidia-smi; a container or service needs the devices /dev/nvidia*",
                ),
            ),
            ("CUDA Error 101,", Advice(_NO_SUCH, "nvidia-smi -L lists them")),
            (
                "CUDA Error 46,",
                Advice(
                    "another program holds the NVIDIA GPU for itself",
                    "end it (nvidia-smi shows it), or allow several: nvidia-smi -c DEFAULT",
                ),
            ),
            (
                "CUDA Error 2,",
                Advice(
                    "other programs have taken the GPU's memory",
                    "end those that nvidia-smi shows, " + _OTHERS,
                ),
            ),
            ("CUDA Error 803,", _REPLACED),
            ("CUDA Error 804,", _REPLACED),
            (
                "renderer",
                Advice(
                    "no compiler for NVIDIA GPUs works here: {error}",
                    "pip install nvidia-cuda-nvrtc-cu12, and set NVRTC_PATH to its libnvrtc.so.12",
                ),
            ),
        ),
        "see nvidia-smi; a driver that was updated wants a restart of the machine",
    ),
    "AMD": _Kind(
        "AMD",
        (
            (
                "No such file or directory: '/dev/kfd'",
                Advice(
                    "there is no AMD GPU with its compute driver: /dev/kfd is missing",
                    "modprobe amdgpu; a container needs the devices /dev/kfd and /dev/dri",
                ),
            ),
            (
                "Permission denied",
                Advice(
                    "this user may not use the AMD GPU: {error}",
                    "usermod -aG render,video USER, then log in again",
                ),
            ),
            ("No device found", Advice(_NO_SUCH, "rocminfo lists them")),
            ("does not exist (", Advice(_NO_SUCH, "rocminfo lists them")),
            (
                "load library",
                Advice(
                    "no compiler for AMD GPUs works here: {error}",
                    "apt-get install libamd-comgr2, or libllvm19 (LLVM 18 and newer will do)",
                ),
            ),
        ),
        "see dmesg for what amdgpu says; a driver that was updated wants a restart of the machine",
    ),
    "METAL": _Kind(
        "Metal",
        (
            (
                "libSystem",
                Advice("Metal is there on Apple's systems alone", "choose cuda, amd, cl or cpu"),
            ),
        ),
        "update the system",
    ),
    "WEBGPU": _Kind(
        "WebGPU",
        (
            (
                "failed to load library",
                Advice(
                    "WebGPU's library (Dawn) is missing or broken: {error}",
                    "pip install --no-deps dawn-python, and set WEBGPU_PATH to its"
                    " pydawn/lib/libwebgpu_dawn_x86_64.so",
                ),
            ),
            (
                "RequestAdapter",
                Advice(
                    "WebGPU finds no Vulkan driver",
                    "apt-get install mesa-vulkan-drivers libvulkan1",
                ),
            ),
        ),
        "apt-get install mesa-vulkan-drivers libvulkan1; vulkaninfo shows what the driver says",
    ),
}


def opening_advice(kind: str, index: int, error: str) -> Advice:
    """Why a device could not be opened, or did not compute."""
    found = _KINDS.get(kind, _Kind(kind, (), "choose another device with --device"))
    short = " ".join(error.split())[:ERROR_CHARS]
    for part, advice in found.known:
        if part in error:
            words = advice.message.format(label=found.label, index=index, error=short)
            return Advice(words, advice.todo)
    return Advice(
        f"the {found.label} driver is installed and does not work: {short}", found.otherwise
    )


def is_driver_fault(error: Exception) -> bool:
    """Whether the driver is at fault and not what was asked of it."""
    return isinstance(error, MemoryError | OSError) or str(error).startswith(_DRIVER_FAULTS)


def running_advice(kind: str, error: Exception) -> Advice:
    """What became of a device that worked before."""
    found = _KINDS.get(kind)
    short = " ".join(str(error).split())[:ERROR_CHARS]
    if isinstance(error, MemoryError):
        return Advice(
            f"the GPU's memory ran out: {short}",
            "end other programs that use it, allow less with --vram, or take a smaller model",
        )
    if is_driver_fault(error):
        label = kind if found is None else found.label
        return Advice(
            f"the GPU was lost, says the {label} driver: {short}",
            "see dmesg" if found is None else found.otherwise,
        )
    return Advice(f"{type(error).__name__}: {short}", "")
