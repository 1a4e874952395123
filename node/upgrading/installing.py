"""A release in a Python environment of its own, beside the versions that are there."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from node.upgrading.started import VERSION
from store.files import appearing
from wire.errors import BatonError, InputError

DEADLINE_S = 1800.0
_WHEEL = re.compile(r"baton-([0-9][0-9A-Za-z.+_]{0,39})-[a-z0-9_.]+-[a-z0-9_.]+-[a-z0-9_.]+\.whl")
# Written last: an environment without it was cut while it was made.
_WHOLE = "baton-version.json"
# libp2p pins a version of it that has to be compiled; this one has wheels, and our keys need none.
_OVERRIDES = "fastecdsa==4.0.0\n"
_ASK = (
    "import json; from node.commands.cli import VERSION; from store.folder import FOLDER_VERSION;"
    " import node.commands.join; print(json.dumps([VERSION, FOLDER_VERSION]))"
)


@dataclass(frozen=True, slots=True)
class Installed:
    """A version that is whole: where its Python is, and which state folder it reads."""

    prefix: Path
    version: str
    folder_version: int


def wheel_in(place: Path) -> tuple[Path, str]:
    """The wheel of a release, which is a file or lies in a folder, and its version; InputError."""
    if not place.exists():
        raise InputError(
            f"there is no {place}", todo="give a wheel of Baton, or the folder of a release"
        )
    wheels = [place] if place.is_file() else sorted(place.glob("baton-*.whl"))
    if len(wheels) != 1:
        raise InputError(
            f"{place} has {len(wheels)} wheels of Baton",
            todo="name the one: python -m node upgrade FILE.whl",
        )
    match = _WHEEL.fullmatch(wheels[0].name)
    if match is None or not VERSION.fullmatch(match[1]):
        raise InputError(
            f"{wheels[0].name} is no wheel of Baton",
            todo="a wheel is called baton-VERSION-py3-none-any.whl: keep its name",
        )
    return wheels[0], match[1]


def installed(prefix: Path) -> Installed | None:
    """The version that is there, if it is whole."""
    try:
        version, folder_version = json.loads((prefix / _WHOLE).read_bytes()[:256])
    except (OSError, ValueError, TypeError):
        return None
    if not isinstance(version, str) or type(folder_version) is not int:
        return None
    return Installed(prefix, version, folder_version)


@dataclass(frozen=True, slots=True)
class Installer:
    """Makes the environments. `python` is the one that they are made of."""

    python: str

    async def install(
        self, wheel: Path, version: str, prefix: Path, source: Path | None
    ) -> Installed:
        """Put a wheel and what it needs into `prefix`; BatonError says why it could not be done.

        With `source`, a folder of wheels, the network is not asked. What was left there by an
        installation that was cut is deleted first.
        """
        if prefix.exists():
            await trio.to_thread.run_sync(shutil.rmtree, prefix)
        await self.fill(wheel, prefix, source)
        python = prefix / "bin" / "python"
        said = await _said("the new version", (str(python), "-I", "-c", _ASK))
        try:
            found, folder_version = json.loads(said.splitlines()[-1])
        except (ValueError, IndexError, TypeError) as error:
            raise BatonError(f"{wheel.name} does not say its version") from error
        if found != version:
            raise InputError(
                f"{wheel.name} holds version {found}", todo="fetch it again: a wheel keeps its name"
            )
        with appearing(prefix / _WHOLE) as file:
            file.write(json.dumps([found, folder_version]).encode())
        # The service may run as a user of its own.
        (prefix / _WHOLE).chmod(0o644)
        return Installed(prefix, found, int(folder_version))

    async def fill(self, wheel: Path, prefix: Path, source: Path | None) -> None:
        """Make the environment: by uv if it is there, else by pip."""
        uv = shutil.which("uv")
        bare = ("--without-pip",) if uv else ()
        await _said("venv", (self.python, "-m", "venv", *bare, str(prefix)))
        python = str(prefix / "bin" / "python")
        offline = () if source is None else ("--no-index", f"--find-links={source}")
        if uv:
            overrides = prefix / "overrides.txt"
            overrides.write_text(_OVERRIDES)
            line: tuple[str, ...] = (
                uv,
                "pip",
                "install",
                "--python",
                python,
                "--override",
                str(overrides),
            )
        else:
            line = (python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check")
        await _said(Path(line[0]).name, (*line, *offline, str(wheel)))


async def _said(program: str, words: Sequence[str]) -> str:
    """What a program writes; BatonError with its last line if it fails."""
    try:
        with trio.fail_after(DEADLINE_S):
            done = await trio.run_process(
                words,
                stdin=subprocess.DEVNULL,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
    except trio.TooSlowError as error:
        raise BatonError(f"{program} did not end within {DEADLINE_S / 60:.0f} min") from error
    except OSError as error:
        raise BatonError(f"{program} cannot be run: {error.strerror}") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it failed"]
        raise BatonError(
            f"the new version cannot be installed: {program}: {lines[-1][:300]}",
            todo="the old one runs on; with all wheels in one folder: upgrade FOLDER --offline",
        )
    return done.stdout.decode(errors="replace")
