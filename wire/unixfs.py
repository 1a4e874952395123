"""Folders and their files as IPFS tools write them: UnixFS nodes in dag-pb over raw leaves. Pure.

A file of one block is that block; a larger one has nodes of at most 174 links above leaves of 256
KiB, as `ipfs add --cid-version 1 --raw-leaves` makes them, so that ids are the same. A node is read
only in the one form in which it is written: no id has two readings, and no name leads anywhere.
"""

import base64
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from wire import limits
from wire.base32 import base32
from wire.content import ContentId
from wire.errors import Malformed, Oversize
from wire.varint import varint_of

_LEAF = bytes((0x01, 0x55, 0x12, 0x20))
_NODE = bytes((0x01, 0x70, 0x12, 0x20))
_ID_BYTES = len(_LEAF) + 32
_TEXT_CHARS = 1 + 58
# The protobuf fields of a node, a link and what UnixFS says: number and wire type in one byte.
_LINK, _DATA = 0x12, 0x0A
_HASH, _NAME, _TREE_SIZE = 0x0A, 0x12, 0x18
_FOLDER, _FILE, _SHARD = b"\x08\x01", b"\x08\x02\x18", b"\x08\x05"
_PART_SIZE, _BITS = 0x20, 0x12
# The hash is murmur3 of 64 bits, and a node has 256 places.
_SHARD_BY_MURMUR = b"\x28\x22\x30\x80\x02"
_PLACE_CHARS = 2
_PLACE = re.compile(b"[0-9A-F]{2}")
_VARINT_BYTES_MAX = 9
_REFUSED_NAMES = frozenset({b"", b".", b".."})


