"""Links that work once, browsers that are remembered for a while, and guesses that are few."""

from random import Random

import pytest

from node.console.sessions import (
    GUESSERS_KEPT,
    GUESSES_AT_ONCE,
    LINK_LIFE_S,
    LINKS_MAX,
    SESSION_LIFE_S,
    SESSIONS_MAX,
    Sessions,
    cookie_of,
)


def sessions() -> Sessions:
    return Sessions(Random(1).randbytes)


def test_a_link_lets_one_browser_in_once() -> None:
    made = sessions()
    code = made.new_link(0.0)
    cookie = made.redeem(code, 1.0)
    assert cookie is not None
    assert made.redeem(code, 1.0) is None
    session = made.of(cookie, 2.0)
    assert session is not None
    assert session.confirms(session.token)
    assert not session.confirms(cookie)
    assert not session.confirms("")
    assert not session.confirms("\udcff" * 1000)


@pytest.mark.parametrize("code", ["", "0" * 48, "x" * 10_000, "\0"])
def test_a_code_that_nobody_made_is_no_good(code: str) -> None:
    made = sessions()
    made.new_link(0.0)
    assert made.redeem(code, 1.0) is None
    assert made.of(code, 1.0) is None


def test_an_old_link_is_no_good_and_an_idle_session_ends() -> None:
    made = sessions()
    assert made.redeem(made.new_link(0.0), LINK_LIFE_S + 1) is None
    cookie = made.begin(0.0)
    assert made.of(cookie, SESSION_LIFE_S - 1) is not None
    # It was used just now, so its life begins anew.
    assert made.of(cookie, 2 * SESSION_LIFE_S - 2) is not None
    assert made.of(cookie, 4 * SESSION_LIFE_S) is None


def test_links_and_sessions_are_bounded_and_the_oldest_go() -> None:
    made = sessions()
    codes = [made.new_link(0.0) for _ in range(LINKS_MAX + 1)]
    assert made.redeem(codes[0], 0.0) is None
    assert made.redeem(codes[1], 0.0) is not None
    cookies = [made.begin(0.0) for _ in range(SESSIONS_MAX + 1)]
    assert made.of(cookies[0], 0.0) is None
    assert made.of(cookies[-1], 0.0) is not None


def test_who_signs_out_is_forgotten() -> None:
    made = sessions()
    cookie = made.begin(0.0)
    made.end(cookie)
    made.end(cookie)
    assert made.of(cookie, 0.0) is None


def test_guesses_are_few_and_come_back_slowly() -> None:
    made = sessions()
    assert [made.may_guess(0.0) for _ in range(GUESSES_AT_ONCE + 1)].count(True) == GUESSES_AT_ONCE
    assert not made.may_guess(1.0)
    assert made.may_guess(3.5)
    assert not made.may_guess(3.6)


def test_a_cookie_is_found_among_others_and_not_believed_twice() -> None:
    assert cookie_of({"cookie": "a=1; baton=x ;b=2"}, "baton") == "x"
    assert cookie_of({"cookie": "baton=x; baton=y"}, "baton") == ""
    assert cookie_of({"cookie": ";;=;" * 1000}, "baton") == ""
    assert cookie_of({}, "baton") == ""


def test_who_guesses_bars_nobody_at_another_address() -> None:
    made = sessions()
    while made.may_guess(0.0, "192.0.2.1"):
        pass
    assert made.may_guess(0.0, "192.0.2.2")
    for number in range(2 * GUESSERS_KEPT):
        assert made.may_guess(1.0, f"2001:db8::{number:x}")
    assert len(made._guesses) == GUESSERS_KEPT
