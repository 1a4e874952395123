"""A peer that a killed upgrade had started is found and ended, before it has the state folder."""

from pathlib import Path

import pytest

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


async def test_one_that_is_about_to_take_the_folder_is_ended(tmp_path: Path, prefix: Path) -> None:
    old = Started(
        version="0.1.0",
        prefix=str(prefix),
        packages=str(prefix),
        arguments=("join",),
        folder=str(tmp_path),
        process=1,
    )
    killed, after = (AsProcess(tmp_path, old, tmp_path / "peer.log") for _ in range(2))
    assert not await after.begun()
    await killed.start(prefix)
    assert killed.process is not None
    assert await after.begun()
    await after.stop(by_force=True)
    assert not await after.begun()
    assert killed.process.wait(1) < 0
