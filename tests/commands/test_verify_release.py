"""A release is what its makers signed, byte for byte; anything else is refused in words."""

import hashlib
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from click.testing import CliRunner

from node.commands.cli import cli
from wire.errors import BadSignature, Malformed
from wire.minisign import check_minisign, read_key, read_signature
from wire.signing import SigningKey

# Made by minisign 0.11 itself: a key, and its signatures of one file in both of its ways.
KEY = "RWQltDgF7yvbqDjJGDTrCmQA/MedtXUIAVNdQqrvWOBBu/FuiQPQ1/8s"
SIGNED = b"hello release\n"
HASHED = """untrusted comment: signature from minisign secret key
RUQltDgF7yvbqM2pQb2V05H6iF9290hZIIoOFqi2wUZ5J5tGgv/qiSkBrvuCCRVQ/oMrugA2a1qBLWiDsi43ttctbNvZGDMgHQE=
trusted comment: baton 0.1.0
UNtgzJ68Y29CRU8MaeHSKTLtvwJl/srpPs95w+C67qqFfoII5sJmHE5vV2uliDXZZDrVofsBAmyvLWYYVoEbAQ==
"""
LEGACY = """untrusted comment: signature from minisign secret key
RWQltDgF7yvbqE8QPNrsoijRiqNIyD5kBEtkV3NchXvbdVR/E0mk9rvrNP+4WoUeAsBQaBSMl+UrHJH2i5V7O7XowDtXlGWuBAI=
trusted comment: legacy
vfNOHOL/nI+knp4ICu6QsCDQMplEjz91nkk9rneVNohZdChz3gk5pBkaKyCa6HHdYBkznWLZiUDYwiUoM9ULAg==
"""


@pytest.mark.parametrize("text", [HASHED, LEGACY, HASHED.replace("\n", "\r\n")])
def test_what_minisign_signed_is_good(text: str) -> None:
    check_minisign(read_key(KEY), read_signature(text), SIGNED)
    check_minisign(read_key(f"untrusted comment: x\n{KEY}\n"), read_signature(text), SIGNED)


@pytest.mark.parametrize("text", [HASHED, LEGACY])
def test_any_byte_that_is_changed_is_found(text: str) -> None:
    key, good = read_key(KEY), read_signature(text)
    for place in range(len(SIGNED)):
        changed = bytearray(SIGNED)
        changed[place] ^= 1
        with pytest.raises(BadSignature):
            check_minisign(key, good, bytes(changed))
    lines = text.splitlines()
    for number in (1, 3):
        data = b64decode(lines[number])
        for place in range(0, len(data), 5):
            other = bytearray(data)
            other[place] ^= 1
            again = [*lines]
            again[number] = b64encode(other).decode()
            with pytest.raises((BadSignature, Malformed)):
                check_minisign(key, read_signature("\n".join(again)), SIGNED)
    comment = text.replace("trusted comment: baton 0.1.0", "trusted comment: baton 9.9.9")
    comment = comment.replace("trusted comment: legacy", "trusted comment: newest")
    with pytest.raises(BadSignature, match="comment"):
        check_minisign(key, read_signature(comment), SIGNED)


@pytest.mark.parametrize(
    "text", ["", "x", KEY, HASHED[:200], HASHED * 2, "a\n" * 5000, "\0" * 9999, HASHED[20:]]
)
def test_what_is_no_signature_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        read_signature(text)


@pytest.mark.parametrize("text", ["", "x", KEY[:-4], KEY + "\n" + KEY, "é" * 56, "A" * 5000])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        read_key(text)


def release(folder: Path) -> str:
    """A release signed by a key of the test's own; the key's line."""
    seed, key_id = bytes(range(32)), b"12345678"
    (folder / "baton.whl").write_bytes(b"a wheel")
    digests = {"baton.whl": b"a wheel", "baton.tar.gz": b"not fetched"}
    sums = "".join(f"{hashlib.sha256(it).hexdigest()}  {name}\n" for name, it in digests.items())
    (folder / "SHA256SUMS").write_text(sums)
    (folder / "SHA256SUMS.minisig").write_text(signature_of(sums.encode(), seed, key_id))
    return b64encode(b"Ed" + key_id + SigningKey(seed).peer).decode()


def signature_of(data: bytes, seed: bytes, key_id: bytes) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.from_private_bytes(seed)
    signed = private.sign(hashlib.blake2b(data).digest())
    comment = private.sign(signed + b"baton 0.1.0")
    lines = [b"ED" + key_id + signed, comment]
    first, second = (b64encode(it).decode() for it in lines)
    return f"untrusted comment: x\n{first}\ntrusted comment: baton 0.1.0\n{second}\n"


def verify(folder: Path, key: str | None) -> tuple[int, str]:
    words = ["verify", str(folder / "SHA256SUMS")]
    done = CliRunner().invoke(cli, [*words, *([] if key is None else ["--release-key", key])])
    return done.exit_code, done.output + str(done.exception or "")


def test_a_release_is_checked_file_by_file(tmp_path: Path) -> None:
    key = release(tmp_path)
    code, said = verify(tmp_path, key)
    assert code == 0, said
    (tmp_path / "key.pub").write_text(f"untrusted comment: x\n{key}\n")
    assert verify(tmp_path, str(tmp_path / "key.pub"))[0] == 0
    code, said = verify(tmp_path, None)
    assert code != 0
    assert "--release-key" in said
    code, said = verify(tmp_path, KEY)
    assert code != 0
    assert "another key" in said
    (tmp_path / "baton.whl").write_bytes(b"a whee1")
    code, said = verify(tmp_path, key)
    assert code != 0
    assert "not what was released" in said
    (tmp_path / "baton.whl").unlink()
    code, said = verify(tmp_path, key)
    assert code != 0
    assert "no file of the release" in said


@pytest.mark.parametrize(
    "sums",
    [
        "x\n",
        "0" * 64 + "  ../../etc/passwd\n",
        "0" * 64 + "  ..\n",
        ("0" * 64 + "  a\n") * 2,
        "".join(f"{'0' * 64}  a{it}\n" for it in range(300)),
        "0" * 100_000,
    ],
)
def test_a_signed_list_that_is_none_is_refused(tmp_path: Path, sums: str) -> None:
    key = release(tmp_path)
    (tmp_path / "SHA256SUMS").write_text(sums)
    signed = signature_of(sums.encode(), bytes(range(32)), b"12345678")
    (tmp_path / "SHA256SUMS.minisig").write_text(signed)
    code, said = verify(tmp_path, key)
    assert code != 0
    assert "SHA256SUMS" in said
