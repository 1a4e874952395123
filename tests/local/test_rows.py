"""Rows for a command on this machine: answered in bundles, signed, and not done twice."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.engines.hash_engine import HashEngine, hash_manifest
from node.engines.hash_vector import hash_vector
from node.engines.interface import Emit, Job, Output
from node.local.commands import LocalCommands
from node.local.row_commands import PIECE_BYTES
from node.rows.plan import outputs_of
from p2p.score import Standing
from tests.node.network import I, Network, S, V, open_network
from wire.content import ContentId
from wire.errors import InputError, TaskFailed
from wire.generation import Generation
from wire.payload import Texts, Vectors
from wire.receipt import Answer, Receipt
from wire.rows import RowBundle, RowDigest, root_of_rows
from wire.signed import open_signed

MODEL = hash_manifest().id
TERMS = {"needed": 0, "verifiers": 0, "deadline_s": 30}
TEXTS = ("one", "two", "three")


def asked(**other: Any) -> dict[str, Any]:
    return {
        "model": str(MODEL),
        "operation": "embed",
        "parameters": {},
        "inputs": [Texts(texts=TEXTS).to_bytes()],
        "numbers": [7, 8, 10],
        **TERMS,
        **other,
    }


class Heard:
    """The pieces of one bundle."""

    def __init__(self) -> None:
        self.parts: dict[tuple[str, int], bytes] = {}

    def __call__(self, event: Mapping[str, Any]) -> None:
        assert len(event["data"]) <= PIECE_BYTES
        key = (event["event"], event["place"])
        self.parts[key] = self.parts.get(key, b"") + event["data"]


async def started(network: Network, unit_s: float = 0.0) -> tuple[LocalCommands, HashEngine]:
    asker, engine = await network.start(S), HashEngine(unit_s=unit_s)
    await network.start(I, S, engine=engine)
    await trio.sleep(5)
    return LocalCommands(asker), engine


async def test_a_bundle_is_answered_and_signed(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        commands, _ = await started(network)
        heard = Heard()
        result = await commands.commands()["rows"](asked(), heard)
        vectors = Vectors.from_bytes(heard.parts["output", 0])
        each = [hash_vector(MODEL, it, 64) for it in TEXTS]
        assert vectors.data == b"".join(each)
        signed = open_signed(result["signed"], RowBundle)
        assert signed.signer == commands.node.peers.me
        digests = [
            RowDigest.of(number, text.encode(), vector)
            for number, text, vector in zip((7, 8, 10), TEXTS, each, strict=True)
        ]
        assert signed.record.root == root_of_rows(digests)
        assert signed.record.answers == (ContentId.of(heard.parts["answer", 0]),)


async def test_what_was_answered_or_is_under_way_is_not_done_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        commands, engine = await started(network, unit_s=1.0)
        rows = commands.commands()["rows"]
        # The model was tried once when it was loaded.
        before = engine.statistics().units_done
        with trio.move_on_after(1.5):
            # Whoever asked is killed, and its task goes on.
            await rows(asked(), Heard())
        ended: list[Mapping[str, Any]] = []

        async def again() -> None:
            ended.append(await rows(asked(), Heard()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(again)
            nursery.start_soon(again)
        ended.append(await rows(asked(), Heard()))
        assert engine.statistics().units_done - before == len(TEXTS)
        assert [it["kept_before"] for it in ended] == [0, 0, 1]
        assert commands.node.tasks.statistics().accepted == 1
        assert (await rows(asked(fresh=True), Heard()))["kept_before"] == 0
        assert commands.node.tasks.statistics().accepted == 2


async def test_a_conversation_has_a_task_and_a_receipt_for_each_row(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        commands, engine = await started(network)
        told = await commands.commands()["rows-model"](
            {"model": "hash", "operation": "generate"}, Heard()
        )
        assert told == {"model": str(MODEL), "operation": "generate", "chats": True}
        before = engine.statistics().units_done
        inputs = [
            Generation(prompt=it, messages="", tools="", schema="", stop=()).to_bytes()
            for it in TEXTS
        ]
        given = asked(operation="generate", inputs=inputs, parameters={"tokens": 4})
        heard = Heard()
        result = await commands.commands()["rows"](given, heard)
        bundle = open_signed(result["signed"], RowBundle).record
        assert bundle.answers == tuple(ContentId.of(heard.parts["answer", it]) for it in range(3))
        assert engine.statistics().units_done - before == 12


class Garbling(HashEngine):
    """Its generations are none."""

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        found = await super().infer(job, emit)
        return replace(found, data=b"nonsense") if job.operation == "generate" else found


async def test_an_answer_that_cannot_be_read_is_not_taken_and_costs_its_peer(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        garbler = await network.start(I, S, engine=Garbling())
        await trio.sleep(5)
        rows = LocalCommands(asker).commands()["rows"]
        data = Generation(prompt="hi", messages="", tools="", schema="", stop=()).to_bytes()
        given = asked(operation="generate", inputs=[data], numbers=[0], parameters={"tokens": 4})
        with pytest.raises(TaskFailed):
            await rows(given, Heard())
        assert asker.peers.standing(garbler.peers.me) is not Standing.GOOD
        # Its answers are kept; all the same another peer is asked.
        await network.start(I, S)
        await trio.sleep(30)
        heard = Heard()
        await rows(given, heard)
        assert outputs_of("generate", [heard.parts["output", 0]], 1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"operation": "nearest"}, "rows cannot be asked for"),
        ({"operation": 3}, "operation is missing"),
        ({"inputs": []}, "1 to 256 inputs"),
        ({"inputs": ["text"]}, "are bytes"),
        ({"inputs": b"text"}, "1 to 256 inputs"),
        ({"numbers": [1, 2]}, "3 rows have 2 numbers"),
        ({"numbers": [3, 2, 1]}, "in order"),
        ({"numbers": [1, 2, "3"]}, "in order"),
        ({"numbers": [True, 2, 3]}, "in order"),
        ({"parameters": []}, "not a map"),
        ({"deadline_s": 0}, "deadline"),
        ({"needed": 3, "verifiers": 2}, "verdict"),
    ],
)
async def test_arguments_that_are_none_are_refused(
    autojump_clock: MockClock, tmp_path: Path, wrong: dict[str, Any], said: str
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(I, S)
        with pytest.raises(InputError, match=said):
            await LocalCommands(asker).commands()["rows"](asked(**wrong), Heard())


async def test_rows_that_nobody_could_check_are_told_so_before_the_first_is_asked(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        commands, _ = await started(network)
        await network.start(V)
        await trio.sleep(20)
        rows, terms = commands.commands()["rows"], {"needed": 2, "verifiers": 2}
        began_at_s = trio.current_time()
        with pytest.raises(InputError, match="1 peer could check an answer of hash") as failed:
            await rows(asked(first=True, **terms), Heard())
        assert trio.current_time() - began_at_s < 8
        assert "--resume" in failed.value.todo
        assert "--verdicts 1/1" in failed.value.todo
        assert commands.node.tasks.statistics().accepted == 0
        # What can be checked is, and what was answered so before needs nobody now.
        terms = {"needed": 1, "verifiers": 1}
        assert (await rows(asked(first=True, **terms), Heard()))["tasks"] == 1
        network.kill(network.nodes[-1])
        await trio.sleep(60)
        assert (await rows(asked(first=True, **terms), Heard()))["kept_before"] == 1


async def test_a_table_that_was_begun_waits_for_verifiers_that_come_back(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        commands, _ = await started(network)
        await trio.sleep(20)
        given = asked(first=False, needed=1, verifiers=1, deadline_s=60)
        ended: list[Mapping[str, Any]] = []

        async def ask() -> None:
            ended.append(await commands.commands()["rows"](given, Heard()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(15)
            await network.start(V)
        assert ended[0]["tasks"] == 1


async def test_rows_go_to_makers_that_can_be_checked(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        commands, _ = await started(network, unit_s=0.5)
        worker = network.nodes[-1].peers.me
        # It is faster, and nobody could check what it makes.
        await network.start(I, V, S, engine=HashEngine())
        await network.settled()
        for number in range(4):
            heard, inputs = Heard(), [Texts(texts=(f"{number}",)).to_bytes()]
            given = asked(inputs=inputs, numbers=[number], needed=1, verifiers=1)
            await commands.commands()["rows"](given, heard)
            answer = open_signed(heard.parts["answer", 0], Answer).record
            assert open_signed(answer.receipts[-1], Receipt).signer == worker
