"""The same bytes give the same tree, and a tree says the size and place of each of its blocks."""

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.wire.samples import BLOCK, MODEL, TREE
from wire import limits
from wire.codec import pack
from wire.content import ContentId
from wire.errors import Malformed, Oversize, WireError
from wire.tree import Block, TreeBuilder, TreeNode, name_of, split

# A tree of these has three levels and its nodes still fit a block.
SMALL_BLOCK_BYTES = 128
SMALL_CHILDREN = 3
SMALL_BLOB_BYTES = SMALL_BLOCK_BYTES * SMALL_CHILDREN**3


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BLOCK_BYTES_MAX", SMALL_BLOCK_BYTES)
    monkeypatch.setattr(limits, "TREE_CHILDREN_MAX", SMALL_CHILDREN)
    monkeypatch.setattr(limits, "BLOB_BYTES_MAX", SMALL_BLOB_BYTES)


def content(size_bytes: int) -> bytes:
    """Bytes in which no two blocks are the same."""
    return hashlib.shake_128(b"content").digest(size_bytes)


def leaves(blocks: dict[ContentId, bytes], node: ContentId, size_bytes: int) -> Iterator[bytes]:
    """Read a tree back, trusting only the sizes that each node states for its children."""
    data = blocks[node]
    assert node.matches(data)
    if not node.is_tree:
        assert len(data) == size_bytes
        yield data
        return
    found = TreeNode.from_bytes(data)
    assert found.size_bytes == size_bytes
    parts = list(found.sizes())
    assert sum(part_bytes for _, part_bytes in parts) == size_bytes
    assert all(part_bytes > 0 for _, part_bytes in parts)
    for child, child_bytes in parts:
        yield from leaves(blocks, child, child_bytes)