class UnixfsId(bytes):
    """A CIDv1 over sha2-256 of a leaf (raw) or of a node (dag-pb); `str()` gives its text."""

    __slots__ = ()

    def __new__(cls, binary: bytes) -> Self:
        if len(binary) != _ID_BYTES or not binary.startswith((_LEAF, _NODE)):
            raise Malformed("not an id of UnixFS: CIDv1, raw or dag-pb, sha2-256 is used here")
        return bytes.__new__(cls, binary)

    @classmethod
    def of_leaf(cls, data: bytes) -> Self:
        """The id of a piece of a file."""
        return cls(_LEAF + ContentId.of(data).digest)

    @classmethod
    def of_node(cls, data: bytes) -> Self:
        """The id of a node's bytes."""
        return cls(_NODE + ContentId.of(data).digest)

    @classmethod
    def of_block(cls, block: ContentId) -> Self:
        """The id of the node that stores and peers have under this name."""
        return cls(_NODE + block.digest)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the base32 form; Malformed if it is not one, character for character."""
        if not text.startswith("b") or len(text) != _TEXT_CHARS:
            raise Malformed("not an id of UnixFS: it starts with 'baf' and has 59 letters")
        body = text[1:].upper()
        try:
            found = cls(base64.b32decode(body + "=" * (-len(body) % 8)))
        except ValueError as error:
            raise Malformed(f"not an id of UnixFS: {error}") from error
        if str(found) != text:
            raise Malformed("not an id of UnixFS: its text is not canonical")
        return found

    @staticmethod
    def is_node_id(binary: bytes) -> bool:
        """Whether these bytes begin as the id of a node does, and not as that of a leaf."""
        return binary.startswith(_NODE)

    @property
    def is_node(self) -> bool:
        return self.startswith(_NODE)

    @property
    def block(self) -> ContentId:
        """The name under which stores and peers have these bytes: only the hash counts there."""
        return ContentId(_LEAF + self[len(_LEAF) :])

    def __str__(self) -> str:
        return "b" + base32(self)

    def __repr__(self) -> str:
        return f"UnixfsId({self})"


def names_node(text: str) -> bool:
    """Whether a text is the id of a UnixFS node, and not of anything else."""
    try:
        return UnixfsId.parse(text).is_node
    except Malformed:
        return False


@dataclass(frozen=True, slots=True)
class Link:
    """What a node says of one child: its name (empty in files), and the bytes of its whole tree."""

    name: bytes
    id: UnixfsId
    tree_bytes: int


@dataclass(frozen=True, slots=True)
class UnixfsNode:
    """A folder, or a file above one block; then `part_sizes` has the bytes of each part.

    A folder of many entries has several nodes (see `wire.unixfs_shards`); then `is_shard` holds.
    """

    links: tuple[Link, ...]
    part_sizes: tuple[int, ...] | None
    is_shard: bool = False

    @classmethod
    def from_bytes(cls, data: bytes, size_bytes_max: int = limits.BLOCK_BYTES_MAX) -> Self:
        """Read a node; WireError unless it is one that IPFS tools would write so."""
        if len(data) > size_bytes_max:
            raise Oversize(f"a UnixFS node of {len(data)} bytes")
        links: list[Link] = []
        said = b""
        for field, value in _fields(data):
            if field == _LINK and isinstance(value, bytes):
                links.append(_link(value))
            elif field == _DATA and isinstance(value, bytes):
                said = value
            else:
                raise Malformed("a UnixFS node has links and data")
        is_shard = said.startswith(_SHARD)
        sizes = None if is_shard or said == _FOLDER else _part_sizes(said)
        node = cls(tuple(links), sizes, is_shard)
        node.check()
        if node.to_bytes() != data:
            raise Malformed("a UnixFS node that is not in the form in which IPFS tools write it")
        return node

    def check(self) -> None:
        """Malformed unless names and sizes are such that it can be written to a disk."""
        if self.part_sizes is not None:
            if len(self.part_sizes) != len(self.links) or not self.links:
                raise Malformed("a file's node names its parts, and the size of each")
            if any(link.name for link in self.links) or not all(self.part_sizes):
                raise Malformed("a file's parts have no names, and none is empty")
            return
        if self.is_shard:
            _check_shard(self.links)
            return
        names = [link.name for link in self.links]
        for name in names:
            check_name(name)
        if any(one >= next_one for one, next_one in pairwise(names)):
            raise Malformed("a folder names something twice, or its names are not in order")

    def to_bytes(self) -> bytes:
        out = [_field(_LINK, _link_bytes(link)) for link in self.links]
        said = _FOLDER
        if self.is_shard:
            places = sum(1 << place_of(link)[0] for link in self.links)
            bits = places.to_bytes(-(-places.bit_length() // 8), "big")
            said = _SHARD + _field(_BITS, bits) + _SHARD_BY_MURMUR
        if self.part_sizes is not None:
            sizes = [bytes((_PART_SIZE,)) + varint_of(size) for size in self.part_sizes]
            said = b"".join([_FILE, varint_of(self.size_bytes), *sizes])
        return b"".join([*out, _field(_DATA, said)])

    @property
    def is_folder(self) -> bool:
        return self.part_sizes is None

    @property
    def size_bytes(self) -> int:
        """The bytes of a file; 0 for a folder."""
        return sum(self.part_sizes or ())

    @property
    def below_bytes(self) -> int:
        """The bytes of all trees below, as the links say them."""
        return sum(link.tree_bytes for link in self.links)


def check_name(name: bytes) -> None:
    """Malformed unless the name stands for one file or folder and for nothing outside."""
    if name in _REFUSED_NAMES or b"/" in name or b"\0" in name:
        raise Malformed(f"{_shown(name)} is not the name of a file in a folder")
    if len(name) > limits.FILE_NAME_BYTES_MAX:
        raise Oversize(f"a file's name of {len(name)} bytes: {_shown(name)}")
    try:
        name.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"{_shown(name)}: the name is not UTF-8") from error


@dataclass(frozen=True, slots=True)
class UnixfsBlock:
    """One leaf or node on its way into a store."""

    id: UnixfsId
    data: bytes


class FileBuilder:
    """Builds a file's tree from leaves that arrive in order, keeping only ids in memory.

    Every leaf but the last must be full. `root` and `size_bytes` hold once `finish` is exhausted.
    """

    def __init__(self) -> None:
        self._rows: list[list[tuple[Link, int]]] = [[]]
        self.root: Link | None = None
        self.size_bytes = 0

    def add(self, leaf: bytes) -> Iterator[UnixfsBlock]:
        """Add a leaf; gives the blocks that are complete with it."""
        if self.size_bytes % limits.BLOCK_BYTES_MAX or len(leaf) > limits.BLOCK_BYTES_MAX:
            raise Malformed("every block but the last is full")
        self.size_bytes += len(leaf)
        block = UnixfsBlock(UnixfsId.of_leaf(leaf), leaf)
        yield block
        yield from self._place(0, Link(b"", block.id, len(leaf)), len(leaf))

    def finish(self) -> Iterator[UnixfsBlock]:
        """The nodes left over; the last one names the file."""
        if len(self._rows) == 1 and not self._rows[0]:
            yield from self.add(b"")
        level = 0
        while level < len(self._rows) - 1 or len(self._rows[level]) > 1:
            if self._rows[level]:
                yield from self._close(level)
            level += 1
        self.root = self._rows[level][0][0]

    def _place(self, level: int, link: Link, size_bytes: int) -> Iterator[UnixfsBlock]:
        if len(self._rows[level]) == limits.FILE_LINKS_MAX:
            yield from self._close(level)
        self._rows[level].append((link, size_bytes))

    def _close(self, level: int) -> Iterator[UnixfsBlock]:
        row = self._rows[level]
        node = UnixfsNode(tuple(link for link, _ in row), tuple(size for _, size in row))
        self._rows[level] = []
        if level + 1 == len(self._rows):
            self._rows.append([])
        block, link = node_block(node)
        yield block
        yield from self._place(level + 1, link, node.size_bytes)


def file_id(data: bytes) -> UnixfsId:
    """The id of a file with these bytes, as IPFS tools compute it."""
    builder = FileBuilder()
    for at in range(0, len(data), limits.BLOCK_BYTES_MAX):
        deque(builder.add(data[at : at + limits.BLOCK_BYTES_MAX]), maxlen=0)
    deque(builder.finish(), maxlen=0)
    assert builder.root is not None
    return builder.root.id


def folder_node(entries: Sequence[Link]) -> UnixfsNode:
    """A folder in one node, of any size; Malformed for a name that cannot be, or is there twice."""
    node = UnixfsNode(tuple(sorted(entries, key=lambda link: link.name)), None)
    node.check()
    return node


def node_block(node: UnixfsNode) -> tuple[UnixfsBlock, Link]:
    """A node on its way into a store, and a nameless link to it."""
    block = UnixfsBlock(UnixfsId.of_node(data := node.to_bytes()), data)
    return block, Link(b"", block.id, len(data) + node.below_bytes)


def place_of(link: Link) -> tuple[int, bytes]:
    """A link's place in its shard, and the name behind it; no name where a shard is below."""
    return int(link.name[:_PLACE_CHARS], 16), link.name[_PLACE_CHARS:]


