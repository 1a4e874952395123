"""What the running peer does when a command asks: names, generations, and who goes away."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.engines.hash_engine import HashEngine, hash_manifest
from node.local.ask_commands import AskCommands
from node.local.model_commands import ModelCommands
from node.peer import Node
from tests.node.network import I, Network, S, open_network
from wire import limits
from wire.errors import InputError

UNCHECKED = {"needed": 0, "verifiers": 0, "deadline_s": 30}


def unheard(_: Mapping[str, Any]) -> None: ...


async def others_model(network: Network, name: str) -> Node:
    """A peer that runs a model which only it keeps."""
    manifest = hash_manifest(name)
    node = await network.start(I, S, models=())
    await node.models.keep(manifest)
    node.loader.start(str(manifest.id))
    return node


async def test_a_model_of_others_is_asked_by_its_name(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await others_model(network, "theirs")
        await trio.sleep(5)
        events: list[Mapping[str, Any]] = []
        arguments = {"model": "theirs", "text": "hello", "operation": "generate", **UNCHECKED}
        found = await AskCommands(asker).ask(
            arguments | {"parameters": {"tokens": 4}}, events.append
        )
        assert found["operation"] == "generate"
        assert found["result"]["tokens"] == 4
        assert len(found["result"]["text"].split()) == 4
        assert [it["event"] for it in events].count("piece") >= 1
        prepared = await ModelCommands(asker).prepare({"what": "theirs"}, unheard)
        assert prepared["id"] == str(hash_manifest("theirs").id)


async def test_errors_say_the_name_that_was_typed(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        with pytest.raises(InputError, match=r"smollm2 \(baf"):
            await AskCommands(asker).ask({"model": "smollm2", "text": "x", **UNCHECKED}, unheard)
        with pytest.raises(InputError, match=r"'smollm2'.*this peer runs none"):
            await ModelCommands(asker).prepare({"what": "smollm2"}, unheard)
        with pytest.raises(InputError, match="no model 'fly'"):
            await AskCommands(asker).ask({"model": "fly", "text": "x", **UNCHECKED}, unheard)


async def test_a_name_that_two_models_have_is_asked_for_by_id(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        for dimensions in (8, 16):
            manifest = hash_manifest("twice", dimensions)
            node = await network.start(I, S, models=())
            await node.models.keep(manifest)
            node.loader.start(str(manifest.id))
        await trio.sleep(5)
        with pytest.raises(InputError, match="2 models in the network"):
            asker.models.meant("twice")


async def test_a_task_ends_when_whoever_attends_to_it_goes_away(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S, engine=HashEngine(unit_s=1.0))
        await trio.sleep(5)
        arguments = {"model": "hash", "text": "x", "operation": "generate", **UNCHECKED}
        for attended, left in ((True, 0), (False, 1)):
            with trio.move_on_after(3):
                await AskCommands(asker).ask(
                    arguments | {"attended": attended, "parameters": {"tokens": 20, "seed": left}},
                    unheard,
                )
            await trio.sleep(0.1)
            assert asker.tasks.statistics().under_way == left


async def test_a_long_conversation_comes_back_beside_its_receipt(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await network.settled()
        said = [{"role": "user", "content": "x" * (limits.PROMPT_BYTES_MAX - 1024)}]
        asked = {"model": "hash", "messages": said, "operation": "generate", **UNCHECKED}
        found = await AskCommands(asker).ask(asked, unheard)
        assert len(found["input_payload"]) > limits.PROMPT_BYTES_MAX - 1024
