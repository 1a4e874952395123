"""Opens the GPU that a worker's model runs on, tries it, and asks its driver what it is.

Worker only. Nothing here falls back to another device: whoever chose one is told why not.
"""

import ctypes
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tinygrad import Device, Tensor
from tinygrad.device import CompileError
from tinygrad.helpers import DEV, Target

from node.engines.worker.device import OpenedDevice
from node.engines.worker.driver_words import opening_advice
from wire.errors import EngineMissing

# Whatever libraries, drivers and compilers raise when they cannot be used.
_FAULTS = (
    *(AssertionError, AttributeError, CompileError, ExceptionGroup, ImportError, LookupError),
    *(MemoryError, OSError, RuntimeError, TypeError, ValueError),
)
TRIAL = (1.0, 2.0, 3.0)
NAME_BYTES = 256


def choose(index: int) -> None:
    """Have everything from here on run on this device of its kind. Before any device is opened."""
    if index:
        # tinygrad's variable has no place for a number; its default device may have one.
        DEV.value = [Target(device=f"{Device.DEFAULT}:{index}")]


def open_device() -> OpenedDevice:
    """Open the device that was chosen, and compute on it; EngineMissing says what is missing."""
    kind, _, number = Device.DEFAULT.partition(":")
    index = int(number or 0)
    try:
        device = Device[Device.DEFAULT]
        compiler = type(device.renderer).__name__.removesuffix("Renderer")
        found = (Tensor(list(TRIAL)) * 2).tolist()
    except _FAULTS as error:
        advice = opening_advice(kind, index, _words(error))
        raise EngineMissing(advice.message, todo=advice.todo) from error
    if found != [2 * it for it in TRIAL]:
        advice = opening_advice(kind, index, f"twice {TRIAL} is {found} there")
        raise EngineMissing(advice.message, todo=advice.todo)
    told = OpenedDevice(name=kind, compiler=compiler, versions="")
    told = _ASKED.get(kind, _of_no_kind)(device, told)
    versions = f"{told.name} {device.arch} {compiler} {told.versions}"
    return replace(told, versions=" ".join(versions.split()))


def _words(error: BaseException) -> str:
    """What was raised; of several the first says most."""
    if isinstance(error, BaseExceptionGroup):
        return f"{error.message}: {_words(error.exceptions[0])}"
    return str(error) or type(error).__name__


def _of_no_kind(_device: Any, told: OpenedDevice) -> OpenedDevice:
    return told


def _opencl(device: Any, told: OpenedDevice) -> OpenedDevice:
    from tinygrad.runtime.autogen import opencl

    size = ctypes.c_uint64()
    opencl.clGetDeviceInfo(
        device.cl_dev,
        opencl.CL_DEVICE_GLOBAL_MEM_SIZE,
        ctypes.sizeof(size),
        ctypes.byref(size),
        None,
    )
    return replace(
        told, name=device.device_name, versions=device.driver_version, size_bytes=size.value
    )


def _cuda(device: Any, told: OpenedDevice) -> OpenedDevice:
    from tinygrad.runtime.autogen import cuda

    name = ctypes.create_string_buffer(NAME_BYTES)
    free, size, version = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_int32()
    cuda.cuDeviceGetName(name, NAME_BYTES, device.cu_device)
    cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(size))
    cuda.cuDriverGetVersion(ctypes.byref(version))
    return replace(
        told,
        name=name.value.decode("utf-8", "replace"),
        versions=str(version.value),
        size_bytes=size.value,
        free_bytes=free.value,
    )


_ASKED: dict[str, Callable[[Any, OpenedDevice], OpenedDevice]] = {"CL": _opencl, "CUDA": _cuda}
