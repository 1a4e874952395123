"""npm's ipfs-car and @ipld/unixfs: they compute the ids that we do, read our archives, we theirs.

Needs node, npm and a registry of packages; skipped by name where one of them is missing.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.bench.clients import CACHE
from tests.live.command_line import Peer, joined
from wire import limits

pytestmark = pytest.mark.soak

PACKAGES = ("ipfs-car@3.1.0", "@ipld/unixfs@3.0.0")
INSTALL_S = RUN_S = 300
BLOCK = limits.BLOCK_BYTES_MAX
# The settings of `ipfs add --cid-version 1 --raw-leaves`; a folder is sharded above one block.
PROGRAM = """
import fs from 'fs'
import path from 'path'
import * as UnixFS from '@ipld/unixfs'
import { withMaxChunkSize } from '@ipld/unixfs/file/chunker/fixed'
import { withWidth } from '@ipld/unixfs/file/layout/balanced'
import * as raw from 'multiformats/codecs/raw'

const settings = UnixFS.configure({
  fileChunkEncoder: raw,
  smallFileEncoder: raw,
  chunker: withMaxChunkSize(262144),
  fileLayout: withWidth(174)
})
const { readable, writable } = new TransformStream({}, UnixFS.withCapacity())
const writer = UnixFS.createWriter({ writable, settings })
async function linkTo (place) {
  if (!fs.statSync(place).isDirectory()) {
    const file = UnixFS.createFileWriter(writer)
    for await (const piece of fs.createReadStream(place)) await file.write(piece)
    return file.close()
  }
  const names = fs.readdirSync(place)
  const folder = names.length > 5000
    ? UnixFS.createShardedDirectoryWriter(writer)
    : UnixFS.createDirectoryWriter(writer)
  for (const name of names) folder.set(name, await linkTo(path.join(place, name)))
  return folder.close()
}
let found
const made = (async () => { found = await linkTo(process.argv[2]); await writer.close() })()
for await (const _ of readable) {}
await made
console.log(JSON.stringify({ id: found.cid.toString(), bytes: found.dagByteLength }))
"""


@pytest.fixture(scope="module")
def tools() -> Path:
    """The folder with the tools, which are installed once."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed: nothing was compared with IPFS tools")
    folder = CACHE / "ipfs-tools-1"
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"private": true, "type": "module"}')
        command = ["npm", "install", "--no-audit", "--no-fund", *PACKAGES]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False
        )
        if done.returncode:
            pytest.skip(f"npm cannot install ipfs-car: {done.stderr.strip()[-200:]}")
        (folder / "installed").touch()
    (folder / "id.mjs").write_text(PROGRAM)
    return folder


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with joined(tmp_path_factory.mktemp("peer"), "--role", "store") as found:
        yield found


def ran(tools: Path, *command: object) -> str:
    done = subprocess.run(
        ["node", *map(str, command)],
        cwd=tools,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def ipfs_car(tools: Path, *arguments: object) -> str:
    return ran(tools, "node_modules/ipfs-car/bin.js", *arguments)


def id_of(tools: Path, path: Path) -> str:
    found: str = json.loads(ran(tools, "id.mjs", path))["id"]
    return found


def contents(top: Path) -> dict[str, bytes | None]:
    return {
        it.relative_to(top).as_posix(): it.read_bytes() if it.is_file() else None
        for it in top.rglob("*")
    }


SIZES = (0, 1, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 174 * BLOCK, 174 * BLOCK + 1)


@pytest.mark.parametrize("size_bytes", SIZES)
def test_files_go_both_ways(tools: Path, peer: Peer, tmp_path: Path, size_bytes: int) -> None:
    file, car, out = tmp_path / "file", tmp_path / "x.car", tmp_path / "out"
    file.write_bytes(Random(size_bytes).randbytes(size_bytes))
    content = peer.ask("put", file, "--json").document["id"]
    assert content == id_of(tools, file)
    assert peer.ask("export", content, car).code == 0
    assert ipfs_car(tools, "roots", car) == content
    ipfs_car(tools, "unpack", car, "--output", out)
    assert out.read_bytes() == file.read_bytes()
    # Theirs has pieces of 1 MiB, and is cut again where there is more than one piece of ours.
    theirs = ipfs_car(tools, "pack", file, "--no-wrap", "--output", car)
    found = peer.ask("import", car, "--json").document
    assert (found["root"], found["id"]) == (theirs, content)
    assert peer.ask("get", content, "--output", out).code == 0
    assert out.read_bytes() == file.read_bytes()


def write(top: Path, kind: str) -> Path:
    random = Random(kind)
    match kind:
        case "nested":
            names = {"/".join([*"abcdefgh"[:depth], f"{depth}.bin"]): depth for depth in range(9)}
        case "unicode":
            odd = ("é", "e\u0301", "日本/語", "🚲", " ", "-x", "a\nb", "%2f", "\\")
            names = dict.fromkeys(odd, 9)
        case "large":
            names = {"a": 3 * BLOCK + 5, "b/c": 45_700_000, "d": 0}
        case "same":
            names = {f"{number}/x": 9 for number in range(20)}
        case _:
            names = {f"{number:05}": 9 for number in range(int(kind))}
    for name, size_bytes in names.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(9) if kind == "same" else random.randbytes(size_bytes))
    return top


@pytest.mark.parametrize("kind", ["nested", "unicode", "large", "same", "900", "4000", "7000"])
def test_folders_go_both_ways(tools: Path, peer: Peer, tmp_path: Path, kind: str) -> None:
    folder, car = write(tmp_path / "in", kind), tmp_path / "x.car"
    content = peer.ask("put", folder, "--json").document["id"]
    assert content == id_of(tools, folder)
    assert peer.ask("export", content, car).code == 0
    assert ipfs_car(tools, "roots", car) == content
    ipfs_car(tools, "unpack", car, "--output", tmp_path / "theirs")
    assert contents(tmp_path / "theirs") == contents(folder)
    theirs = ipfs_car(tools, "pack", folder, "--output", car)
    found = peer.ask("import", car, "--json").document
    assert found["root"] == theirs
    assert peer.ask("get", found["id"], tmp_path / "ours").code == 0
    assert contents(tmp_path / "ours") == contents(folder)
    # They shard a folder above a thousand entries, kubo and we above one block.
    assert (found["id"] == content) == (kind != "4000")
