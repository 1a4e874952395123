"""What a peer notes is kept by kind, with when it came last and how often."""

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from p2p.notes import Notes, as_maps, kind_of, latest_of

ONE = "12D3KooWAd8yoAf7nnAfu8ymrUg4nhgYNTrtFC1tbBcuWGUWc8Ps"
OTHER = "12D3KooWAU1jyZ5Bs2ypJWmVvWYRYrJyjDVGWDcrnxiwGy1PP8iS"


def test_lines_that_differ_in_whom_and_how_much_they_name_are_one_kind() -> None:
    assert kind_of(f"{ONE} did not answer in 3.5 s") == kind_of(f"{OTHER} did not answer in 10 s")
    assert kind_of("embed: …AbCdEf: gone") == kind_of("embed: …xYzXyZ: gone")
    dialled = "/ip4/192.0.2.7/tcp/4747 refused"
    assert kind_of(dialled) == kind_of("/ip6/2001:db8::1/tcp/9 refused")
    assert kind_of("model minilm is ready") != kind_of("model smollm2 is ready")
    assert kind_of("a call failed") != kind_of("a call was refused")


def test_what_comes_again_is_counted_and_is_the_newest() -> None:
    notes = Notes(2, count(0.0).__next__)
    for line in ("3 MiB are free", "paused", "2 MiB are free", "goes on"):
        notes.note(line)
    assert [(it.line, it.at_s, it.times) for it in notes] == [
        ("2 MiB are free", 2.0, 2),
        ("goes on", 3.0, 1),
    ]


def test_another_trouble_with_the_same_peer_takes_the_place_of_the_first() -> None:
    notes = Notes(4, count(1.0).__next__)
    for line in ("it is slow", "it is slow", "it is gone"):
        notes.note(line, ONE)
    assert [(it.line, it.times) for it in notes] == [("it is gone", 1)]
    assert notes.lines() == {ONE: "it is gone"}


def test_of_many_peers_with_one_trouble_one_line_is_told() -> None:
    notes = Notes(8, count(1.0).__next__)
    for peer in (ONE, OTHER):
        notes.note(f"{peer} refused", peer)
        notes.note(f"{peer} did not answer", f"call {peer}")
    told = as_maps(latest_of(notes, 5), now_at_s=10.0)
    assert told == [
        {"line": f"{OTHER} refused", "s_ago": 7, "times": 2},
        {"line": f"{OTHER} did not answer", "s_ago": 6, "times": 2},
    ]
    assert len(latest_of(notes, 1)) == 1


@given(st.lists(st.tuples(st.text(), st.sampled_from([None, "a", "b"]))))
def test_whatever_is_noted_is_bounded_and_nothing_is_lost_from_the_count(
    lines: list[tuple[str, str | None]],
) -> None:
    notes = Notes(3, count(1.0).__next__)
    for line, about in lines:
        notes.note(line, about)
    assert len(notes) <= 3
    assert sum(it.times for it in latest_of(notes, 9)) == sum(it.times for it in notes)
    assert sum(it.times for it in notes) <= len(lines)
