"""Whole peers in this process, over TCP and noise, each with its own LMDB store."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from node.commands.join import collect_seldom
from node.peer import Node
from p2p.over_libp2p import TcpTransport
from store import open_store
from tests.node.network import Network, replace
from wire.kinds import Role

QUOTA_BYTES = 1 << 30


async def first_of(
    folder: Path,
    stack: AsyncExitStack,
    roles: Sequence[tuple[Role, ...]],
    *,
    begin: Callable[[Network], dict[str, Any]] = lambda _network: {},
) -> Node:
    """The first of a network that is settled, of one peer for each entry of `roles`.

    `begin` gives the options that all of its peers have.
    """
    network = Network(stack, folder)
    options = begin(network)
    tcp = TcpTransport(wall_ns=lambda: 1)
    for mine in roles:
        place = folder / f"store-{len(network.nodes)}"
        await network.add(
            *mine,
            store=await stack.enter_async_context(open_store(place, quota_bytes=QUOTA_BYTES)),
            listen=("/ip4/127.0.0.1/tcp/0",),
            alter=lambda parts: replace(parts, transport=tcp),
            **options,
        )
    await network.settled()
    # As `join` does: else a part of what is measured is garbage that is collected too often.
    collect_seldom()
    return network.nodes[0]
