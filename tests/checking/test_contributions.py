"""Candidates contribute to the draw of verifiers: nobody knows it before, auditors see it."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.checking.audit import audit
from node.checking.audit_draw import drawn_order
from node.checking.check_request import CheckRequest, Drawn, listed_of
from node.checking.contributions import Contributions
from node.checking.report import AuditReport, Point, Status
from node.peer import Node
from node.serving import contribute_role
from p2p.score import Standing
from p2p.typed_call import TypedCall
from tests.checking.answers import ASKER, NOW_MS, answer_to, changed, have, verdict_on
from tests.node.asking import MODEL, SECRET, asked, request, texts_of
from tests.node.engines import Counted
from tests.node.network import I, Network, Outsider, S, V, open_network
from tests.p2p.transports import key_of
from wire import limits
from wire.content import ContentId, PeerId
from wire.contribution import (
    AskContribution,
    Contributed,
    contributors,
    draws_to_choose_from,
    leaf_of,
    mix_of,
    mixed_draws,
    opened_mix,
    root_of,
    words_of,
)
from wire.errors import BadSignature, Malformed, Refused, WireError
from wire.lottery import draw, weighted_draw
from wire.message import Message, Refuse
from wire.receipt import Answer, MixedDraw, Receipt, Verdict
from wire.signed import Signed, open_signed
from wire.signing import SigningKey
from wire.task import Task
from wire.vrf import output_of, prove

KEYS = {it.peer: it for it in (key_of(f"candidate {at}") for at in range(12))}
WEIGHTS: Mapping[PeerId, int] = dict.fromkeys(KEYS, 0)
RECEIPT = ContentId.of(b"a receipt")


def contributed(
    leaves: list[bytes],
    asker: PeerId,
    keys: Mapping[PeerId, SigningKey] = KEYS,
    absent: tuple[PeerId, ...] = (),
) -> tuple[list[MixedDraw], bytes]:
    """What honest candidates give for these leaves, and the mix."""
    words = words_of(asker, root_of(leaves), len(leaves))
    drawn = [it for it in contributors(words, dict.fromkeys(keys, 0)) if it not in absent]
    gave = drawn[: limits.CONTRIBUTORS]
    proofs = [prove(keys[it], words) for it in gave]
    outputs = [output_of(it, words, proof) for it, proof in zip(gave, proofs, strict=True)]
    return mixed_draws(leaves, proofs, absent), mix_of(outputs)


def opened(record: MixedDraw, **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "asker": ASKER.peer,
        "secret": SECRET,
        "receipt": RECEIPT,
        "weights": WEIGHTS,
    }
    return opened_mix(draw=record, **(fields | changes))


# What is kept of a draw.


def test_of_many_receipts_under_one_root_each_has_its_own_draw() -> None:
    receipts = [ContentId.of(bytes([at])) for at in range(5)]
    leaves = [leaf_of(SECRET, it, WEIGHTS) for it in receipts]
    records, mix = contributed(leaves, ASKER.peer)
    orders = set()
    for receipt, record in zip(receipts, records, strict=True):
        assert opened(record, receipt=receipt) == mix
        orders.add(tuple(weighted_draw(SECRET, receipt, WEIGHTS, mix)))
    assert len(orders) == len(receipts)
    with pytest.raises(WireError):
        opened(records[0], receipt=receipts[1])


def one_record(absent: int = 0) -> MixedDraw:
    leaves = [leaf_of(SECRET, RECEIPT, WEIGHTS)]
    order = contributors(words_of(ASKER.peer, root_of(leaves), 1), WEIGHTS)
    (record,), _ = contributed(leaves, ASKER.peer, absent=tuple(sorted(order[:absent])))
    return record


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_who_was_silent_is_named_and_the_next_one_drawn_gives(absent: int) -> None:
    record = one_record(absent)
    assert len(opened(record)) == 32
    if absent:
        with pytest.raises(WireError):
            opened(replace(record, absent=record.absent[1:]))


def last_drawn(record: MixedDraw) -> PeerId:
    leaves = [leaf_of(SECRET, RECEIPT, WEIGHTS)]
    return contributors(words_of(ASKER.peer, root_of(leaves), 1), WEIGHTS)[-1]


@pytest.mark.parametrize(
    "changes",
    [
        lambda it: {"proofs": it.proofs[::-1]},
        lambda it: {"proofs": (bytes(80), *it.proofs[1:])},
        lambda it: {"absent": (last_drawn(it),)},
        lambda _: {"absent": (key_of("nobody").peer,)},
        lambda _: {"count": 2, "path": bytes(32)},
        lambda _: {"path": bytes(32)},
    ],
    ids=["another order", "no proof", "absent undrawn", "absent stranger", "another tree", "path"],
)
def test_a_record_that_was_changed_does_not_open(
    changes: Callable[[MixedDraw], dict[str, Any]],
) -> None:
    record = one_record()
    with pytest.raises(WireError):
        opened(replace(record, **changes(record)))


@pytest.mark.parametrize(
    "changes",
    [
        {"asker": key_of("another").peer},
        {"secret": bytes(32)},
        {"receipt": ContentId.of(b"another")},
        {"weights": dict.fromkeys(list(KEYS)[:-1], 0)},
        {"weights": dict.fromkeys(list(KEYS)[:7], 0)},
        {"weights": WEIGHTS | {key_of("added later").peer: 0}},
        {"weights": WEIGHTS | {next(iter(KEYS)): 1}},
    ],
)
def test_a_contribution_is_for_one_asker_secret_receipt_and_list_of_candidates(
    changes: dict[str, Any],
) -> None:
    with pytest.raises(WireError):
        opened(one_record(), **changes)


@pytest.mark.parametrize(
    "fields",
    [
        {"index": 1},
        {"absent": (ASKER.peer, ASKER.peer)},
        {"besides": (1, 0)},
        {"proofs": (bytes(80),) * 4},
        {"proofs": (bytes(79),) * 5},
        {"absent": tuple(sorted(KEYS))[:3]},
        {"count": 65},
        {"path": bytes(193)},
    ],
)
def test_a_record_beyond_its_bounds_is_none(fields: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        replace(one_record(), **fields)


# Grinding at home: 200 honest candidates, three of one owner who also has the asker and the prover.

OWN = {it.peer: it for it in (key_of(f"own {at}") for at in range(3))}
HONEST = {it.peer: it for it in (key_of(f"honest {at}") for at in range(200))}
ALL = OWN | HONEST
NEEDED, VERIFIERS = 2, 3


def wins(order: list[PeerId]) -> bool:
    return sum(it in OWN for it in order[:VERIFIERS]) >= NEEDED


def ground(
    mix_at_home: Callable[[bytes], bytes], chance: Random, candidates: Mapping[PeerId, Any] = ALL
) -> tuple[bytes, int]:
    """A secret that draws own verifiers, as far as is known at home, and how many were tried."""
    for tries in count(1):
        secret = chance.randbytes(32)
        words = secret + RECEIPT + mix_at_home(secret)
        ranks = {hashlib.sha256(words + it).digest(): it for it in candidates}
        if wins([ranks[it] for it in sorted(ranks)[:VERIFIERS]]):
            return secret, tries
    raise AssertionError


def test_an_asker_and_a_prover_of_one_owner_try_secrets_until_both_verifiers_are_its_own() -> None:
    """As it was: with what stands in the receipt everything is known at home."""
    secret, tries = ground(lambda _: b"", Random(3))
    assert tries < 5000
    assert wins(draw(secret, RECEIPT, ALL)[:VERIFIERS])


def test_what_suits_at_home_is_drawn_by_chance_where_candidates_contribute() -> None:
    chance, won, rounds = Random(3), 0, 8
    # Among fewer, so that own verifiers are found soon.
    keys = OWN | dict(list(HONEST.items())[:60])
    weights = dict.fromkeys(keys, 0)
    for _ in range(rounds):
        # The best that it can do is to guess: what others give it cannot work out.
        secret, _ = ground(lambda secret: hashlib.sha256(secret).digest(), chance, keys)
        leaves = [leaf_of(secret, RECEIPT, weights)]
        _, mix = contributed(leaves, ASKER.peer, keys)
        won += wins(weighted_draw(secret, RECEIPT, weights, mix))
    assert won == 0


def test_contributors_are_never_all_its_own_for_who_has_fewer_keys_than_contribute() -> None:
    asker, chance = ASKER.peer, Random(5)
    for _ in range(300):
        order = contributors(words_of(asker, chance.randbytes(32), 1), dict.fromkeys(ALL, 0))
        # Whom it claims to be silent must be named, and those are two at most.
        assert sum(it in HONEST for it in order[:7]) > limits.ABSENT_MAX


def test_claiming_that_some_were_silent_chooses_among_few_draws() -> None:
    leaves = [leaf_of(SECRET, RECEIPT, WEIGHTS)]
    order = contributors(words_of(ASKER.peer, root_of(leaves), 1), WEIGHTS)
    mixes = set()
    for first in range(7):
        for second in range(first, 7):
            absent = {order[first], order[second]}
            gave = [it for it in order if it not in absent][: limits.CONTRIBUTORS]
            named = tuple(sorted(it for it in absent if order.index(it) < order.index(gave[-1])))
            (record,), mix = contributed(leaves, ASKER.peer, absent=named)
            assert opened(record) == mix
            mixes.add(mix)
    assert len(mixes) == draws_to_choose_from(limits.ABSENT_MAX) == 21
    assert [draws_to_choose_from(it) for it in (0, 1)] == [1, 6]


# What an auditor says.


def mixed_answer(absent: int = 0, later: int = 0) -> Signed[Answer]:
    """An answer that the verifiers checked whom candidates' contributions had drawn."""
    plain = answer_to()
    receipt = open_signed(plain.record.receipts[0], Receipt)
    names = sorted(KEYS)
    among = dict.fromkeys(names[later:], 0)
    leaves = [leaf_of(SECRET, receipt.id, among)]
    order = contributors(words_of(ASKER.peer, root_of(leaves), 1), among)
    keys = {it: KEYS[it] for it in among}
    (record,), mix = contributed(leaves, ASKER.peer, keys, tuple(sorted(order[:absent])))
    drawn = names[:later] + weighted_draw(SECRET, receipt.id, among, mix)
    verdicts = [verdict_on(receipt, KEYS[it], part).raw for part, it in enumerate(drawn[:2], 1)]
    return changed(
        plain,
        candidates=tuple(names),
        verdicts=tuple(verdicts),
        mixed=(replace(record, besides=tuple(range(later))),),
    )


