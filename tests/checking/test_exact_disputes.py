"""Verdicts on an integer model that disagree: who is wrong is computed, whatever most say."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from unittest.mock import Mock

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from node.engines.exact import reference
from node.engines.exact.model import FILE, ExactModel
from node.engines.exact.reference import run_layers
from node.evidence.disputes import judge
from node.models.inspect import describe
from node.peer import Node
from node.serving.contest_role import CONTESTS_MAX, IDLE_S_MAX
from node.task.events import Failed
from p2p.score import Scores, Standing
from p2p.typed_call import TypedCall
from tests.checking.exact_peers import (
    Alter,
    NumpyEngine,
    answer_of,
    asked_of,
    one_step_off,
    traces,
)
from tests.engines.exact.samples import kept_at, made
from tests.engines.onnx_models import golden
from tests.node.asking import asked, failures, receipt_of, request, signers, task_of
from tests.node.network import I, Network, Outsider, S, V, open_network
from tests.p2p.transports import key_of
from wire.content import ContentId, PeerId
from wire.dispute import Commitment, Committed, Contest, Descend, Dispute, Reveal
from wire.errors import Refused, TransportError
from wire.kinds import Role
from wire.message import Message
from wire.model import ModelFile
from wire.receipt import Receipt
from wire.signed import Signed, open_signed
from wire.task import Stage
from wire.tree import name_of

MODEL = made("sklearn_mlp")
ROWS = golden("sklearn_mlp")[0]["X"][:6]
RIGHT = answer_of(MODEL, [ROWS])


def shown(seed: int) -> tuple[ExactModel, int]:
    """A model with one weight one step off, by which some row's answer is another."""
    chance = Random(seed)
    while True:
        altered, layer = one_step_off(MODEL, chance)
        states = zip(run_layers(altered, [ROWS]), run_layers(MODEL, [ROWS]), strict=True)
        differ = [not np.array_equal(*it) for it in states]
        if differ[layer] and answer_of(altered, [ROWS]) != RIGHT:
            return altered, layer


WRONG, LAYER = shown(1)


def wrong(_model: ExactModel) -> ExactModel:
    return WRONG


def same(model: ExactModel) -> ExactModel:
    return model


@dataclass(slots=True)
class Parties:
    """Opens peers that have the model, and those that run another instead."""

    network: Network
    file: Path

    async def add(self, role: Role, alter: Alter | None = None) -> Node:
        """A peer; one that alters the model says that it is fast, and is asked first."""
        engine = NumpyEngine(alter or same, 0.05 if alter is None else 0.001)
        node = await self.network.start(role, S, engine=engine, models=(str(self.file),))
        if alter is not None:
            traces(node, alter)
        return node


@asynccontextmanager
async def parties(folder: Path) -> AsyncIterator[tuple[Node, Parties]]:
    async with open_network(folder) as network:
        asker = await network.start(S)
        yield asker, Parties(network, kept_at(folder, MODEL, "digits"))


def call(folder: Path) -> Stage:
    file = folder / "digits.exact"
    content = ModelFile(
        name=FILE, content=name_of(file.read_bytes()), size_bytes=file.stat().st_size
    )
    model = describe(file).manifest({FILE: content}).id
    return Stage(role=Role.INFER, operation="call", model=model, parameters={})


async def answered_by(asker: Node, folder: Path) -> tuple[PeerId, bytes, list[Failed]]:
    """Who answered, what, and what is told of disputes."""
    wanted = request(call(folder), data=asked_of(MODEL, [ROWS]))
    found, events = await asked(asker, wanted)
    return signers(found)[0], found.output, failures(events, "dispute")


async def record_of(asker: Node, told: Failed) -> Signed[Dispute]:
    """The record of a dispute, as the asker kept it."""
    name = ContentId.parse(told.why.rsplit(" ", 1)[1])
    return open_signed(await asker.dependencies.store.get(name), Dispute)


