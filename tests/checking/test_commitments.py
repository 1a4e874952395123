"""Verdicts are committed to before any is told, so that none is made to fit another."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.asking import background_checks
from node.checking.audit import audit
from node.checking.commitments import LegCommitments, Shown
from node.checking.report import Point, Status
from node.devnet.adversary import misbehave
from node.peer import Node
from p2p.score import Standing
from p2p.typed_call import TypedCall
from tests.asking.test_background_checks import network_of as with_background
from tests.asking.test_background_checks import unchecked
from tests.checking.answers import (
    NOW_MS,
    VERIFIERS,
    answer_to,
    changed,
    committed_answer,
    have,
    policy,
)
from tests.checking.committing import tell
from tests.checking.test_verifiers import verdict_of
from tests.node.asking import SECRET, asked, request, texts_of
from tests.node.engines import Counted
from tests.node.network import I, Network, Outsider, S, V, open_network
from wire import limits
from wire.check_message import Check
from wire.checks import OpenChecks
from wire.commitment import TellVerdict, VerdictCommitted, commitment_to, opened, shown_hash
from wire.lottery import Share
from wire.message import Message, Refuse, VerdictReply
from wire.receipt import Answer, Receipt, Verdict
from wire.signed import Signed, open_signed, sign

COMMITTED = "verdicts of leg 1: committed before they were revealed"


# What an auditor says of an answer.


def points_of(answer: Signed[Answer]) -> dict[str, Point]:
    report = audit(answer.raw, have, now_ms=NOW_MS + 2000)
    return {it.what: it for it in report.points}


def failing(answer: Signed[Answer]) -> list[str]:
    return [it.what for it in points_of(answer).values() if it.status is Status.FAILS]


def test_an_auditor_sees_that_no_verdict_was_told_before_all_were_committed_to() -> None:
    answer = committed_answer()
    assert points_of(answer)[COMMITTED].status is Status.HOLDS
    assert audit(answer.raw, have, now_ms=NOW_MS + 2000).holds


def test_of_verdicts_without_commitments_the_auditor_says_why_it_cannot_know() -> None:
    point = points_of(answer_to())[COMMITTED]
    assert (point.status, point.is_limit) == (Status.UNKNOWN, True)
    assert "older version" in point.detail
    alone = points_of(answer_to(checking=policy(needed=1, verifiers=1)))[COMMITTED]
    assert alone.detail == "one was needed"


def test_a_verdict_that_was_committed_to_after_another_was_told_is_named() -> None:
    answer = committed_answer(shown_to=(1, 2))
    point = points_of(answer)[COMMITTED]
    second = open_signed(answer.record.verdicts[1], Verdict).signer
    assert (point.status, point.is_limit) == (Status.UNKNOWN, True)
    assert second.short in point.detail
    assert audit(answer.raw, have, now_ms=NOW_MS + 2000).holds


def test_two_verdicts_with_one_salt_do_not_hold() -> None:
    (what,) = failing(committed_answer(salts=(SECRET, SECRET)))
    assert "are their own" in what


def exchanged(answer: Signed[Answer]) -> dict[str, Any]:
    first, second = answer.record.commitments
    return {
        "commitments": (
            replace(first, verifier=second.verifier),
            replace(second, verifier=first.verifier),
        )
    }


@pytest.mark.parametrize(
    "changes",
    [
        lambda answer: {"commitments": answer.record.commitments[:0]},
        lambda answer: {"commitments": answer.record.commitments[:1]},
        lambda answer: {"commitments": answer.record.commitments[::-1]},
        lambda answer: {"commitments": [replace(it, stage=1) for it in answer.record.commitments]},
        exchanged,
    ],
    ids=["none", "one", "another order", "of another leg", "of each other"],
)
def test_commitments_that_the_verdicts_do_not_open_fail(
    changes: Callable[[Signed[Answer]], dict[str, Any]],
) -> None:
    answer = committed_answer()
    fields = {name: tuple(value) for name, value in changes(answer).items()}
    (what,) = failing(changed(answer, **fields))
    assert "is the one that it had committed to" in what


def test_a_verdict_altered_after_it_was_committed_to_fails() -> None:
    answer = committed_answer()
    first = open_signed(answer.record.verdicts[0], Verdict)
    worse = sign(
        replace(first.record, worst_ppb=(9,) * len(first.record.sampled)), VERIFIERS[first.signer]
    )
    verdicts = (worse.raw, *answer.record.verdicts[1:])
    (what,) = failing(changed(answer, verdicts=verdicts))
    assert first.signer.short in what


def test_an_answer_with_commitments_that_is_altered_in_any_byte_does_not_hold() -> None:
    raw, chance = committed_answer().raw, Random(1)
    assert audit(raw, have).holds
    for at in range(0, len(raw), 11):
        damaged = bytearray(raw)
        damaged[at] ^= 1 << chance.randrange(8)
        assert not audit(bytes(damaged), have).holds


# When verdicts are asked for.


def test_verdicts_are_asked_for_when_all_have_committed_or_when_it_gets_late() -> None:
    one, two, three = sorted(VERIFIERS)
    told: list[tuple[int, Shown]] = []
    made = LegCommitments()
    made.add(one, bytes([1] * 32), 0.0, 20.0, lambda shown: told.append((1, shown)))
    made.tell_if_due(1.0, [one, two], wanted=False)
    # A third is to be asked, and may be busy.
    made.tell_if_due(0.5, [one], wanted=True)
    assert not told
    made.add(two, bytes([2] * 32), 1.0, 21.0, lambda shown: told.append((2, shown)))
    made.tell_if_due(1.0, [one, two], wanted=False)
    both = Shown(shown_hash([bytes([1] * 32), bytes([2] * 32)]), 2)
    assert told == [(1, both), (2, both)]
    made.add(three, bytes([3] * 32), 2.0, 22.0, lambda shown: told.append((3, shown)))
    made.tell_if_due(2.0, [one, two, three, three], wanted=True)
    assert len(told) == 2
    made.tell_if_due(12.0, [one, two, three], wanted=True)
    assert told[2][1].count == 3


# Verifiers in a network.

Telling = Callable[[TypedCall, Check, Outsider], Awaitable[None]]


def own_verdict(check: Check, me: Outsider, **changes: Any) -> Signed[Verdict]:
    receipt = open_signed(check.receipts[-1], Receipt)
    share = Share(check.part, check.parts, frozenset(check.rows))
    return open_signed(verdict_of(receipt, check.secret, me.key, share=share, **changes), Verdict)


async def honest(call: TypedCall, check: Check, me: Outsider) -> None:
    await tell(call, check, own_verdict(check, me), me.key)


async def another_than_committed(call: TypedCall, check: Check, me: Outsider) -> None:
    await call.send(VerdictCommitted(digest=bytes(32)))
    telling = await call.expect(TellVerdict)
    record = opened(own_verdict(check, me).record, bytes(32), telling.shown, telling.count)
    await call.send(VerdictReply(verdict=sign(record, me.key).raw))


async def does_not_open(call: TypedCall, check: Check, me: Outsider) -> None:
    await call.send(VerdictCommitted(digest=bytes(32)))
    await call.expect(TellVerdict)
    await call.send(VerdictReply(verdict=own_verdict(check, me).raw))


async def shown_others(call: TypedCall, check: Check, me: Outsider) -> None:
    said, salt = own_verdict(check, me).record, bytes(32)
    await call.send(VerdictCommitted(digest=commitment_to(said, salt, me.key.peer)))
    await call.expect(TellVerdict)
    await call.send(VerdictReply(verdict=sign(opened(said, salt, bytes(32), 9), me.key).raw))


async def says_it_at_once(call: TypedCall, check: Check, me: Outsider) -> None:
    await call.send(VerdictReply(verdict=own_verdict(check, me).raw))


async def never_tells(call: TypedCall, check: Check, me: Outsider) -> None:
    await call.send(VerdictCommitted(digest=bytes(32)))
    await trio.sleep_forever()


async def lets_it_go(call: TypedCall, check: Check, me: Outsider) -> None:
    await call.send(VerdictCommitted(digest=bytes(32)))
    await call.expect(TellVerdict)
    await call.send(Refuse(reason="busy after all", retry_after_ms=10))


async def with_a_rogue(network: Network, rogue: Outsider, telling: Telling) -> tuple[Node, Answer]:
    """The first answer that a rogue verifier was asked about, and who asked."""

    async def answer(call: TypedCall, message: Message) -> None:
        assert isinstance(message, Check)
        assert message.commit
        await telling(call, message, rogue)

    rogue.answer(Check, answer)
    asker = network.nodes[0]
    for number in range(30):
        wanted = request(data=texts_of("one", "two", str(number)), deadline_s=60)
        answered, _ = await asked(asker, wanted)
        if rogue.asked:
            return asker, answered.answer.record
    raise AssertionError


async def network_of(network: Network) -> None:
    await network.start(S)
    await network.start(I, S)
    for _ in range(2):
        await network.start(V, S, engine=Counted())
    await network.settled()


@pytest.mark.parametrize(
    ("telling", "standing"),
    [
        (honest, Standing.GOOD),
        (another_than_committed, Standing.BANNED),
        (does_not_open, Standing.BANNED),
        (shown_others, Standing.BANNED),
        (says_it_at_once, Standing.UNWELCOME),
        (never_tells, Standing.GOOD),
        (lets_it_go, Standing.GOOD),
    ],
)
async def test_who_does_not_tell_what_it_committed_to_is_not_counted_and_answers_for_it(
    autojump_clock: MockClock, tmp_path: Path, telling: Telling, standing: Standing
) -> None:
    async with open_network(tmp_path) as network:
        await network_of(network)
        async with network.outsider(V) as rogue:
            asker, answer = await with_a_rogue(network, rogue, telling)
            assert asker.peers.standing(rogue.key.peer) is standing
            signers = {open_signed(it, Verdict).signer for it in answer.verdicts}
            assert (rogue.key.peer in signers) is (telling is honest)
            for node in network.nodes:
                if node is not asker:
                    assert asker.peers.standing(node.peers.me) is Standing.GOOD
        report = audit(sign(answer, asker.dependencies.key).raw, lambda _: None)
        assert report.holds
        if telling is honest:
            (point,) = [it for it in report.points if it.what == COMMITTED]
            assert point.status is Status.HOLDS


async def test_a_copied_verdict_is_told_from_its_original_and_who_copied_it_is_banned(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await network.start(V, S, engine=Counted())
        await network.settled()
        async with network.outsider(V) as original, network.outsider(V) as copier:
            there: dict[bytes, tuple[Signed[Verdict], bytes]] = {}

            async def first(call: TypedCall, message: Message) -> None:
                assert isinstance(message, Check)
                verdict = own_verdict(message, original)
                there[message.receipts[-1]] = (verdict, bytes(original.key.peer))
                await tell(call, message, verdict, original.key)

            async def second(call: TypedCall, message: Message) -> None:
                """What one owner's other key says, with one engine between the two."""
                assert isinstance(message, Check)
                with trio.move_on_after(1.0):
                    while message.receipts[-1] not in there:
                        await trio.sleep(0.01)
                if message.receipts[-1] not in there:
                    await call.send(Refuse(reason="nobody to copy from", retry_after_ms=None))
                    return
                verdict, salt = there[message.receipts[-1]]
                said = commitment_to(verdict.record, salt, verdict.signer)
                await call.send(VerdictCommitted(digest=said))
                telling = await call.expect(TellVerdict)
                record = opened(verdict.record, salt, telling.shown, telling.count)
                await call.send(VerdictReply(verdict=sign(record, copier.key).raw))

            original.answer(Check, first)
            copier.answer(Check, second)
            number = 0
            while asker.peers.standing(copier.key.peer) is not Standing.BANNED:
                number += 1
                answered, _ = await asked(asker, request(data=texts_of(str(number)), deadline_s=60))
                assert number < 60
                # All that it ever says is copied: of no answer is it a verdict, so nobody is
                # charged for it.
                said = [open_signed(it, Verdict) for it in answered.answer.record.verdicts]
                assert copier.key.peer not in {it.signer for it in said}
            problem = asker.peers.problems[f"verdict of {copier.key.peer}"]
            assert problem == f"it copied the verdict of {original.key.peer}"
            assert asker.peers.standing(original.key.peer) is Standing.GOOD