def points_of(answer: Signed[Answer]) -> dict[str, Point]:
    return {it.what: it for it in audit(answer.raw, have, now_ms=NOW_MS + 2000).points}


THEIRS = "what candidates contributed to the draw for leg 1 is their own"


def test_an_auditor_redraws_with_what_candidates_contributed() -> None:
    answer = mixed_answer()
    points = points_of(answer)
    assert points[THEIRS].status is Status.HOLDS
    assert not any("drawn before them" in it or "gave no verdict" in it for it in points)
    home = points["whether all contributors to the draw for leg 1 are the asker's own"]
    assert "of the 12 candidates" in home.detail
    assert audit(answer.raw, have, now_ms=NOW_MS + 2000).holds


def test_an_auditor_says_what_silent_contributors_and_late_candidates_leave_open() -> None:
    answer = mixed_answer(absent=2)
    (silent,) = [it for what, it in points_of(answer).items() if "contributed nothing" in what]
    assert "chooses among 21 draws" in silent.detail
    assert audit(answer.raw, have, now_ms=NOW_MS + 2000).holds
    (late,) = [it for what, it in points_of(mixed_answer(later=2)).items() if "were drawn" in what]
    assert late.is_limit


def test_of_a_draw_without_contributions_the_auditor_says_on_whom_it_rests() -> None:
    points = points_of(answer_to())
    alone = points["whether the draw for leg 1 was tried until it suited the asker"]
    assert (alone.status, alone.is_limit) == (Status.UNKNOWN, True)
    assert "at home" in alone.detail
    assert audit(answer_to().raw, have, now_ms=NOW_MS + 2000).holds


