"""Verifiers: lazy, lying, silent or strangers to the receipt; honest ones still decide."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.checking.verdict import check_verdict
from p2p.score import Standing
from p2p.typed_call import TypedCall, refusal_of
from tests.checking.committing import tell
from tests.node.asking import (
    SECRET,
    TEXTS,
    VECTORS,
    asked,
    complete,
    nothing_left,
    receipt_of,
    request,
    signers,
    task_of,
    texts_of,
)
from tests.node.engines import Counted, Liar, Stuck, one_row
from tests.node.network import I, Network, Outsider, S, V, open_network
from tests.p2p.transports import key_of
from wire.commitment import TellVerdict, VerdictCommitted
from wire.content import ContentId
from wire.errors import BadSignature, Malformed, Refused, RemoteProtocolError, TransportError
from wire.kinds import RefusalCode
from wire.lottery import OWN_DRAW, Share, draw
from wire.message import Check, Message, Refuse, VerdictReply
from wire.receipt import Receipt, Verdict
from wire.signed import Signed, open_signed, sign
from wire.signing import SigningKey
from wire.task import Task

Verdicts = Callable[[TypedCall, Check, Outsider], Awaitable[None]]


def verdict_of(
    receipt: Signed[Receipt], secret: bytes, key: SigningKey, /, **changes: Any
) -> bytes:
    rows = receipt.record.units
    share = changes.pop("share", OWN_DRAW)
    sampled = share.due(secret, receipt.id, key.peer, rows)
    fields: dict[str, Any] = {
        "receipt": receipt.id,
        "secret": secret,
        "agrees": True,
        "could_check": True,
        "rows": rows,
        "sampled": sampled,
        "worst_ppb": (0,) * len(sampled),
        "profile": "hash-1 exact",
        "reason": "",
        "checked_at_ms": 1,
        "duration_ms": 1,
    }
    return sign(Verdict(**(fields | changes)), key).raw


async def find(call: TypedCall, check: Check, key: SigningKey, **changes: Any) -> None:
    receipt = open_signed(check.receipts[-1], Receipt)
    share = Share(check.part, check.parts, frozenset(check.rows))
    fields = {"share": share} | changes
    verdict = open_signed(verdict_of(receipt, check.secret, key, **fields), Verdict)
    await tell(call, check, verdict, key)


async def always_no(call: TypedCall, check: Check, me: Outsider) -> None:
    await find(call, check, me.key, agrees=False, reason="I say so")


async def could_not(call: TypedCall, check: Check, me: Outsider) -> None:
    await find(call, check, me.key, agrees=False, could_check=False, sampled=(), worst_ppb=())


async def yes_without_looking(call: TypedCall, check: Check, me: Outsider) -> None:
    await find(call, check, me.key, sampled=(), worst_ppb=())


async def yes_on_rows_of_its_choice(call: TypedCall, check: Check, me: Outsider) -> None:
    await find(call, check, me.key, sampled=(0,), worst_ppb=(0,))


async def yes_to_fewer_rows(call: TypedCall, check: Check, me: Outsider) -> None:
    await find(call, check, me.key, rows=1, sampled=(0,), worst_ppb=(0,))


async def signed_with_another_key(call: TypedCall, check: Check, me: Outsider) -> None:
    await find(call, check, key_of("a friend"))


async def on_another_receipt(call: TypedCall, check: Check, me: Outsider) -> None:
    await find(call, check, me.key, receipt=ContentId.of(b"another"))


async def with_another_secret(call: TypedCall, check: Check, me: Outsider) -> None:
    await find(call, check, me.key, secret=bytes(32))


async def not_a_verdict(call: TypedCall, check: Check, me: Outsider) -> None:
    if check.commit:
        await call.send(VerdictCommitted(digest=bytes(32)))
        await call.expect(TellVerdict)
    await call.send(VerdictReply(verdict=check.receipts[-1]))


async def silence(call: TypedCall, check: Check, me: Outsider) -> None:
    await trio.sleep_forever()


async def refusal(call: TypedCall, check: Check, me: Outsider) -> None:
    await call.send(refusal_of(Refused("not today")))


async def nonsense(call: TypedCall, check: Check, me: Outsider) -> None:
    await call.channel.send(b"\xc1")


BLAMED = [
    yes_without_looking,
    yes_on_rows_of_its_choice,
    yes_to_fewer_rows,
    signed_with_another_key,
    on_another_receipt,
    with_another_secret,
    not_a_verdict,
    nonsense,
]
NOT_BLAMED = [always_no, could_not, refusal, silence]


@pytest.mark.parametrize("verdicts", [*BLAMED, *NOT_BLAMED])
async def test_two_honest_verifiers_decide_whatever_the_third_does(
    autojump_clock: MockClock, tmp_path: Path, verdicts: Verdicts
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S)
        for _ in range(2):
            await network.start(V, S)
        await network.settled()
        async with network.outsider(V) as rogue:

            async def answer(call: TypedCall, message: Message) -> None:
                assert isinstance(message, Check)
                await verdicts(call, message, rogue)

            rogue.answer(Check, answer)
            # The draw decides who is asked: go on until it has hit the rogue.
            for number in range(30):
                wanted = request(data=texts_of("one", "two", str(number)), deadline_s=60)
                answered, _ = await asked(asker, wanted)
                assert signers(answered) == [worker.peers.me]
                good = [open_signed(it, Verdict) for it in answered.answer.record.verdicts]
                assert sum(it.record.agrees for it in good) == 2
                if rogue.asked:
                    break
            assert rogue.asked
            cost = asker.peers.scores.cost(rogue.key.peer, trio.current_time())
            assert (cost > 3) is (verdicts in BLAMED)
        assert asker.peers.standing(worker.peers.me) is Standing.GOOD
        assert nothing_left(asker)


async def test_two_of_three_that_say_no_end_it_and_the_answer_is_not_returned(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S, judges=True)
        liar = await network.start(I, S, engine=Liar(one_row))
        honest = await network.start(I, S, engine=Counted())
        # One of the three is in league with the liar.
        for engine in (Counted(), Counted(), Liar(one_row)):
            await network.start(V, S, engine=engine)
        await network.settled()
        answered, _ = await asked(asker, request())
        assert signers(answered) == [honest.peers.me]
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED


async def test_a_verifier_is_never_one_of_the_doers_nor_the_asker(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(V, S)
        everybody = [await network.start(I, V, S) for _ in range(3)]
        await network.settled()
        for number in range(6):
            answered, _ = await asked(asker, request(data=texts_of(f"text {number}")))
            verdicts = [open_signed(it, Verdict) for it in answered.answer.record.verdicts]
            doers = {*signers(answered), asker.peers.me}
            assert doers.isdisjoint(it.signer for it in verdicts)
            assert doers.isdisjoint(answered.answer.record.candidates)
        assert sum(it.verify_role.checked for it in everybody) >= 12


async def test_the_verifiers_are_the_first_of_the_draw_and_an_auditor_can_redraw_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        for _ in range(6):
            await network.start(V, S)
        await network.settled()
        for number in range(4):
            answered, _ = await asked(asker, request(data=texts_of(f"text {number}")))
            kept = answered.answer.record
            receipt = open_signed(kept.receipts[-1], Receipt)
            order = draw(kept.secret, receipt.id, kept.candidates)
            assert len(order) == 6
            assert {open_signed(it, Verdict).signer for it in kept.verdicts} == set(order[:2])


async def test_a_verifier_that_is_busy_is_asked_again_when_it_said(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await network.start(V, S)
        await network.settled()
        async with network.outsider(V) as busy:
            moments: list[float] = []

            async def later(call: TypedCall, message: Message) -> None:
                assert isinstance(message, Check)
                moments.append(trio.current_time())
                if len(moments) == 1:
                    await call.send(Refuse(reason="busy", retry_after_ms=9000))
                else:
                    await find(call, message, busy.key)

            busy.answer(Check, later)
            await asked(asker, request())
            assert len(moments) == 2
            assert 9 <= moments[1] - moments[0] < 10


async def test_a_streamed_answer_is_checked_too(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        for _ in range(2):
            await network.start(V, S)
        await network.settled()
        answered, _ = await asked(asker, request(complete(5), data=b"prompt"))
        assert len(answered.answer.record.verdicts) == 2


# One verifier, asked by hand.


async def checked_by(
    network: Network, asker: Outsider, **changes: Any
) -> tuple[Message | None, Signed[Receipt]]:
    """What the only verifier answers to a check of an honest leg, but for `changes`."""
    verifier = network.nodes[0]
    wall_s = asker.peers.environment.wall_s()
    task = changes.pop("task", None) or task_of(asker.key, wall_s)
    receipt = changes.pop("receipt", None) or receipt_of(task, key_of("worker"), VECTORS)
    fields: dict[str, Any] = {
        "task": task.raw,
        "receipts": (receipt.raw,),
        "secret": SECRET,
        "input": TEXTS,
        "output": VECTORS,
        "deadline_ms": 10_000,
    }
    async with asker.peers.call(verifier.peers.me, deadline_s=20) as call:
        await call.send(Check(**(fields | changes)))
        return await call.receive(), receipt


async def test_a_verdict_on_honest_work_agrees_on_the_rows_that_were_drawn(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        await network.start(V, S)
        await network.settled()
        async with network.outsider() as asker:
            finding, receipt = await checked_by(network, asker)
            assert isinstance(finding, VerdictReply)
            verdict = open_signed(finding.verdict, Verdict)
            check_verdict(receipt, SECRET, verdict, network.nodes[0].peers.me)
            assert verdict.record.agrees


@pytest.mark.parametrize(
    ("altered", "reason"),
    [
        ({"units": 4}, "4 units for 3 texts"),
        ({"output": ContentId.of(b"garbage")}, ""),
    ],
    ids=["units", "garbage"],
)
async def test_a_false_receipt_is_voted_against(
    autojump_clock: MockClock, tmp_path: Path, altered: dict[str, Any], reason: str
) -> None:
    async with open_network(tmp_path) as network:
        await network.start(V, S)
        await network.settled()
        async with network.outsider() as asker:
            task = task_of(asker.key, asker.peers.environment.wall_s())
            receipt = receipt_of(task, key_of("worker"), VECTORS, **altered)
            output = b"garbage" if "output" in altered else VECTORS
            finding, _ = await checked_by(network, asker, task=task, receipt=receipt, output=output)
            assert isinstance(finding, VerdictReply)
            verdict = open_signed(finding.verdict, Verdict).record
            assert not verdict.agrees
            assert verdict.could_check
            assert reason in verdict.reason


async def test_what_was_withheld_from_the_verifier_is_said_to_be_unchecked(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        await network.start(V, S)
        await network.settled()
        async with network.outsider() as asker:
            finding, _ = await checked_by(network, asker, output=None)
            assert isinstance(finding, VerdictReply)
            verdict = open_signed(finding.verdict, Verdict).record
            assert (verdict.agrees, verdict.could_check) == (False, False)


async def test_an_output_that_is_not_the_one_signed_for_is_not_looked_at(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        await network.start(V, S)
        await network.settled()
        async with network.outsider() as asker:
            # The asker holds the true output, and sends another along.
            await asker.store.put(VECTORS)
            finding, _ = await checked_by(network, asker, output=b"another", input=b"another")
            assert isinstance(finding, VerdictReply | Refuse)
            await asker.store.put(TEXTS)
            finding, _ = await checked_by(network, asker, output=b"another", input=b"another")
            assert isinstance(finding, VerdictReply)
            assert open_signed(finding.verdict, Verdict).record.agrees


def _unsigned(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


async def test_a_check_that_proves_nothing_is_an_offence(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        verifier = await network.start(V, S)
        await network.settled()
        async with network.outsider() as asker:
            task = task_of(asker.key, asker.peers.environment.wall_s())
            receipt = receipt_of(task, key_of("worker"), VECTORS)
            other = receipt_of(task, key_of("worker"), VECTORS, task=ContentId.of(b"other"))
        wrongs: list[dict[str, Any]] = [
            {"secret": bytes(32)},
            {"receipts": ()},
            {"receipts": (other.raw,)},
            {"receipts": (receipt.raw, receipt.raw)},
            {"receipts": (_unsigned(receipt.raw),)},
            {"task": None, "receipts": (receipt.raw,)},
        ]
        for wrong in wrongs:
            async with network.outsider() as asker:
                changes = dict(wrong)
                if "task" in changes:
                    changes["task"] = task_of(
                        asker.key, asker.peers.environment.wall_s(), nonce=b"n" * 16
                    )
                else:
                    changes |= {"task": task, "receipt": receipt}
                with pytest.raises((TransportError, RemoteProtocolError)):
                    await checked_by(network, asker, **changes)
                assert verifier.peers.standing(asker.key.peer) is not Standing.GOOD
        assert verifier.verify_role.checked == 0


async def test_nobody_checks_its_own_work_or_a_model_it_has_not(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        verifier = await network.start(V, S)
        await network.settled()
        async with network.outsider() as asker:
            task = task_of(asker.key, asker.peers.environment.wall_s())
            own = receipt_of(task, verifier.dependencies.key, VECTORS)
            answer, _ = await checked_by(network, asker, task=task, receipt=own)
            assert isinstance(answer, Refuse)
            assert "its own work" in answer.reason
            stage = replace(task.record.stages[0], model=ContentId.of(b"unknown"))
            strange = task_of(asker.key, asker.peers.environment.wall_s(), stage)
            answer, _ = await checked_by(network, asker, task=strange)
            assert isinstance(answer, Refuse)
            assert "not loaded" in answer.reason
            assert asker.peers.scores.cost(verifier.peers.me, trio.current_time()) == 0


async def test_a_peer_without_the_role_refuses_to_check(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        await network.start(I, S)
        await network.settled()
        async with network.outsider() as asker:
            answer, _ = await checked_by(network, asker)
            assert isinstance(answer, Refuse)
            assert answer.reason == "this peer does not verify"


async def test_a_verifier_without_time_left_says_so_and_accuses_nobody(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        await network.start(V, S, engine=Stuck())
        await network.settled()
        async with network.outsider() as asker:
            answer, _ = await checked_by(network, asker)
            assert answer == Refuse(
                code=RefusalCode.LATE, reason="no time left to check", retry_after_ms=None
            )


async def test_too_many_checks_at_once_are_refused_with_a_moment_to_wait(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        await network.start(V, S, engine=Counted(unit_s=1.0))
        await network.settled()
        async with network.outsider() as asker:
            answers: list[Message | None] = []

            async def check() -> None:
                answer, _ = await checked_by(network, asker)
                answers.append(answer)

            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(check)
            refused = [it for it in answers if isinstance(it, Refuse)]
            assert {it.retry_after_ms for it in refused if "already checking" in it.reason} == {500}
            assert sum("already checking" in it.reason for it in refused) == 2


# A verdict by itself.


def _case() -> tuple[Signed[Task], Signed[Receipt], SigningKey]:
    task = task_of(key_of("asker"), 1_800_000_000.0)
    return task, receipt_of(task, key_of("worker"), VECTORS), key_of("verifier")


def test_a_verdict_by_another_than_was_asked_is_not_one() -> None:
    _, receipt, key = _case()
    verdict = open_signed(verdict_of(receipt, SECRET, key), Verdict)
    check_verdict(receipt, SECRET, verdict, key.peer)
    check_verdict(receipt, SECRET, verdict)
    with pytest.raises(BadSignature):
        check_verdict(receipt, SECRET, verdict, key_of("asked").peer)


@pytest.mark.parametrize(
    "changes",
    [
        {"sampled": (), "worst_ppb": ()},
        {"sampled": (0, 1), "worst_ppb": (0, 0)},
        {"sampled": (2, 1, 0), "worst_ppb": (0, 0, 0)},
        {"rows": 0, "sampled": (), "worst_ppb": ()},
        {"rows": 2**40, "sampled": (0,), "worst_ppb": (0,)},
        {"receipt": ContentId.of(b"another")},
        {"secret": bytes(32)},
    ],
)
def test_a_verdict_that_agrees_without_the_due_rows_is_malformed(changes: dict[str, Any]) -> None:
    _, receipt, key = _case()
    verdict = open_signed(verdict_of(receipt, SECRET, key, **changes), Verdict)
    with pytest.raises(Malformed):
        check_verdict(receipt, SECRET, verdict, key.peer)
