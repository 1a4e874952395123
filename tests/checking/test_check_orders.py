"""Many checks at one verifier go by one order; each is counted as if it had come alone."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.asking.answers import Answered
from node.checking import quorum
from node.checking.check_request import CheckRequest
from node.peer import Node
from node.task.events import Event
from p2p.score import Standing
from p2p.typed_call import TypedCall
from tests.checking.test_verifiers import verdict_of
from tests.dispatch.test_orders import all_asked
from tests.node.asking import (
    SECRET,
    TEXTS,
    VECTORS,
    failures,
    receipt_of,
    request,
    signers,
    task_of,
    texts_of,
    vectors_of,
)
from tests.node.engines import Counted, Liar, one_row
from tests.node.network import I, Network, Outsider, S, V, open_network
from tests.p2p.transports import key_of
from wire import limits
from wire.check_message import Check
from wire.checks import CheckOutcome, Checks, OpenChecks, Verdicts
from wire.content import PeerId
from wire.lottery import Share
from wire.message import Message
from wire.order import Opened
from wire.proof import place_of
from wire.receipt import Receipt, Verdict
from wire.signed import Envelope, is_of_many, open_signed, sign_many
from wire.task import Task

COUNT = 24


def texts_asked(count: int = COUNT) -> list[str]:
    return [str(number) for number in range(count)]


async def ask_all(asker: Node, texts: list[str]) -> list[Answered]:
    """The answers to tasks that are checked, all asked for at the same time; each is right."""
    wanted = [request(data=texts_of(it), deadline_s=60) for it in texts]
    found = await all_asked(asker, wanted)
    answers = [it for it in found if isinstance(it, Answered)]
    assert len(answers) == len(found) == len(texts)
    for text, answered in zip(texts, answers, strict=True):
        assert answered.output == vectors_of(text)
    return answers


async def network_of_verifiers(network: Network, count: int = 3) -> tuple[Node, Node, list[Node]]:
    asker = await network.start(S, judges=True)
    worker = await network.start(I, S, engine=Counted(unit_s=0.001))
    # They take longer than the worker, so that checks come together.
    verifiers = [await network.start(V, S, engine=Counted(unit_s=0.04)) for _ in range(count)]
    await network.settled()
    return asker, worker, verifiers


def verdicts_of(answered: Answered) -> list[Envelope[Verdict]]:
    return [Envelope.read(raw, Verdict) for raw in answered.answer.record.verdicts]


async def test_many_checks_share_calls_and_signatures_and_each_holds_alone(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, _, verifiers = await network_of_verifiers(network)
        # The first ones open the orders.
        await ask_all(asker, texts_asked())
        orders = asker.tasks.checking.orders
        assert orders is not None
        assert orders.standing == 3
        sent, bundles = orders.figures().tasks, orders.figures().bundles
        answers = await ask_all(asker, [f"again {it}" for it in texts_asked()])
        assert orders.figures().tasks - sent >= 2 * COUNT
        assert orders.figures().bundles - bundles < COUNT
        assert sum(it.check_server.tasks for it in verifiers) == orders.figures().tasks
        many = [it for one in answers for it in verdicts_of(one) if place_of(it.proof)]
        assert len(many) >= COUNT
        for envelope in many:
            assert envelope.checked().record.agrees
        assert all(len(it.answer.record.verdicts) == 2 for it in answers)
        await trio.sleep(10)
        assert not orders.standing
        assert not any(it.check_server.standing for it in verifiers)


async def test_checks_on_orders_that_stand_need_no_tasks_of_their_own(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_network(tmp_path) as network:
        asker, _, _ = await network_of_verifiers(network)
        await ask_all(asker, texts_asked())
        alone: list[PeerId] = []
        ask = quorum._Check._ask

        async def asked(self: quorum._Check, verifier: PeerId, share: Share) -> None:
            alone.append(verifier)
            await ask(self, verifier, share)

        monkeypatch.setattr(quorum._Check, "_ask", asked)
        await ask_all(asker, [f"again {it}" for it in texts_asked()])
        assert not alone
        assert not asker.tasks.checking.under_way
        # Where none stands any more, each is asked in a task again.
        await trio.sleep(10)
        await ask_all(asker, ["one"])
        assert len(alone) == 2


async def test_a_verifier_of_an_earlier_version_is_asked_one_by_one(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, _, verifiers = await network_of_verifiers(network, count=2)
        for old in verifiers:
            old.peers.neighbours.speaks = limits.CHECKS_VERSION - 1
            asker.peers.neighbours._versions.pop(old.peers.me, None)
            del old.peers.handlers[OpenChecks]
        await ask_all(asker, texts_asked(8))
        assert asker.tasks.checking.orders is not None
        assert asker.tasks.checking.orders.figures().tasks == 0
        assert all(it.verify_role.checked for it in verifiers)


async def test_a_verifier_that_dies_leaves_its_checks_to_others(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, _, verifiers = await network_of_verifiers(network)
        dying = verifiers[0]

        async def kill() -> None:
            while not dying.check_server.tasks:
                await trio.sleep(0.01)
            network.kill(dying)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            answers = await ask_all(asker, texts_asked())
        assert {len(it.answer.record.verdicts) for it in answers} == {2}


async def test_one_wrong_answer_among_many_is_found_and_only_that_peer_is_blamed(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker, verifiers = await network_of_verifiers(network)
        liar = await network.start(I, S, engine=Liar(one_row))
        await network.settled()
        answers = await ask_all(asker, texts_asked())
        assert {peer for it in answers for peer in signers(it)} == {worker.peers.me}
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED
        for peer in (worker, *verifiers):
            assert asker.peers.standing(peer.peers.me) is not Standing.BANNED


Answering = Callable[[Check, Outsider], bytes | None]


def honest(check: Check, me: Outsider, **changes: object) -> bytes:
    receipt = open_signed(check.receipts[-1], Receipt)
    share = Share(check.part, check.parts, frozenset(check.rows))
    return verdict_of(receipt, check.secret, me.key, share=share, **changes)


def of_rows_of_its_choice(check: Check, me: Outsider) -> bytes:
    return honest(check, me, sampled=(), worst_ppb=())


def with_another_secret(check: Check, me: Outsider) -> bytes:
    return honest(check, me, secret=bytes(32))


def not_a_verdict(check: Check, me: Outsider) -> bytes:
    return check.receipts[-1]


def silence(check: Check, me: Outsider) -> None:
    return None


def says(me: Outsider, answering: Answering) -> Callable[[TypedCall, Message], Awaitable[None]]:
    """Serves an order of checks with a say of its own to each."""

    async def serve(call: TypedCall, message: Message) -> None:
        await call.send(Opened(places=40))
        while isinstance(given := await call.receive(), Checks):
            found = [(it.tag, answering(it.asked, me)) for it in given.items]
            outcomes = [
                CheckOutcome(tag=tag, verdict=said, refusal=None) for tag, said in found if said
            ]
            if outcomes:
                await call.send(Verdicts(items=tuple(outcomes), places=len(outcomes)))

    return serve


async def ask_until_it_opens(asker: Node, bad: Outsider) -> list[Answered]:
    """Answers, until this verifier had an order: of checks that do not meet there it gets none."""
    answers: list[Answered] = []
    for turn in range(8):
        answers += await ask_all(asker, [f"{turn} {it}" for it in texts_asked()])
        if any(isinstance(it, OpenChecks) for it in bad.asked):
            break
    assert any(isinstance(it, OpenChecks) for it in bad.asked)
    return answers


@pytest.mark.parametrize("answering", [of_rows_of_its_choice, with_another_secret, not_a_verdict])
async def test_what_does_not_fit_counts_against_the_verifier_alone(
    autojump_clock: MockClock, tmp_path: Path, answering: Answering
) -> None:
    async with open_network(tmp_path) as network:
        asker, _, verifiers = await network_of_verifiers(network)
        async with network.outsider(V) as bad:
            bad.answer(OpenChecks, says(bad, answering))
            await ask_until_it_opens(asker, bad)
            assert asker.peers.standing(bad.key.peer) is not Standing.GOOD
            for good in verifiers:
                assert asker.peers.standing(good.peers.me) is Standing.GOOD


async def test_a_verifier_that_is_silent_in_its_order_is_passed_over_and_blamed(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, _, _ = await network_of_verifiers(network)
        async with network.outsider(V) as bad:
            bad.answer(OpenChecks, says(bad, silence))
            answers = await ask_until_it_opens(asker, bad)
            assert all(len(it.answer.record.verdicts) == 2 for it in answers)
            # It was slow with every check that it was given.
            assert asker.peers.scores.cost(bad.key.peer, trio.current_time()) > 4
            checked: set[PeerId] = {it.signer for one in answers for it in verdicts_of(one)}
            assert bad.key.peer not in checked


async def test_checked_tasks_and_receipts_share_signatures_where_every_verifier_reads_them(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, _, _ = await network_of_verifiers(network)
        await ask_all(asker, texts_asked())
        answers = await ask_all(asker, [f"again {it}" for it in texts_asked()])
        assert (
            sum(is_of_many(open_signed(it.answer.record.task, Task)) for it in answers) > COUNT / 2
        )
        receipts = [open_signed(it.answer.record.receipts[0], Receipt) for it in answers]
        assert sum(map(is_of_many, receipts)) > COUNT / 2


async def test_with_one_old_verifier_every_checked_task_has_a_signature_of_its_own(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, _, verifiers = await network_of_verifiers(network)
        neighbours = asker.peers.neighbours
        await ask_all(asker, texts_asked())
        old = verifiers[0].peers.me
        neighbours._versions[old] = (bytes(8), limits.BUNDLES_VERSION - 1)
        answers = await ask_all(asker, [f"again {it}" for it in texts_asked()])
        for answered in answers:
            assert not is_of_many(open_signed(answered.answer.record.task, Task))
            assert not is_of_many(open_signed(answered.answer.record.receipts[0], Receipt))


async def test_a_verifier_that_came_too_late_to_read_a_task_is_passed_over(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, _, verifiers = await network_of_verifiers(network)
        old = verifiers[0].peers.me
        asker.peers.neighbours._versions[old] = (bytes(8), limits.BUNDLES_VERSION - 1)
        wall_s = asker.peers.environment.wall_s()
        records = [
            task_of(asker.dependencies.key, wall_s, nonce=bytes([it] * 16)).record for it in (1, 2)
        ]
        task, _ = sign_many(records, asker.dependencies.key)
        receipt = receipt_of(task, key_of("worker"), VECTORS)
        claimed = CheckRequest(
            task=task, receipts=(receipt,), secret=SECRET, input=TEXTS, output=VECTORS
        )
        events: list[Event] = []
        tally = await asker.tasks.checking.check(
            claimed, events.append, deadline_at_s=trio.current_time() + 60
        )
        assert tally.agreed
        assert old not in {it.signer for it in tally.verdicts}
        for failed in failures(events):
            assert failed.peer == old
            assert "cannot read what was signed with others" in failed.why
