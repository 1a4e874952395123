"""Copies of folders and large files: all blocks at others, by what they give."""

from pathlib import Path

from trio.testing import MockClock

from node.local.content_commands import ContentCommands
from node.peer import Node
from tests.local.folders import contents, write_folder
from tests.node.network import Network, S, open_network
from wire import limits
from wire.content import ContentId
from wire.unixfs import UnixfsId

BLOCK = limits.BLOCK_BYTES_MAX
FILES = {"a": b"1", "sub/b": bytes(2 * BLOCK + 1), "sub/c": b"1", "empty": b""}


def unheard(event: object) -> None:
    """Nobody looks at the progress."""


async def put(node: Node, path: Path, copies: int = 0) -> dict[str, object]:
    commands = ContentCommands(node)
    work = commands.put_folder if path.is_dir() else commands.put
    return await work({"path": str(path), "copies": copies}, unheard)


async def started(network: Network, count: int) -> list[Node]:
    nodes = [await network.start(S) for _ in range(count)]
    await network.settled()
    return nodes


async def test_a_folder_has_copies_that_outlive_its_maker(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "in", FILES)
    async with open_network(tmp_path / "network") as network:
        maker, *others = await started(network, 4)
        found = await put(maker, folder, 3)
        assert (found["copies"], found["refusals"]) == (3, [])
        root = UnixfsId.parse(str(found["id"]))
        holders = {it["peer"] for it in found["holders"]}  # type: ignore[attr-defined]
        kept = [it for it in others if root in it.keep_role.kept_items.items]
        assert {str(it.peers.me) for it in kept} == holders
        # The same again makes no further copy.
        assert (await put(maker, folder, 3))["holders"] != []
        assert sum(root in it.keep_role.kept_items.items for it in others) == 2
        network.kill(maker)
        (last,) = [it for it in others if it not in kept]
        arguments = {"id": str(root), "path": str(tmp_path / "out"), "deadline_s": 600}
        await ContentCommands(last).get_folder(arguments, unheard)
        assert contents(tmp_path / "out") == contents(folder)


async def test_a_large_file_is_counted_and_copied(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    file = tmp_path / "large"
    file.write_bytes(FILES["sub/b"])
    async with open_network(tmp_path / "network") as network:
        maker, *_ = await started(network, 3)
        assert (await put(maker, file))["copies"] == 1
        assert (await put(maker, file, 2))["copies"] == 2
        found = await put(maker, file)
        assert (found["copies"], found["peers_looked_at"]) == (2, 2)


async def test_who_holds_a_part_of_a_folder_is_found_out(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    files = {f"{number}": bytes([number]) * 9 for number in range(20)}
    folder = write_folder(tmp_path / "in", files)
    async with open_network(tmp_path / "network") as network:
        maker, part, _ = await started(network, 3)
        found = await put(maker, folder)
        root = UnixfsId.parse(str(found["id"]))
        store = maker.dependencies.store
        half = [ContentId.of(files[str(it)]) for it in range(10)]
        for block in (root.block, *half):
            await part.dependencies.store.put(await store.get(block))
        tree = await ContentCommands(maker)._folder_put.tree_of(root)
        counted = [(await maker.copying.find(tree)).count - 1 for _ in range(40)]
        # Half of the blocks: three drawn ones are all there once in eight times.
        assert 0 < sum(counted) < 16


async def test_peers_of_older_versions_keep_no_folders_and_give_what_they_have(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "in", FILES)
    async with open_network(tmp_path / "network") as network:
        maker, old = await started(network, 2)
        old.peers.neighbours.speaks = limits.UNIXFS_KEEPS_VERSION - 1
        maker.peers.neighbours._versions.clear()
        found = await put(maker, folder, 2)
        assert found["copies"] == 1
        assert "no folders and no large files" in str(found["refusals"])
        # It gets the folder as ever, and is counted from then on.
        arguments = {"id": found["id"], "path": str(tmp_path / "out"), "deadline_s": 600}
        await ContentCommands(old).get_folder(arguments, unheard)
        assert (await put(maker, folder, 2))["copies"] == 2
