"""Other programs' packages with our names are found before they are imported."""

import os
import subprocess
import sys
from pathlib import Path

from node.own_packages import PACKAGES, clashing
from tests.tidy.tree import ROOT

NODE = ROOT / "node"


def test_packages_that_lie_beside_are_ours() -> None:
    assert clashing(NODE) == ""
    assert clashing(NODE, place_of=lambda name: ROOT / name) == ""
    # One that is missing is for Python to say.
    assert clashing(NODE, place_of=lambda _: None) == ""


def test_one_of_another_program_is_named_with_its_place_and_a_way_out(tmp_path: Path) -> None:
    for name in PACKAGES:
        other = tmp_path / name
        said = clashing(
            NODE, place_of=lambda it, name=name, other=other: other if it == name else ROOT / it
        )
        assert str(other) in said
        assert "uv tool install baton" in said


def test_the_command_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "__init__.py").write_text("raise SystemExit('imported')\n")
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", "node", "--version"],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: another program's package 'store' is in the way")
    assert len(done.stderr.splitlines()) == 1
