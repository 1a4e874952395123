"""Both stores, for every test of what either must do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from store import Store, open_memory_store, open_store
from tests.store.samples import Opened


@asynccontextmanager
async def _on_disk(folder: Path, quota_bytes: int) -> AsyncIterator[Store]:
    async with open_store(folder, quota_bytes=quota_bytes) as store:
        yield store


@asynccontextmanager
async def _in_memory(quota_bytes: int) -> AsyncIterator[Store]:
    async with open_memory_store(quota_bytes=quota_bytes) as store:
        yield store


@pytest.fixture(params=["lmdb", "memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Opens a store with the quota it is given."""
    return partial(_on_disk, tmp_path / "state") if request.param == "lmdb" else _in_memory


@pytest.fixture
async def store(opened: Opened) -> AsyncIterator[Store]:
    async with opened(64 << 20) as store:
        yield store
