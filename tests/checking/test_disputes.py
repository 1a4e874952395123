"""A row that one verifier proves wrong is not outvoted by verifiers that never looked at it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from node.asking.answers import agreeing
from node.checking.audit import audit
from node.checking.report import Status
from node.checking.votes import Votes, disputed_by
from p2p.score import Standing
from p2p.typed_call import TypedCall
from tests.bench.wrong_rows import measure
from tests.checking.test_verifiers import checked_by, find, verdict_of
from tests.node.asking import (
    SECRET,
    TEXTS,
    VECTORS,
    asked,
    failures,
    receipt_of,
    request,
    signers,
    task_of,
    texts_of,
    vectors_of,
)
from tests.node.engines import Counted, Liar, some_rows
from tests.node.network import I, Network, Outsider, S, V, open_network
from tests.p2p.transports import key_of
from wire import limits
from wire.errors import Malformed, RemoteProtocolError, TaskFailed, TransportError
from wire.lottery import Share, rows_of_part
from wire.message import Check, Message, VerdictReply
from wire.payload import Texts
from wire.receipt import Answer, Receipt, Verdict
from wire.signed import Signed, open_signed, sign
from wire.tree import name_of

MANY = tuple(f"text {number}" for number in range(64))
BEFORE_PARTS = limits.PARTS_VERSION - 1


def verdict(
    who: str, sampled: tuple[int, ...], wrong: tuple[int, ...] = (), **changes: Any
) -> Signed[Verdict]:
    """A verdict on 256 rows that calls `wrong` ones wrong."""
    fields: dict[str, Any] = {
        "receipt": name_of(b"receipt"),
        "secret": SECRET,
        "agrees": not wrong,
        "could_check": True,
        "rows": 256,
        "sampled": sampled,
        "worst_ppb": tuple(9000 if it in wrong else 7 for it in sampled),
        "profile": "",
        "reason": "",
        "checked_at_ms": 1,
        "duration_ms": 1,
    }
    return sign(Verdict(**(fields | changes)), key_of(who))


def votes_of(*verdicts: Signed[Verdict], needed: int = 2, verifiers: int = 3) -> Votes:
    votes = Votes(needed, verifiers)
    for one in verdicts:
        votes.add(one)
    return votes


NO = verdict("says no", (1, 2, 3), wrong=(2,))


def test_who_agreed_without_looking_at_the_row_does_not_outvote_who_proved_it_wrong() -> None:
    votes = votes_of(NO, verdict("a", (4, 5)), verdict("b", (6, 7)))
    assert votes.disputed == {2}
    assert votes.accepted is None
    assert votes.agreeing == []
    assert set(votes.not_looked) == {key_of("a").peer, key_of("b").peer}
    votes.add(verdict("a", (2, 4, 5)))
    assert votes.accepted is None
    votes.add(verdict("b", (2, 6, 7)))
    assert votes.accepted is True
    assert votes.not_looked == []


def test_who_looks_again_and_finds_it_wrong_too_ends_it() -> None:
    votes = votes_of(NO, verdict("a", (4, 5)))
    votes.add(verdict("a", (2, 4, 5), wrong=(2,)))
    assert votes.accepted is False


def test_one_signer_has_one_vote_and_takes_no_no_back() -> None:
    again = verdict("a", (4, 5)), verdict("a", (4, 6))
    assert votes_of(*again).accepted is None
    assert votes_of(*again, verdict("b", (1,))).accepted is True
    votes = votes_of(NO, verdict("says no", (1, 2, 3)), verdict("b", (2,)))
    assert votes.accepted is None
    assert votes.against == 1


def test_two_that_dispute_other_rows_end_it_together() -> None:
    votes = votes_of(NO, verdict("also no", (9, 10), wrong=(10,)), verdict("a", (2, 10)))
    assert votes.disputed == {2, 10}
    assert votes.accepted is False


def test_what_is_disputed_is_what_is_furthest_off_and_bounded() -> None:
    many = tuple(range(40))
    assert disputed_by(verdict("a", many, wrong=many).record) == set(
        range(limits.DISPUTED_ROWS_MAX)
    )
    apart = verdict("a", (3, 8, 9), wrong=(8,), worst_ppb=(20, 5000, 4000)).record
    assert disputed_by(apart) == {8}
    withheld = verdict("a", (), agrees=False, could_check=False).record
    assert disputed_by(withheld) == frozenset()


def test_two_with_the_same_part_have_not_looked_at_the_whole() -> None:
    votes = Votes(2, 3)
    for who, part in (("a", 1), ("b", 1)):
        votes.add(verdict(who, (1, 2)), part)
    assert votes.accepted is None
    assert votes.part_wanted(()) == 2
    assert votes.part_wanted((2,)) == 1 or votes.part_wanted((2, 2, 2)) == 1
    votes.add(verdict("c", (3, 4)), 2)
    assert votes.accepted is True


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [1, 3, 4, 7, 64, 255, 256])
def test_all_parts_together_are_all_rows(rows: int, parts: int) -> None:
    each = [
        rows_of_part(SECRET, name_of(b"receipt"), rows, it, parts) for it in range(1, parts + 1)
    ]
    assert set().union(*each) == set(range(rows))
    assert all(list(it) == sorted(set(it)) for it in each)
    assert max(map(len, each)) <= max(4, -(-rows // parts))


# In a network.


def wanted(*texts: str, **terms: Any) -> Any:
    return request(data=texts_of(*(texts or MANY)), deadline_s=60, **terms)


async def verifiers(network: Network, count: int = 3) -> None:
    for _ in range(count):
        await network.start(V, S, engine=Counted())
    await network.settled()


async def test_one_wrong_row_of_many_is_found_by_whoever_draws_it_and_then_by_the_others(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S, judges=True)
        liar = await network.start(I, S, engine=Liar(some_rows(17)))
        honest = await network.start(I, S, engine=Counted())
        await verifiers(network)
        answered, events = await asked(asker, wanted())
        assert answered.output == vectors_of(*MANY)
        assert signers(answered) == [honest.peers.me]
        assert [it.peer for it in failures(events, "answer rejected")] == [liar.peers.me]
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED


def invents(row: int) -> Any:
    """A verifier that calls a right row wrong."""

    async def answer(call: TypedCall, check: Check, me: Outsider) -> None:
        receipt = open_signed(check.receipts[-1], Receipt)
        share = Share(check.part, check.parts, frozenset({*check.rows, row}))
        sampled = share.due(check.secret, receipt.id, me.key.peer, receipt.record.units)
        worst = tuple(900 * (it == row) for it in sampled)
        await find(call, check, me.key, agrees=False, sampled=sampled, worst_ppb=worst)

    return answer


async def until_disputed(asker: Any, rogue: Outsider) -> tuple[Any, Any]:
    """The first answer that the rogue was drawn for."""

    async def answer(call: TypedCall, message: Message) -> None:
        assert isinstance(message, Check)
        await invents(17)(call, message, rogue)

    rogue.answer(Check, answer)
    for number in range(30):
        found = await asked(asker, wanted(*MANY, str(number)))
        if rogue.asked:
            return found
    raise AssertionError


async def test_a_right_row_that_is_called_wrong_is_looked_at_by_the_others_who_decide(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S)
        await verifiers(network, 2)
        async with network.outsider(V) as rogue:
            answered, _ = await until_disputed(asker, rogue)
        assert signers(answered) == [worker.peers.me]
        assert answered.answer.record.attempts == 1
        assert asker.peers.standing(worker.peers.me) is Standing.GOOD
        good = [open_signed(it, Verdict) for it in answered.answer.record.verdicts]
        assert [it.record.agrees for it in good].count(True) == 2
        assert all(17 in it.record.sampled for it in good)
        report = audit(answered.answer.raw, lambda _: None)
        assert report.holds
        assert any("was decided" in it.what for it in report.points)
        # Had they not looked, the same votes would decide nothing.
        unlooked = [it.raw if not it.record.agrees else blind(network, it, (17,)) for it in good]
        altered = replace(answered.answer.record, verdicts=tuple(unlooked))
        report = audit(sign(altered, asker.dependencies.key).raw, lambda _: None)
        assert report.disputed
        assert not report.holds
        assert [it.what for it in report.points if it.status is Status.DISPUTED] == [
            "whether row 17 of leg 1 may be believed"
        ]


def blind(network: Network, seen: Signed[Verdict], rows: tuple[int, ...]) -> bytes:
    """The same verdict by the same verifier, had it not looked at these rows."""
    (key,) = [it.dependencies.key for it in network.nodes if it.peers.me == seen.signer]
    pairs = zip(seen.record.sampled, seen.record.worst_ppb, strict=True)
    left = [it for it in pairs if it[0] not in rows]
    sampled, worst = zip(*left, strict=True)
    return sign(replace(seen.record, sampled=sampled, worst_ppb=worst), key).raw


async def test_verifiers_too_old_for_a_dispute_check_as_ever_and_decide_none(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S)
        await verifiers(network, 2)
        for node in network.nodes[-2:]:
            node.peers.neighbours.speaks = BEFORE_PARTS
        answered, _ = await asked(asker, wanted("one", *MANY))
        good = [open_signed(it, Verdict).record for it in answered.answer.record.verdicts]
        # They draw an eighth of the rows, each for itself, and an auditor takes it still.
        assert [len(it.sampled) for it in good] == [9, 9]
        assert audit(answered.answer.raw, lambda _: None).holds
        async with network.outsider(V) as rogue:
            with pytest.raises(TaskFailed):
                await until_disputed(asker, rogue)
        # Nobody was shown to lie.
        assert asker.peers.standing(worker.peers.me) is Standing.GOOD


# One verifier, asked by hand.


async def test_a_verifier_looks_at_its_part_and_at_the_rows_in_dispute(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        await network.start(V, S)
        await network.settled()
        async with network.outsider() as asker:
            source, output = texts_of(*MANY), vectors_of(*MANY)
            task = task_of(asker.key, asker.peers.environment.wall_s(), source=name_of(source))
            receipt = receipt_of(task, key_of("worker"), output, units=64)
            own = rows_of_part(SECRET, receipt.id, 64, 2, 3)
            other = tuple(sorted(set(range(64)) - set(own)))[:2]
            asking: dict[str, Any] = {
                "task": task,
                "receipt": receipt,
                "input": source,
                "output": output,
                "part": 2,
                "parts": 3,
            }
            finding, _ = await checked_by(network, asker, **asking, rows=other)
            assert isinstance(finding, VerdictReply)
            found = open_signed(finding.verdict, Verdict).record
            assert found.agrees
            assert found.sampled == tuple(sorted((*own, *other)))
            with pytest.raises((TransportError, RemoteProtocolError)):
                await checked_by(network, asker, **asking, rows=(64,))
            assert network.nodes[0].peers.standing(asker.key.peer) is not Standing.GOOD


@pytest.mark.parametrize(
    "changes",
    [
        {"part": 1},
        {"part": 3, "parts": 2},
        {"parts": 2},
        {"rows": (1,)},
        {"part": 1, "parts": 2, "rows": (2, 1)},
        {"part": 1, "parts": 2, "rows": (1, 1)},
    ],
)
def test_a_check_of_no_part_is_never_born(changes: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"task": b"task", "receipts": (), "secret": SECRET}
    fields |= {"input": None, "output": None, "deadline_ms": 1}
    Check(**fields)
    with pytest.raises(Malformed):
        Check(**fields, **changes)


# Offline.


def answer_of(output: bytes, source: bytes, units: int, *looked: str) -> Signed[Answer]:
    """An answer whose owner made everything of it: task, work and verdicts."""
    asker, worker = key_of("asker"), key_of("worker")
    task = task_of(asker, 1_800_000_000.0, source=name_of(source))
    receipt = receipt_of(task, worker, output, units=units)
    verdicts = [
        verdict_of(receipt, SECRET, key_of(who), share=Share(part, 2))
        for part, who in enumerate(looked, 1)
    ]
    record = Answer(
        task=task.raw,
        receipts=(receipt.raw,),
        secret=SECRET,
        candidates=tuple(sorted(key_of(it).peer for it in looked)),
        verdicts=tuple(verdicts),
        attempts=1,
        answered_at_ms=1_800_000_001_000,
        duration_ms=1000,
    )
    return sign(record, asker)


@pytest.mark.parametrize(
    ("output", "units", "detail"),
    [
        (b"seventeen bytes !", 256, ""),
        (VECTORS, 3, "3 rows for 256 texts"),
        (VECTORS, 256, "3 rows where 256 were signed for"),
    ],
)
def test_an_output_without_a_row_for_each_text_does_not_hold_whoever_vouches_for_it(
    output: bytes, units: int, detail: str
) -> None:
    source = Texts(texts=tuple(map(str, range(256)))).to_bytes()
    answer = answer_of(output, source, units, "friend", "brother")
    at_hand = {name_of(it): it for it in (source, output)}
    report = audit(answer.raw, at_hand.get)
    failing = [it for it in report.points if it.status is Status.FAILS]
    assert [it.what for it in failing] == [
        "the output of leg 1 has a row for each text of its input"
    ]
    assert detail in failing[0].detail


def test_the_page_says_how_much_was_looked_at_and_what_that_would_have_found() -> None:
    output = vectors_of(*MANY)
    answer = answer_of(output, texts_of(*MANY), 64, "one", "two")
    points = audit(answer.raw, lambda _: None).points
    (point,) = [it for it in points if "wrong row" in it.what]
    assert point.status is Status.UNKNOWN
    assert "probability of 100 %" in point.detail
    assert "64 of 64 rows" in point.detail
    assert "with 50 % if one of them lied" in point.detail


def test_the_second_verdict_of_one_signer_adds_nothing() -> None:
    answer = answer_of(VECTORS, TEXTS, 3, "one")
    twice = replace(answer.record, verdicts=answer.record.verdicts * 2)
    report = audit(sign(twice, key_of("asker")).raw, lambda _: None)
    assert not report.holds
    assert any("1 of 2 needed verdicts" in it.what for it in report.points)


async def test_no_answer_with_a_few_wrong_rows_is_accepted_and_all_right_ones_are(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    found = await measure(tmp_path, 3)
    assert {count: (one.accepted, one.rejected) for count, one in found.items()} == {
        0: (3, 0),
        1: (0, 3),
        4: (0, 3),
        8: (0, 3),
        16: (0, 3),
    }
    # Who checks right answers recomputes each row once, all together.
    assert found[0].work_share == 1.0


async def test_where_a_verifier_lies_no_row_that_another_proved_wrong_is_accepted(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    found = await measure(tmp_path, 6, wrong=(1,), lying=1)
    # What lies in the liar's own part is not found; a seed decides how often that is.
    assert found[1].though_proved == 0
    assert found[1].rejected > 0


def test_a_kept_answer_with_a_dispute_that_nobody_decided_is_not_given_again() -> None:
    answer = answer_of(vectors_of(*MANY), texts_of(*MANY), 64, "one", "two").record
    assert agreeing(answer) == 2
    receipt = open_signed(answer.receipts[0], Receipt)
    looked = {it: open_signed(raw, Verdict) for it, raw in zip("ab", answer.verdicts, strict=True)}
    row = looked["a"].record.sampled[0]
    no = verdict_of(receipt, SECRET, key_of("no"), agrees=False, sampled=(row,), worst_ppb=(9,))
    disputed = replace(answer, verdicts=(*answer.verdicts, no))
    # The other one looked elsewhere.
    assert row not in looked["b"].record.sampled
    assert agreeing(disputed) == 1
