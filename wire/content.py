"""Names of content and of peers: the hash of the bytes, the key of the peer.

A `ContentId` is a CIDv1 over sha2-256, so that IPFS tools read it. Its codec says what the bytes
are: `raw` for a block, `messagepack` for a tree node that lists the blocks of something larger.
A `PeerId` is an Ed25519 public key; its text is the libp2p peer id of that key.
"""

import base64
import hashlib
from functools import lru_cache
from typing import Self

import base58

from wire.base32 import base32
from wire.errors import Malformed

_RAW = bytes((0x01, 0x55, 0x12, 0x20))
# 0x0201 is `messagepack` in the multicodec table, written as a varint.
_TREE = bytes((0x01, 0x81, 0x04, 0x12, 0x20))
_HASH_BYTES = 32
_RAW_BYTES, _TREE_BYTES = len(_RAW) + _HASH_BYTES, len(_TREE) + _HASH_BYTES
_TEXT_CHARS_MAX = 64
_TEXTS_KEPT = 2048


class ContentId(bytes):
    """The binary CIDv1 of some bytes; `str()` gives its base32 text."""

    __slots__ = ()

    def __new__(cls, binary: bytes) -> Self:
        if len(binary) == _RAW_BYTES and binary.startswith(_RAW):
            return bytes.__new__(cls, binary)
        if len(binary) == _TREE_BYTES and binary.startswith(_TREE):
            return bytes.__new__(cls, binary)
        raise Malformed("not a content id: CIDv1, raw or messagepack, sha2-256 is used here")

    @classmethod
    def of(cls, data: bytes | memoryview) -> Self:
        """The id of one block, or of any record's bytes."""
        return bytes.__new__(cls, _RAW + hashlib.sha256(data).digest())

    @classmethod
    def of_tree(cls, node: bytes) -> Self:
        """The id of a tree node (see `wire.tree`)."""
        return bytes.__new__(cls, _TREE + hashlib.sha256(node).digest())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the base32 form; Malformed if it is not one, character for character."""
        if not text.startswith("b") or len(text) > _TEXT_CHARS_MAX:
            raise Malformed("not a content id: it starts with 'b' and is in base32")
        body = text[1:].upper()
        try:
            found = cls(base64.b32decode(body + "=" * (-len(body) % 8)))
        except ValueError as error:
            raise Malformed(f"not a content id: {error}") from error
        if str(found) != text:
            raise Malformed("not a content id: its text is not canonical")
        return found

    @property
    def is_tree(self) -> bool:
        return self.startswith(_TREE)

    @property
    def digest(self) -> bytes:
        return bytes(self[-_HASH_BYTES:])

    def matches(self, data: bytes | memoryview) -> bool:
        """Whether these are the bytes this id names."""
        return hashlib.sha256(data).digest() == self[-_HASH_BYTES:]

    @property
    def short(self) -> str:
        """For people: the end of the text, where ids differ."""
        return "…" + str(self)[-8:]

    def __str__(self) -> str:
        return _text_of_content(bytes(self))

    def __repr__(self) -> str:
        return f"ContentId({self})"


# An id is put into words several times while its task is under way.
@lru_cache(maxsize=_TEXTS_KEPT)
def _text_of_content(binary: bytes) -> str:
    return "b" + base32(binary)


# The identity multihash of a protobuf that holds an Ed25519 public key: libp2p's peer id.
_PEER = bytes((0x00, 0x24, 0x08, 0x01, 0x12, 0x20))


class PeerId(bytes):
    """An Ed25519 public key, 32 bytes; `str()` gives the libp2p peer id (12D3Koo…)."""

    __slots__ = ()

    def __new__(cls, public_key: bytes) -> Self:
        if len(public_key) != _HASH_BYTES:
            raise Malformed(f"a peer's key has 32 bytes, not {len(public_key)}")
        return bytes.__new__(cls, public_key)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the libp2p form; Malformed if it is not one, character for character."""
        try:
            binary = base58.b58decode(text) if len(text) <= _TEXT_CHARS_MAX else b""
        except ValueError as error:
            raise Malformed(f"not a peer id: {error}") from error
        found = cls.from_multihash(binary)
        if str(found) != text:
            raise Malformed("not a peer id: its text is not canonical")
        return found

    @classmethod
    def from_multihash(cls, binary: bytes) -> Self:
        """Read libp2p's binary form."""
        if len(binary) != len(_PEER) + _HASH_BYTES or not binary.startswith(_PEER):
            raise Malformed("not a peer id: Ed25519 peer ids (12D3Koo…) are used here")
        return cls(binary[len(_PEER) :])

    @property
    def multihash(self) -> bytes:
        """libp2p's binary form."""
        return _PEER + self

    @property
    def short(self) -> str:
        return "…" + str(self)[-6:]

    def __str__(self) -> str:
        return _text_of_peer(self.multihash)

    def __repr__(self) -> str:
        return f"PeerId({self})"


@lru_cache(maxsize=_TEXTS_KEPT)
def _text_of_peer(multihash: bytes) -> str:
    return base58.b58encode(multihash).decode()
