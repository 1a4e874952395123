"""The demo's folder: nobody else may open what it lies in, for a peer will live there."""

import os
from pathlib import Path

import pytest

from node.commands.demo_peers import prepare_folder
from wire.errors import InputError


def test_the_folders_that_a_demo_makes_are_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / ".baton" / "demo"
    before = os.umask(0o022)
    try:
        prepare_folder(folder)
    finally:
        os.umask(before)
    assert [it.stat().st_mode & 0o777 for it in (folder, folder.parent)] == [0o700, 0o700]
    # An earlier demo is replaced, and what lies beside it stays.
    (folder.parent / "key").write_bytes(b"")
    (folder / "asker.log").write_bytes(b"")
    prepare_folder(folder)
    assert (folder.parent / "key").exists()
    assert not (folder / "asker.log").exists()


def test_somebodys_files_are_no_demo(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear Ada")
    with pytest.raises(InputError, match="no earlier demo made it"):
        prepare_folder(tmp_path)
    assert (tmp_path / "letter").exists()
