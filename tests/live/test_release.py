"""A release as two people build it from one commit, and as a third checks it.

Building takes some seconds each time, so it runs with --soak.
"""

import subprocess
import time
from base64 import b64encode
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.commands.cli import cli
from tests.bench.release import BUILDERS, ROOT, built

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]
KEY_ID, SEED = b"12345678", bytes(range(32))


def key_of(seed: bytes) -> str:
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return b64encode(b"Ed" + KEY_ID + public).decode()


def verified(folder: Path, key: str) -> Result:
    line = ["verify", str(folder / "SHA256SUMS"), "--release-key", key]
    return CliRunner().invoke(cli, line)


def test_two_builders_make_the_same_bytes_and_a_third_checks_them(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(KEY_ID + SEED)
    found, folders = [], []
    for number, builder in enumerate(BUILDERS):
        # Each has a checkout of its own, in a place of its own, made at another second.
        checkout = tmp_path / ("x" * (1 + 20 * number)) / "baton"
        words = ["git", "clone", "--quiet", "--shared", str(ROOT), str(checkout)]
        subprocess.run(words, check=True, umask=builder["umask"])
        folders.append(tmp_path / f"release-{number}")
        found.append(built(checkout, folders[-1], builder, secret))
        time.sleep(1.1)
    names = {it.rpartition(".")[2] for it in found[0]}
    assert names == {"whl", "gz", "txt", "SHA256SUMS", "minisig"}
    assert found[0] == found[1]
    told = verified(folders[1], key_of(SEED))
    assert told.exit_code == 0, told.output
    assert all(it in told.output for it in found[0] if it.startswith("baton-"))
    assert verified(folders[1], key_of(SEED[::-1])).exit_code != 0
    (wheel,) = folders[1].glob("*.whl")
    data = bytearray(wheel.read_bytes())
    data[len(data) // 2] ^= 1
    wheel.write_bytes(data)
    assert verified(folders[1], key_of(SEED)).exit_code != 0
    sums = folders[0] / "SHA256SUMS"
    sums.write_text(sums.read_text().replace("0", "1", 1))
    assert verified(folders[0], key_of(SEED)).exit_code != 0