async def test_a_prover_with_one_weight_one_step_off_is_convicted_by_its_layer(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with parties(tmp_path) as (asker, opened):
        liar = await opened.add(I, wrong)
        honest = await opened.add(I)
        for _ in range(3):
            await opened.add(V)
        await opened.network.settled()
        signer, output, told = await answered_by(asker, tmp_path)
        assert (signer, output) == (honest.peers.me, RIGHT)
        assert [it.peer for it in told] == [liar.peers.me]
        assert f"layer {LAYER} (linear)" in told[0].why
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED
        dispute = await record_of(asker, told[0])
        receipt = open_signed(dispute.record.receipt, Receipt)
        source, claimed = asked_of(MODEL, [ROWS]), answer_of(WRONG, [ROWS])
        assert (receipt.signer, receipt.record.output) == (liar.peers.me, name_of(claimed))
        _, found = judge(dispute, MODEL.to_bytes(), source, claimed)
        assert (found.lost, found.layer, found.proven) == ({liar.peers.me}, LAYER, True)
        assert found.hashes[0] != found.hashes[1] == found.hashes[2]


async def test_liars_that_agree_with_each_other_are_outvoted_by_one_layer(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """They agree with the first answer, and dispute the second: they lose both times."""
    async with parties(tmp_path) as (asker, opened):
        liar = await opened.add(I, wrong)
        honest = await opened.add(I)
        liars = [await opened.add(V, wrong) for _ in range(2)]
        verifiers = [await opened.add(V) for _ in range(4)]
        await opened.network.settled()
        wanted = request(call(tmp_path), data=asked_of(MODEL, [ROWS]), needed=3, verifiers=4)
        found, events = await asked(asker, wanted)
        assert (signers(found), found.output) == ([honest.peers.me], RIGHT)
        told = failures(events, "dispute")
        guilty = {it.peers.me for it in (liar, *liars)}
        assert liar.peers.me in {it.peer for it in told} <= guilty
        for node in (honest, *verifiers):
            assert asker.peers.standing(node.peers.me) is Standing.GOOD
        for line in told:
            dispute = await record_of(asker, line)
            right = name_of(RIGHT) == open_signed(dispute.record.receipt, Receipt).record.output
            claimed = RIGHT if right else answer_of(WRONG, [ROWS])
            _, ruling = judge(dispute, MODEL.to_bytes(), asked_of(MODEL, [ROWS]), claimed)
            assert (ruling.lost, ruling.layer) == ({line.peer}, LAYER)


async def test_a_prover_that_falls_silent_loses_by_the_deadline(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with parties(tmp_path) as (asker, opened):
        liar = await opened.add(I, wrong)

        async def silent(_call: TypedCall, _message: Message) -> None:
            await trio.sleep_forever()

        liar.peers.handlers[Contest] = silent
        honest = await opened.add(I)
        for _ in range(3):
            await opened.add(V)
        await opened.network.settled()
        signer, output, told = await answered_by(asker, tmp_path)
        assert (signer, output) == (honest.peers.me, RIGHT)
        assert [it.peer for it in told] == [liar.peers.me]
        assert "did not answer" in told[0].why
        dispute = await record_of(asker, told[0])
        claimed = answer_of(WRONG, [ROWS])
        _, found = judge(dispute, MODEL.to_bytes(), asked_of(MODEL, [ROWS]), claimed)
        # Nobody else can know that it was silent.
        assert (found.lost, found.proven) == ({liar.peers.me}, False)


async def test_strangers_get_no_states_and_odd_questions_end_the_call(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with parties(tmp_path) as (asker, opened):
        honest = await opened.add(I)
        for _ in range(3):
            await opened.add(V)
        await opened.network.settled()
        wanted = request(call(tmp_path), data=asked_of(MODEL, [ROWS]))
        found, _ = await asked(asker, wanted)
        record = found.answer.record
        contest = Contest(
            task=record.task,
            receipts=record.receipts,
            input=asked_of(MODEL, [ROWS]),
            output=None,
            row=0,
            deadline_ms=20_000,
        )
        for question in (Descend(level=8, index=0), Descend(level=1, index=99), Reveal(layer=200)):
            async with asker.peers.call(honest.peers.me, deadline_s=20) as channel:
                await channel.send(contest)
                commitment = open_signed((await channel.expect(Committed)).commitment, Commitment)
                assert commitment.record.layers == len(MODEL.layers)
                await channel.send(question)
                with pytest.raises(TransportError):
                    await channel.receive()
        # It thinks little of the asker by now.
        honest.peers.scores = Scores()
        async with asker.peers.call(honest.peers.me, deadline_s=20) as channel:
            await channel.send(replace(contest, row=len(ROWS)))
            with pytest.raises(Refused, match="6 rows"):
                await channel.expect(Committed)
        stranger = opened.network.nodes[-1]
        async with stranger.peers.call(honest.peers.me, deadline_s=20) as channel:
            await channel.send(contest)
            with pytest.raises(TransportError):
                await channel.receive()


async def test_a_call_of_more_rows_than_there_is_time_for_is_given_up(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The asker made the call up, and its receipt: nothing but the deadline ends the search."""
    rows = np.tile(ROWS, (40, 1))
    source, output = asked_of(MODEL, [rows]), answer_of(MODEL, [rows])
    async with parties(tmp_path) as (asker, opened):
        verifier = await opened.add(V)
        await opened.network.settled()
        key = asker.dependencies.key
        task = task_of(
            key, asker.peers.environment.wall_s(), call(tmp_path), source=name_of(source)
        )
        contest = Contest(
            task=task.raw,
            receipts=(receipt_of(task, key_of("friend"), output).raw,),
            input=source,
            output=output,
            row=None,
            deadline_ms=5_000,
        )
        computed, token = reference.run_layers, trio.lowlevel.current_trio_token()

        def slowly(model: ExactModel, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
            # Time passes, and the loop sees it.
            for seconds in (10, 0, 0, 0):
                trio.from_thread.run_sync(autojump_clock.jump, seconds, trio_token=token)
            return computed(model, inputs)

        passes = Mock(side_effect=slowly)
        monkeypatch.setattr(reference, "PASS_ELEMENTS_MAX", 1)
        monkeypatch.setattr(reference, "run_layers", passes)
        async with asker.peers.call(verifier.peers.me, deadline_s=20) as channel:
            await channel.send(contest)
            with pytest.raises(TransportError):
                await channel.receive()
        assert passes.call_count == 1


async def test_who_holds_places_without_asking_makes_room_for_others(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with parties(tmp_path) as (_, opened):
        verifier = await opened.add(V)
        await opened.network.settled()
        source = asked_of(MODEL, [ROWS])

        def contest_of(node: Outsider) -> Contest:
            wall_s = node.peers.environment.wall_s()
            task = task_of(node.key, wall_s, call(tmp_path), source=name_of(source))
            receipt = receipt_of(task, key_of("friend"), RIGHT)
            return Contest(
                task=task.raw,
                receipts=(receipt.raw,),
                input=source,
                output=None,
                row=0,
                deadline_ms=60_000,
            )

        async with AsyncExitStack() as stack:
            strangers = [
                await stack.enter_async_context(opened.network.outsider())
                for _ in range(CONTESTS_MAX + 1)
            ]
            *silent, late = strangers
            for node in silent:
                open_call = node.peers.call(verifier.peers.me, deadline_s=60)
                channel = await stack.enter_async_context(open_call)
                await channel.send(contest_of(node))
                await channel.expect(Committed)
            with trio.fail_after(IDLE_S_MAX + 5):
                while True:
                    async with late.peers.call(verifier.peers.me, deadline_s=20) as channel:
                        await channel.send(contest_of(late))
                        try:
                            await channel.expect(Committed)
                        except Refused:
                            await trio.sleep(0.5)
                            continue
                        break


async def test_a_model_that_is_not_here_is_not_fetched_for_a_contest(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with parties(tmp_path) as (asker, opened):
        await opened.add(I)
        other = await opened.network.start(V, S)
        await opened.network.settled()
        source = asked_of(MODEL, [ROWS])
        wall_s = asker.peers.environment.wall_s()
        key = asker.dependencies.key
        task = task_of(key, wall_s, call(tmp_path), source=name_of(source))
        contest = Contest(
            task=task.raw,
            receipts=(receipt_of(task, key_of("friend"), RIGHT).raw,),
            input=source,
            output=None,
            row=0,
            deadline_ms=20_000,
        )
        async with asker.peers.call(other.peers.me, deadline_s=20) as channel:
            await channel.send(contest)
            with pytest.raises(Refused, match="not had here"):
                await channel.expect(Committed)
