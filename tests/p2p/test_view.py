"""The view: the newest advert wins, goes by its TTL, and is not brought back by anybody else."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from p2p.view import Hearing, View, ViewConfig
from tests.p2p.adverts import MODEL, NOW_S, advert_of
from tests.p2p.transports import key_of
from wire import limits
from wire.content import ContentId
from wire.kinds import Role

SEQ = int(NOW_S * 1000)


def view_of(**config: int) -> View:
    return View(key_of("me").peer, b"my start", ViewConfig(**config))


def held(view: View, names: Iterable[str]) -> set[str]:
    return {name for name in names if view.advert_of(key_of(name).peer) is not None}


def test_the_newest_advert_wins_whatever_the_order() -> None:
    old, new = advert_of("a"), advert_of("a", seq=SEQ + 1, queue_s=3.0)
    forward, backward = view_of(), view_of()
    assert forward.hear(old, NOW_S) is Hearing.NEW
    assert forward.hear(new, NOW_S) is Hearing.NEWER
    assert backward.hear(new, NOW_S) is Hearing.NEW
    assert backward.hear(old, NOW_S) is Hearing.OLD
    for view in (forward, backward):
        assert view.advert_of(key_of("a").peer) == new
        assert len(view) == 1


def test_the_same_advert_twice_changes_nothing() -> None:
    view = view_of()
    view.hear(advert_of("a"), NOW_S)
    again = view.hear(advert_of("a"), NOW_S)
    assert again is Hearing.OLD
    assert not again.changed


def test_an_advert_is_no_candidate_from_the_second_its_ttl_ends() -> None:
    view = view_of()
    view.hear(advert_of("a", ttl_s=60), NOW_S)
    assert len(view.candidates(Role.INFER, MODEL, NOW_S + 59.9)) == 1
    assert view.candidates(Role.INFER, MODEL, NOW_S + 60) == []
    assert view.expire(NOW_S + 59.9) == []
    assert view.expire(NOW_S + 60) == [key_of("a").peer]
    assert len(view) == 0


def test_an_expired_advert_is_not_taken_in() -> None:
    view = view_of()
    assert view.hear(advert_of("a"), NOW_S + 90) is Hearing.EXPIRED
    assert len(view) == 0


def test_who_was_forgotten_comes_back_by_its_own_next_advert_only() -> None:
    view = view_of()
    old = advert_of("a", ttl_s=300)
    view.hear(old, NOW_S)
    view.forget(old.signer)
    # The copy is well within its TTL, and many neighbours still hold it.
    assert view.hear(old, NOW_S + 1) is Hearing.OLD
    assert view.advert_of(old.signer) is None
    assert view.hear(advert_of("a", seq=SEQ + 1), NOW_S + 1) is Hearing.NEW


def test_who_said_good_bye_is_off_the_list_at_once_and_stays_off() -> None:
    view = view_of()
    view.hear(advert_of("a"), NOW_S)
    assert view.hear(advert_of("a", seq=SEQ + 2, leaving=True), NOW_S) is Hearing.LEFT
    assert view.candidates(Role.DATA, None, NOW_S) == []
    # Its last advert before the good-bye may arrive after it.
    assert view.hear(advert_of("a", seq=SEQ + 1), NOW_S) is Hearing.OLD


def test_the_good_bye_of_a_stranger_is_no_news() -> None:
    view = view_of()
    assert view.hear(advert_of("a", leaving=True), NOW_S) is Hearing.OLD
    assert view.hear(advert_of("a"), NOW_S) is Hearing.OLD


def test_in_a_full_view_the_stranger_unheard_for_longest_makes_room() -> None:
    view = view_of(adverts_max=2)
    view.hear(advert_of("a"), NOW_S)
    # Said to be of the future, as a flood would say.
    view.hear(advert_of("b", issued_at_s=int(NOW_S) + 200), NOW_S)
    assert view.hear(advert_of("a", seq=SEQ + 1), NOW_S) is Hearing.NEWER
    assert view.hear(advert_of("c"), NOW_S) is Hearing.NEW
    assert held(view, "abc") == {"a", "c"}
    # It is not gone, so whoever tells of it again brings it back.
    older = advert_of("b", seq=SEQ - 1, issued_at_s=int(NOW_S) + 200)
    assert view.hear(older, NOW_S) is Hearing.OLD
    assert view.hear(advert_of("b", issued_at_s=int(NOW_S) + 200), NOW_S) is Hearing.NEW
    assert view.hear(advert_of("b", seq=SEQ + 1), NOW_S) is Hearing.NEWER
    assert held(view, "abc") == {"b", "c"}


def test_a_flood_of_strangers_hides_neither_our_neighbours_nor_newcomers() -> None:
    view = view_of(adverts_max=5)
    view.connected |= {key_of("near").peer, key_of("near later").peer}
    view.hear(advert_of("near"), NOW_S)
    for number in range(20):
        view.hear(advert_of(f"stranger {number}"), NOW_S)
    assert view.hear(advert_of("near later"), NOW_S) is Hearing.NEW
    assert view.hear(advert_of("newcomer"), NOW_S) is Hearing.NEW
    assert held(view, ("near", "near later", "newcomer")) == {"near", "near later", "newcomer"}
    assert len(view) == 5


def test_a_view_full_of_neighbours_refuses_others_until_one_is_gone() -> None:
    view = view_of(adverts_max=2)
    view.connected |= {key_of(name).peer for name in "abc"}
    view.hear(advert_of("a"), NOW_S)
    view.hear(advert_of("b"), NOW_S)
    assert view.hear(advert_of("c"), NOW_S) is Hearing.FULL
    assert view.hear(advert_of("stranger"), NOW_S) is Hearing.FULL
    assert view.hear(advert_of("a", seq=SEQ + 1), NOW_S) is Hearing.NEWER
    view.expire(NOW_S + 90)
    late = advert_of("c", issued_at_s=int(NOW_S) + 90, seq=SEQ + 90_000)
    assert view.hear(late, NOW_S + 90) is Hearing.NEW


def test_what_is_remembered_of_the_gone_is_bounded_and_the_latest_is_kept() -> None:
    view = view_of(remembered_max=3)
    names = [f"peer {number}" for number in range(10)]
    for name in names:
        view.hear(advert_of(name), NOW_S)
        view.forget(key_of(name).peer)
    assert len(view._gone) == 3
    assert view.hear(advert_of(names[-1]), NOW_S) is Hearing.OLD


def test_an_advert_from_a_clock_too_far_ahead_is_refused() -> None:
    view = view_of()
    connected = advert_of("a", issued_at_s=int(NOW_S) + limits.CLOCK_SKEW_S_MAX)
    far = advert_of("b", issued_at_s=int(NOW_S) + limits.CLOCK_SKEW_S_MAX + 1)
    assert view.hear(connected, NOW_S) is Hearing.NEW
    assert view.hear(far, NOW_S) is Hearing.CLOCK
    assert len(view) == 1


def test_another_protocol_version_is_refused() -> None:
    view = view_of()
    assert view.hear(advert_of("a", version=limits.PROTOCOL_VERSION + 1), NOW_S) is Hearing.VERSION
    assert len(view) == 0


def test_our_own_advert_and_that_of_a_copied_key_are_told_apart() -> None:
    view = view_of()
    assert view.hear(advert_of("me", instance=b"my start"), NOW_S) is Hearing.MINE
    assert view.hear(advert_of("me", instance=b"another1"), NOW_S) is Hearing.SAME_KEY
    assert len(view) == 0


def test_candidates_play_the_role_and_run_the_model() -> None:
    view = view_of()
    view.hear(advert_of("does all"), NOW_S)
    view.hear(advert_of("no models", models=()), NOW_S)
    view.hear(advert_of("data only", roles=1 << Role.DATA), NOW_S)

    def who(role: Role, model: ContentId | None) -> set[str]:
        found = {it.signer for it in view.candidates(role, model, NOW_S)}
        names = ("does all", "no models", "data only")
        return {name for name in names if key_of(name).peer in found}

    assert who(Role.INFER, MODEL) == {"does all"}
    assert who(Role.INFER, ContentId.of(b"another")) == set()
    assert who(Role.VERIFY, None) == {"does all", "no models"}
    assert who(Role.DATA, None) == {"does all", "no models", "data only"}


_steps = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d"]),
        st.integers(0, 6),
        st.booleans(),
        st.sampled_from(["hear", "forget", "expire"]),
        st.integers(0, 200),
    ),
    max_size=40,
)
# Signing is slow, and the choices are few.
_ADVERTS = {
    (name, step, leaving): advert_of(
        name, seq=SEQ + step, issued_at_s=int(NOW_S) + step * 20, leaving=leaving
    )
    for name in "abcd"
    for step in range(7)
    for leaving in (False, True)
}


@given(_steps)
def test_whatever_is_heard_no_sequence_goes_back_and_nothing_outlives_its_ttl(
    steps: list[tuple[str, int, bool, str, int]],
) -> None:
    view = view_of(adverts_max=3)
    wall_s, latest = NOW_S, dict.fromkeys("abcd", -1)
    for name, step, leaving, what, later_s in steps:
        wall_s += later_s / 10
        match what:
            case "hear":
                advert = _ADVERTS[name, step, leaving]
                if view.hear(advert, wall_s).changed:
                    assert advert.record.seq > latest[name]
                    latest[name] = advert.record.seq
            case "forget":
                view.forget(key_of(name).peer)
            case _:
                view.expire(wall_s)
        assert len(view) <= 3
        for heard in view.living(wall_s):
            assert not heard.record.leaving
            assert wall_s < heard.record.issued_at_s + heard.record.ttl_s


def test_who_was_forgotten_comes_back_by_its_own_word_at_once() -> None:
    view = view_of()
    old = advert_of("a")
    view.hear(old, NOW_S)
    view.forget(old.signer)
    assert view.hear(old, NOW_S + 1, key_of("neighbour").peer) is Hearing.OLD
    assert view.hear(old, NOW_S + 1, old.signer) is Hearing.NEW
