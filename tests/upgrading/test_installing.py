"""A release and its libraries come as the release names them, whatever is set on the machine."""

import hashlib
import json
import os
import sys
import sysconfig
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import trio

from node.upgrading.installing import Installer, environment, index_of, installed
from node.upgrading.locked import LOCK
from wire.errors import BatonError, InputError

WHEEL = "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
VERSIONS = {
    "node/__init__.py": "",
    "node/commands/__init__.py": "",
    "node/commands/cli.py": "import lone\nVERSION = '0.2.0'\n",
    "node/commands/join.py": "",
    "store/__init__.py": "",
    "store/folder.py": "FOLDER_VERSION = 1\n",
}


def wheel_of(folder: Path, name: str, version: str, files: Mapping[str, str]) -> Path:
    """A wheel with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    about = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    if name == "baton":
        metadata += "Requires-Dist: lone==1.0\n"
    whole = {**files, f"{about}/METADATA": metadata, f"{about}/WHEEL": WHEEL}
    whole[f"{about}/RECORD"] = "".join(f"{it},,\n" for it in [*whole, f"{about}/RECORD"])
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        for path, text in whole.items():
            packed.writestr(path, text)
    # As a folder of an index has it.
    (folder / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    return wheel


class PipHere(Installer):
    """Uses the pip of these tests: unpacking one takes longer than the rest."""

    async def make(self, prefix: Path) -> None:
        await trio.run_process([sys.executable, "-I", "-m", "venv", "--without-pip", prefix])
        (packages,) = prefix.glob("lib/*/site-packages")
        (packages / "pip").symlink_to(Path(sysconfig.get_path("purelib")) / "pip")


@dataclass(frozen=True, slots=True)
class Release:
    """A release that needs one library, which lies at an index."""

    wheel: Path
    library: Path
    index: str
    prefix: Path


@pytest.fixture
def release(tmp_path: Path) -> Release:
    library = wheel_of(
        tmp_path / "index" / "lone", "lone", "1.0", {"lone.py": "# as it was made\n"}
    )
    digest = hashlib.sha256(library.read_bytes()).hexdigest()
    lock = f"lone==1.0 \\\n    --hash=sha256:{digest}\n    # via baton (pyproject.toml)\n"
    wheel = wheel_of(tmp_path, "baton", "0.2.0", {**VERSIONS, LOCK: lock})
    return Release(wheel, library, (tmp_path / "index").as_uri(), tmp_path / "versions" / "0.2.0")


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[str]:
    """An index over HTTP on this machine, of the files of a folder."""
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@asynccontextmanager
async def endless() -> AsyncIterator[str]:
    """An index that answers any question without end."""

    async def answer(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
            while True:
                await stream.send_all(b" " * (1 << 20))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/simple/"
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def no_uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    (tmp_path / "versions").mkdir()


def installer(release: Release, variables: Mapping[str, str]) -> Installer:
    lock = os.open(release.wheel, os.O_RDONLY)
    return PipHere(
        sys.executable, Path(sys.prefix), lock, environment(variables), index_of(release.index)
    )


async def test_what_is_set_for_pip_redirects_and_weakens_nothing(
    release: Release, tmp_path: Path
) -> None:
    other = wheel_of(tmp_path / "evil" / "lone", "lone", "1.0", {"lone.py": "# another\n"})
    settings = {
        "index-url": other.parents[1].as_uri(),
        "find-links": str(other.parent),
        "require-hashes": "0",
        "constraint": str(tmp_path / "gone.txt"),
        "target": str(tmp_path / "elsewhere"),
        "no-index": "1",
        "dry-run": "1",
    }
    text = "[install]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())
    for place in ("home/.config/pip", "home/.pip", "site/pip"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "pip.conf").write_text(text)
    set_for_pip = {f"PIP_{it.upper().replace('-', '_')}": value for it, value in settings.items()}
    hostile = {
        **os.environ,
        **set_for_pip,
        "HOME": str(tmp_path / "home"),
        "XDG_CONFIG_DIRS": str(tmp_path / "site"),
        "PIP_CONFIG_FILE": str(tmp_path / "site" / "pip" / "pip.conf"),
        "PYTHONPATH": str(tmp_path / "evil"),
    }
    found = await installer(release, hostile).install(release.wheel, "0.2.0", release.prefix, None)
    assert installed(release.prefix) == found
    (brought,) = release.prefix.glob("lib/*/site-packages/lone.py")
    assert brought.read_text() == "# as it was made\n"
    assert not (tmp_path / "elsewhere").exists()


async def test_a_library_with_one_byte_altered_is_not_installed(release: Release) -> None:
    data = bytearray(release.library.read_bytes())
    data[data.index(b"as it was")] ^= 1
    release.library.write_bytes(data)
    with pytest.raises(BatonError, match=r"(?i)hash"):
        await installer(release, os.environ).install(release.wheel, "0.2.0", release.prefix, None)
    assert installed(release.prefix) is None
    assert not [*release.prefix.glob("lib/*/site-packages/lone.py")]


async def test_a_file_without_end_is_not_waited_for(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.upgrading.installing.FILE_BYTES_MAX", 100_000)
    with release.library.open("ab") as file:
        file.truncate(10_000_000)
    release.prefix.mkdir()
    one = installer(release, os.environ)
    await one.make(release.prefix)
    asked = f"lone==1.0 --hash=sha256:{'0' * 64}\n"
    # It is over before there is a hash to compare.
    async with serving(release.library.parents[1]) as index:
        with pytest.raises(BatonError, match="large"):
            await replace(one, index=index).fill(asked, release.prefix, None)


async def test_a_page_without_end_takes_no_more_memory_than_it_may(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.upgrading.installing.MEMORY_BYTES_MAX", 128 << 20)
    release.prefix.mkdir()
    one = installer(release, os.environ)
    await one.make(release.prefix)
    async with endless() as index:
        with trio.fail_after(60.0), pytest.raises(BatonError, match="cannot be installed"):
            await replace(one, index=index).fill("lone==1.0\n", release.prefix, None)


@pytest.mark.soak
async def test_a_page_with_a_million_names_takes_no_more_time_and_memory_than_it_may(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pip works on it for minutes.
    monkeypatch.setattr("node.upgrading.installing.DEADLINE_S", 15.0)
    page = release.library.parent / "index.html"
    names = (f"lone-1.0.{it}-py3-none-any.whl" for it in range(1_000_000))
    page.write_text("".join(f'<a href="{it}">{it}</a>\n' for it in names))
    release.prefix.mkdir()
    one = installer(release, os.environ)
    await one.make(release.prefix)
    async with serving(release.library.parents[1]) as index:
        with (
            trio.fail_after(60.0),
            pytest.raises(BatonError, match=r"did not end within|cannot be"),
        ):
            await replace(one, index=index).fill("lone==1.0\n", release.prefix, None)
    assert not [*release.prefix.glob("lib/*/site-packages/lone*")]


async def test_uv_hears_no_settings_either(
    release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It need not be there, so this is what it is told; with --soak the program itself runs."""
    uv, told = tmp_path / "uv", tmp_path / "told"
    program = "import json, os, sys; json.dump([sys.argv, dict(os.environ)], open(sys.argv[0][:-2]"
    uv.write_text(f"#!{sys.executable}\n{program} + 'told', 'w'))\n")
    uv.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda _: str(uv))
    hostile = {"UV_OVERRIDE": "/x", "UV_INDEX": "https://x/", "UV_CONFIG_FILE": "/x", "HOME": "/h"}
    release.prefix.mkdir()
    await installer(release, hostile).fill("", release.prefix, None)
    words, variables = json.loads(told.read_text())
    assert {"--no-config", "--no-cache", "--require-hashes", "--no-deps"} <= {*words}
    assert words[words.index("--default-index") + 1] == release.index
    assert not [it for it in variables if it.startswith(("UV_", "PYTHON"))]
    assert variables["HOME"] == "/h"


@pytest.mark.parametrize(
    "text",
    [
        "https://packages.example.org/simple/",
        "https://user:word@10.0.0.1:8443/simple",
        "http://127.0.0.1:8080/simple/",
        "http://[::1]/simple/",
        "file:///srv/packages",
    ],
)
def test_an_index_is_an_address(text: str) -> None:
    assert index_of(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "--target=/x",
        "https://",
        "http://packages.example.org/simple/",
        "http://127.0.0.1.example.org/",
        "http://localhost:80@packages.example.org/simple/",
        "file://host/x",
        "ftp://x/",
        "https://x/ --extra-index-url=https://y/",
        "https://x/\n--no-deps",
        "https://" + "x" * 9000,
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no index"):
        index_of(text)
