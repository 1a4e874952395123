"""CAR v1 as IPFS tools write it, to the byte; and every other archive refused in words."""

import io
from random import Random

import pytest

from wire import limits
from wire.car import begins_as_car, header_of, read_blocks, read_header, section_of
from wire.content import ContentId
from wire.errors import Malformed, Oversize, WireError
from wire.tree import Block, split

HELLO = Block(ContentId.of(b"hello"), b"hello")
# As ipfs-car 3.1.0 reads it, and as the specification of CAR v1 has it.
GOLDEN = bytes.fromhex(
    "3aa265726f6f747381d82a582500015512202cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362"
    "938b98246776657273696f6e01"
    "29015512202cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b982468656c6c6f"
)


def read(data: bytes) -> tuple[ContentId, list[Block]]:
    file = io.BytesIO(data)
    return read_header(file.read), list(read_blocks(file.read))


def refused(data: bytes) -> str:
    with pytest.raises(WireError) as caught:
        read(data)
    return str(caught.value)


def test_an_archive_has_the_bytes_that_ipfs_tools_read() -> None:
    assert header_of(HELLO.id) + section_of(HELLO) == GOLDEN
    assert read(GOLDEN) == (HELLO.id, [HELLO])
    assert begins_as_car(GOLDEN[:16])


def test_blocks_of_a_tree_come_back_as_they_were() -> None:
    blocks = list(split(Random(1).randbytes(600_000)))
    root = blocks[-1].id
    assert root.is_tree
    assert read(header_of(root) + b"".join(map(section_of, blocks))) == (root, blocks)


@pytest.mark.parametrize("size", range(len(GOLDEN)))
def test_an_archive_that_is_cut_off_is_refused_unless_between_blocks(size: int) -> None:
    if size == len(header_of(HELLO.id)):
        assert read(GOLDEN[:size]) == (HELLO.id, [])
    else:
        assert refused(GOLDEN[:size])


def test_an_archive_altered_in_any_bit_is_refused() -> None:
    # Of the root's own digest the header cannot know: who opens the file looks for that block.
    digest = range(GOLDEN.index(HELLO.id) + 4, GOLDEN.index(b"\x67version"))
    for place in set(range(len(GOLDEN))) - set(digest):
        for bit in range(8):
            altered = bytearray(GOLDEN)
            altered[place] ^= 1 << bit
            assert refused(bytes(altered)), (place, bit)


def test_a_block_that_claims_gigabytes_is_refused_before_it_is_read() -> None:
    ten_gigabytes = bytes.fromhex("80c8afa025")
    asked: list[int] = []
    file = io.BytesIO(header_of(HELLO.id) + ten_gigabytes + bytes(64))

    def noting(size_bytes: int) -> bytes:
        asked.append(size_bytes)
        return file.read(size_bytes)

    read_header(noting)
    with pytest.raises(Oversize, match="block 1 of the archive claims 10000000000 bytes"):
        list(read_blocks(noting))
    assert max(asked) < 100
    assert "claims 10000000000 bytes" in refused(ten_gigabytes + bytes(64))


def test_a_block_is_at_most_as_large_as_one_of_a_store() -> None:
    largest = bytes(limits.BLOCK_BYTES_MAX)
    block = Block(ContentId.of(largest), largest)
    assert read(header_of(block.id) + section_of(block)) == (block.id, [block])
    more = largest + b"\0"
    over = Block(ContentId.of(more), more)
    assert "at most" in refused(header_of(HELLO.id) + section_of(over))


def test_other_forms_of_the_same_archive_are_refused() -> None:
    header = header_of(HELLO.id)
    cases = {
        b"": "empty",
        b"\x0a\xa1\x67version\x02": "CAR of version 2",
        b"\x80": "within a length",
        b"\xff" * 10: "more than 9 bytes",
        # The same length in two bytes where one is enough.
        b"\xba\x00" + header[1:]: "shortest form",
        # Two roots, none, another version, another order of the keys.
        header.replace(b"\x81\xd8", b"\x82\xd8"): "one root",
        b"\x11\xa2\x65roots\x80\x67version\x01": "one root",
        header[:-1] + b"\x03": "one root",
        b"\x11\xa2\x67version\x01\x65roots\x80": "one root",
        b"PK\x03\x04" + bytes(64): "one root",
    }
    for data, words in cases.items():
        assert words in refused(data), data
    # A CID of version 0, and one of another hash.
    for name in (b"\x12\x20" + bytes(32), b"\x01\x55\x13\x40" + bytes(64)):
        assert "block 1 of the archive: not a content id" in refused(
            header + bytes((len(name),)) + name
        )


def test_any_bytes_are_refused_or_read_and_never_more() -> None:
    random = Random(3)
    for _ in range(3000):
        data = bytearray(GOLDEN)
        for _ in range(random.randrange(1, 6)):
            at = random.randrange(len(data))
            data[at : at + random.randrange(3)] = random.randbytes(random.randrange(4))
        try:
            read(bytes(data))
        except (Malformed, Oversize):
            continue