@pytest.mark.parametrize(
    "changes",
    [
        lambda it: {"mixed": (replace(it.mixed[0], proofs=it.mixed[0].proofs[::-1]),)},
        lambda it: {"mixed": (replace(it.mixed[0], besides=(511,), absent=(ASKER.peer,)),)},
        lambda it: {"mixed": (replace(it.mixed[0], besides=(0,)),)},
        lambda it: {"candidates": it.candidates[1:]},
        lambda it: {"weights": (1,) * len(it.candidates)},
    ],
)
def test_an_answer_with_contributions_that_do_not_fit_does_not_hold(
    changes: Callable[[Answer], dict[str, Any]],
) -> None:
    answer = mixed_answer()
    altered = changed(answer, **changes(answer.record))
    assert points_of(altered)[THEIRS].status is Status.FAILS
    assert not audit(altered.raw, have, now_ms=NOW_MS + 2000).holds


def test_a_flood_of_candidates_displaces_neither_who_checked_nor_who_contributed() -> None:
    every = sorted(key_of(f"known {at}").peer for at in range(limits.CANDIDATES_MAX + 300))
    # Of the last in order: a flood can have any keys.
    drawn = dict.fromkeys(every[-20:], 1)
    record = mixed_answer().record.mixed[0]
    signed, mixed = [every[-30], every[-25]], Drawn(drawn, bytes(32), record)
    listed = listed_of(every, signed, None, mixed)
    assert list(listed) == sorted(listed)
    assert len(listed) == limits.CANDIDATES_MAX
    assert {*signed, *drawn} <= set(listed)
    kept = mixed.kept(0, {it: drawn.get(it, 0) for it in listed})
    assert kept is not None
    assert len(kept.besides) == limits.CANDIDATES_MAX - len(drawn)


