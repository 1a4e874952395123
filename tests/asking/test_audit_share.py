"""Which share of unchecked answers is audited: more of strangers, of offenders and of dear work."""

import pytest

from node.asking.audit_share import KNOWN_AFTER, audited_share
from p2p.score import Standing
from wire.amount import CREDIT

SHARE = 0.05
GOOD = Standing.GOOD


def test_a_stranger_is_audited_four_times_as_often_and_who_was_checked_less_and_less() -> None:
    shares = [audited_share(SHARE, held, GOOD, 0) for held in range(200)]
    assert shares[0] == pytest.approx(4 * SHARE)
    assert shares[KNOWN_AFTER] == pytest.approx(SHARE)
    assert shares[40] == pytest.approx(SHARE / 4)
    assert shares == sorted(shares, reverse=True)
    # The floor: a cheat that waits until it is trusted is looked at all the same.
    assert set(shares[40:]) == {SHARE / 4}


@pytest.mark.parametrize("standing", [Standing.UNWELCOME, Standing.BANNED])
def test_who_has_offended_is_audited_as_a_stranger_however_often_it_held(
    standing: Standing,
) -> None:
    assert audited_share(SHARE, 1000, standing, 0) == audited_share(SHARE, 0, GOOD, 0)


def test_dear_work_is_audited_more_often_up_to_a_bound() -> None:
    proven = [audited_share(SHARE, 1000, GOOD, paid) for paid in (0, CREDIT, 3 * CREDIT)]
    assert proven == pytest.approx([SHARE / 4, SHARE / 2, SHARE])
    most = audited_share(SHARE, 1000, GOOD, 2**62)
    assert most == audited_share(SHARE, 1000, GOOD, 7 * CREDIT) == pytest.approx(2 * SHARE)


def test_a_share_is_never_more_than_all_and_none_stays_none() -> None:
    assert audited_share(1.0, 0, Standing.UNWELCOME, 2**62) == 1.0
    assert audited_share(0.0, 0, GOOD, 2**62) == 0.0
