"""Verdicts on an answer of an exact transformer that disagree: who asked reads the answer again."""

import hashlib
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from node.asking.answers import Answered
from node.asking.disputing import Ruling
from node.checking.audit import audit
from node.checking.check_request import CheckRequest
from node.checking.tally import Tally
from node.commands.verify_dispute import verify_dispute
from node.engines.exact.text_states import count_of
from node.engines.worker.exact_claims import ExactClaims
from node.evidence.text_disputes import judge_words
from node.models.exact_files import ExactFiles
from node.models.inspect import describe
from node.peer import Node
from node.task.events import Event, ignore_event
from p2p.score import Standing
from p2p.typed_call import TypedCall
from tests.checking.exact_text_peers import Alter, OtherModels, TextEngine, some_weights_off
from tests.checking.played_disputes import says_wrong
from tests.engines.exact.text_models import made_at
from tests.node.asking import asked, failures, request, signers
from tests.node.network import I, Network, S, V, open_network
from tests.p2p.transports import key_of
from wire import limits
from wire.dispute import Commitment, Committed, Contest, Dispute, Reveal
from wire.errors import Refused, TransportError, WireError
from wire.generation import Generation, Token, read_frames, to_frame
from wire.kinds import Level, Role
from wire.message import Message
from wire.model import ModelFile
from wire.receipt import Receipt
from wire.segment import Segment
from wire.signed import Signed, open_signed, sign
from wire.task import Stage, Task
from wire.tree import name_of

PROMPT = tuple(int(it) for it in np.random.default_rng(5).integers(0, 500, 12))
QUESTION = Generation(
    prompt="", messages="", tools="", schema="", stop=(), prompt_tokens=PROMPT
).to_bytes()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_at(tmp_path_factory.mktemp("exact"))


def generate(path: Path) -> Stage:
    data = path.read_bytes()
    content = ModelFile(name="model.exact", content=name_of(data), size_bytes=len(data))
    model = describe(path).manifest({"model.exact": content}).id
    parameters = {"tokens": 6, "ignore_eos": 1, "temperature": 1.0, "seed": 3}
    return Stage(role=Role.INFER, operation="generate", model=model, parameters=parameters)


async def add(
    network: Network, path: Path, role: Role, alter: Alter | None = None, unit_s: float = 0.05
) -> Node:
    """A peer with the model; one that alters it says that it is fast, and is asked first."""
    engine = TextEngine(unit_s) if alter is None else TextEngine(0.001, alter=alter)
    return await network.start(role, S, engine=engine, models=(str(path),))


@asynccontextmanager
async def asking(folder: Path, path: Path) -> AsyncIterator[tuple[Node, Network]]:
    """Who asks has the model too, and runs it for nobody."""
    async with open_network(folder) as network:
        asker = await network.start(S, engine=TextEngine(0.05))
        await asker.models.add(path)
        yield asker, network


async def test_an_answer_at_the_level_exact_holds_whatever_device_each_has(
    autojump_clock: MockClock, tmp_path: Path, path: Path
) -> None:
    async with asking(tmp_path, path) as (asker, network):
        honest = await add(network, path, I)
        for _ in range(3):
            await add(network, path, V)
        await network.settled()
        wanted = request(generate(path), data=QUESTION, level=Level.EXACT)
        found, _ = await asked(asker, wanted)
        assert signers(found) == [honest.peers.me]
        assert len([it for it in read_frames(found.output) if isinstance(it, Token)]) == 6
        points = audit(found.answer.raw, lambda _: None).points
        (told,) = [it.detail for it in points if "needed verdicts agree" in it.what]
        assert "drew 6 tokens again in whole numbers" in told
        assert "logit" not in told


