"""Archives in files: every block is looked at, and a blob comes back whole or not at all."""

from pathlib import Path
from random import Random

import pytest

from store.car_file import BLOCKS_MAX, CarFile, open_car, write_car
from wire.car import header_of, section_of
from wire.content import ContentId
from wire.errors import Corrupt, InputError, Malformed, Missing, Oversize
from wire.tree import Block, TreeNode, split

DATA = Random(2).randbytes(700_000)
BLOCKS = {it.id: it.data for it in split(DATA)}
ROOT = list(split(DATA))[-1].id
SMALL = Block(ContentId.of(b"small"), b"small")


def written(path: Path, root: ContentId, *blocks: Block) -> Path:
    path.write_bytes(header_of(root) + b"".join(map(section_of, blocks)))
    return path


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_car(path)
    return str(caught.value)


def test_what_was_written_comes_back_and_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "x.car"
    blocks = BLOCKS | {SMALL.id: SMALL.data}
    size_bytes = write_car(path, SMALL.id, [SMALL.id, ROOT, ROOT, SMALL.id], blocks.__getitem__)
    assert path.stat().st_size == size_bytes < len(DATA) + 1000
    car = open_car(path)
    assert car.root == SMALL.id
    assert car.content(ROOT, len(DATA)) == DATA
    assert car.content(SMALL.id, 5) == b"small"
    assert car.missing(ROOT) == []
    with pytest.raises(Oversize, match="700000 bytes"):
        car.content(ROOT, len(DATA) - 1)
    with pytest.raises(Missing):
        car.block(ContentId.of(b"other"))


def test_an_archive_that_could_not_be_finished_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "x.car"
    leaf = next(it for it in BLOCKS if not it.is_tree)
    some = {it: data for it, data in BLOCKS.items() if it != leaf}

    def read(content_id: ContentId) -> bytes:
        if content_id not in some:
            raise Missing("gone")
        return some[content_id]

    with pytest.raises(Missing):
        write_car(path, ROOT, [ROOT], read)
    assert list(tmp_path.iterdir()) == []


def test_a_doubled_block_a_missing_root_and_too_many_blocks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.car"
    other = Block(ContentId.of(b"other"), b"other")
    assert f"{SMALL.id} is there twice" in refused(written(path, SMALL.id, SMALL, other, SMALL))
    assert f"{SMALL.id}, which is its root, is missing" in refused(written(path, SMALL.id, other))
    many = [Block(ContentId.of(it), it) for it in map(str.encode, map(str, range(BLOCKS_MAX + 1)))]
    assert f"more than {BLOCKS_MAX} blocks" in refused(written(path, many[0].id, *many))
    with path.open("wb") as file:
        file.truncate(10_000_000_000)
    assert "it has 10000000000 bytes" in refused(path)
    assert "cannot be read" in refused(tmp_path / "none")


def test_blocks_that_are_missing_below_a_root_are_told(tmp_path: Path) -> None:
    leaf = next(it for it in BLOCKS if not it.is_tree)
    rest = [Block(it, data) for it, data in BLOCKS.items() if it != leaf]
    car = open_car(written(tmp_path / "x.car", ROOT, *rest))
    assert car.missing(ROOT) == [leaf]
    with pytest.raises(Missing):
        car.content(ROOT, len(DATA))


def test_a_tree_that_lies_about_its_sizes_is_refused(tmp_path: Path) -> None:
    children = TreeNode.from_bytes(BLOCKS[ROOT]).children
    lie = TreeNode(len(DATA) + 1, children).to_bytes()
    node = Block(ContentId.of_tree(lie), lie)
    leaves = [Block(it, data) for it, data in BLOCKS.items() if not it.is_tree]
    car = open_car(written(tmp_path / "x.car", node.id, node, *leaves))
    with pytest.raises(Malformed, match="where the tree above says"):
        car.content(node.id, 1 << 30)


def test_a_file_that_changes_afterwards_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path / "x.car", SMALL.id, SMALL)
    car: CarFile = open_car(path)
    path.write_bytes(path.read_bytes().replace(b"small", b"smell"))
    with pytest.raises(Corrupt):
        car.block(SMALL.id)


def test_the_archive_of_a_file_is_said_to_be_for_another_command(tmp_path: Path) -> None:
    path = tmp_path / "x.car"
    path.write_bytes(b"\x05what")
    with pytest.raises(InputError) as caught:
        open_car(path)
    assert "python -m node import" in caught.value.todo
