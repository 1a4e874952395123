"""A task that nobody can check is told so before it is sent, and no sooner than that is known."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.local.ask_commands import AskCommands
from p2p.over_libp2p import MemoryTransport
from p2p.transport import ByteStream
from tests.node.network import D, I, S, V, open_network
from tests.p2p.transports import key_of
from wire.content import PeerId
from wire.errors import InputError

ASKED = {"model": "hash", "text": "hello", "deadline_s": 120}


def unheard(_: Mapping[str, Any]) -> None: ...


async def test_two_machines_are_told_at_once_that_two_cannot_agree(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(I, S)
        await network.start(I, V, S)
        await network.settled()
        await trio.sleep(20)
        events: list[Mapping[str, Any]] = []
        began_at_s = trio.current_time()
        with pytest.raises(InputError, match="1 peer could check an answer of hash") as failed:
            await AskCommands(asker).ask(ASKED, events.append)
        assert trio.current_time() - began_at_s < 8
        assert "--verdicts 1/1 or, unchecked, 0/0" in failed.value.todo
        assert "--role verify --model hash" in failed.value.todo
        assert events == []
        assert asker.tasks.statistics().accepted == 0
        # What is told works, also with the one that checks as one of two that could answer.
        one = await AskCommands(asker).ask(ASKED | {"needed": 1, "verifiers": 1}, unheard)
        assert [it["agrees"] for it in one["verdicts"]] == [True]
        none = ASKED | {"needed": 0, "verifiers": 0, "fresh": True}
        assert (await AskCommands(asker).ask(none, unheard))["verdicts"] == []
        # A second verifier is enough, though it checks only what this peer makes itself.
        await network.start(I, V, S)
        await network.settled()
        for number in range(4):
            asked = ASKED | {"text": f"text {number}"}
            assert len((await AskCommands(asker).ask(asked, unheard))["verdicts"]) == 2


async def test_a_peer_that_has_just_begun_waits_for_verifiers_to_tell_of_themselves(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await trio.sleep(3)
        found: list[Mapping[str, Any]] = []

        async def ask() -> None:
            found.append(await AskCommands(asker).ask(ASKED, unheard))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(3.5)
            for _ in range(2):
                await network.start(V, S)
        assert len(found[0]["verdicts"]) == 2


async def test_a_source_that_nobody_could_check_is_not_brought_in(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(D, S)
        await network.start(I, S)
        await network.settled()
        with pytest.raises(InputError, match="0 peers could check"):
            await AskCommands(asker).embed(ASKED | {"sources": ["pydoc:try"]}, unheard)
        assert asker.tasks.statistics().accepted == 0


async def test_a_stranger_that_tells_nothing_of_itself_has_no_task_done_in_vain(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async def silent(_peer: PeerId, stream: ByteStream) -> None:
        await trio.sleep_forever()

    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await network.settled()
        await trio.sleep(20)
        transport = MemoryTransport(network.memory, wall_ns=lambda: 1)
        async with transport.open(key_of("silent"), ["/memory/0"], accept=silent) as stranger:
            await stranger.connect(asker.peers.endpoint.addresses[0], deadline_s=5.0)
            with pytest.raises(InputError, match="0 peers could check"):
                await AskCommands(asker).ask(ASKED, unheard)
        assert asker.tasks.statistics().accepted == 0