@given(st.integers(0, SMALL_BLOB_BYTES))
@example(0)
@example(1)
@example(SMALL_BLOCK_BYTES - 1)
@example(SMALL_BLOCK_BYTES)
@example(SMALL_BLOCK_BYTES + 1)
@example(SMALL_BLOCK_BYTES * SMALL_CHILDREN)
@example(SMALL_BLOCK_BYTES * SMALL_CHILDREN + 1)
@example(SMALL_BLOCK_BYTES * SMALL_CHILDREN**2)
@example(SMALL_BLOCK_BYTES * SMALL_CHILDREN**2 + 1)
@example(SMALL_BLOB_BYTES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_what_was_split_is_read_back_whole(small: None, size_bytes: int) -> None:
    data = content(size_bytes)
    rows = list(split(data))
    assert all(len(block.data) <= SMALL_BLOCK_BYTES for block in rows)
    blocks = {block.id: block.data for block in rows}
    assert b"".join(leaves(blocks, rows[-1].id, size_bytes)) == data
    assert name_of(data) == rows[-1].id


def test_every_size_up_to_the_largest_has_its_own_name(small: None) -> None:
    data = content(SMALL_BLOB_BYTES)
    sizes = range(0, SMALL_BLOB_BYTES + 1, 16)
    assert len({name_of(data[:size]) for size in sizes}) == len(sizes)


def test_children_come_before_the_node_that_names_them_and_the_whole_last(small: None) -> None:
    seen: set[ContentId] = set()
    for block in split(content(SMALL_BLOB_BYTES)):
        if block.id.is_tree:
            assert set(TreeNode.from_bytes(block.data).children) <= seen
        seen.add(block.id)
    assert block.id.is_tree
    # 27 leaves, 9 nodes over them, 3 over those and the root.
    assert len(seen) == 27 + 9 + 3 + 1


def built(data: bytes) -> tuple[list[Block], ContentId | None]:
    """The blocks of `data` when it is added leaf by leaf, as from a file that is being read."""
    builder = TreeBuilder()
    blocks: list[Block] = []
    step = limits.BLOCK_BYTES_MAX
    for at in range(0, len(data), step):
        blocks += builder.add(data[at : at + step])
    blocks += builder.finish()
    return blocks, builder.root


@pytest.mark.parametrize("size_bytes", [0, 1, 128, 129, 384, 385, 1000, 1152, 1153, 3456])
def test_content_added_leaf_by_leaf_gives_the_same_tree(small: None, size_bytes: int) -> None:
    data = content(size_bytes)
    blocks, root = built(data)
    assert blocks == list(split(data))
    assert root == blocks[-1].id


def test_content_of_one_block_is_named_by_that_block() -> None:
    assert name_of(b"") == ContentId.of(b"")
    assert name_of(b"text") == ContentId.of(b"text")
    full = bytes(limits.BLOCK_BYTES_MAX)
    assert name_of(full) == ContentId.of(full)
    assert name_of(full + b"\0").is_tree


def test_a_block_of_a_view_is_kept_as_bytes_of_its_own() -> None:
    (block,) = split(memoryview(bytearray(b"text")))  # type: ignore[arg-type]
    assert type(block.data) is bytes


def test_a_short_block_may_only_be_the_last(small: None) -> None:
    builder = TreeBuilder()
    list(builder.add(content(127)))
    with pytest.raises(Malformed):
        list(builder.add(content(128)))


def test_a_block_may_not_be_larger_than_a_block(small: None) -> None:
    with pytest.raises(Malformed):
        list(TreeBuilder().add(content(129)))


def test_an_empty_block_may_not_end_content_that_has_others(small: None) -> None:
    # A node over a full block and an empty one would be refused by every reader.
    builder = TreeBuilder()
    list(builder.add(content(128)))
    with pytest.raises(Malformed):
        list(builder.add(b""))
    assert [block.id for block in builder.finish()] == []
    assert builder.root == ContentId.of(content(128))


def test_content_beyond_the_largest_is_refused_while_it_is_added(small: None) -> None:
    with pytest.raises(Oversize):
        list(split(content(SMALL_BLOB_BYTES + 1)))


B = limits.BLOCK_BYTES_MAX
SPAN = B * limits.TREE_CHILDREN_MAX


@pytest.mark.parametrize(
    ("size_bytes", "children", "parts"),
    [
        (1, (BLOCK,), [1]),
        (B + 1, (BLOCK, MODEL), [B, 1]),
        (3 * B, (BLOCK, MODEL, BLOCK), [B, B, B]),
        (SPAN + 1, (TREE, TREE), [SPAN, 1]),
        (2 * SPAN, (TREE, TREE), [SPAN, SPAN]),
        (5, (TREE,), [5]),
        # 1,024 full subtrees of 1 GiB are the largest blob.
        (1 << 40, (TREE,) * 1024, [SPAN] * 1024),
        # One child that spans more than a row of nodes: the tree is a level deeper.
        (SPAN + 1, (TREE,), [SPAN + 1]),
    ],
)
def test_a_node_says_how_much_is_below_each_child(
    size_bytes: int, children: tuple[ContentId, ...], parts: list[int]
) -> None:
    node = TreeNode.from_bytes(TreeNode(size_bytes, children).to_bytes())
    assert list(node.sizes()) == list(zip(children, parts, strict=True))


def test_the_largest_node_fits_a_block() -> None:
    full = TreeNode(SPAN, (MODEL,) * limits.TREE_CHILDREN_MAX).to_bytes()
    assert len(full) <= limits.BLOCK_BYTES_MAX
    assert TreeNode.from_bytes(full).size_bytes == SPAN


ID = bytes(BLOCK)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        [1],
        [1, [ID], 0],
        {"size": 1, "children": [ID]},
        [1, ID],
        [1, {"a": ID}],
        [1, []],
        [0, []],
        [0, [ID]],
        [-1, [ID]],
        [True, [ID]],
        [1.0, [ID]],
        ["1", [ID]],
        [1, [str(BLOCK)]],
        [1, [ID[:-1]]],
        [1, [[ID]]],
        [1, [None]],
        [B + 1, [ID]],
        [B, [ID, ID]],
        [1, [ID, ID]],
        [2 * B + 1, [ID, ID]],
        [B + 1, [ID, bytes(TREE)]],
        [B + 1, [bytes(TREE), ID]],
        [SPAN, [bytes(TREE)] * 2],
        [1, [bytes(TREE)] * 2],
        [(1 << 40) + 1, [bytes(TREE)] * 1025],
        [1 << 62, [bytes(TREE)]],
        [4097 * B, [ID] * 4097],
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_node_that_cannot_be_is_refused(value: object) -> None:
    with pytest.raises(WireError):
        TreeNode.from_bytes(pack(value))  # type: ignore[arg-type]


def test_a_node_beyond_a_block_is_not_even_parsed() -> None:
    with pytest.raises(Oversize):
        TreeNode.from_bytes(b"\xc1" * (B + 1))


@given(
    st.integers(1, 1 << 41),
    st.lists(st.sampled_from([BLOCK, TREE]), min_size=1, max_size=9),
)
def test_a_node_that_is_read_has_parts_that_fit(size_bytes: int, children: list[ContentId]) -> None:
    try:
        node = TreeNode.from_bytes(pack([size_bytes, list(children)]))
    except WireError:
        return
    parts = [part_bytes for _, part_bytes in node.sizes()]
    assert sum(parts) == size_bytes
    assert 0 < parts[-1] <= node.span_bytes
    assert parts[:-1] == [node.span_bytes] * (len(children) - 1)
