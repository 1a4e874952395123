"""Nobody is banned on the word of strangers: an asker looks for itself, or doubts for a while."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.asking import background_checks
from node.devnet.adversary import misbehave
from node.engines.interface import Emit, Job, Output
from node.peer import Node
from p2p.score import Offence, Scores, Standing
from tests.node.asking import VECTORS, asked, failures, request, signers, texts_of, vectors_of
from tests.node.engines import Counted, Liar, one_row
from tests.node.network import I, Network, S, V, open_network
from tests.p2p.transports import key_of
from wire import limits
from wire.errors import NotAgreed, TaskFailed
from wire.kinds import Level

GOOD, UNWELCOME, BANNED = Standing


async def coalition(
    network: Network, *, judges: bool, naysayers: int, honest: int = 0
) -> tuple[Node, list[Node], list[Node]]:
    """An asker, its workers (two), and verifiers that call every answer wrong."""
    asker = await network.start(S, judges=judges)
    workers = [await network.start(I, S, engine=Counted()) for _ in range(2)]
    bad = [await network.start(V, S) for _ in range(naysayers)]
    for _ in range(honest):
        await network.start(V, S)
    await network.settled()
    for number, node in enumerate(bad):
        misbehave(node, "naysaying_verifier", Random(number))
    return asker, workers, bad


async def test_three_that_dissent_together_cost_a_task_its_answer_and_no_worker_its_standing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, workers, bad = await coalition(network, judges=False, naysayers=3)
        before = sum(it.leg_server.done for it in workers)
        with pytest.raises(NotAgreed):
            await asked(asker, request(deadline_s=60))
        # It came to an end: no dispute goes on for ever, and no worker works for ever.
        attempts = sum(it.leg_server.done for it in workers) - before
        assert 2 <= attempts <= limits.ATTEMPTS_MAX
        for node in (*workers, *bad):
            assert asker.peers.standing(node.peers.me) is GOOD
            assert node.peers.me not in asker.tasks.answers.liars
        # They are asked less for a while, as workers alone.
        for worker in workers:
            assert asker.peers.standing_at_work(worker.peers.me) is UNWELCOME
        later_at_s = trio.current_time() + 3000
        assert not asker.peers.doubts.unwelcome(later_at_s)


async def test_an_asker_that_has_the_model_sees_who_lies_and_asks_others_in_their_place(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, workers, bad = await coalition(network, judges=True, naysayers=3, honest=2)
        for number in range(12):
            answered, events = await asked(asker, request(data=texts_of(str(number), "two")))
            # The honest answer is not thrown away: only the verdicts against it are.
            assert answered.answer.record.attempts == 1
            assert failures(events, "answer rejected") == []
        for worker in workers:
            assert asker.peers.standing_at_work(worker.peers.me) is GOOD
        assert any(asker.peers.standing(it.peers.me) is BANNED for it in bad)
        honest = [it for it in network.nodes if it not in (asker, *bad)]
        assert all(asker.peers.standing(it.peers.me) is GOOD for it in honest)


async def test_an_asker_without_the_model_doubts_a_liar_and_bans_nobody(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        liar = await network.start(I, S, engine=Liar(one_row))
        honest = await network.start(I, S, engine=Counted())
        for _ in range(3):
            await network.start(V, S)
        await network.settled()
        answered, _ = await asked(asker, request())
        assert answered.output == VECTORS
        assert asker.peers.standing(liar.peers.me) is GOOD
        assert asker.peers.standing_at_work(liar.peers.me) is UNWELCOME
        for number in range(3):
            again, _ = await asked(asker, request(data=texts_of(str(number))))
            assert signers(again) == [honest.peers.me]


class SeldomLiar(Counted):
    """Lies about one of twenty inputs."""

    lied = 0

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        output = await super().infer(job, emit)
        if self.calls % 20:
            return output
        self.lied += 1
        return one_row(output)


async def test_who_lies_seldom_is_banned_by_the_first_lie_that_is_looked_at(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S, judges=True)
        engine = SeldomLiar()
        liar = await network.start(I, S, engine=engine)
        await network.start(I, S, engine=Counted())
        for _ in range(3):
            await network.start(V, S)
        await network.settled()
        for number in range(200):
            answered, _ = await asked(asker, request(data=texts_of(str(number))))
            assert answered.output == vectors_of(str(number))
            if asker.peers.standing(liar.peers.me) is BANNED:
                break
        assert asker.peers.standing(liar.peers.me) is BANNED
        # Of an answer that was dropped beside a faster one nobody knows whether it was a lie.
        assert engine.lied < 10


async def test_liars_that_confirm_each_other_are_found_by_an_own_look(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_checks, "CANARY_SHARE", 1.0)
    async with open_network(tmp_path) as network:
        asker = await network.start(S, judges=True, background_checks=1.0)
        liar = await network.start(I, S, engine=Liar(one_row))
        others = [await network.start(V, S, engine=Liar(one_row)) for _ in range(3)]
        await network.settled()
        answered, _ = await asked(asker, request())
        assert answered.output != VECTORS
        with trio.fail_after(60):
            while asker.peers.standing(liar.peers.me) is not BANNED:
                await trio.sleep(0.5)
        agreed = [it for it in others if asker.peers.standing(it.peers.me) is BANNED]
        assert len(agreed) >= 1
        # No copy of what is wrong was sent: an honest verifier could not tell what is meant.
        assert asker.background_checks.statistics().canaries == 0


async def test_with_layers_at_others_or_while_it_is_paused_a_peer_is_no_judge(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, workers, _ = await coalition(network, judges=True, naysayers=3)
        asker.pause("its owner is at the machine")
        with pytest.raises(TaskFailed):
            await asked(asker, request(deadline_s=30))
        assert all(asker.peers.standing(it.peers.me) is GOOD for it in workers)


def test_doubt_never_bans_however_often_and_is_forgotten_when_it_was_wrong() -> None:
    doubts, peer = Scores(), key_of("a").peer
    for _ in range(1000):
        doubts.note(peer, Offence.DOUBTED, 0.0)
    assert doubts.standing(peer, 0.0) is UNWELCOME
    assert doubts.unwelcome(0.0) == {peer}
    doubts.forget(peer)
    doubts.forget(peer)
    assert doubts.standing(peer, 0.0) is GOOD
    assert not doubts.unwelcome(0.0)


async def test_an_unchecked_answer_that_strangers_call_wrong_is_not_given_again_and_bans_nobody(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S, background_checks=1.0)
        worker = await network.start(I, S, engine=Counted())
        bad = [await network.start(V, S) for _ in range(3)]
        await network.settled()
        for number, node in enumerate(bad):
            misbehave(node, "naysaying_verifier", Random(number))
        wanted: Any = request(data=texts_of("one"), level=Level.SIGNED)
        await asked(asker, wanted)
        with trio.fail_after(120):
            while not asker.background_checks.statistics().wrong:
                await trio.sleep(0.5)
        assert asker.peers.standing(worker.peers.me) is GOOD
        assert worker.peers.me not in asker.tasks.answers.liars
        assert asker.peers.standing_at_work(worker.peers.me) is UNWELCOME
