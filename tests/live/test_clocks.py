"""Clocks that are an hour wrong: whoever is wrong is told so, and the others go on without it.

Whole peers in one process; the wall clock is a seam, so each may have its own.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.config import NodeConfig
from node.engines.hash_engine import HashEngine
from node.local.commands import LocalCommands
from node.peer import Dependencies, Node, open_node
from node.serving.sources import Sources
from p2p.over_libp2p import MemoryTransport
from p2p.peers import PeersConfig
from store import open_memory_store
from tests.node.network import Network, S, open_network
from wire.errors import BatonError

HOUR_S = 3600.0
RIGHT, BEHIND, AHEAD = 0.0, -HOUR_S, HOUR_S


@asynccontextmanager
async def peer(
    network: Network, number: int, clock_s: float, others: Sequence[Node] = ()
) -> AsyncIterator[Node]:
    """A peer whose clock is off by `clock_s`, and which is told of all `others`."""
    right = network.environment(number)
    bootstraps = tuple(it.peers.endpoint.addresses[0] for it in others)
    config = NodeConfig(
        state=network.folder / str(number),
        peers=PeersConfig(bootstraps=bootstraps, listen=("/memory/0",)),
        roles=frozenset({S}),
        leave_s=0.1,
    )
    async with open_memory_store(quota_bytes=1 << 30) as store:
        parts = Dependencies(
            key=network.key(number),
            environment=replace(right, wall_s=lambda: right.wall_s() + clock_s),
            transport=MemoryTransport(network.memory, wall_ns=lambda: 1),
            store=store,
            engine=HashEngine(),
            sources=Sources({}),
        )
        async with open_node(config, parts) as node:
            yield node


@asynccontextmanager
async def several(network: Network, clocks_s: Sequence[float]) -> AsyncIterator[list[Node]]:
    """As many peers as there are clocks; those that are right know each other."""
    async with AsyncExitStack() as stack:
        nodes: list[Node] = []
        right: list[Node] = []
        for number, clock_s in enumerate(clocks_s):
            known = [] if clock_s else right[:1]
            node = await stack.enter_async_context(peer(network, number, clock_s, known))
            nodes.append(node)
            if not clock_s:
                right.append(node)
        yield nodes


async def refusal(network: Network, clock_s: float, others: Sequence[Node]) -> str:
    """What ends a newcomer that meets all of `others`; nothing if it may stay."""
    try:
        async with peer(network, 50, clock_s, others) as newcomer:
            await trio.sleep(30.0)
            assert newcomer.peers.connected()
            return ""
    except* BatonError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        found = str(error)
    return found


@pytest.mark.parametrize(("clock_s", "way"), [(BEHIND, "behind"), (AHEAD, "ahead of")])
async def test_a_newcomer_whose_clock_is_wrong_is_told_which_way(
    tmp_path: Path, autojump_clock: MockClock, clock_s: float, way: str
) -> None:
    async with open_network(tmp_path) as network, several(network, [RIGHT] * 3) as others:
        line = await refusal(network, clock_s, others)
        assert f"this machine's clock is 3600 s {way} that of 3 peers" in line
        assert "timedatectl" in line
        # Who was right is not troubled by it.
        for other in others:
            assert (await LocalCommands(other).status({}, lambda _: None))["clock_wrong_s"] is None


@pytest.mark.parametrize("clock_s", [BEHIND, AHEAD])
async def test_a_bootstrap_whose_clock_is_wrong_does_not_stop_who_is_right(
    tmp_path: Path, autojump_clock: MockClock, clock_s: float
) -> None:
    clocks_s = [clock_s, RIGHT, RIGHT]
    async with open_network(tmp_path) as network, several(network, clocks_s) as others:
        assert await refusal(network, RIGHT, others) == ""
        # One that agrees is enough.
        assert await refusal(network, RIGHT, others[:2]) == ""


@pytest.mark.parametrize(("clock_s", "way"), [(BEHIND, "ahead of"), (AHEAD, "behind")])
async def test_of_two_clocks_that_differ_none_is_called_the_wrong_one(
    tmp_path: Path, autojump_clock: MockClock, clock_s: float, way: str
) -> None:
    async with open_network(tmp_path) as network, several(network, [clock_s]) as others:
        line = await refusal(network, RIGHT, others)
        assert f"3600 s {way} that of the only peer that answered" in line
        assert "one of the two is wrong" in line
        assert "another bootstrap" in line


async def test_clocks_that_differ_by_minutes_are_no_trouble(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_network(tmp_path) as network, several(network, [240.0]) as others:
        assert await refusal(network, RIGHT, others) == ""
