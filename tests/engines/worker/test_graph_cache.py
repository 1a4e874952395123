"""Compiled models on disk: compiled once, read only when ours, made anew when spoiled."""

from pathlib import Path

import pytest
import trio

from node.engines.host.engine import open_tinygrad_engine
from node.engines.host.launch import EngineConfig
from node.engines.interface import Job
from tests.engines.tiny import texts, write_tiny
from wire.errors import EngineMissing


async def answer(cache: Path, manifest, files) -> bytes:
    async with open_tinygrad_engine(cache, config=EngineConfig()) as engine:
        await engine.load(manifest, files)
        job = Job(
            model=manifest.id,
            operation="embed",
            input=texts("a b c"),
            parameters={},
            deadline_s=60,
        )
        return (await engine.infer(job)).data


def graphs(cache: Path) -> list[Path]:
    return sorted((cache / "graphs").glob("*.graph"))


async def test_workers_that_start_together_compile_once_and_agree(tmp_path: Path) -> None:
    manifest, files = write_tiny(tmp_path)
    answers = []

    async def start() -> None:
        answers.append(await answer(tmp_path / "cache", manifest, files))

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(start)
    assert len(set(answers)) == 1
    (graph,) = graphs(tmp_path / "cache")
    assert graph.stat().st_mode & 0o777 == 0o600

    # Read again, not made again.
    made_at = graph.stat().st_mtime_ns
    assert await answer(tmp_path / "cache", manifest, files) == answers[0]
    assert graph.stat().st_mtime_ns == made_at

    # Spoiled, or open to others: made again, with the same bits.
    for spoil in (spoil_bytes, spoil_mode, spoil_link):
        spoil(graph)
        spoiled = (graph.is_symlink(), graph.stat().st_mtime_ns)
        assert await answer(tmp_path / "cache", manifest, files) == answers[0]
        assert (graph.is_symlink(), graph.stat().st_mtime_ns) != spoiled
        assert graph.stat().st_mode & 0o777 == 0o600


def spoil_bytes(graph: Path) -> None:
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)


def spoil_mode(graph: Path) -> None:
    graph.chmod(0o666)


def spoil_link(graph: Path) -> None:
    elsewhere = graph.with_suffix(".elsewhere")
    graph.rename(elsewhere)
    graph.symlink_to(elsewhere)


async def test_a_folder_others_may_write_to_is_refused(tmp_path: Path) -> None:
    manifest, files = write_tiny(tmp_path)
    folder = tmp_path / "cache" / "graphs"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    async with open_tinygrad_engine(tmp_path / "cache", config=EngineConfig()) as engine:
        with pytest.raises(EngineMissing, match="chmod 700"):
            await engine.load(manifest, files)
