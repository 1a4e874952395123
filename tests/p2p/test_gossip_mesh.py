"""The mesh of a topic: of the size that the paper has, and at rest."""

from contextlib import AsyncExitStack
from itertools import combinations
from typing import cast

import trio
from trio.testing import MockClock

from p2p.over_libp2p.endpoint import LibEndpoint
from p2p.over_libp2p.repeatable import repeatable_library
from tests.p2p.transports import connect, kind_of

PEERS = 12


async def test_a_mesh_that_is_large_enough_grafts_and_prunes_nobody(
    autojump_clock: MockClock,
) -> None:
    kind = kind_of("memory")
    async with AsyncExitStack() as stack:
        # libp2p measures by this clock for how long one that was pruned is left alone.
        stack.enter_context(repeatable_library(trio.current_time, 7))
        endpoints = [
            await stack.enter_async_context(kind.open(f"peer {it}")) for it in range(PEERS)
        ]
        for one, other in combinations(endpoints, 2):
            await connect(one, other)
        for endpoint in endpoints:
            await endpoint.subscribe("topic")
        routers = [cast("LibEndpoint", it)._pubsub.router for it in endpoints]
        await trio.sleep(15)
        before = [set(it.mesh["topic"]) for it in routers]
        for router, mesh in zip(routers, before, strict=True):
            assert router.degree_low <= len(mesh) <= router.degree_high
        # Who is in no need of neighbours grafts none: else each would send all to everybody.
        assert sum(map(len, before)) < 0.9 * PEERS * (PEERS - 1)
        # Some heartbeats of a network at rest.
        await trio.sleep(30)
        assert [set(it.mesh["topic"]) for it in routers] == before
