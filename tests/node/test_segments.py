"""A stream that several peers made is signed part by part, and each answers for its own part."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.asking.answers import Answered
from node.asking.as_maps import answer_map
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
from p2p.typed_call import TypedCall
from tests.node.asking import MODEL, failures, receipt_of, request, task_of
from tests.node.engines import PROBE, Counted
from tests.node.network import I, Outsider, S, V, open_network
from tests.node.test_streams import Watching, busy
from tests.p2p.transports import key_of
from wire import limits
from wire.chain import doers_of, segments_of
from wire.content import ContentId, PeerId
from wire.errors import BatonError, EngineFailed
from wire.generation import Generation, Token, read_frames, to_frame
from wire.kinds import Level, Role
from wire.message import Accept, Message, Offer, Piece, Progress, Refuse, Result
from wire.receipt import Receipt
from wire.segment import Segment
from wire.signed import Signed, open_signed, sign
from wire.signing import SigningKey
from wire.task import Stage, Task
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
        asker = await network.start(S, judges=True)
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


Made = Callable[[Signed[Task], SigningKey], Sequence[Piece]]


def signed_piece(task: Signed[Task], key: SigningKey, at: int, /, **changes: Any) -> Piece:
    """A piece of the honest answer, with what its maker signs of all up to its end."""
    shown = b"".join(HONEST[: at + 1])
    fields: dict[str, Any] = {
        "task": task.id,
        "stage": 0,
        "first": 0,
        "units": at + 1,
        "size_bytes": len(shown),
        "shown": hashlib.sha256(shown).digest(),
        "built_on": None,
        "profile": "hash-1 exact",
        "signed_at_ms": 1,
    }
    segment = sign(Segment(**(fields | changes)), key)
    return Piece(position=at, units=1, data=HONEST[at], segment=segment.raw)


async def streamed_by(
    rogue: Outsider, made: Made, answer: Callable[[Offer], Message] | None = None
) -> None:
    """Have an outsider stream pieces to who offers it a leg, and then answer, or refuse."""

    async def stream(call: TypedCall, message: Message) -> None:
        assert isinstance(message, Offer)
        await call.send(Accept(expected_ms=0))
        for piece in made(open_signed(message.task, Task), rogue.key):
            await call.send(piece)
        refused = Refuse(reason="no more", retry_after_ms=None)
        await call.send(refused if answer is None else answer(message))

    rogue.answer(Offer, stream)


@pytest.mark.parametrize(
    ("changes", "key", "offends"),
    [
        ({"task": ContentId.of(b"another")}, None, True),
        ({"first": 1, "units": 1}, None, True),
        ({"built_on": ContentId.of(b"none")}, None, True),
        ({}, "somebody else", True),
        # About something else than was shown: that is not kept, and costs only who says so.
        ({"shown": bytes(32)}, None, False),
        ({"units": 9}, None, False),
    ],
    ids=["another task", "a gap", "built on nothing", "not its own", "other bytes", "too far"],
)
async def test_who_signs_for_something_else_than_it_streams_gains_nothing(
    autojump_clock: MockClock,
    tmp_path: Path,
    changes: dict[str, Any],
    key: str | None,
    offends: bool,
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        honest = await network.start(I, S, engine=Counted(unit_s=TOKEN_S))
        await network.settled()
        async with network.outsider(I) as rogue:

            def made(task: Signed[Task], own: SigningKey) -> list[Piece]:
                signer = own if key is None else key_of(key)
                first = Piece(position=0, units=1, data=HONEST[0])
                return [first, signed_piece(task, signer, 1, **changes)]

            await streamed_by(rogue, made)
            answered, events, watching = await answer_of(asker, asking(Level.SIGNED))
            assert watching.screen.data == answered.output == OUTPUT
            assert doers_of(last_receipt(answered)) == (honest.peers.me,)
            assert {it.peer for it in failures(events)} == {rogue.key.peer}
            cost = asker.peers.scores.cost(rogue.key.peer, trio.current_time())
            assert (cost > 0) is offends


async def test_what_nobody_signed_for_is_signed_for_by_who_goes_on(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        honest = await network.start(I, S, engine=Counted(unit_s=TOKEN_S))
        await network.settled()
        async with network.outsider(I) as first:

            def made(task: Signed[Task], own: SigningKey) -> list[Piece]:
                loose = [Piece(position=at, units=1, data=HONEST[at]) for at in (2, 3)]
                begin = Piece(position=0, units=1, data=HONEST[0])
                return [begin, signed_piece(task, own, 1), *loose]

            await streamed_by(first, made)
            answered, _, _ = await answer_of(asker, asking(Level.SIGNED))
            report = audited(answered)
            assert report.holds
            assert shares(report) == [
                (0, 2, first.key.peer, Status.UNKNOWN),
                (2, TOKENS, honest.peers.me, Status.UNKNOWN),
            ]
            told = answer_map(answered)["route"][0]["segments"]
            assert [(it["first"], it["end"]) for it in told] == [(0, 2), (2, TOKENS)]


@pytest.mark.parametrize("claims", ["all", "a segment of its own"])
async def test_who_claims_the_work_of_who_was_before_it_is_refused(
    autojump_clock: MockClock, tmp_path: Path, claims: str
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        one = await network.start(I, S, engine=Teller(fails_at=5))
        await network.settled()
        watching = Watching()
        task = await asker.tasks.submit(asking(Level.SIGNED))
        async with network.outsider(I) as thief, trio.open_nursery() as nursery:

            async def bring_another() -> None:
                def answer(offer: Offer) -> Message:
                    signed = open_signed(offer.task, Task)
                    assert offer.resume is not None
                    assert len(offer.resume.segments) == 1
                    segments: tuple[bytes, ...] = ()
                    if claims != "all":
                        segments = (signed_piece(signed, thief.key, 2).segment,)
                    receipt = receipt_of(signed, thief.key, OUTPUT, units=TOKENS, segments=segments)
                    return Result(receipts=(receipt.raw,), output=OUTPUT, source=None)

                await streamed_by(thief, lambda _task, _key: [], answer)
                await watching.until(5)
                while thief.key.peer not in {it.peer for it in failures(watching.events)}:
                    await trio.sleep(0.1)
                honest.append(await network.start(I, S, engine=Counted(unit_s=TOKEN_S)))

            honest = list[Node]()
            nursery.start_soon(bring_another)
            answered = await asker.tasks.watch(task, watching.on_event)
            assert doers_of(last_receipt(answered)) == (one.peers.me, honest[0].peers.me)
            assert asker.peers.scores.cost(thief.key.peer, trio.current_time()) > 0


@pytest.mark.parametrize("older", ["the asker", "who goes on", "who begins"])
async def test_peers_of_the_version_before_go_on_as_ever(
    autojump_clock: MockClock, tmp_path: Path, older: str
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        first = await network.start(I, S, engine=Teller(fails_at=6))
        second = await network.start(I, S, engine=Counted(unit_s=2 * TOKEN_S))
        asking_peer = {"the asker": asker, "who goes on": second, "who begins": first}[older]
        asking_peer.peers.neighbours.speaks = limits.SEGMENTS_VERSION - 1
        for node in network.nodes:
            node.peers.neighbours._versions.pop(asking_peer.peers.me, None)
        await network.settled()
        answered, _, watching = await answer_of(asker, asking(Level.SIGNED))
        assert watching.screen.data == answered.output == OUTPUT
        receipt = last_receipt(answered)
        if older == "who begins":
            # It is of this code and signs all the same; who reads it knows what that is.
            assert receipt.signer == second.peers.me
        else:
            assert doers_of(receipt) == (second.peers.me,)
        assert audited(answered).holds


@pytest.mark.parametrize("wrong", ["gap", "order", "other bytes", "beyond", "two legs"])
async def test_a_stream_is_gone_on_with_only_after_what_fits_it(
    autojump_clock: MockClock, tmp_path: Path, wrong: str
) -> None:
    async with open_network(tmp_path) as network:
        worker = await network.start(I, S, engine=Counted(unit_s=0.01))
        await network.settled()
        async with network.outsider() as there:
            stages = (GENERATE, GENERATE) if wrong == "two legs" else (GENERATE,)
            wall_s = there.peers.environment.wall_s()
            task = task_of(there.key, wall_s, *stages, source=name_of(ASKED))
            one, two = key_of("one"), key_of("two")
            first = signed_piece(task, one, 1).segment
            before = ContentId.of(first)
            changes: dict[str, Any] = {"first": 2, "units": 2, "built_on": before}
            changes |= {"gap": {"first": 3, "units": 1}, "other bytes": {"shown": bytes(32)}}.get(
                wrong, {}
            )
            segments = [first, signed_piece(task, two, 3, **changes).segment]
            if wrong == "order":
                segments.reverse()
            shown = HONEST[:3] if wrong == "beyond" else HONEST[:4]
            offer = Offer(
                task=task.raw,
                stage=0,
                receipts=(),
                input=ASKED,
                deadline_ms=60_000,
                units=1,
                resume=Progress(units=len(shown), data=b"".join(shown), segments=tuple(segments)),
                avoid=(),
            )
            async with there.peers.call(worker.peers.me, deadline_s=60) as call:
                await call.send(offer)
                with pytest.raises(BatonError):
                    await call.expect(Accept)
            assert worker.peers.scores.cost(there.key.peer, trio.current_time()) > 0
