"""A stream that several peers made is signed part by part, and each answers for its own part."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.asking.answers import Answered
from node.checking.audit import audit
from node.checking.report import AuditReport, Status
from node.engines.formats.smollm2 import SMOLLM2, SMOLLM2_ID
from node.engines.hash_engine import hash_token
from node.engines.host.engine import open_tinygrad_engine
from node.engines.host.launch import EngineConfig
from node.engines.interface import Emit, Job, Output, Part
from node.peer import Node
from node.task.events import Event
from p2p.score import Standing
from tests.node.asking import MODEL, failures, request
from tests.node.engines import PROBE, Counted
from tests.node.network import I, S, V, open_network
from tests.node.test_streams import Watching, busy
from wire.chain import doers_of, segments_of
from wire.content import ContentId, PeerId
from wire.errors import EngineFailed
from wire.generation import Generation, Token, read_frames, to_frame
from wire.kinds import Level, Role
from wire.receipt import Receipt
from wire.signed import Signed, open_signed
from wire.task import Stage
from wire.tree import name_of

TOKENS = 20
# Longer than the time after which what was made is signed for: so is each token.
TOKEN_S = 1.25
ASKED = Generation(prompt="Once upon", messages="", tools="", schema="", stop=()).to_bytes()
GENERATE = Stage(role=Role.INFER, operation="generate", model=MODEL, parameters={"tokens": TOKENS})
HONEST = [hash_token(MODEL, ASKED, at, TOKENS) for at in range(TOKENS)]
OUTPUT = b"".join(HONEST)


def asking(level: Level = Level.REPLAYED) -> Any:
    return request(GENERATE, data=ASKED, level=level, deadline_s=300)


def other(piece: bytes) -> bytes:
    """The same piece of an answer with another token."""
    first, *rest = read_frames(piece)
    assert isinstance(first, Token)
    return b"".join(map(to_frame, [replace(first, id=first.id + 1), *rest]))


class Teller(Counted):
    """Streams tokens a second each, some of them wrong; goes on from what is signed, unseen.

    What nobody signed it makes itself. After `fails_at` tokens it fails.
    """

    def __init__(self, wrong: Sequence[int] = (), fails_at: int = TOKENS) -> None:
        super().__init__(unit_s=TOKEN_S)
        self.wrong, self.fails_at = wrong, fails_at

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        if job.operation != "generate" or job.input == PROBE or emit is None:
            return await super().infer(job, emit)
        begun, data = 0, b""
        if job.resume is not None and job.resume.segments:
            begun, data = job.resume.units, job.resume.data
        for at in range(begun, TOKENS):
            if at == self.fails_at:
                raise EngineFailed("it ran out of tokens")
            await trio.sleep(TOKEN_S)
            piece = other(HONEST[at]) if at in self.wrong else HONEST[at]
            await emit(Part(at, 1, piece))
            data += piece
        return Output(data=data, units=TOKENS)


def last_receipt(answered: Answered) -> Signed[Receipt]:
    return open_signed(answered.answer.record.receipts[-1], Receipt)


async def answer_of(asker: Node, wanted: Any) -> tuple[Answered, list[Event], Watching]:
    watching = Watching()
    task = await asker.tasks.submit(wanted)
    with trio.fail_after(wanted.deadline_s + 5):
        answered = await asker.tasks.watch(task, watching.on_event)
    return answered, watching.events, watching


def at_hand(content: ContentId) -> bytes | None:
    return {name_of(ASKED): ASKED, name_of(OUTPUT): OUTPUT}.get(content)


def audited(answered: Answered) -> AuditReport:
    return audit(answered.answer.raw, at_hand)


def shares(report: AuditReport) -> list[tuple[int, int, PeerId, Status]]:
    return [(it.first, it.end, it.signer, it.status) for it in report.segments]


@pytest.mark.parametrize("kills", [1, 2])
async def test_each_peer_signs_for_the_tokens_that_it_made(
    autojump_clock: MockClock, tmp_path: Path, kills: int
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        workers = [await network.start(I, S, engine=Counted(unit_s=TOKEN_S)) for _ in range(3)]
        for _ in range(3):
            await network.start(V, S)
        await network.settled()
        watching, killed = Watching(), list[PeerId]()
        task = await asker.tasks.submit(asking())

        async def kill_them() -> None:
            for number in range(kills):
                await watching.until(6 * (number + 1))
                worker = busy(workers)
                killed.append(worker.peers.me)
                workers.remove(worker)
                network.kill(worker)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_them)
            answered = await asker.tasks.watch(task, watching.on_event)
        assert answered.output == watching.screen.data == OUTPUT
        assert watching.screen.restarts == 0
        receipt = last_receipt(answered)
        assert doers_of(receipt) == (*killed, receipt.signer)
        report = audited(answered)
        assert report.holds
        ends = [it.record.end for it in segments_of(receipt)]
        assert ends == [6 * (at + 1) for at in range(kills)]
        assert shares(report) == [
            (first, end, peer, Status.HOLDS)
            for first, end, peer in zip([0, *ends], [*ends, TOKENS], doers_of(receipt), strict=True)
        ]


@pytest.mark.parametrize(
    ("first", "second", "liar"),
    [
        # Who went on with a wrong token is not to blame, but who signed for it, and is gone.
        (Teller(wrong=[3], fails_at=8), Teller(), 0),
        (Teller(fails_at=8), Teller(wrong=[12]), 1),
        # The last one signed for what nobody had signed for before.
        (Teller(wrong=[3], fails_at=8), Teller(wrong=[12]), None),
    ],
    ids=["the first", "the second", "both"],
)
async def test_who_signed_for_a_wrong_token_is_banned_and_nobody_else(
    autojump_clock: MockClock, tmp_path: Path, first: Teller, second: Teller, liar: int | None
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        one = await network.start(I, S, engine=first)
        for _ in range(3):
            await network.start(V, S)
        await network.settled()
        watching = Watching()
        task = await asker.tasks.submit(asking())
        peers = [one]

        async def bring_another() -> None:
            await watching.until(4)
            peers.append(await network.start(I, S, engine=second))
            await watching.until(14)
            await network.start(I, S, engine=Counted(unit_s=TOKEN_S))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bring_another)
            answered = await asker.tasks.watch(task, watching.on_event)
        assert answered.output == OUTPUT
        banned = [asker.peers.standing(it.peers.me) is Standing.BANNED for it in peers]
        assert banned == [liar in (None, 0), liar in (None, 1)]
        blamed = {it.peer for it in failures(watching.events, "answer rejected")}
        assert blamed == {it.peers.me for it, is_liar in zip(peers, banned, strict=True) if is_liar}


SMOLLM2_TOKENS = 128
SMOLLM2_STAGE = Stage(
    role=Role.INFER,
    operation="generate",
    model=SMOLLM2_ID,
    parameters={"tokens": SMOLLM2_TOKENS, "temperature": 1.0, "seed": 7, "ignore_eos": 1},
)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_smollm2_over_three_peers_of_which_two_die_is_signed_part_by_part(
    tmp_path: Path,
) -> None:
    """The peers and verifiers are whole ones; they share one worker, as if on equal machines."""
    async with AsyncExitStack() as stack:
        config = EngineConfig()
        engine = await stack.enter_async_context(
            open_tinygrad_engine(tmp_path / "cache", config=config)
        )
        await engine.load(SMOLLM2.manifest(), SMOLLM2.files())
        job = Job(
            model=SMOLLM2_ID,
            operation="generate",
            input=ASKED,
            parameters=SMOLLM2_STAGE.parameters,
            deadline_s=600,
        )
        alone = await engine.infer(job)
        network = await stack.enter_async_context(open_network(tmp_path))
        asker = await network.start(S)
        workers = [await network.start(I, S, engine=engine, models=()) for _ in range(3)]
        for _ in range(2):
            await network.start(V, S, engine=engine, models=())
        assert network.nursery is not None
        for node in network.nodes[1:]:
            network.nursery.start_soon(node.probing.run)
        view, wall_s = asker.peers.view, asker.dependencies.environment.wall_s
        with trio.fail_after(300):
            while (
                len(view.candidates(Role.INFER, SMOLLM2_ID, wall_s())) < 3
                or len(view.candidates(Role.VERIFY, SMOLLM2_ID, wall_s())) < 2
            ):
                await trio.sleep(0.1)
        watching, killed = Watching(), list[PeerId]()
        wanted = request(SMOLLM2_STAGE, data=ASKED, verifiers=2, needed=2, deadline_s=1200)
        task = await asker.tasks.submit(wanted)

        async def kill_two() -> None:
            for tokens in (40, 80):
                await watching.until(tokens)
                worker = busy(workers)
                killed.append(worker.peers.me)
                workers.remove(worker)
                network.kill(worker)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_two)
            answered = await asker.tasks.watch(task, watching.on_event)
        assert answered.output == alone.data == watching.screen.data
        receipt = last_receipt(answered)
        assert doers_of(receipt) == (*killed, workers[0].peers.me)
        one, two = (it.record for it in segments_of(receipt))
        assert 0 < one.end < two.end < SMOLLM2_TOKENS
        contents = {name_of(ASKED): ASKED, name_of(answered.output): answered.output}
        report = audit(answered.answer.raw, contents.get)
        assert report.holds
        assert [it.status for it in report.segments] == [Status.HOLDS] * 3
