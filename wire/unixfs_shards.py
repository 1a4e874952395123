"""Folders as IPFS tools write them; one of many entries is a tree by the hash of each name. Pure.

Each node of it has a place for each of 256 bytes, and a link's name begins with its place. Behind
it is an entry with its own name, or the node for the next byte of the hash. The hash is no secret:
who chooses names so that they fall together gets an error.
"""

from collections.abc import Callable, Generator, Sequence

from wire import limits
from wire.errors import Malformed, Oversize
from wire.murmur import murmur3_64
from wire.unixfs import Link, UnixfsBlock, UnixfsId, UnixfsNode, folder_node, node_block, place_of

# The hash has so many bytes, and the tree at most so many rows.
ROWS_MAX = 8
# What does not fit one node is sharded.
NODE_BYTES_MAX = limits.BLOCK_BYTES_MAX

Nodes = Generator[UnixfsBlock, None, Link]


def folder_blocks(entries: Sequence[Link]) -> Nodes:
    """The nodes of a folder, what is below first; returns a nameless link to the folder.

    It is one node, or several where one would be above the largest block. Malformed for a name that
    cannot be, is there twice, or has the hash of another.
    """
    node = folder_node(entries)
    if len(node.to_bytes()) > NODE_BYTES_MAX:
        return (yield from _shard([(murmur3_64(link.name), link) for link in entries], 0))
    block, link = node_block(node)
    yield block
    return link


def _shard(entries: Sequence[tuple[bytes, Link]], row: int) -> Nodes:
    if row == ROWS_MAX:
        some = ", ".join(repr(link.name.decode()[:80]) for _, link in entries[:2])
        raise Malformed(f"{some}: names of the same hash", todo="rename one of them")
    places: dict[int, list[tuple[bytes, Link]]] = {}
    for hashed, link in entries:
        places.setdefault(hashed[row], []).append((hashed, link))
    links = []
    for place, there in sorted(places.items()):
        name, link = there[0][1].name, there[0][1]
        if len(there) > 1:
            name, link = b"", (yield from _shard(there, row + 1))
        links.append(Link(b"%02X" % place + name, link.id, link.tree_bytes))
    block, link = node_block(UnixfsNode(tuple(links), None, is_shard=True))
    yield block
    return link


def entries_of(node_of: Callable[[UnixfsId], UnixfsNode], folder: UnixfsNode) -> Sequence[Link]:
    """The entries of a folder, in the order of their names; `node_of` gives what is below it.

    Malformed for a name that is not in its place: so none is there twice.
    """
    if not folder.is_shard:
        return folder.links
    found: list[Link] = []
    work = [(folder, b"")]
    while work:
        shard, above = work.pop()
        for link in shard.links:
            place, name = place_of(link)
            path = above + bytes((place,))
            if not name:
                below = node_of(link.id)
                if not below.is_shard or len(path) == ROWS_MAX:
                    raise Malformed("a shard leads to what is no shard, or has too many rows")
                work.append((below, path))
                continue
            if not murmur3_64(name).startswith(path):
                raise Malformed(f"{name[:80]!r} is in a shard that is not its own")
            found.append(Link(name, link.id, link.tree_bytes))
            if len(found) > limits.FOLDER_ENTRIES_MAX:
                raise Oversize(f"a folder with more than {limits.FOLDER_ENTRIES_MAX} entries")
    return sorted(found, key=lambda link: link.name)


def step(folder: UnixfsNode, name: bytes, row: int) -> tuple[UnixfsId, bool] | None:
    """Where the way to a name goes on from a node of this row, and whether that is the entry."""
    if not folder.is_shard:
        return next(((it.id, True) for it in folder.links if it.name == name), None)
    if row >= ROWS_MAX:
        raise Malformed("a shard with too many rows")
    wanted = murmur3_64(name)[row]
    for link in folder.links:
        place, found = place_of(link)
        if place == wanted and found in (b"", name):
            return link.id, bool(found)
    return None