def test_one_leg_is_drawn_for_once() -> None:
    answer = mixed_answer()
    with pytest.raises(Malformed):
        replace(answer.record, mixed=answer.record.mixed * 2)


# In a network.


async def network_of(network: Network, verifiers: int = 8) -> Node:
    await network.start(S)
    await network.start(I, S)
    for _ in range(verifiers):
        await network.start(V, S, engine=Counted())
    await network.settled()
    return network.nodes[0]


async def answer_of(asker: Node, text: str = "one") -> Signed[Answer]:
    answered, _ = await asked(asker, request(data=texts_of("a", text), deadline_s=60))
    return answered.answer


def report_of(answer: Signed[Answer]) -> AuditReport:
    return audit(answer.raw, lambda _: None)


async def test_an_answer_keeps_what_candidates_contributed_and_who_they_drew_checked_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network_of(network)
        began_at_s = trio.current_time()
        answer = await answer_of(asker)
        assert trio.current_time() - began_at_s < 2
        (record,) = answer.record.mixed
        assert (record.count, record.absent, record.besides) == (1, (), ())
        report = report_of(answer)
        assert report.holds
        assert THEIRS in {it.what for it in report.points if it.status is Status.HOLDS}
        receipt = open_signed(answer.record.receipts[0], Receipt)
        verdicts = [open_signed(it, Verdict).signer for it in answer.record.verdicts]
        order = drawn_order(AuditReport(), answer.record, asker.peers.me, receipt, verdicts)
        assert set(verdicts) <= set(order[:3])