def _check_shard(links: Sequence[Link]) -> None:
    """Malformed unless each link has a place of its own, in order, and a name or a node below."""
    prefixes = [link.name[:_PLACE_CHARS] for link in links]
    if not links or not all(map(_PLACE.fullmatch, prefixes)):
        raise Malformed("a link in a shard of a folder begins with its place")
    if any(one >= next_one for one, next_one in pairwise(prefixes)):
        raise Malformed("a shard of a folder has two links in one place, or not in order")
    for link in links:
        if name := link.name[_PLACE_CHARS:]:
            check_name(name)
        elif not link.id.is_node:
            raise Malformed("a shard of a folder leads to a file without a name")


def _part_sizes(said: bytes) -> tuple[int, ...]:
    if not said.startswith(_FILE):
        raise Malformed(
            "a UnixFS node that is neither a folder nor a file of raw leaves",
            todo="publish it with raw leaves, without symbolic links or modes",
        )
    sizes = [value for field, value in _fields(said) if field == _PART_SIZE]
    return tuple(size for size in sizes if isinstance(size, int))


def _link(data: bytes) -> Link:
    found = dict(_fields(data))
    child, name, size = found.get(_HASH), found.get(_NAME), found.get(_TREE_SIZE)
    if not isinstance(child, bytes) or not isinstance(name, bytes) or not isinstance(size, int):
        raise Malformed("a link has an id, a name and a size")
    return Link(name, UnixfsId(child), size)


def _link_bytes(link: Link) -> bytes:
    size = bytes((_TREE_SIZE,)) + varint_of(link.tree_bytes)
    return _field(_HASH, link.id) + _field(_NAME, link.name) + size


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a protobuf message, each with its bytes or its number."""
    at = 0
    while at < len(data):
        field = data[at]
        number, at = _read_varint(data, at + 1)
        if field & 7 == 0:
            yield field, number
        elif field & 7 == 2 and number <= len(data) - at:
            yield field, data[at : at + number]
            at += number
        else:
            raise Malformed("the bytes are not a UnixFS node")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for place in range(_VARINT_BYTES_MAX):
        if at + place >= len(data):
            break
        byte = data[at + place]
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, at + place + 1
    raise Malformed("the bytes are not a UnixFS node: a number has no end")


def _field(field: int, data: bytes) -> bytes:
    return bytes((field,)) + varint_of(len(data)) + data


def _shown(name: bytes) -> str:
    return repr(name[:80].decode(errors="replace"))
