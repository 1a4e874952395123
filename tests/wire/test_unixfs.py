"""UnixFS: the ids that IPFS tools compute, and what a hostile node may say."""

import random

import pytest

from wire import limits, unixfs_shards
from wire.content import ContentId
from wire.errors import Malformed, Oversize, WireError
from wire.murmur import murmur3_64
from wire.unixfs import (
    FileBuilder,
    Link,
    UnixfsBlock,
    UnixfsId,
    UnixfsNode,
    check_name,
    folder_node,
    names_node,
    node_block,
)
from wire.unixfs_shards import entries_of, folder_blocks, step

BLOCK = limits.BLOCK_BYTES_MAX


def sample(size_bytes: int) -> bytes:
    """The bytes of which other tools' ids are recorded below."""
    row = bytes(i * 7 & 255 for i in range(1024))
    rows = (bytes((it + turn) & 255 for it in row) for turn in range(-(-size_bytes // 1024)))
    return b"".join(rows)[:size_bytes]


def blocks_of(data: bytes) -> tuple[list[UnixfsBlock], Link]:
    builder = FileBuilder()
    found = [it for at in range(0, len(data), BLOCK) for it in builder.add(data[at : at + BLOCK])]
    found.extend(builder.finish())
    assert builder.root is not None
    assert builder.size_bytes == len(data)
    return found, builder.root


# What npm's ipfs-car 3 with @ipld/unixfs 3 says: leaves raw, of 262144 bytes, 174 links a node.
FILES = {
    0: "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    1: "bafkreidogqfzz75tpkmjzjke425xqcrmpcib2p5tg44hnbirumdbpl5adu",
    1000: "bafkreiej6t7vnis52hnqnjgomazwan3v24c7xfxtb6djg4z755qcuhffgi",
    BLOCK - 1: "bafkreierfb24zqgqmlskuqcanztm7heyixavssqdaybrcqcjeaojtkagye",
    BLOCK: "bafkreiakv7kvsto2img7s27hjo6ow2gqnbearwsreuz5nd354zyvy4lqvy",
    BLOCK + 1: "bafybeifxxpesxspskwg3nuqxbttlaurlnhwmlf2dro3h24vpnsfqu33jt4",
    2 * BLOCK: "bafybeibcqwuk32vyjkcl5husmrlt7utjx6kakchikegvzbsxfjldinmlda",
    3 * BLOCK + 5: "bafybeieepgggjnji3no2bci6fbccnarcdc4obwnuldnbb3zhc3vwvd3qji",
}
# So many zero bytes: one node full, and one that needs a row of nodes above it.
ZEROS = {
    174 * BLOCK: "bafybeibxsa3ioclowpaq7b6gxl65gzqneopfr3fnhedak6sqr4bjz5lnyq",
    174 * BLOCK + 1: "bafybeihqwzd3o6q6v3pmwhzjy22vokhr767burokmqemg63hptx2nqd7ym",
}
EMPTY_FOLDER = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
ONE_FILE = "bafybeibm6io67ljhs5u4oj4now7duwwfazx2ibjn5nd2epb2yrko3k4dha"
FOLDER = "bafybeiem7coag5mkjdmzv43ve2c4hwk27763sqd5vfqb5fold3iw3lmtgq"


@pytest.mark.parametrize(("size_bytes", "text"), FILES.items())
def test_files_have_the_ids_of_other_tools(size_bytes: int, text: str) -> None:
    blocks, root = blocks_of(sample(size_bytes))
    assert str(root.id) == text
    assert UnixfsId.parse(text) == blocks[-1].id == root.id
    assert root.tree_bytes == sum(len(it.data) for it in blocks)


@pytest.mark.parametrize(("size_bytes", "text"), ZEROS.items())
def test_files_of_two_rows_of_nodes_have_the_ids_of_other_tools(size_bytes: int, text: str) -> None:
    assert str(blocks_of(bytes(size_bytes))[1].id) == text


def folder_block(entries: list[Link]) -> tuple[UnixfsBlock, Link]:
    """A folder of few entries: its one node, and a link to it."""
    return node_block(folder_node(entries))


def named(name: str, link: Link) -> Link:
    return Link(name.encode(), link.id, link.tree_bytes)


def file(name: str, size_bytes: int) -> Link:
    return named(name, blocks_of(sample(size_bytes))[1])


def test_folders_have_the_ids_of_other_tools() -> None:
    assert str(folder_block([])[1].id) == EMPTY_FOLDER
    assert str(folder_block([file("only", 1)])[1].id) == ONE_FILE
    deep = named("deep", folder_block([file("x", 0)])[1])
    sub = named("sub", folder_block([file("é.bin", 1000), deep])[1])
    block, root = folder_block(
        [file("b.txt", 3), file("a.txt", BLOCK + 1), sub, file("Z", 2 * BLOCK)]
    )
    assert str(root.id) == FOLDER
    node = UnixfsNode.from_bytes(block.data)
    assert [it.name for it in node.links] == [b"Z", b"a.txt", b"b.txt", b"sub"]
    assert node.is_folder


def test_ids_are_one_text_and_one_block() -> None:
    found = UnixfsId.parse(EMPTY_FOLDER)
    assert found.is_node
    assert found.block == ContentId.of(folder_block([])[0].data)
    for text in ("", "b", EMPTY_FOLDER.upper(), EMPTY_FOLDER[:-1], EMPTY_FOLDER[:-1] + "5"):
        with pytest.raises(Malformed):
            UnixfsId.parse(text)
    assert names_node(EMPTY_FOLDER)
    assert not names_node(FILES[0])
    assert not names_node("x")


HOSTILE_NAMES = [b"", b".", b"..", b"/", b"/etc/passwd", b"a/b", b"../x", b"a\0b", b"\xff"]


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, b"x" * 256])
def test_no_name_leads_out_of_its_folder(name: bytes) -> None:
    node = UnixfsNode((Link(name, UnixfsId.of_leaf(b""), 0),), None)
    with pytest.raises(WireError, match=r"name"):
        UnixfsNode.from_bytes(node.to_bytes())
    with pytest.raises(WireError):
        check_name(name)


def test_names_are_there_once_and_in_order() -> None:
    one, two = file("a", 1), file("b", 1)
    for links in ((one, one), (two, one)):
        with pytest.raises(Malformed, match="twice"):
            UnixfsNode.from_bytes(UnixfsNode(links, None).to_bytes())
    with pytest.raises(Malformed, match="twice"):
        folder_block([one, file("a", 2)])


# What npm's @ipld/unixfs 3 says of sharded folders, with the hash by which it places a name.
HASHES = {
    "": "0000000000000000",
    "a": "85555565f6597889",
    "hello": "cbd8a7b341bd9b02",
    "é.bin": "f39f544138ac884e",
    "0123456789abcdef": "4be06d94cf4ad1a7",
    "a name of more than sixteen bytes": "3fea5aa82ccc7bf5",
}
SHARDED = {
    ("entry-{}", 3): ("bafybeigtognwi6g6b72onhl5czyt7xowxibw7px5jbk7qloqusq3ucoiqm", 296),
    ("entry-{}", 2000): ("bafybeifuznkfac4bbe7u3w27aznpcdyzrmn5sjdgxrf6lqcpqgrmij5bcm", 154414),
    ("é-{} of a longer name", 300): (
        "bafybeibwvn3dzkied5be7pf2nioke7or6unov6p6dievmlu65spo64kuy4",
        33703,
    ),
}


@pytest.mark.parametrize(("name", "found"), HASHES.items())
def test_names_have_the_hashes_of_other_tools(name: str, found: str) -> None:
    assert murmur3_64(name.encode()).hex() == found


def sharded(links: list[Link]) -> tuple[dict[UnixfsId, UnixfsNode], Link]:
    """The nodes of a folder, and a link to it."""
    nodes: dict[UnixfsId, UnixfsNode] = {}
    blocks = folder_blocks(links)
    while True:
        try:
            block = next(blocks)
        except StopIteration as end:
            return nodes, end.value
        nodes[block.id] = UnixfsNode.from_bytes(block.data)
        assert block.id == UnixfsId.of_node(block.data)


@pytest.mark.parametrize(("names", "found"), SHARDED.items(), ids=["3", "2000", "300"])
def test_sharded_folders_have_the_ids_of_other_tools(
    names: tuple[str, int], found: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [names[0].format(number) for number in range(names[1])]
    links = [named(it, blocks_of(it.encode())[1]) for it in texts]
    with monkeypatch.context() as small:
        # So that a folder of few entries has several nodes too.
        small.setattr(unixfs_shards, "NODE_BYTES_MAX", 0)
        nodes, root = sharded(links)
    assert (str(root.id), root.tree_bytes) == found
    back = list(entries_of(nodes.__getitem__, nodes[root.id]))
    assert back == sorted(links, key=lambda it: it.name)
    for link in links[:50]:
        here, is_entry, row = root.id, False, 0
        while not is_entry:
            way = step(nodes[here], link.name, row)
            assert way is not None
            (here, is_entry), row = way, row + 1
        assert here == link.id


def test_a_folder_is_sharded_where_one_node_would_be_too_large() -> None:
    leaf = UnixfsId.of_leaf(b"")
    links = [Link(b"%06d" % number, leaf, 0) for number in range(6000)]
    nodes, root = sharded(links)
    assert nodes[root.id].is_shard
    assert list(entries_of(nodes.__getitem__, nodes[root.id])) == links
    few, whole = sharded(links[:4000])
    assert (len(few), few[whole.id].is_shard) == (1, False)


def shard(*links: Link) -> UnixfsNode:
    return UnixfsNode(links, None, is_shard=True)


def test_what_is_wrong_in_a_shard_is_refused() -> None:
    leaf, node = UnixfsId.of_leaf(b""), UnixfsId.of_node(b"")
    # Where the name "a" belongs: see HASHES.
    right = Link(b"85a", leaf, 0)
    good = shard(right).to_bytes()
    assert UnixfsNode.from_bytes(good) == shard(right)
    for wrong in (
        shard(Link(b"85", leaf, 0)),
        shard(Link(b"ff", node, 0)),
        shard(Link(b"85..", leaf, 0)),
        shard(Link(b"85a/b", leaf, 0)),
        shard(Link(b"85a\0", leaf, 0)),
        shard(right, Link(b"85b", leaf, 0)),
        shard(Link(b"86x", leaf, 0), right),
        shard(),
    ):
        with pytest.raises(WireError):
            UnixfsNode.from_bytes(wrong.to_bytes())
    # Neither another bit than those of the links, nor another hash, nor another width.
    for byte in range(len(good)):
        changed = bytes([*good[:byte], good[byte] ^ 1, *good[byte + 1 :]])
        try:
            assert UnixfsNode.from_bytes(changed).links != (right,)
        except WireError:
            continue


def test_shards_lead_to_each_entry_once() -> None:
    leaf, node = UnixfsId.of_leaf(b""), UnixfsId.of_node(b"")
    nodes: dict[UnixfsId, UnixfsNode] = {}
    # In another place than its own, so that it could be there twice.
    with pytest.raises(Malformed, match="not its own"):
        entries_of(nodes.__getitem__, shard(Link(b"84a", leaf, 0)))
    nodes[node] = UnixfsNode((), None)
    with pytest.raises(Malformed, match="no shard"):
        entries_of(nodes.__getitem__, shard(Link(b"85", node, 0)))
    # A chain without an end.
    nodes[node] = shard(Link(b"00", node, 0))
    with pytest.raises(Malformed, match="too many rows"):
        entries_of(nodes.__getitem__, nodes[node])


def test_nodes_have_one_form_and_lies_are_refused() -> None:
    leaf = Link(b"", UnixfsId.of_leaf(b"x"), 1)
    good = UnixfsNode((leaf, leaf), (1, 1)).to_bytes()
    assert UnixfsNode.from_bytes(good).size_bytes == 2
    node = UnixfsNode((leaf, leaf), (1, 1))
    bad = [
        UnixfsNode((leaf,), (1, 1)).to_bytes(),
        UnixfsNode((), ()).to_bytes(),
        UnixfsNode((leaf,), (0,)).to_bytes(),
        UnixfsNode((file("a", 1),), (1,)).to_bytes(),
        # Another sum than that of the parts, modes, a symbolic link, and data within the node.
        good.replace(b"\x08\x02\x18\x02", b"\x08\x02\x18\x03"),
        folder_block([])[0].data[:1] + b"\x04\x08\x01\x38\x01",
        b"\x0a\x04\x08\x04\x12\x00",
        b"\x0a\x07\x08\x02\x12\x01x\x18\x01",
        good + b"\x0a\x00",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"",
    ]
    for data in bad:
        with pytest.raises(WireError):
            UnixfsNode.from_bytes(data)
    with pytest.raises(Oversize):
        UnixfsNode.from_bytes(bytes(BLOCK + 1))
    assert node.to_bytes() == good


def test_any_bytes_give_a_node_or_a_wire_error() -> None:
    chance = random.Random(15)
    good = folder_block([file("a", 1), file("b", 2)])[0].data
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            node = UnixfsNode.from_bytes(bytes(data[: chance.randint(0, len(data))]))
        except WireError:
            continue
        assert UnixfsNode.from_bytes(node.to_bytes()) == node