def to_check(secret: bytes) -> CheckRequest:
    """An attempt's own receipt, with a secret of its own."""
    task = open_signed(answer_to().record.task, Task)
    receipt = open_signed(answer_to().record.receipts[0], Receipt)
    return CheckRequest(task=task, receipts=(receipt,), secret=secret, input=b"", output=b"")


async def draw_at(asker: Node, number: int) -> Drawn | None:
    """One draw, with all verifiers that the asker knows."""
    checking = asker.tasks.checking
    assert checking.contributions is not None
    weights = dict.fromkeys(checking.verifiers(MODEL), 0)
    return await checking.contributions.drawn(to_check(bytes([number]) * 32), weights, 60.0)


def contributions_of(asker: Node) -> Contributions:
    found = asker.tasks.checking.contributions
    assert found is not None
    return found


async def test_receipts_that_are_checked_at_once_have_one_contribution_among_them(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network_of(network)
        found = list[Drawn | None]()

        async def one(number: int) -> None:
            found.append(await draw_at(asker, number))

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(one, number)
        assert sorted(it.record.count for it in found if it is not None) == [36] * 36 + [64] * 64
        assert len({it.mix for it in found if it is not None}) == 2


async def test_with_few_candidates_nobody_is_asked_to_contribute(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network_of(network, verifiers=7)
        answer = await answer_of(asker)
        assert not answer.record.mixed
        assert report_of(answer).holds


async def test_verifiers_of_an_earlier_version_are_named_as_absent_or_the_asker_draws_alone(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network_of(network, verifiers=9)
        older = set[PeerId]()
        for old, contributing in ((2, True), (6, False)):
            for node in network.nodes[2 : 2 + old]:
                node.peers.neighbours.speaks = limits.CONTRIBUTIONS_VERSION - 1
                asker.peers.neighbours._versions.pop(node.peers.me, None)
                node.peers.handlers.pop(AskContribution, None)
                older.add(node.peers.me)
            for number in range(4):
                drawn = await draw_at(asker, number)
                assert (drawn is not None) is contributing
                assert drawn is None or older.issuperset(drawn.record.absent)
        assert all(asker.peers.standing(it) is Standing.GOOD for it in older)
        answer = await answer_of(asker)
        assert not answer.record.mixed
        assert report_of(answer).holds


async def test_an_asker_of_an_earlier_version_has_its_answers_checked_as_ever(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network_of(network)
        asker.tasks.checking.contributions = None
        answer = await answer_of(asker)
        assert not answer.record.mixed
        assert len(answer.record.verdicts) >= 2


Giving = Callable[[TypedCall, AskContribution, Outsider], Awaitable[None]]


async def wrong_proof(call: TypedCall, message: AskContribution, me: Outsider) -> None:
    await call.send(Contributed(proof=bytes(80)))


async def of_another_root(call: TypedCall, message: AskContribution, me: Outsider) -> None:
    words = words_of(call.peer, bytes(32), message.count)
    await call.send(Contributed(proof=prove(me.key, words)))


async def of_another_key(call: TypedCall, message: AskContribution, me: Outsider) -> None:
    words = words_of(call.peer, message.root, message.count)
    await call.send(Contributed(proof=prove(key_of("a friend"), words)))


async def silence(call: TypedCall, message: AskContribution, me: Outsider) -> None:
    await trio.sleep_forever()


async def refusal(call: TypedCall, message: AskContribution, me: Outsider) -> None:
    await call.send(Refuse(reason="not today", retry_after_ms=None))


GIVING: list[tuple[Giving, bool]] = [
    (silence, False),
    (refusal, False),
    (wrong_proof, True),
    (of_another_root, True),
    (of_another_key, True),
]


async def test_who_gives_no_proof_of_its_own_is_absent_and_costs_the_asker_little(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network_of(network)
        async with network.outsider(V) as rogue:
            gives = [silence]

            async def answer(call: TypedCall, message: Message) -> None:
                assert isinstance(message, AskContribution)
                await gives[0](call, message, rogue)

            rogue.answer(AskContribution, answer)
            numbers, cost = iter(range(250)), 0.0
            for giving, is_blamed in GIVING:
                gives[0] = giving
                contributions_of(asker)._absent_until_at_s.clear()
                rogue.asked.clear()
                while not rogue.asked:
                    began_at_s = trio.current_time()
                    drawn = await draw_at(asker, next(numbers))
                assert drawn is not None
                assert drawn.record.absent == (rogue.key.peer,)
                assert trio.current_time() - began_at_s < 4
                before, cost = cost, asker.peers.scores.cost(rogue.key.peer, trio.current_time())
                assert (cost > before + 3) is is_blamed
                # For a while it is not asked again.
                for _ in range(6):
                    assert await draw_at(asker, next(numbers)) is not None
                assert len(rogue.asked) == 1
            # Whoever asked for it gets an answer that holds.
            found = await answer_of(asker)
            assert found.record.mixed
            assert report_of(found).holds


async def test_ten_thousand_asks_are_refused_when_they_are_too_many(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0

    def counting(key: SigningKey, words: bytes) -> bytes:
        nonlocal made
        made += 1
        return bytes(80)

    monkeypatch.setattr(contribute_role, "prove", counting)
    async with open_network(tmp_path) as network:
        node = await network.start(V, S, engine=Counted())
        role = contribute_role.ContributeRole(node.peers, willing=True)
        refused, many = 0, [key_of(str(number)).peer for number in range(50)]
        for number in range(10_000):
            try:
                role._check_room(many[number % 50], 64, trio.current_time())
            except Refused as error:
                refused += error.retry_after_s is not None
        assert 10_000 - refused <= contribute_role.ANSWERS_AT_ONCE
        assert not made
        with pytest.raises(Refused, match="does not verify"):
            contribute_role.ContributeRole(node.peers, willing=False)._check_room(
                ASKER.peer, 1, 0.0
            )


@pytest.mark.parametrize("host", ["11.0.0.7", ""])
async def test_many_keys_at_one_address_or_at_none_leave_others_their_room(
    autojump_clock: MockClock, tmp_path: Path, host: str
) -> None:
    async with open_network(tmp_path) as network:
        node = await network.start(V, S, engine=Counted())
        role, origins = contribute_role.ContributeRole(node.peers, True), node.peers.view.origins
        flood, honest = [key_of(f"flood {number}").peer for number in range(2000)], key_of("x").peer
        for peer in flood:
            origins.came_from(peer, host)
        origins.came_from(honest, "12.0.0.1")
        for _ in range(5):
            refused = 0
            for peer in flood:
                try:
                    role._check_room(peer, 1, trio.current_time())
                except Refused:
                    refused += 1
            assert refused > 0
            role._check_room(honest, 64, trio.current_time())
            await trio.sleep(1.0)


async def test_one_asker_that_asks_too_much_leaves_others_their_room(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        node = await network.start(V, S, engine=Counted())
        async with network.outsider(S) as flood, network.outsider(S) as other:
            refused = 0
            for number in range(12):
                words = AskContribution(root=bytes([number]) * 32, count=64)
                try:
                    async with flood.peers.call(node.peers.me, deadline_s=5) as call:
                        await call.send(words)
                        await call.expect(Contributed)
                except Refused:
                    refused += 1
            assert refused
            async with other.peers.call(node.peers.me, deadline_s=5) as call:
                await call.send(AskContribution(root=bytes(32), count=1))
                proof = (await call.expect(Contributed)).proof
            words_asked = words_of(other.key.peer, bytes(32), 1)
            assert output_of(node.peers.me, words_asked, proof)
            with pytest.raises(BadSignature):
                output_of(node.peers.me, words_of(flood.key.peer, bytes(32), 1), proof)
