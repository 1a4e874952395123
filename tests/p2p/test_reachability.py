"""Two of three strangers have to have met us at an address before anybody is told of it."""

from random import Random

from p2p.ip_address import Scope, is_public, network_of
from p2p.reachability import (
    AGAIN_S,
    FOUND_S,
    SETTLE_S,
    SOON_S,
    CallBack,
    Reach,
    Reachability,
    Stranger,
)
from tests.p2p.transports import key_of

ME = key_of("me").peer
HOST = "45.9.0.10"
LISTENING = (f"/ip4/{HOST}/tcp/4747/p2p/{ME}", f"/ip4/127.0.0.1/tcp/4747/p2p/{ME}")
AT_HOME = (f"/ip4/192.168.1.2/tcp/4747/p2p/{ME}", f"/ip4/127.0.0.1/tcp/4747/p2p/{ME}")
STRANGERS = [Stranger(key_of(str(it)).peer, f"45.{it}.0.1") for it in range(1, 6)]


def core(listening: tuple[str, ...] = LISTENING) -> Reachability:
    found = Reachability(ME, Random(1))
    found.to_ask((), listening, 0.0)
    return found


def answers(*reached: bool, host: str = HOST) -> list[CallBack]:
    return [CallBack(STRANGERS[at], host, yes) for at, yes in enumerate(reached)]


def test_two_of_three_confirm() -> None:
    for said, confirmed in (
        ((True, True, False), True),
        ((True, False, False), False),
        ((True, False), False),
        # While there is nobody else, all there are have to say so.
        ((True, True), True),
        ((True,), True),
        ((False,), False),
    ):
        found = core()
        found.judge(answers(*said), 0.0)
        assert bool(found.confirmed) is confirmed, said
        found.conclude(True, False, 1.0)
        assert found.reach is (Reach.OPEN if confirmed else Reach.ALONE)


def test_one_liar_names_no_address_of_another() -> None:
    found = core()
    found.judge([*answers(True, True), CallBack(STRANGERS[2], "45.66.0.1", True)], 0.0)
    assert list(found.confirmed) == [f"/ip4/{HOST}/tcp/4747"]
    found.judge([*answers(False, False), CallBack(STRANGERS[2], "45.66.0.1", True)], 0.0)
    assert not found.confirmed


def test_strangers_of_one_network_are_asked_once() -> None:
    found = core()
    neighbours = [Stranger(key_of(f"n{it}").peer, f"45.1.{it}.1") for it in range(20)]
    asked = found.to_ask([*neighbours, *STRANGERS[1:]], LISTENING, 0.0)
    assert len({network_of(it.host) for it in asked}) == len(asked) == 3


def test_others_are_asked_the_next_time() -> None:
    found = core()
    first = found.to_ask(STRANGERS, LISTENING, 0.0)
    found.judge([CallBack(it, HOST, True) for it in first], 0.0)
    assert not found.to_ask(STRANGERS, LISTENING, AGAIN_S - 1)
    second = found.to_ask(STRANGERS, LISTENING, 2 * AGAIN_S)
    assert len({*first} & {*second}) == 1


def test_it_waits_a_moment_for_three_and_asks_again_soon_when_they_were_fewer() -> None:
    found = core()
    assert not found.to_ask(STRANGERS[:1], LISTENING, 0.0)
    assert len(found.to_ask(STRANGERS[:1], LISTENING, SETTLE_S)) == 1
    found.judge(answers(True), SETTLE_S)
    assert found.confirmed
    assert not found.to_ask(STRANGERS, LISTENING, SETTLE_S + SOON_S - 1)
    # Nobody is asked twice within a minute, but others are, and all their answers count.
    others = found.to_ask(STRANGERS[:3], LISTENING, SETTLE_S + 2 * SOON_S)
    assert {*others} == {*STRANGERS[1:3]}
    found.judge([CallBack(it, HOST, False) for it in others], SETTLE_S + 2 * SOON_S)
    assert not found.confirmed
    assert not found.to_ask(STRANGERS, LISTENING, SETTLE_S + AGAIN_S)


def test_what_was_found_long_ago_counts_no_more() -> None:
    found = core()
    found.judge(answers(True, True), 0.0)
    found.judge([CallBack(STRANGERS[2], HOST, False)], FOUND_S + 1)
    assert not found.confirmed


def test_a_change_of_address_is_asked_about_at_once() -> None:
    found = core()
    found.judge(answers(True, True, True), 0.0)
    moved = (f"/ip4/45.10.0.10/tcp/4747/p2p/{ME}",)
    assert len(found.to_ask(STRANGERS, moved, 1.0)) == 3


def test_where_nothing_but_this_machine_could_call_nobody_is_asked() -> None:
    found = core(LISTENING[1:])
    assert not found.to_ask(STRANGERS, LISTENING[1:], 60.0)


def test_an_address_that_is_no_interface_of_ours_is_mapped() -> None:
    found = core(AT_HOME)
    found.judge(answers(True, True, False), 0.0)
    found.conclude(True, False, 1.0)
    assert found.reach is Reach.MAPPED


def test_adverts_say_what_is_true_for_who_hears_them() -> None:
    found = core(AT_HOME)
    kept = (f"/ip4/45.1.0.1/tcp/4747/p2p/{STRANGERS[0].peer}/p2p-circuit/p2p/{ME}",)

    def said(*nearby: Scope, far: bool = False, kept: tuple[str, ...] = ()) -> tuple[str, ...]:
        return found.announced(AT_HOME, kept, nearby, far)

    # Nobody hears; peers of this machine; of its network; across the internet.
    assert said() == AT_HOME
    assert said(Scope.LOOPBACK) == AT_HOME
    assert said(Scope.PRIVATE) == AT_HOME[:1]
    assert said(Scope.GLOBAL, far=True) == ()
    assert said(Scope.GLOBAL, far=True, kept=kept) == kept
    assert said(Scope.GLOBAL, Scope.PRIVATE, far=True, kept=kept) == (*kept, AT_HOME[0])


def test_a_public_address_is_said_when_it_was_confirmed_or_nobody_can_tell() -> None:
    found = core()
    assert found.announced(LISTENING, (), [Scope.GLOBAL], False) == LISTENING[:1]
    assert found.announced(LISTENING, (), [Scope.GLOBAL], True) == ()
    found.judge(answers(True, True, True), 0.0)
    assert found.announced(LISTENING, (), [Scope.GLOBAL], True) == LISTENING[:1]
    found.judge(answers(False, False, False), 0.0)
    assert found.announced(LISTENING, (), [Scope.GLOBAL], False) == ()


def test_what_is_public() -> None:
    assert is_public("45.9.0.10")
    assert is_public("2a01:4f8::1")
    for host in ("", "name.example", "127.0.0.1", "192.168.1.2", "100.64.0.2", "::1", "224.0.0.1"):
        assert not is_public(host), host


def test_how_long_it_has_been_so_counts_from_the_first_look() -> None:
    found = core()
    assert not found.conclude(False, False, 5000.0)
    assert (found.reach, found.since_at_s) == (Reach.NEARBY, 5000.0)
    assert not found.conclude(False, False, 5010.0)
    assert found.since_at_s == 5000.0
    assert found.conclude(True, False, 5020.0)
    assert (found.reach, found.since_at_s) == (Reach.ASKING, 5020.0)
