"""Peers that take pages for layers and do not use them: others have them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.peer import Node
from node.serving.stage_sessions import TAKEN_BACK_S
from p2p.typed_call import TypedCall
from tests.engines.summing_engine import PAGES, summing_manifest
from tests.node.network import Outsider, open_network
from tests.node.test_layers import part
from wire.errors import Disconnected, Refused
from wire.stage import StageOpen, StageOpened


@asynccontextmanager
async def session(asker: Outsider, node: Node) -> AsyncIterator[TypedCall]:
    """A session that wants all pages, until it is left."""
    left = Disconnected("the test is over")
    try:
        async with asker.peers.call(node.peers.me, deadline_s=300) as call:
            await call.send(StageOpen(model=summing_manifest().id, first=3, last=8, pages=PAGES))
            await call.expect(StageOpened)
            yield call
            raise left
    except Disconnected as error:
        if error is not left:
            raise


async def test_who_has_all_pages_and_uses_none_makes_room_for_others(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network, AsyncExitStack() as stack:
        node = await part(network, 3, 8)
        greedy = [await stack.enter_async_context(network.outsider()) for _ in range(2)]
        held = [await stack.enter_async_context(session(it, node)) for it in (*greedy, *greedy)]
        other = await stack.enter_async_context(network.outsider())
        with pytest.raises(Refused, match="0 pages are free"):
            async with session(other, node):
                pass
        await trio.sleep(TAKEN_BACK_S)
        async with session(other, node):
            with pytest.raises(Refused, match="others want these layers"):
                await held[0].expect(StageOpened)
            assert node.stage_server.sessions == len(held)
