"""What is said of a GPU that cannot be used: what is missing, and which package brings it."""

from pathlib import Path

import pytest

from node.engines.host.device_check import check_device
from node.engines.host.launch import EngineConfig
from node.engines.worker.driver_words import FALLBACKS, opening_advice, running_advice
from tests.engines.opencl import CL, need_opencl
from wire.errors import EngineMissing

# A device, what its driver says, and words that its owner needs.
OPENING = {
    "nvidia's driver is not there": (
        "CUDA",
        "failed to load library cuda: try setting CUDA_PATH?",
        ("libcuda.so.1", "apt-get install nvidia-driver"),
    ),
    "no gpu": ("CUDA", "CUDA Error 100, no CUDA-capable device is detected", ("no GPU", "/dev/")),
    "no such gpu": ("CUDA", "CUDA Error 101, invalid device ordinal", ("device 3", "nvidia-smi")),
    "held by another program": (
        "CUDA",
        "CUDA Error 46, all CUDA-capable devices are busy or unavailable",
        ("another program holds", "nvidia-smi"),
    ),
    "no memory left": ("CUDA", "CUDA Error 2, out of memory", ("memory", "end those")),
    "replaced while running": (
        "CUDA",
        "CUDA Error 803, system has unsupported display driver / cuda driver combination",
        ("replaced", "restart"),
    ),
    "any other": ("CUDA", "CUDA Error 999, unknown error", ("installed and does not work", "999")),
    "no amd driver": (
        "AMD",
        "[Errno 2] No such file or directory: '/dev/kfd'",
        ("/dev/kfd", "modprobe amdgpu"),
    ),
    "not allowed": ("AMD", "[Errno 13] Permission denied: '/dev/kfd'", ("render,video",)),
    "no compiler": ("AMD", "failed to load library comgr: try", ("compiler", "libamd-comgr2")),
    "no opencl driver": ("CL", "OpenCL Error -1001: Unknown error", ("pocl-opencl-icd", "intel")),
    "no opencl loader": ("CL", "failed to load library opencl: x", ("ocl-icd-libopencl1",)),
    "not apple": ("METAL", "/usr/lib/libSystem.dylib: cannot open", ("Apple",)),
    "no dawn": ("WEBGPU", "failed to load library webgpu: try", ("dawn-python", "WEBGPU_PATH")),
    "no vulkan": (
        "WEBGPU",
        "[WGPURequestAdapterStatus_Unavailable]No supported adapters",
        ("mesa-vulkan-drivers",),
    ),
}


@pytest.mark.parametrize("name", OPENING)
def test_what_is_missing_is_named_with_what_brings_it(name: str) -> None:
    kind, error, words = OPENING[name]
    advice = opening_advice(kind, 3, error)
    said = f"{advice.message}: {advice.todo}"
    assert "{" not in said
    for word in words:
        assert word in said


def test_of_a_gpu_that_worked_it_is_said_what_became_of_it() -> None:
    lost = running_advice("CUDA", RuntimeError("CUDA Error 719, unspecified launch failure"))
    assert "lost" in lost.message
    assert "nvidia-smi" in lost.todo
    full = running_advice("CUDA", MemoryError("Allocation of 4.00 GB failed on CUDA. Used: 1 GB"))
    assert "memory ran out: Allocation of 4.00 GB" in full.message
    assert "--vram" in full.todo
    # What is no driver's fault is told as it is.
    assert "lost" not in running_advice("CL", RuntimeError("something else")).message
    assert "NVRTC_PATH" in FALLBACKS["PTX"]


async def test_an_opencl_driver_that_works_says_what_it_is(tmp_path: Path) -> None:
    need_opencl()
    found = await check_device(tmp_path, EngineConfig(device=CL))
    assert found.name
    assert found.compiler == "OpenCL"
    assert found.size_bytes > 1 << 20
    with pytest.raises(EngineMissing, match="no OpenCL device 7 here"):
        await check_device(tmp_path, EngineConfig(device=CL, index=7))


@pytest.mark.parametrize("icd", [None, "libsuch-a-driver-is-not-there.so\n"], ids=["none", "bad"])
async def test_without_an_opencl_driver_nothing_is_run_elsewhere(
    icd: str | None, tmp_path: Path
) -> None:
    need_opencl()
    if icd is not None:
        (tmp_path / "bad.icd").write_text(icd)
    config = EngineConfig(device=CL, driver_environment={"OCL_ICD_VENDORS": str(tmp_path)})
    with pytest.raises(EngineMissing, match="no OpenCL driver is installed, or the one that is"):
        await check_device(tmp_path / "cache", config)


async def test_a_loader_that_is_broken_is_said_to_be(tmp_path: Path) -> None:
    library = tmp_path / "libOpenCL.so.1"
    library.write_bytes(b"\x7fELF and no more")
    config = EngineConfig(device=CL, driver_environment={"OPENCL_PATH": str(library)})
    with pytest.raises(EngineMissing, match=r"loader .* is missing or broken: .*file too short"):
        await check_device(tmp_path / "cache", config)


@pytest.mark.parametrize(
    ("device", "words"), [("CUDA", "libcuda.so.1"), ("METAL", "Apple"), ("WEBGPU", "Dawn")]
)
async def test_a_driver_that_is_not_here_is_named(
    device: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that has such a driver, there is nothing to see."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    try:
        await check_device(tmp_path, EngineConfig(device=device))
    except EngineMissing as error:
        assert words in str(error) or "does not work" in str(error)  # noqa: PT017
    else:
        pytest.skip(f"{device} works here")
