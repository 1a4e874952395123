"""One cache of compiled models for the whole run: each is compiled once."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from node.engines.host.engine import TinygradEngine, open_tinygrad_engine
from node.engines.host.launch import EngineConfig

OpenEngine = Callable[..., AbstractAsyncContextManager[TinygradEngine]]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def open_engine(cache: Path) -> OpenEngine:
    @asynccontextmanager
    async def opened(**config: object) -> AsyncIterator[TinygradEngine]:
        settings = {"restart_delay_s": 0.01} | config
        async with open_tinygrad_engine(cache, config=EngineConfig(**settings)) as engine:
            yield engine

    return opened