async def test_a_liar_loses_though_a_verifier_agrees_with_it(
    autojump_clock: MockClock, tmp_path: Path, path: Path
) -> None:
    async with asking(tmp_path, path) as (asker, network):
        liar = await add(network, path, I, some_weights_off)
        honest = await add(network, path, I)
        await add(network, path, V, some_weights_off)
        for _ in range(2):
            await add(network, path, V)
        await network.settled()
        wanted = request(generate(path), data=QUESTION, level=Level.EXACT)
        found, events = await asked(asker, wanted)
        assert signers(found) == [honest.peers.me]
        told = [it for it in failures(events, "dispute") if it.peer == liar.peers.me]
        assert "of the answer is another one" in told[0].why
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED
        assert asker.peers.standing(honest.peers.me) is Standing.GOOD


def showing(node: Node, alter: Alter) -> Node:
    """Have a peer show, in disputes, what it really computes."""
    node.contest_role.read_here = OtherModels(ExactFiles(node.models), alter)
    return node


def records_of(asker: Node) -> list[Signed[Dispute]]:
    files = (asker.config.state / "receipts").glob("*.dispute")
    return [open_signed(it.read_bytes(), Dispute) for it in files]


@pytest.mark.parametrize("speaks", [limits.TEXT_DISPUTES_VERSION, 19])
async def test_a_liar_is_named_with_the_layer_that_it_computes_otherwise(
    autojump_clock: MockClock, tmp_path: Path, path: Path, speaks: int
) -> None:
    async with asking(tmp_path, path) as (asker, network):
        liar = showing(await add(network, path, I, some_weights_off), some_weights_off)
        liar.peers.neighbours.speaks = speaks
        honest = await add(network, path, I)
        for _ in range(3):
            await add(network, path, V)
        await network.settled()
        wanted = request(generate(path), data=QUESTION, level=Level.EXACT)
        found, events = await asked(asker, wanted)
        assert signers(found) == [honest.peers.me]
        (told,) = [it.why for it in failures(events, "dispute") if it.peer == liar.peers.me]
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED
        if speaks < limits.TEXT_DISPUTES_VERSION:
            assert "it was read again here" in told
            assert not records_of(asker)
            return
        assert "layer 1, feed-forward" in told
        (record,) = records_of(asker)
        receipt = open_signed(record.record.receipt, Receipt).record
        assert record.record.output is not None
        assert receipt.model is not None
        claims = ExactClaims.of(path, receipt.model)
        judged = judge_words(record, claims, QUESTION, record.record.output)
        assert judged.lost == {liar.peers.me}
        assert (judged.layer, judged.operator) == (1, "feed-forward")
        again = verified(record, path, tmp_path)
        assert again["lost"] == [str(liar.peers.me)]
        assert again["layer"] == 1
        altered(record, claims)


def verified(record: Signed[Dispute], path: Path, folder: Path) -> dict[str, Any]:
    """What `verify` prints of a record."""
    file = folder / "x.dispute"
    file.write_bytes(record.raw)
    with redirect_stdout(io.StringIO()) as out:
        verify_dispute(file, (), path, as_json=True)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def altered(record: Signed[Dispute], claims: ExactClaims) -> None:
    """A record that was cut, or says something else, convicts nobody."""
    one, key, output = record.record, key_of("referee"), record.record.output
    assert output is not None
    first = one.steps[0]
    for change in (
        {"steps": one.steps[:-1]},
        {"steps": (*one.steps, first)},
        {"steps": (replace(first, prover_left=bytes(32)), *one.steps[1:])},
        {"steps": (replace(first, challenger_right=bytes(32)), *one.steps[1:])},
        {"prover": None, "challenger": one.prover},
        {"challenger": one.prover},
        {"prover": None},
        {"verdict": one.receipt},
    ):
        with pytest.raises(WireError):
            judge_words(sign(replace(one, **change), key), claims, QUESTION, output)  # type: ignore[arg-type]
    with pytest.raises(WireError):
        judge_words(record, claims, QUESTION, output + b"x")


