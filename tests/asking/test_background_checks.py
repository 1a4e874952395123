"""Of the answers that nobody checked a share is checked afterwards, and nobody waits for that."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.asking.answers import Answers, KeptAnswer, Later
from node.asking.audit_share import KNOWN_AFTER, STRANGER_TIMES
from node.asking.background_checks import WAITING_MAX, BackgroundChecks
from node.asking.rechecking import _guilty
from node.checking.check_request import CheckRequest
from node.checking.tally import Tally
from node.commands.cli_peer import join_command
from node.config import BACKGROUND_CHECKS_DEFAULT, NodeConfig
from node.engines.interface import Emit, Job, Output
from node.peer import Node
from p2p.score import Standing
from p2p.typed_call import TypedCall
from store import open_memory_store
from tests.checking.test_verifiers import verdict_of
from tests.node.asking import (
    SECRET,
    VECTORS,
    asked,
    complete,
    receipt_of,
    request,
    task_of,
    texts_of,
)
from tests.node.engines import Counted, Liar, one_row
from tests.node.network import I, Network, S, V, open_network
from tests.p2p.transports import key_of
from wire.content import PeerId
from wire.errors import InputError
from wire.kinds import Level
from wire.message import Check, Message
from wire.receipt import Answer, Receipt, Verdict
from wire.signed import Signed, open_signed, sign
from wire.task import CheckPolicy


async def unchecked(asker: Node, number: int) -> Answer:
    answered, _ = await asked(asker, request(data=texts_of(f"{number}"), level=Level.SIGNED))
    return answered.answer.record


async def until(asker: Node, *, checks: int) -> Any:
    """The statistics, once so many answers were looked at or left out."""
    with trio.fail_after(300):
        while True:
            found = asker.background_checks.statistics()
            if found.held + found.wrong + found.undecided + found.left_out >= checks:
                return found
            await trio.sleep(0.2)


async def network_of(
    network: Network, engine: Counted, verifiers: int = 3, *, judges: bool = False
) -> tuple[Node, Node]:
    """An asker that has every unchecked answer looked at, and who answers it."""
    asker = await network.start(S, background_checks=1.0, judges=judges)
    worker = await network.start(I, S, engine=engine)
    for _ in range(verifiers):
        await network.start(V, S)
    await network.settled()
    return asker, worker


async def test_a_liar_is_found_though_nobody_asked_for_a_check_and_its_past_is_doubted(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, liar = await network_of(network, Liar(one_row), judges=True)
        await unchecked(asker, 0)
        found = await until(asker, checks=1)
        assert (found.drawn, found.wrong, found.held) == (1, 1, 0)
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED
        (kept,) = await asker.tasks.answers.latest(1)
        assert asker.tasks.answers.later(kept) is Later.WRONG
        assert liar.peers.me in asker.tasks.answers.liars


async def test_an_honest_peer_is_looked_at_and_nothing_becomes_of_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker = await network_of(network, Counted())
        for number in range(3):
            await unchecked(asker, number)
        found = await until(asker, checks=3)
        assert (found.held, found.wrong, found.undecided) == (3, 0, 0)
        assert asker.peers.standing(worker.peers.me) is Standing.GOOD
        assert all(
            asker.tasks.answers.later(it) is None for it in await asker.tasks.answers.latest(3)
        )


async def test_of_one_peer_one_answer_is_checked_at_a_time_and_none_waits_for_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, _ = await network_of(network, Counted())
        now, most = set[bytes](), 0
        for node in network.nodes:
            honest = node.peers.handlers[Check]

            async def counting(call: TypedCall, message: Message, honest: Any = honest) -> None:
                nonlocal most
                assert isinstance(message, Check)
                now.add(message.receipts[-1])
                most = max(most, len(now))
                await trio.sleep(20.0)
                now.discard(message.receipts[-1])
                await honest(call, message)

            node.peers.handlers[Check] = counting
        began_at_s = trio.current_time()
        for number in range(4):
            await unchecked(asker, number)
        assert trio.current_time() - began_at_s < 10.0
        found = await until(asker, checks=4)
        assert found.held == 4
        assert most == 1


class LiesOrSits(Liar):
    """Never finishes what is long, and lies about everything else."""

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        if b"long" in job.input:
            await trio.sleep_forever()
        return await super().infer(job, emit)


async def test_who_is_never_idle_has_answers_checked_all_the_same(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, liar = await network_of(network, LiesOrSits(one_row), judges=True)
        await asker.tasks.submit(request(data=texts_of("long"), level=Level.SIGNED, deadline_s=600))
        await unchecked(asker, 0)
        with trio.fail_after(30.0):
            while asker.peers.standing(liar.peers.me) is not Standing.BANNED:
                await trio.sleep(0.5)
        assert asker.tasks.statistics().under_way == 1


async def test_with_one_verifier_nothing_is_checked_and_nobody_banned_on_its_word(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, liar = await network_of(network, Liar(one_row), verifiers=1)
        await unchecked(asker, 0)
        found = await until(asker, checks=1)
        assert (found.left_out, found.wrong) == (1, 0)
        assert asker.peers.standing(liar.peers.me) is Standing.GOOD


async def test_a_checked_answer_is_not_drawn_and_a_share_of_none_draws_none(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, _ = await network_of(network, Counted())
        await asked(asker, request())
        assert asker.background_checks.statistics().drawn == 0
        other = await network.start(S)
        await network.settled()
        await unchecked(other, 0)
        assert other.background_checks.statistics().drawn == 0


# Which are drawn.


def kept_of(number: int, worker: str = "worker", level: Level = Level.SIGNED) -> KeptAnswer:
    terms = CheckPolicy(level=level, verifiers=0, needed=0, secret_hash=bytes(32))
    task = task_of(key_of("asker"), 1_800_000_000.0 + number, checking=terms)
    receipt = receipt_of(task, key_of(worker), VECTORS)
    record = Answer(
        task=task.raw,
        receipts=(receipt.raw,),
        secret=SECRET,
        candidates=(),
        verdicts=(),
        attempts=1,
        answered_at_ms=1,
        duration_ms=1,
    )
    return KeptAnswer(task, sign(record, key_of("asker")), VECTORS, receipt.record.output)


KEPT = [kept_of(number) for number in range(400)]


async def drawn_of(share: float, secret: bytes, known: tuple[PeerId, ...] = ()) -> list[int]:
    """Which of the answers are drawn, where nothing is ever checked."""
    async with open_memory_store(quota_bytes=1 << 24) as store:
        good: Any = SimpleNamespace(peers=SimpleNamespace(standing_at_work=lambda _: Standing.GOOD))
        checks = BackgroundChecks(good, Answers(store), Any, share, secret)  # type: ignore[arg-type]
        for peer in known:
            checks._held[peer] = KNOWN_AFTER
        found = []
        for at, one in enumerate(KEPT):
            before = checks.statistics().drawn
            checks.kept([one])
            if checks.statistics().drawn > before:
                found.append(at)
        assert len(checks._waiting) == min(len(found), WAITING_MAX)
        assert checks.statistics().left_out == max(0, len(found) - WAITING_MAX)
        return found


async def test_a_share_is_drawn_by_a_secret_and_more_of_peers_that_were_seldom_checked() -> None:
    share = 0.1
    stranger = await drawn_of(share, b"one")
    known = await drawn_of(share, b"one", (key_of("worker").peer,))
    assert set(known) < set(stranger)
    assert abs(len(known) / len(KEPT) - share) < 0.05
    assert abs(len(stranger) / len(KEPT) - share * STRANGER_TIMES) < 0.08
    assert await drawn_of(share, b"two") != stranger
    assert await drawn_of(0.0, b"one") == []


def test_bytes_that_another_kind_of_device_gives_are_no_proof() -> None:
    task = task_of(key_of("asker"), 1_800_000_000.0, complete(5))
    honest = receipt_of(task, key_of("worker"), b"some words", operation="complete")
    raws = [
        verdict_of(honest, SECRET, key_of(who), agrees=False, sampled=(0,), worst_ppb=(10**9,))
        for who in ("one", "two")
    ]
    verdicts = tuple(open_signed(it, Verdict) for it in raws)
    tally = Tally(agreed=False, verdicts=verdicts, candidates=())

    def guilty(receipt: Signed[Receipt]) -> frozenset[PeerId]:
        request = CheckRequest(
            task=task, receipts=(receipt,), secret=SECRET, input=None, output=None
        )
        return _guilty(request, tally)

    assert guilty(honest) == {honest.signer}
    other = replace(honest, record=replace(honest.record, profile="another device"))
    assert not guilty(other)
    # Rows of numbers are compared within a tolerance, on whatever device.
    rows = receipt_of(task, key_of("worker"), VECTORS, profile="another device", operation="embed")
    assert guilty(rows) == {rows.signer}


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_what_is_no_part_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(InputError, match="no part of the answers"):
        NodeConfig(state=tmp_path, background_checks=share)


def test_the_command_line_says_the_same_default() -> None:
    (option,) = [it for it in join_command.params if it.name == "background_checks"]
    assert option.default == BACKGROUND_CHECKS_DEFAULT
