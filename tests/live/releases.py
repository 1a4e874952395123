"""Releases of this tree with other version numbers, and environments that they are installed in.

What they need comes from one folder of wheels, which is fetched once; afterwards no index is asked.
Nothing here finds a compiler, as on a machine that has none.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node.upgrading.locked import LOCK, needed_by, versions_in
from tests.tidy.tree import PACKAGES, ROOT

COMPILERS = ("gcc", "cc", "clang", "g++", "c++", "tcc", "as", "ld")
DEADLINE_S = 900.0
WHEEL = """
import sys
from setuptools import build_meta

build_meta.build_wheel(sys.argv[1])
"""


def wheel_of(version: str, folder: Path, changed: Mapping[str, tuple[str, str]] = {}) -> Path:
    """A wheel of this tree as another version; `changed` has a text and its like for a file."""
    source = folder / f"source-{version}"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "LICENSE", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    number = {"pyproject.toml": "version = ", "node/commands/cli.py": "VERSION = "}
    edits = {name: (f'{start}"0.1.0"', f'{start}"{version}"') for name, start in number.items()}
    for name, (old, new) in [*edits.items(), *changed.items()]:
        text = (source / name).read_text()
        assert old in text, (name, old)
        (source / name).write_text(text.replace(old, new, 1))
    done(sys.executable, "-c", WHEEL, str(folder), cwd=source)
    shutil.rmtree(source)
    (found,) = folder.glob(f"baton-{version}-*.whl")
    return found


@dataclass(frozen=True, slots=True)
class House:
    """A folder with all that Baton needs, the list of it, and uv as a program."""

    wheels: Path
    pins: Path
    uv: Path


def house(folder: Path) -> House:
    """Fetch it; AssertionError where no index is reached."""
    tools, wheels = folder / "tools", folder / "wheels"
    done(sys.executable, "-m", "venv", str(tools))
    pip = (str(tools / "bin" / "python"), "-m", "pip", "--disable-pip-version-check")
    done(*pip, "install", "uv")
    project, lock = ((ROOT / it).read_text() for it in ("pyproject.toml", LOCK))
    # One extra, and what builds libraries that have no wheel.
    libraries = needed_by(project, lock, ["segno", "setuptools", "wheel"])
    (folder / "libraries.txt").write_text(libraries)
    # As a release has it for people.
    pins = folder / "baton-requirements.txt"
    pins.write_text(versions_in(libraries))
    words = ("download", "--no-deps", "--require-hashes", "--dest", str(wheels))
    done(*pip, *words, "-r", str(folder / "libraries.txt"))
    return House(wheels, pins, tools / "bin" / "uv")


def without_compilers(folder: Path) -> str:
    """A search path with all programs of this machine but compilers, uv and pip."""
    path = folder / "programs"
    path.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for program in Path(place).glob("*"):
            plain = program.name.rstrip("0123456789.-")
            ours = plain in ("uv", "uvx", "pip", "python", "baton") or plain in COMPILERS
            if (
                not ours
                and not plain.endswith(("-gcc", "-cc"))
                and not (path / program.name).is_symlink()
            ):
                (path / program.name).symlink_to(program)
    return str(path)


def done(*words: str, cwd: Path | None = None, extra: Mapping[str, str] | None = None) -> str:
    """What a program writes, run to its end."""
    ran = subprocess.run(
        words,
        cwd=cwd,
        env={**os.environ, **(extra or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert ran.returncode == 0, (words, ran.stdout[-2000:], ran.stderr[-2000:])
    return ran.stdout


def installed_by(how: str, wheel: Path, house: House, folder: Path, path: str) -> Path:
    """The prefix that a release is installed in, as a person does it; no compiler is found."""
    offline = ("--no-index", f"--find-links={house.wheels}")
    extra = {"PATH": path, "UV_TOOL_DIR": str(folder), "UV_TOOL_BIN_DIR": str(folder / "bin")}
    if how == "uv":
        words = ("tool", "install", "--python", sys.executable, "--overrides", str(house.pins))
        done(str(house.uv), *words, *offline, f"baton[qr] @ {wheel.as_uri()}", extra=extra)
        return folder / "baton"
    # pip refuses other versions than a library pins, so all are named.
    done(sys.executable, "-m", "venv", str(folder))
    words = ("-m", "pip", "--disable-pip-version-check", "install", "--no-deps", *offline)
    python = str(folder / "bin" / "python")
    done(python, *words, "-r", str(house.pins), str(wheel), extra=extra)
    return folder
