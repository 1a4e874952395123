"""CAR v1: an archive of blocks, each under its content id, as IPFS tools write and read it. Pure.

    header:   length varint | DAG-CBOR of {"roots": [root], "version": 1}
    sections: length varint | content id | the block's bytes, one after the other

What is read here has one root and holds no block of another kind than a store does. Each length is
bounded before anything of that length is read, and each block is compared with its id by hash.
"""

from collections.abc import Callable, Iterator

from wire import limits
from wire.content import ContentId
from wire.errors import Malformed, Oversize
from wire.tree import Block
from wire.varint import varint_of

# Reads so many bytes of an archive, fewer only at its end.
Read = Callable[[int], bytes]

# A map of two, "roots": a list of one, which is a content id (tag 42, after a zero byte) …
_BEFORE_ROOT = b"\xa2\x65roots\x81\xd8\x2a\x58"
# … and "version": 1.
_AFTER_ROOT = b"\x67version\x01"
# The pragma of CAR v2: a header that says version 2 and nothing else.
_VERSION_2 = b"\xa1\x67version\x02"
_ID_BYTES_MAX = 37
_HEADER_BYTES_MAX = 1024
_SECTION_BYTES_MAX = _ID_BYTES_MAX + limits.BLOCK_BYTES_MAX
# As the multiformats specification has it: a number of at most 63 bits.
_VARINT_BYTES_MAX = 9


def begins_as_car(head: bytes) -> bool:
    """Whether a file that begins so (a few bytes are enough) is an archive of some version."""
    return head[1:].startswith((_BEFORE_ROOT[:6], _VERSION_2[:9]))


def header_of(root: bytes) -> bytes:
    """The first bytes of an archive whose one root is this content id."""
    body = b"".join((_BEFORE_ROOT, bytes((len(root) + 1, 0)), root, _AFTER_ROOT))
    return varint_of(len(body)) + body


def section_of(block: Block) -> bytes:
    """A block as it stands in an archive."""
    return section(block.id, block.data)


def section(content_id: bytes, data: bytes) -> bytes:
    """The bytes under any content id as they stand in an archive."""
    return varint_of(len(content_id) + len(data)) + content_id + data


def read_header(read: Read) -> ContentId:
    """The root that the archive names; WireError if it is no CAR v1 with one root."""
    root = read_root(read)
    try:
        return ContentId(root)
    except Malformed as error:
        raise Malformed("the archive's header is not that of a CAR v1 with one root") from error


def read_root(read: Read) -> bytes:
    """The id of the root, of whatever kind; WireError if it is no CAR v1 with one root."""
    size_bytes = _read_varint(read)
    if size_bytes is None:
        raise Malformed("the archive is empty")
    if size_bytes > _HEADER_BYTES_MAX:
        raise Oversize(f"the archive's header claims {size_bytes} bytes: it is no CAR archive")
    body = read(size_bytes)
    if body == _VERSION_2:
        raise Malformed("the archive is a CAR of version 2", todo="make one of version 1 of it")
    before = len(_BEFORE_ROOT)
    root = body[before + 2 : -len(_AFTER_ROOT)]
    # What is written again as it was read has no second form.
    if len(body) != size_bytes or not 0 < len(root) <= _ID_BYTES_MAX:
        raise Malformed("the archive's header is not that of a CAR v1 with one root")
    if header_of(root) != varint_of(size_bytes) + body:
        raise Malformed("the archive's header is not that of a CAR v1 with one root")
    return root


def read_blocks(read: Read) -> Iterator[Block]:
    """The blocks in their order, after the header; WireError at the first that is not right."""
    for number, data in read_sections(read, _SECTION_BYTES_MAX):
        yield _block_of(data, number)


def read_sections(read: Read, size_bytes_max: int) -> Iterator[tuple[int, bytes]]:
    """What follows the header: the number of each block, from 1, and its id with its bytes."""
    number = 0
    while (size_bytes := _read_varint(read)) is not None:
        number += 1
        if size_bytes > size_bytes_max:
            raise Oversize(
                f"block {number} of the archive claims {size_bytes} bytes, at most"
                f" {size_bytes_max} are read"
            )
        data = read(size_bytes)
        if len(data) != size_bytes:
            raise Malformed(
                f"the archive ends within block {number}: {len(data)} of {size_bytes} bytes"
            )
        yield number, data


def _block_of(data: bytes, number: int) -> Block:
    # The two kinds of id differ in their length by one byte, which is told by the second byte.
    id_bytes = _ID_BYTES_MAX - 1 if data[1:2] == b"\x55" else _ID_BYTES_MAX
    try:
        block = Block(ContentId(data[:id_bytes]), data[id_bytes:])
    except Malformed as error:
        raise Malformed(f"block {number} of the archive: {error.message}") from error
    if len(block.data) > limits.BLOCK_BYTES_MAX:
        raise Oversize(
            f"block {number} of the archive has {len(block.data)} bytes, at most"
            f" {limits.BLOCK_BYTES_MAX}"
        )
    if not block.id.matches(block.data):
        raise Malformed(f"block {number} of the archive is not the one that {block.id} names")
    return block


def _read_varint(read: Read) -> int | None:
    """The next number; None at the end of the archive."""
    number = 0
    for place in range(_VARINT_BYTES_MAX):
        byte = read(1)
        if not byte:
            if place:
                raise Malformed("the archive ends within a length")
            return None
        number |= (byte[0] & 0x7F) << 7 * place
        if byte[0] < 0x80:
            if not byte[0] and place:
                raise Malformed("a length in the archive is not written in its shortest form")
            return number
    raise Malformed(f"a length in the archive takes more than {_VARINT_BYTES_MAX} bytes")