async def test_a_lying_verifier_is_named_with_its_layer(
    autojump_clock: MockClock, tmp_path: Path, path: Path
) -> None:
    async with asking(tmp_path, path) as (asker, network):
        await add(network, path, I)
        liar = showing(await add(network, path, V, some_weights_off), some_weights_off)
        await network.settled()
        found, _ = await asked(asker, request(generate(path), data=QUESTION, level=Level.SIGNED))
        receipt = open_signed(found.answer.record.receipts[-1], Receipt)
        votes, claimed = untrue_verdict(receipt, liar), to_check(found, receipt)
        events: list[Event] = []
        ruling = await asker.tasks.disputing.rule(claimed, votes, found.output, events.append)
        assert ruling == Ruling(void=frozenset((liar.peers.me,)))
        (told,) = [it.why for it in failures(events, "dispute")]
        assert "layer 1, feed-forward" in told


async def test_whoever_asks_odd_things_about_words_learns_nothing(
    autojump_clock: MockClock, tmp_path: Path, path: Path
) -> None:
    async with asking(tmp_path, path) as (asker, network):
        honest = await add(network, path, I)
        await network.settled()
        found, _ = await asked(asker, request(generate(path), data=QUESTION, level=Level.SIGNED))
        record = found.answer.record
        contest = Contest(
            task=record.task,
            receipts=record.receipts,
            input=QUESTION,
            output=found.output,
            row=3,
            deadline_ms=20_000,
        )
        for row, words in ((99, "6 tokens"), (limits.CALL_ROWS_MAX - 1, "6 tokens")):
            async with asker.peers.call(honest.peers.me, deadline_s=20) as channel:
                await channel.send(replace(contest, row=row))
                with pytest.raises(Refused, match=words):
                    await channel.expect(Committed)
        async with asker.peers.call(honest.peers.me, deadline_s=20) as channel:
            await channel.send(contest)
            commitment = open_signed((await channel.expect(Committed)).commitment, Commitment)
            assert commitment.record.layers == count_of(2, len(PROMPT) + 3)
            # Of words no state is shown: whoever judges has the model.
            await channel.send(Reveal(layer=0))
            with pytest.raises(TransportError):
                await channel.receive()
        async with asker.peers.call(honest.peers.me, deadline_s=20) as channel:
            await channel.send(replace(contest, row=None))
            with pytest.raises(TransportError):
                await channel.expect(Committed)
        assert not honest.contest_role._reading


async def test_a_lying_verifier_loses_and_the_answer_holds(
    autojump_clock: MockClock, tmp_path: Path, path: Path
) -> None:
    async with asking(tmp_path, path) as (asker, network):
        honest = await add(network, path, I)
        liars = [await add(network, path, V, some_weights_off) for _ in range(2)]
        for _ in range(3):
            await add(network, path, V)
        await network.settled()
        wanted = request(generate(path), data=QUESTION, level=Level.EXACT)
        found, events = await asked(asker, wanted)
        assert signers(found) == [honest.peers.me]
        named = {it.peer for it in failures(events, "dispute")}
        assert named <= {it.peers.me for it in liars}
        assert asker.peers.standing(honest.peers.me) is Standing.GOOD


def untrue_verdict(receipt: Signed[Receipt], liar: Node) -> Tally:
    """One verifier says no to an answer, and nobody else has spoken."""
    signed = sign(says_wrong(receipt.id, "numpy"), liar.peers.key)
    return Tally(agreed=False, verdicts=(signed,), candidates=(signed.signer,), disputed=True)


def to_check(found: Answered, receipt: Signed[Receipt]) -> CheckRequest:
    task = open_signed(found.answer.record.task, Task)
    return CheckRequest(
        task=task, receipts=(receipt,), secret=bytes(32), input=QUESTION, output=None
    )


