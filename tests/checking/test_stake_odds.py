"""What a share of the stake is worth in a draw: by the formula, by draws, and as `verify` says."""

import hashlib
from pathlib import Path
from random import Random

import pytest
from trio.testing import MockClock

from node.checking.audit import audit
from node.checking.odds import odds_of_attempts, odds_of_share, share_needed
from tests.node.asking import asked, request
from tests.node.network import I, S, V, open_network
from tests.wire.samples import BLOCK
from wire import limits
from wire.content import PeerId
from wire.lottery import weighted_draw
from wire.payload import Texts
from wire.receipt import Verdict
from wire.signed import open_signed

DRAWS = 700


def stakers(share: float, random: Random) -> tuple[dict[PeerId, int], set[PeerId]]:
    """Forty verifiers with stakes of all sizes, of which an attacker has about that share."""
    keys = [PeerId(hashlib.sha256(b"staker" + bytes((at,))).digest()) for at in range(40)]
    weights = {key: random.randint(80, 120) for key in keys}
    bad: set[PeerId] = set()
    while sum(weights[it] for it in bad) < share * sum(weights.values()):
        bad.add(keys[len(bad)])
    return weights, bad


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_the_formula_gives_what_draws_give(share: float) -> None:
    weights, bad = stakers(share, Random(3))
    real = sum(weights[it] for it in bad) / sum(weights.values())
    won = 0
    for at in range(DRAWS):
        secret = hashlib.sha256(b"secret" + at.to_bytes(4, "big")).digest()
        won += sum(it in bad for it in weighted_draw(secret, BLOCK, weights)[:3]) >= 2
    expected = odds_of_share(real, 2, 3)
    # Four standard deviations; with forty keys the odds are a little lower than with many.
    assert abs(won / DRAWS - expected) < 4 * (expected * (1 - expected) / DRAWS) ** 0.5 + 0.012


def test_the_table_of_the_field_notes_is_what_the_formula_gives() -> None:
    assert [round(odds_of_share(it, 2, 3), 3) for it in (0.1, 0.2, 0.3, 0.5)] == [
        0.028,
        0.104,
        0.216,
        0.5,
    ]
    assert round(odds_of_share(0.3, 5, 7), 3) == 0.029


def test_a_share_that_is_needed_has_the_odds_and_trying_often_needs_less() -> None:
    for odds in (0.01, 0.1, 0.5):
        once = share_needed(odds, 2, 3)
        often = share_needed(odds, 2, 3, attempts=limits.ATTEMPTS_MAX)
        assert odds_of_share(once, 2, 3) == pytest.approx(odds)
        assert odds_of_attempts(often, 2, 3, limits.ATTEMPTS_MAX) == pytest.approx(odds)
        assert often < once


def texts_of(number: int) -> bytes:
    return Texts(texts=tuple(f"{number}, {row}" for row in range(4))).to_bytes()


async def test_verifiers_with_stake_are_asked_first_and_the_page_says_what_share_wins(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        verifiers = [(await network.start(V, S)).peers.me for _ in range(6)]
        await network.settled()
        stakes = {verifiers[1]: 100, verifiers[4]: 60}
        asker.tasks.checking.weight = lambda it: stakes.get(it, 0)
        for number in range(3):
            answered, _ = await asked(asker, request(data=texts_of(number)))
            answer = answered.answer.record
            signed = {open_signed(it, Verdict).signer for it in answer.verdicts}
            assert signed == stakes.keys()
            assert dict(zip(answer.candidates, answer.weights, strict=True)) == {
                it: stakes.get(it, 0) for it in verifiers
            }
        report = audit(answered.answer.raw, lambda _: None)
        assert report.holds
        (point,) = [it for it in report.points if "what share of the stake" in it.what]
        assert (
            "went by 160 credits, staked or earned by those who staked, 100 of them" in point.detail
        )
        assert "5.9% for 1% (5.7% if it tries 8 times)" in point.detail
        # Without stakes the draw is by key, and the record has no weights.
        asker.tasks.checking.weight = lambda _: 0
        answered, _ = await asked(asker, request(data=texts_of(9)))
        assert answered.answer.record.weights == ()
