"""A peer that a killed upgrade had started is found and ended, before it has the state folder."""

from pathlib import Path

import pytest
import trio

from node.commands.upgrade_peer import AsProcess
from node.upgrading.started import Started


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """An environment whose Python takes long to begin."""
    python = tmp_path / "new" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    return tmp_path / "new"


def started(folder: Path, prefix: Path) -> AsProcess:
    old = Started(
        version="0.1.0",
        prefix=str(prefix),
        packages=str(prefix),
        arguments=("join",),
        folder=str(folder),
        process=1,
    )
    return AsProcess(folder, old, folder / "peer.log")


async def test_who_only_reads_its_files_is_not_ended(tmp_path: Path, prefix: Path) -> None:
    peer = started(tmp_path, prefix)
    await peer.start(prefix)
    assert peer.process is not None
    with (tmp_path / "peer.lock").open() as file:
        other = await trio.lowlevel.open_process(["sleep", "60"], stdin=file)
    try:
        await peer.stop(by_force=True)
        assert peer.process.wait(60) < 0
        assert other.poll() is None
    finally:
        other.kill()
        await other.wait()


async def test_one_that_is_about_to_take_the_folder_is_ended(tmp_path: Path, prefix: Path) -> None:
    killed, after = started(tmp_path, prefix), started(tmp_path, prefix)
    assert not await after.begun()
    await killed.start(prefix)
    assert killed.process is not None
    assert await after.begun()
    await after.stop(by_force=True)
    assert not await after.begun()
    assert killed.process.wait(60) < 0