async def test_nobody_is_judged_by_an_output_that_is_not_here_or_of_another_leg(
    autojump_clock: MockClock, tmp_path: Path, path: Path
) -> None:
    async with asking(tmp_path, path) as (asker, network):
        honest, liar = await add(network, path, I), await add(network, path, V)
        await network.settled()
        found, _ = await asked(asker, request(generate(path), data=QUESTION, level=Level.SIGNED))
        receipt = open_signed(found.answer.record.receipts[-1], Receipt)
        votes, claimed = untrue_verdict(receipt, liar), to_check(found, receipt)
        for output in (b"", b"the output of a later leg"):
            ruling = await asker.tasks.disputing.rule(claimed, votes, output, ignore_event)
            assert ruling == Ruling()
            assert asker.peers.standing(honest.peers.me) is Standing.GOOD
        # With the leg's own output it is seen whose word is untrue.
        ruling = await asker.tasks.disputing.rule(claimed, votes, found.output, ignore_event)
        assert ruling == Ruling(void=frozenset((liar.peers.me,)))


@pytest.mark.parametrize("wrong", [1, 4])
async def test_of_a_stream_that_moved_who_made_the_wrong_token_loses(
    autojump_clock: MockClock, tmp_path: Path, path: Path, wrong: int
) -> None:
    async with asking(tmp_path, path) as (asker, network):
        first, last, verifier = [await add(network, path, it) for it in (I, I, V)]
        await network.settled()
        found, _ = await asked(asker, request(generate(path), data=QUESTION, level=Level.SIGNED))
        frames = [
            to_frame(replace(it, id=it.id + 1) if isinstance(it, Token) and at == wrong else it)
            for at, it in enumerate(read_frames(found.output))
        ]
        output, begun = b"".join(frames), b"".join(frames[:3])
        task = open_signed(found.answer.record.task, Task)
        segment = Segment(
            task=task.id,
            stage=0,
            first=0,
            units=3,
            size_bytes=len(begun),
            shown=hashlib.sha256(begun).digest(),
            built_on=None,
            profile="numpy",
            signed_at_ms=1,
        )
        signed_for = replace(
            open_signed(found.answer.record.receipts[-1], Receipt).record,
            output=name_of(output),
            output_size_bytes=len(output),
            segments=(sign(segment, first.peers.key).raw,),
        )
        receipt = sign(signed_for, last.peers.key)
        votes, claimed = untrue_verdict(receipt, verifier), to_check(found, receipt)
        ruling = await asker.tasks.disputing.rule(claimed, votes, output, ignore_event)
        liar, honest = (first, last) if wrong < 3 else (last, first)
        assert ruling.lost == {liar.peers.me}
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED
        assert asker.peers.standing(honest.peers.me) is Standing.GOOD


async def test_a_liar_that_is_slow_to_name_its_layer_holds_up_no_other_reading(
    autojump_clock: MockClock, tmp_path: Path, path: Path
) -> None:
    """Else other disputes would be left to the votes, until it has answered."""
    async with asking(tmp_path, path) as (asker, network):
        liar = await add(network, path, I, some_weights_off)
        honest = await add(network, path, I)
        for _ in range(3):
            await add(network, path, V)
        await network.settled()
        found_at_the_liar: list[tuple[int, Standing]] = []

        async def stay_silent(call: TypedCall, message: Message) -> None:
            reading = asker.tasks.disputing.reading
            standing = asker.peers.standing(liar.peers.me)
            found_at_the_liar.append((int(reading.borrowed_tokens), standing))
            await trio.sleep_forever()

        liar.peers.handlers[Contest] = stay_silent
        wanted = request(generate(path), data=QUESTION, level=Level.EXACT, deadline_s=300)
        found, events = await asked(asker, wanted)
        assert signers(found) == [honest.peers.me]
        assert found_at_the_liar == [(0, Standing.BANNED)]
        (told,) = [it.why for it in failures(events, "dispute") if it.peer == liar.peers.me]
        assert "it was read again here" in told
        assert not records_of(asker)
