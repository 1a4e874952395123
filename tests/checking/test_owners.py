"""Verifiers that may be one owner's: kept apart where others are known, and said where not."""

from math import comb
from pathlib import Path

import pytest
from trio.testing import MockClock

from node.checking.audit import audit
from node.checking.odds import odds_of_draw, odds_of_task, raised_by
from node.checking.quorum import Checking
from node.checking.report import Status
from node.checking.ties import NEAR, Ties, apart_first, tied_among, ties_of
from p2p.score import Standing
from tests.checking.test_disputes import answer_of
from tests.node.asking import TEXTS, VECTORS, asked, request, signers, texts_of
from tests.node.engines import Counted, Liar, one_row
from tests.node.network import I, S, V, open_network
from tests.p2p.transports import key_of
from wire import limits
from wire.content import PeerId
from wire.lottery import draw
from wire.receipt import Receipt, Verdict
from wire.signed import open_signed

A, B, C, D = (key_of(name).peer for name in "ABCD")


@pytest.mark.parametrize(
    ("honest", "owned"), [(10, 0), (10, 1), (10, 3), (7, 7), (0, 3), (200, 20)]
)
def test_two_of_three_are_one_owners_as_often_as_counting_says(honest: int, owned: int) -> None:
    counted = comb(owned, 2) * honest + comb(owned, 3)
    assert odds_of_draw(owned, honest + owned, 2, 3) == counted / comb(honest + owned, 3)


def test_odds_are_of_those_that_there_are() -> None:
    assert odds_of_draw(2, 2, 2, 3) == 1.0
    assert odds_of_draw(1, 1, 2, 3) == 0.0
    assert odds_of_draw(5, 40, 1, 1) == 5 / 40


def test_trying_again_helps_less_where_more_is_needed_each_time() -> None:
    once = odds_of_draw(10, 100, 2, 3)
    assert odds_of_task(10, 100, 2, 3, 1) == pytest.approx(once)
    # Five tries at the same odds.
    as_before = 1 - (1 - once) ** 5
    assert once < odds_of_task(10, 100, 2, 3, 5) < as_before / 3


@pytest.mark.parametrize(
    ("rejected", "candidates", "raised"), [(0, 9, 0), (1, 3, 0), (1, 4, 1), (5, 6, 3), (2, 2, 0)]
)
def test_no_more_are_needed_than_there_are(rejected: int, candidates: int, raised: int) -> None:
    assert raised_by(rejected, candidates, 3) == raised


@pytest.mark.parametrize(
    ("one", "other", "tied"),
    [
        ("/ip4/203.0.114.7/tcp/1", "/ip4/203.0.9.9/tcp/2", True),
        ("/ip4/203.1.114.7/tcp/1", "/ip4/203.2.114.7/tcp/1", False),
        ("/ip6/2600:1:2::1/tcp/1", "/ip6/2600:1:3::1/tcp/1", True),
        ("/ip6/2600:1::1/tcp/1", "/ip6/2600:2::1/tcp/1", False),
        ("/ip6/::ffff:203.0.114.7/tcp/1", "/ip4/203.0.1.1/tcp/1", True),
        ("/ip4/127.0.0.1/tcp/1", "/ip4/192.168.4.4/tcp/2", True),
        ("/memory/4", "/ip4/10.0.0.1/tcp/1", True),
        ("/dns/a.example/tcp/1", "/dns/b.example/tcp/1", False),
    ],
)
def test_who_sits_side_by_side_is_tied(one: str, other: str, tied: bool) -> None:
    assert bool(ties_of(None, (one,)) & ties_of(None, (other,))) is tied
    assert bool(ties_of(A, (one,)) & ties_of(A, (other,)))


def test_who_claims_many_addresses_is_not_tied_to_everybody() -> None:
    many = ties_of(None, ("/ip4/203.1.1.1/tcp/1", "/ip4/203.2.1.1/tcp/1", "/ip4/203.3.1.1/tcp/1"))
    assert not many & ties_of(None, ("/ip4/203.2.9.9/tcp/1",))
    assert ties_of(None, ()) == {NEAR}


def test_tied_ones_are_asked_last_and_in_the_order_of_the_draw() -> None:
    ties: Ties = {
        A: frozenset({"x", "by n"}),
        B: frozenset({"y", "by n"}),
        C: frozenset({"z"}),
        D: frozenset({"z"}),
    }
    assert apart_first([A, B, C, D], (), ties) == [A, C, B, D]
    assert apart_first([B, D], (A, C), ties) == [B, D]
    assert apart_first([D, B], (), ties) == [D, B]
    # Nothing known of anybody ties nobody.
    assert apart_first([A, B, C], (), {}) == [A, B, C]
    assert (tied_among([A, B], ties), tied_among([A, C], ties), tied_among([A, B, C], ties)) == (
        2,
        0,
        2,
    )


async def test_of_one_owners_verifiers_one_is_asked_while_others_are_known(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        owned = {(await network.start(V, S)).peers.me for _ in range(4)}
        honest = [(await network.start(V, S)).peers.me for _ in range(2)]
        await network.settled()

        def ties(_: Checking, peers: set[PeerId]) -> Ties:
            return {it: frozenset({"one" if it in owned else str(it)}) for it in peers}

        monkeypatch.setattr(Checking, "ties", ties)
        both_first = 0
        for number in range(6):
            answered, _ = await asked(asker, request(data=texts_of(f"text {number}")))
            record = answered.answer.record
            checked = [open_signed(it, Verdict).signer for it in record.verdicts]
            assert len(checked) == 2
            assert len(owned.intersection(checked)) <= 1
            assert record.tied == 0
            receipt = open_signed(record.receipts[-1], Receipt)
            first = draw(record.secret, receipt.id, record.candidates)[:2]
            both_first += owned.issuperset(first)
        # Without this some answers would have been the one owner's alone.
        assert both_first
        assert len(honest) == 2


async def test_where_all_are_tied_they_are_asked_all_the_same_and_the_page_says_so(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        for _ in range(3):
            await network.start(V, S)
        await network.settled()
        answered, _ = await asked(asker, request())
        assert answered.answer.record.tied == 2
        report = audit(answered.answer.raw, lambda _: None)
        assert report.holds
        (point,) = [it for it in report.points if "belong together" in it.what]
        assert point.status is Status.UNKNOWN
        assert "2 of the verifiers" in point.what


async def test_after_a_rejected_answer_one_verdict_more_is_needed(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S, judges=True)
        liar = await network.start(I, S, engine=Liar(one_row))
        honest = await network.start(I, S, engine=Counted())
        for _ in range(4):
            await network.start(V, S, engine=Counted())
        await network.settled()
        answered, _ = await asked(asker, request())
        assert signers(answered) == [honest.peers.me]
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED
        record = answered.answer.record
        assert record.attempts == 2
        assert len([open_signed(it, Verdict).record.agrees for it in record.verdicts]) == 3
        assert audit(answered.answer.raw, lambda _: None).holds


def test_the_page_gives_the_odds_of_this_draw() -> None:
    answer = answer_of(VECTORS, TEXTS, 3, "one", "two")
    points = audit(answer.raw, lambda _: None).points
    (point,) = [it for it in points if "candidates of leg" in it.what]
    assert point.status is Status.UNKNOWN
    assert "how many of the 2 candidates" in point.what
    assert "1: 0.0 %" in point.detail.replace("%", " %")
    assert f"{limits.ATTEMPTS_MAX} times" in point.detail
