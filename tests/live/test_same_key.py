"""One key on two machines, because a state folder was copied: the newcomer ends, the first says so.

Whole peers in one process, under a clock that jumps: on a real one this takes most of a minute.
"""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.local.commands import LocalCommands
from node.peer import Node
from p2p.handshake_log import NEWCOMER_S
from tests.node.network import Network, S, open_network
from wire.errors import InputError

ENDS_WITHIN_S = 40.0
SETTLED_S = 2 * NEWCOMER_S


async def status(node: Node) -> dict[str, object]:
    return await LocalCommands(node).status({}, lambda _: None)


async def copied(network: Network, *, lasting_s: float) -> None:
    """A peer with the key of the second peer, and its own instance."""
    async with network.peer([S], number=1, environment=network.environment(99)):
        await trio.sleep(lasting_s)


async def test_of_a_folder_copied_to_a_second_machine_only_the_first_goes_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_network(tmp_path) as network:
        first = await network.add(S)
        original = await network.add(S)
        await trio.sleep(SETTLED_S)
        assert not (await status(original))["same_key_elsewhere"]
        with pytest.RaisesGroup(InputError, flatten_subgroups=True, allow_unwrapped=True) as ended:
            await copied(network, lasting_s=ENDS_WITHIN_S)
        assert "another machine is running with this peer's key" in str(said(ended.value))
        assert "--state" in str(said(ended.value))
        await trio.sleep(ENDS_WITHIN_S)
        assert (await status(original))["same_key_elsewhere"]
        assert original.peers.connected() == {first.peers.me}


def said(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def test_a_quick_restart_with_the_same_folder_is_not_refused(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_network(tmp_path) as network:
        await network.add(S)
        await network.add(S)
        async with AsyncExitStack() as last_run:
            await last_run.enter_async_context(network.peer([S], number=5))
            await trio.sleep(SETTLED_S)
        async with network.peer([S], number=5, environment=network.environment(98)) as again:
            await trio.sleep(SETTLED_S)
            assert not (await status(again))["same_key_elsewhere"]
            assert len(again.peers.connected()) >= 1
