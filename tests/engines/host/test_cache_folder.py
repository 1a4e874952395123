"""What was compiled: the oldest goes when there is too much, and nothing that is in use."""

import os
from pathlib import Path

import pytest

from node.engines.host.cache_folder import sweep
from node.engines.host.launch import EngineConfig, prepare


def written(file: Path, at_s: int, size_bytes: int = 100) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(bytes(size_bytes))
    os.utime(file, (at_s, at_s))
    return file


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.engines.host.cache_folder.CACHE_BYTES_MAX", 350)


def test_the_oldest_go_and_not_what_is_about_to_be_used(tmp_path: Path) -> None:
    graphs = [written(tmp_path / "graphs" / f"{it}.graph", 1000 + it) for it in range(5)]
    ours = written(tmp_path / "kernels-new.db", 1)
    beside = written(tmp_path / "kernels-new.db-wal", 1)
    former = written(tmp_path / "kernels-old.db", 2)
    other = written(tmp_path / "another file", 0, 10_000)
    assert sweep(tmp_path, ours) == 3
    assert [it for it in (*graphs, ours, beside, former, other) if it.exists()] == [
        *graphs[2:],
        ours,
        beside,
        other,
    ]
    assert sweep(tmp_path, ours) == 0


def test_the_latest_stays_however_large_it_is(tmp_path: Path) -> None:
    old = written(tmp_path / "graphs" / "a.graph", 1)
    latest = written(tmp_path / "graphs" / "b.graph", 2, 1000)
    assert sweep(tmp_path, tmp_path / "kernels-new.db") == 1
    assert latest.exists()
    assert not old.exists()
    assert sweep(tmp_path / "not made yet", tmp_path / "kernels-new.db") == 0


async def test_before_a_worker_starts_its_folder_is_swept(tmp_path: Path) -> None:
    former = [written(tmp_path / "graphs" / f"{it}.graph", it) for it in range(8)]
    launch = await prepare(tmp_path, EngineConfig())
    assert [it for it in former if it.exists()] == former[-3:]
    assert Path(launch.environment["CACHEDB"]).parent == tmp_path
