"""The path of a task through whole peers, from offer to checked and kept answer."""

from pathlib import Path

import trio

from node.engines.hash_engine import hash_manifest
from node.path import Request
from tests.node.network import D, I, S, V, open_network
from wire.kinds import Role
from wire.payload import Passages, Texts, Vectors
from wire.task import Stage

MODEL = hash_manifest().id
FETCH = Stage(role=Role.DATA, operation="fetch", model=None, parameters={"source": "pydoc:try"})
EMBED_PASSAGES = Stage(role=Role.INFER, operation="embed-passages", model=MODEL, parameters={})
EMBED = Stage(role=Role.INFER, operation="embed", model=MODEL, parameters={})


async def test_a_task_goes_from_data_to_a_checked_kept_answer(tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.add(S)
        data = await network.add(D, S)
        infer = await network.add(I, S)
        for _ in range(3):
            await network.add(V, S)
        await network.settled()
        events = []
        task = await asker.path.submit(Request(stages=(FETCH, EMBED_PASSAGES), input=None))
        with trio.fail_after(20):
            answered = await asker.path.watch(task, events.append)
        vectors = Vectors.from_bytes(answered.output)
        assert vectors.rows > 3
        print(events)
