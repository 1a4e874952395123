"""The machines that read the code have nothing to say: ruff, mypy, import-linter."""

import subprocess
import sys

import pytest

from tests.tidy.tree import ROOT

IMPORT_LINTER = "from importlinter.cli import lint_imports_command as lint; lint()"

# Run in a fresh interpreter: what the tests loaded before must not matter.
LOADED = "import sys, node.__main__; print(*sorted(sys.modules))"


def run_python(*arguments: str) -> str:
    """The output of a command that must succeed; its own words are the failure's message."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"python {' '.join(arguments)}\n{done.stdout}"
    return done.stdout


def test_ruff_finds_nothing() -> None:
    run_python("-m", "ruff", "check", "--quiet", "--output-format", "concise", ".")


def test_ruff_would_format_nothing() -> None:
    run_python("-m", "ruff", "format", "--check", ".")


# The first run reads every library's types; on two slow cores that takes minutes.
@pytest.mark.timeout(300)
def test_mypy_strict_finds_nothing() -> None:
    run_python("-m", "mypy")


def test_imports_point_one_way_and_each_library_has_one_door() -> None:
    run_python("-c", IMPORT_LINTER)


def test_what_can_be_typed_is_known_without_the_network_an_engine_or_the_web() -> None:
    loaded = run_python("-c", "import sys, node.commands.cli; print(*sorted(sys.modules))").split()
    assert "node.commands.cli_peer" in loaded
    slow = {"libp2p", "tinygrad", "fastapi", "numpy", "trio", "rich", "httpx", "hypercorn", "lmdb"}
    found = sorted(slow.intersection(loaded))
    assert not found, f"{found} delay every command; import them in the function that needs them"


def test_starting_the_command_line_does_not_load_the_engine() -> None:
    loaded = run_python("-c", LOADED).split()
    assert "node.__main__" in loaded
    assert "tinygrad" not in loaded, "a driver that crashes must never be in the peer's process"
