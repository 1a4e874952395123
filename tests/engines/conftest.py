"""One cache of compiled models for the whole run: each is compiled once, for each device."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from node.engines.host.engine import TinygradEngine, open_tinygrad_engine
from node.engines.host.launch import EngineConfig
from tests.engines.opencl import CL, need_opencl

OpenEngine = Callable[..., AbstractAsyncContextManager[TinygradEngine]]
PROCESSOR = ""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have whatever runs models run them on OpenCL too: compiling for it takes its time."""
    own = metafunc.definition.get_closest_marker
    if "open_engine" not in metafunc.fixturenames or own("own_device"):
        return
    later = () if own("on_opencl") else (pytest.mark.soak,)
    devices = [pytest.param(PROCESSOR, id="cpu"), pytest.param(CL, id="cl", marks=later)]
    metafunc.parametrize("engine_device", devices, indirect=True)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """One folder for all processes of a run, which wait for each other's graphs."""
    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        # Of a process among several: the folder of the run is the one above.
        folder = folder.parent
    found = folder / "engine-cache"
    found.mkdir(mode=0o700, exist_ok=True)
    return found


@pytest.fixture
def engine_device(request: pytest.FixtureRequest) -> str:
    """The device that models run on, as tinygrad calls it; empty for the processor."""
    chosen: str = getattr(request, "param", PROCESSOR)
    if chosen == CL:
        need_opencl()
    return chosen


@pytest.fixture
def open_engine(cache: Path, engine_device: str) -> OpenEngine:
    chosen = {"device": engine_device} if engine_device else {}

    @asynccontextmanager
    async def opened(**config: object) -> AsyncIterator[TinygradEngine]:
        settings = {"restart_delay_s": 0.01, **chosen} | config
        async with open_tinygrad_engine(cache, config=EngineConfig(**settings)) as engine:
            yield engine

    return opened
