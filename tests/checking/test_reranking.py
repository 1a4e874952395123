"""Scores of pairs are checked row by row, as embeddings are."""

from dataclasses import replace
from pathlib import Path

import trio
from trio.testing import MockClock

from node.engines.hash_engine import hash_manifest
from node.peer import Node
from node.task.scores import relevances
from p2p.score import Standing
from tests.node.asking import asked, request, signers
from tests.node.engines import Counted, Liar, one_row
from tests.node.network import I, S, V, open_network
from wire.kinds import Role
from wire.operations import RERANK
from wire.payload import QueryText, Texts
from wire.receipt import Verdict
from wire.signed import open_signed
from wire.task import Stage

RERANKER = replace(hash_manifest("reranker"), operations=(RERANK,))
STAGE = Stage(role=Role.INFER, operation=RERANK, model=RERANKER.id, parameters={})
PAIRS = [QueryText("a red fox", it).to_text() for it in ("a fox", "a red fox", "none")]


async def ready(node: Node) -> None:
    await node.models.keep(RERANKER)
    await node.models.make_ready("reranker")
    node.probing.look()


async def test_wrong_scores_are_found_and_the_true_ones_are_returned(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S, judges=True)
        liar = await network.start(I, S, engine=Liar(one_row))
        honest = await network.start(I, S, engine=Counted())
        checking = [await network.start(V, S, engine=Counted()) for _ in range(3)]
        for node in (asker, liar, honest, *checking):
            await ready(node)
        await network.settled()
        directory = asker.tasks.dispatcher.directory
        with trio.fail_after(600):
            while not directory.anybody(STAGE):
                await trio.sleep(1)
        wanted = request(STAGE, data=Texts(texts=tuple(PAIRS)).to_bytes(), deadline_s=60)
        for number in range(20):
            answered, _ = await asked(asker, replace(wanted, deadline_s=60 + number))
            assert signers(answered) == [honest.peers.me]
            scores = relevances(answered.output, len(PAIRS))
            assert scores[1] > scores[0] > scores[2]
            verdicts = [open_signed(it, Verdict).record for it in answered.answer.record.verdicts]
            assert sum(it.agrees for it in verdicts) >= 2
            assert {row for it in verdicts for row in it.sampled} == {0, 1, 2}
            if asker.peers.standing(liar.peers.me) is Standing.BANNED:
                break
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED
