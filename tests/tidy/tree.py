"""Which files the rules are about. Works in a clone and, without git, in an unpacked archive."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("wire", "timeouts", "store", "p2p", "node")

# What tools leave behind, as .gitignore says; only looked at where git cannot answer.
_LEFT_BEHIND = {"__pycache__", "build", "dist"}


def tracked_files() -> list[Path]:
    """Every file of the project, absolute, sorted."""
    try:
        # A clone that belongs to somebody else is still a clone: the directory is trusted here.
        answer = subprocess.run(
            ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z"],
            capture_output=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.CalledProcessError):
        return sorted(path for path in ROOT.rglob("*") if path.is_file() and not _is_litter(path))
    names = answer.stdout.decode().split("\0")
    # A file deleted but not yet committed is listed and not there.
    return sorted(path for name in names if name and (path := ROOT / name).is_file())


def production_files() -> list[Path]:
    """Every Python file of the four packages, committed or not."""
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def shown(path: Path) -> str:
    """The path as a person types it."""
    return path.relative_to(ROOT).as_posix()


def _is_litter(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return any(
        part in _LEFT_BEHIND
        or part.endswith((".egg-info", ".pyc"))
        or (part.startswith(".") and part not in {".ci", ".gitignore"})
        for part in parts
    )