def test_one_salt_for_two_verdicts_is_a_copy() -> None:
    made = LegCommitments()
    keys = [VERIFIERS[it] for it in sorted(VERIFIERS)][:2]
    bare = open_signed(answer_to().record.verdicts[0], Verdict).record
    told: dict[Any, Shown] = {}
    for key in keys:
        commitment = commitment_to(bare, SECRET, key.peer)
        made.add(key.peer, commitment, 0.0, 9.0, lambda shown, key=key: told.update({key: shown}))
    made.tell_if_due(0.0, [it.peer for it in keys], wanted=False)
    why = [
        made.misfit(sign(opened(bare, SECRET, told[it].hash, told[it].count), it)) for it in keys
    ]
    assert why == ["", f"it copied the verdict of {keys[0].peer}"]


async def test_a_verifier_that_has_others_look_in_its_place_finds_none_and_is_found_out(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_checks, "CANARY_SHARE", 1.0)
    async with open_network(tmp_path) as network:
        asker, _ = await with_background(network, Counted())
        copier = network.nodes[-1]
        misbehave(copier, "copying_verifier", Random(1))
        number = 0
        with trio.fail_after(600):
            while asker.peers.standing(copier.peers.me) is not Standing.BANNED:
                number += 1
                await unchecked(asker, number)
                await trio.sleep(2)
        for node in network.nodes[:-1]:
            if node is not asker:
                assert asker.peers.standing(node.peers.me) is Standing.GOOD


async def test_a_verifier_of_an_earlier_version_is_asked_and_counted_as_ever(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        await network_of(network)
        asker = network.nodes[0]
        for old in network.nodes[2:]:
            old.peers.neighbours.speaks = limits.COMMITMENTS_VERSION - 1
            asker.peers.neighbours._versions.pop(old.peers.me, None)
        answered, _ = await asked(asker, request())
        assert not answered.answer.record.commitments
        report = audit(answered.answer.raw, lambda _: None)
        assert report.holds
        (point,) = [it for it in report.points if it.what == COMMITTED]
        assert "older version" in point.detail


async def test_one_verdict_alone_is_told_at_once(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        await network_of(network)
        answered, _ = await asked(network.nodes[0], request(verifiers=1, needed=1))
        assert not answered.answer.record.commitments
        assert len(answered.answer.record.verdicts) == 1
        assert OpenChecks in network.nodes[0].peers.handlers
