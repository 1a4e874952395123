"""How a tinygrad worker is started: configuration, what the machine must have, environment.

Refuses early and in words what would otherwise fail late and in a traceback.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import trio

from node.engines.host.cache_folder import GRAPHS, KERNELS, sweep
from node.engines.host.worker_process import Launch
from p2p import timeouts
from wire.errors import EngineMissing

WORKER = "node.engines.worker.main"
COMPILER_TIMEOUT_S = 30.0
COMPILER_CHARS = 120
# What drivers of GPUs, their loaders and tinygrad read of a person's environment: where libraries
# and drivers lie, which devices may be seen, where compiled kernels are kept.
DRIVER_VARIABLES = (
    *("LD_LIBRARY_PATH", "ROCM_PATH", "LLVM_PATH"),
    *("CUDA_PATH", "NVRTC_PATH", "NVJITLINK_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_CACHE_PATH"),
    *("OPENCL_PATH", "OCL_ICD_VENDORS", "OCL_ICD_FILENAMES"),
    *("POCL_CACHE_DIR", "POCL_DEVICES", "POCL_MAX_PTHREAD_COUNT", "POCL_MEMORY_LIMIT"),
    *("WEBGPU_PATH", "WEBGPU_BACKEND", "VK_ICD_FILENAMES", "VK_DRIVER_FILES"),
)
# tinygrad reaches these through the system's own driver alone. The others it may take away from it,
# as root, when that driver's own way in fails.
SAFE_AS_ROOT = ("CPU", "CUDA", "CL", "WEBGPU")
# The driver's own way in, which is asked for by name so that no other is tried.
WAYS_IN = {"AMD": "KFD"}


def cores_here() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_device() -> str:
    """One core of the CPU, with the instructions every x86-64 machine of the last ten years has.

    `tune` changes speed only: three times that of clang's generic tuning, with the same bits.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        return "CPU:CLANG:x86_64,x86-64-v3,tune=znver3"
    return "CPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """`device` is tinygrad's DEV, `index` which one of its kind; `environment` is for the worker.

    `driver_environment` has what of the owner's environment a GPU's driver reads; workers on the
    CPU do not get it. `memory_bytes_max` is what a model may take: it bounds the worker's address
    space on a CPU (0: no bound), and the model's share of a GPU's memory on a GPU, whose driver
    reserves address space without using it.
    """

    device: str = field(default_factory=default_device)
    index: int = 0
    search_path: str = "/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin"
    environment: Mapping[str, str] = field(default_factory=dict)
    driver_environment: Mapping[str, str] = field(default_factory=dict)
    # Measured: MiniLM's worker takes 0.4 GiB of address space. The rest is for larger models.
    memory_bytes_max: int = 4 << 30
    jobs_max: int = 64
    # A batch takes 0.2 s on one core; a loaded machine is far slower, a hang has no end.
    batch_timeout_s: float = 60.0
    # A load is ended only when nothing of it was done for so long: no byte read, no kernel
    # compiled. Far longer than any one kernel takes to compile; a guess.
    load_stall_s: float = 300.0
    restart_delay_s: float = 0.25
    # How much of the time the worker may work on jobs; the rest of it is the machine's owner's.
    share: float = 1.0
    # How far the worker stands back behind the owner's own processes (nice, 0 to 19).
    niceness: int = 0
    # The first and the last layer that is loaded of a language model; None: all of them.
    layers: tuple[int, int] | None = None
    # Models are run side by side on so many cores; one that is alone uses several.
    cores: int = field(default_factory=cores_here)

    @property
    def kind(self) -> str:
        """CPU, CUDA, AMD, ...: `device` without interface, renderer and architecture."""
        return self.device.split("+")[-1].split(":")[0].upper()

    @property
    def on_gpu(self) -> bool:
        """Whether models run elsewhere than on the CPU."""
        return self.kind != "CPU"


def tinygrad_version() -> str:
    """The installed version, found without importing it; EngineMissing if there is none."""
    try:
        return version("tinygrad")
    except PackageNotFoundError as error:
        raise EngineMissing(
            "tinygrad is not installed", todo="pip install tinygrad==0.14.0"
        ) from error


async def prepare(cache_folder: Path, config: EngineConfig) -> Launch:
    """Everything a worker is started with; EngineMissing says what this machine lacks."""
    if os.geteuid() == 0 and config.kind not in SAFE_AS_ROOT:
        raise EngineMissing(
            f"tinygrad on {config.kind} as root could unbind the GPU's driver",
            todo="run the peer as an ordinary user, or choose cpu, cuda, cl or webgpu",
        )
    tinygrad = tinygrad_version()
    compiler = await _compiler(config)
    folder = cache_folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    address_bytes_max = 0 if config.on_gpu else config.memory_bytes_max
    # The kernel cache's own key leaves the compiler's version out.
    versions = f"tinygrad {tinygrad} {compiler}"
    version_name = "".join(char if char.isalnum() else "-" for char in versions)
    kernels = folder / f"{KERNELS}{version_name}.db"
    await trio.to_thread.run_sync(sweep, folder, kernels)
    return Launch(
        arguments=(
            *(WORKER, str(folder / GRAPHS), versions, config.kind),
            *map(str, (config.index, address_bytes_max, config.memory_bytes_max)),
        ),
        folder=folder,
        environment={
            "PATH": config.search_path,
            "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parents[3]), *filter(None, sys.path)]
            ),
            "XDG_CACHE_HOME": str(folder),
            "CACHEDB": str(kernels),
            "DEV": config.device,
            # Whoever uses more than one core is told how many there are for it: no pools.
            "PARALLEL": "0",
            "OPENBLAS_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            **(config.driver_environment if config.on_gpu else {}),
            **config.environment,
        },
    )


async def _compiler(config: EngineConfig) -> str:
    """The version of the compiler tinygrad will call; on a GPU its driver brings one."""
    if config.on_gpu:
        # The worker adds which driver that is.
        return "of the driver"
    clang = shutil.which("clang", path=config.search_path)
    if clang is None:
        raise EngineMissing(
            "clang is not installed: tinygrad compiles every model with it",
            todo="apt-get install clang (or brew install llvm)",
        )
    try:
        with timeouts.fail_after(COMPILER_TIMEOUT_S):
            done = await trio.run_process(
                [clang, "--version"], capture_stdout=True, stdin=subprocess.DEVNULL
            )
    except (OSError, subprocess.CalledProcessError, trio.TooSlowError) as error:
        raise EngineMissing(f"{clang} does not run: {error}", todo="reinstall clang") from error
    return done.stdout.decode("utf-8", "replace").split("\n", 1)[0][:COMPILER_CHARS]
