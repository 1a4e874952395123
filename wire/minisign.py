"""Signatures of files as minisign writes them: Ed25519 over the bytes, or over their BLAKE2b-512.

Only what is needed to check a release. A key and a signature are short texts from outside: bounded,
and refused in words.
"""

import binascii
import hashlib
from base64 import b64decode
from dataclasses import dataclass

from wire.errors import BadSignature, Malformed
from wire.signing import SIGNATURE_BYTES, openssl_accepts

TEXT_BYTES_MAX = 4096
KEY_ID_BYTES = 8
_KEY_BYTES = 32
_PLAIN, _HASHED = b"Ed", b"ED"
_TRUSTED = "trusted comment: "
_UNTRUSTED = "untrusted comment:"


@dataclass(frozen=True, slots=True)
class MinisignKey:
    """A public key, and the number that its signatures name it by."""

    key_id: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class MinisignSignature:
    """A signature of one file, and of its own trusted comment."""

    key_id: bytes
    hashed: bool
    signature: bytes
    trusted_comment: str
    comment_signature: bytes


def read_key(text: str) -> MinisignKey:
    """A public key from its line, or from the file that holds it; Malformed for anything else."""
    lines = [it for it in _lines(text) if not it.startswith(_UNTRUSTED)]
    if len(lines) != 1:
        raise Malformed("a public key of minisign is one line")
    data = _bytes_of(lines[0], 2 + KEY_ID_BYTES + _KEY_BYTES)
    if data[:2] != _PLAIN:
        raise Malformed("this is no public key of minisign")
    return MinisignKey(data[2 : 2 + KEY_ID_BYTES], data[2 + KEY_ID_BYTES :])


def read_signature(text: str) -> MinisignSignature:
    """A signature file; Malformed for anything else."""
    lines = _lines(text)
    if len(lines) != 4 or not lines[0].startswith(_UNTRUSTED) or not lines[2].startswith(_TRUSTED):
        raise Malformed("a signature of minisign has four lines: a comment, it, a comment, its own")
    data = _bytes_of(lines[1], 2 + KEY_ID_BYTES + SIGNATURE_BYTES)
    if data[:2] not in (_PLAIN, _HASHED):
        raise Malformed("this kind of signature is not known")
    return MinisignSignature(
        key_id=data[2 : 2 + KEY_ID_BYTES],
        hashed=data[:2] == _HASHED,
        signature=data[2 + KEY_ID_BYTES :],
        trusted_comment=lines[2].removeprefix(_TRUSTED),
        comment_signature=_bytes_of(lines[3], SIGNATURE_BYTES),
    )


def check_minisign(key: MinisignKey, signature: MinisignSignature, data: bytes) -> None:
    """BadSignature unless `key` signed `data`, and the trusted comment with it."""
    if signature.key_id != key.key_id:
        raise BadSignature("it was signed with another key than the one that was given")
    signed = hashlib.blake2b(data).digest() if signature.hashed else data
    comment = signature.signature + signature.trusted_comment.encode()
    if not openssl_accepts(key.key, signed, signature.signature):
        raise BadSignature("the signature does not fit the file: it was changed since")
    if not openssl_accepts(key.key, comment, signature.comment_signature):
        raise BadSignature("the trusted comment was changed since it was signed")


def _lines(text: str) -> list[str]:
    if len(text) > TEXT_BYTES_MAX:
        raise Malformed(f"more than {TEXT_BYTES_MAX} characters are no text of minisign")
    return [it.rstrip("\r") for it in text.split("\n") if it.strip()]


def _bytes_of(line: str, size_bytes: int) -> bytes:
    try:
        data = b64decode(line, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed("a line of minisign's is no base64") from error
    if len(data) != size_bytes:
        raise Malformed(f"a line of minisign's has {len(data)} bytes instead of {size_bytes}")
    return data
