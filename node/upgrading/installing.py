"""A release in a Python environment of its own, beside the versions that are there."""

import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import PathDistribution
from pathlib import Path

import trio

from node.upgrading.started import VERSION
from store.files import appearing
from wire.errors import BatonError, InputError

DEADLINE_S = 1800.0
_WHEEL = re.compile(r"baton-([0-9][0-9A-Za-z.+_]{0,39})-[a-z0-9_.]+-[a-z0-9_.]+-[a-z0-9_.]+\.whl")
# Written last: an environment without it was cut while it was made.
_WHOLE = "baton-version.json"
# What takes the place of versions that libraries pin; each wheel of ours brings its own.
OVERRIDES = "node/upgrading/overrides.txt"
_OVERRIDES_BYTES_MAX = 64 << 10
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"""extra\s*==\s*["']([A-Za-z0-9._-]+)["']""")
_ASK = (
    "import json; from node.commands.cli import VERSION; from store.folder import FOLDER_VERSION;"
    " import node.commands.join; print(json.dumps([VERSION, FOLDER_VERSION]))"
)


# Names of what is installed beside Baton, as the Python of an environment has them.
_ASK_NAMES = (
    "import json; from importlib.metadata import distributions as d;"
    " print(json.dumps([it.name for it in d()]))"
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


def extras_of(wheel: Path, names: Collection[str]) -> tuple[str, ...]:
    """The wheel's extras of which everything is among the names of what is installed.

    InputError if the file is no wheel.
    """
    have = {_normal(it) for it in names}
    missing: set[str] = set()
    found: set[str] = set()
    for line in _metadata(wheel).requires or ():
        for extra in _EXTRA.findall(line):
            name = _NAME.match(line)
            found.add(extra)
            if name is None or _normal(name[0]) not in have:
                missing.add(extra)
    return tuple(sorted(found - missing))


def overrides_of(wheel: Path) -> str:
    """What a wheel says that takes the place of what its libraries pin; InputError for no wheel."""
    try:
        with zipfile.ZipFile(wheel) as files, files.open(OVERRIDES) as file:
            return file.read(_OVERRIDES_BYTES_MAX).decode()
    except KeyError:
        return ""
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise _no_wheel(wheel) from error


def _metadata(wheel: Path) -> PathDistribution:
    try:
        with zipfile.ZipFile(wheel) as files:
            folder = next(it for it in files.namelist() if it.endswith(".dist-info/METADATA"))
        return PathDistribution(zipfile.Path(wheel, folder.removesuffix("METADATA")))
    except (OSError, ValueError, StopIteration, zipfile.BadZipFile) as error:
        raise _no_wheel(wheel) from error


def _no_wheel(wheel: Path) -> InputError:
    return InputError(f"{wheel.name} is no wheel: it was cut or altered", todo="fetch it again")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True, slots=True)
class Installer:
    """Makes the environments.

    `python` is the one that they are made of, `old` the environment that the new one replaces.
    `lock` is a descriptor that keeps other upgrades out: what installs holds it too, so that none
    begins while something still writes for an upgrade that was killed.
    """

    python: str
    old: Path
    lock: int

    async def install(
        self, wheel: Path, version: str, prefix: Path, source: Path | None
    ) -> Installed:
        """Put a wheel and what it needs into `prefix`; BatonError says why it could not be done.

        Extras that the old environment has are installed too. With `source`, a folder of wheels,
        the network is not asked. What was left there by an installation that was cut is deleted
        first.
        """
        overrides = overrides_of(wheel)
        told = await self._said("the old version", _asked(self.old, _ASK_NAMES))
        extras = extras_of(wheel, json.loads(told.splitlines()[-1]))
        if prefix.exists():
            await trio.to_thread.run_sync(shutil.rmtree, prefix)
        asked = f"baton[{','.join(extras)}] @ {wheel.as_uri()}"
        # The service may run as a user of its own, whatever this one lets others read.
        before = os.umask(0o022)
        try:
            await self._fill(asked, overrides, prefix, source)
        finally:
            os.umask(before)
        said = await self._said("the new version", _asked(prefix, _ASK))
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
        (prefix / _WHOLE).chmod(0o644)
        return Installed(prefix, found, int(folder_version))

    async def _fill(self, asked: str, overrides: str, prefix: Path, source: Path | None) -> None:
        """Make the environment. pip cannot take another version than a library pins: uv does it.

        Where there is no uv, pip brings it into the new environment.
        """
        uv = shutil.which("uv")
        bare = ("--without-pip",) if uv else ()
        await self._said("venv", (self.python, "-m", "venv", *bare, str(prefix)))
        python = str(prefix / "bin" / "python")
        offline = () if source is None else ("--no-index", f"--find-links={source}")
        if uv is None:
            pip = (python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check")
            await self._said("pip", (*pip, "--only-binary=:all:", *offline, "uv"))
            uv = str(prefix / "bin" / "uv")
        file = prefix / "overrides.txt"
        file.write_text(overrides)
        line = (uv, "pip", "install", "--python", python, "--override", str(file), *offline)
        await self._said("uv", (*line, asked))

    async def _said(self, program: str, words: Sequence[str]) -> str:
        """What a program writes; BatonError with its last line if it fails."""
        try:
            with trio.fail_after(DEADLINE_S):
                done = await trio.run_process(
                    words,
                    stdin=subprocess.DEVNULL,
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                    pass_fds=(self.lock,),
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


def _asked(prefix: Path, program: str) -> tuple[str, ...]:
    return str(prefix / "bin" / "python"), "-I", "-c", program
