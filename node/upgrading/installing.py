"""A release in a Python environment of its own, beside the versions that are there."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path

import trio

from node.upgrading.archive import opened, read_bounded
from node.upgrading.locked import LOCK, name_in, needed, normal
from node.upgrading.started import VERSION
from store.files import appearing
from wire.errors import BatonError, InputError

DEADLINE_S = 1800.0
_WHEEL = re.compile(r"baton-([0-9][0-9A-Za-z.+_]{0,39})-[a-z0-9_.]+-[a-z0-9_.]+-[a-z0-9_.]+\.whl")
# Written last: an environment without it was cut while it was made.
_WHOLE = "baton-version.json"
_LOCK_BYTES_MAX = 4 << 20
_METADATA_BYTES_MAX = 1 << 20
# Some libraries have no wheel. What packs them, which is Python alone, is under a hash as they are.
_BUILDS = "setuptools"
# What others set for pip and uv is not heard: it could add libraries, or put them elsewhere.
_OTHERS = ("PIP_", "UV_", "PYTHON")
# Plain HTTP is taken by pip from this machine alone.
_INDEX = re.compile(
    r"(https://[!-~]|file:///|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?/)[!-~]{0,2000}"
)
_EXTRA = re.compile(r"""extra\s*==\s*["']([A-Za-z0-9._-]+)["']""")
_ASK = (
    "import json; from node.commands.cli import VERSION; from store.folder import FOLDER_VERSION;"
    " import node.commands.join; print(json.dumps([VERSION, FOLDER_VERSION]))"
)


# An index may answer without end: no file of what installs grows larger than this, nor its memory,
# and the peer that runs meanwhile keeps its own. No library comes near to either.
FILE_BYTES_MAX = 1 << 30
MEMORY_BYTES_MAX = 2 << 30
_BOUND = """
import os, resource, sys
for which, most in zip((resource.RLIMIT_FSIZE, resource.RLIMIT_DATA), map(int, sys.argv[1:3])):
    hard = resource.getrlimit(which)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (most, most))
os.execv(sys.argv[3], sys.argv[3:])
"""
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


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """What is said to the programs that install, of what was said to this one.

    Nothing of what pip and uv themselves are told by variables, and no file of settings of pip's.
    """
    kept = {it: value for it, value in given.items() if not it.startswith(_OTHERS)}
    return kept | {"PIP_CONFIG_FILE": os.devnull}


def index_of(text: str) -> str:
    """The address of an index of packages, as it was typed; InputError if it is none.

    Whatever comes has to have the hashes that the release names, so any index will do that the
    installers take.
    """
    found = _INDEX.fullmatch(text)
    if found is None:
        raise InputError(
            f"{text[:100]!r} is no index of packages",
            todo="give an address as pip has it: --index https://HOST/simple/",
        )
    return text


def extras_of(wheel: Path, names: Collection[str]) -> tuple[str, ...]:
    """The wheel's extras of which everything is among the names of what is installed.

    InputError if the file is no wheel.
    """
    have = {normal(it) for it in names}
    missing: set[str] = set()
    found: set[str] = set()
    for line in _requires(wheel):
        for extra in _EXTRA.findall(line):
            found.add(extra)
            if name_in(line) not in have:
                missing.add(extra)
    return tuple(sorted(found - missing))


def libraries_of(wheel: Path, extras: Collection[str]) -> str:
    """What a wheel and some of its extras need, as it says: each version, and its hashes.

    InputError if the file is no wheel, or does not say it.
    """
    lines = _requires(wheel)
    return needed(
        lock_of(wheel), [name_in(it) for it in lines if set(_EXTRA.findall(it)) <= set(extras)]
    )


def lock_of(wheel: Path) -> str:
    """All libraries that a wheel names; InputError if the file is no wheel, or names none."""
    with opened(wheel) as files:
        if LOCK not in files.namelist():
            raise InputError(
                f"{wheel.name} does not say which libraries it needs",
                todo="take a release that does: its wheel has a libraries.lock",
            )
        return read_bounded(files, LOCK, _LOCK_BYTES_MAX)


def _requires(wheel: Path) -> list[str]:
    """What a wheel says that it needs, a line each; InputError if the file is no wheel."""
    with opened(wheel) as files:
        name = next((it for it in files.namelist() if it.endswith(".dist-info/METADATA")), None)
        if name is None:
            raise ValueError("it has no metadata")
        said = message_from_string(read_bounded(files, name, _METADATA_BYTES_MAX))
        return [str(it) for it in said.get_all("Requires-Dist", ())]


@dataclass(frozen=True, slots=True)
class Installer:
    """Makes the environments.

    `python` is the one that they are made of, `old` the environment that the new one replaces.
    `lock` is a descriptor that keeps other upgrades out: what installs holds it too, so that none
    begins while something still writes for an upgrade that was killed. `variables` are those of the
    programs that install, and `index` is where libraries come from, "" for the public index.
    """

    python: str
    old: Path
    lock: int
    variables: Mapping[str, str]
    index: str = ""

    async def install(
        self, wheel: Path, version: str, prefix: Path, source: Path | None
    ) -> Installed:
        """Put a wheel and what it needs into `prefix`; BatonError says why it could not be done.

        Extras that the old environment has are installed too. Wherever libraries come from, they
        have the hashes that the wheel names. With `source`, a folder of wheels, the network is not
        asked. What was left there by an installation that was cut is deleted first.
        """
        told = await self._said("the old version", _asked(self.old, _ASK_NAMES))
        extras = extras_of(wheel, json.loads(told.splitlines()[-1]))
        libraries = libraries_of(wheel, extras)
        if prefix.exists():
            await trio.to_thread.run_sync(shutil.rmtree, prefix)
        digest = await trio.to_thread.run_sync(_digest_of, wheel)
        asked = f"baton @ {wheel.as_uri()} --hash=sha256:{digest}\n{libraries}"
        # The service may run as a user of its own, whatever this one lets others read.
        before = os.umask(0o022)
        try:
            await self.make(prefix)
            await self.fill(needed(lock_of(wheel), (_BUILDS,)), prefix, source)
            await self.fill(asked, prefix, source)
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

    async def make(self, prefix: Path) -> None:
        """Make an empty environment, without pip where uv fills it faster."""
        bare = ("--without-pip",) if shutil.which("uv") else ()
        await self._said("venv", (self.python, "-I", "-m", "venv", *bare, str(prefix)))

    async def fill(self, asked: str, prefix: Path, source: Path | None) -> None:
        """Put libraries there as they are named: nothing is resolved, and nothing else fetched.

        Nor is a cache used, where what was unpacked or built stands under no hash any more.
        """
        python, uv = str(prefix / "bin" / "python"), shutil.which("uv")
        file = prefix / "libraries.txt"
        file.write_text(asked)
        if uv:
            words = [uv, "pip", "install", "--python", python, "--no-config", "--no-cache"]
        else:
            words = [python, "-I", "-m", "pip", "install", "--isolated", "--no-cache-dir"]
            # What is imported is compiled then, as with uv: pip would take most of its time for it.
            words += ["--no-input", "--disable-pip-version-check", "--no-compile"]
        words += ["--no-deps", "--require-hashes", "--no-build-isolation"]
        if source is not None:
            words += ["--no-index", f"--find-links={source}"]
        elif self.index:
            words += ["--default-index" if uv else "--index-url", self.index]
        bounds = map(str, (FILE_BYTES_MAX, MEMORY_BYTES_MAX))
        bounded = (self.python, "-I", "-c", _BOUND, *bounds)
        await self._said("uv" if uv else "pip", (*bounded, *words, "-r", str(file)))

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
                    env=self.variables,
                )
        except trio.TooSlowError as error:
            raise BatonError(f"{program} did not end within {DEADLINE_S / 60:.0f} min") from error
        except OSError as error:
            raise BatonError(f"{program} cannot be run: {error.strerror}") from error
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it failed"]
            # Which library was another one than the release names.
            said = next((it.strip() for it in lines if "hash" in it.lower()), lines[-1])
            raise BatonError(
                f"the new version cannot be installed: {program}: {said[:300]}",
                todo="the old one runs on; by a mirror: upgrade FILE.whl --index URL; with all"
                " wheels in one folder: upgrade FOLDER --offline",
            )
        return done.stdout.decode(errors="replace")


def _digest_of(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _asked(prefix: Path, program: str) -> tuple[str, ...]:
    return str(prefix / "bin" / "python"), "-I", "-c", program
