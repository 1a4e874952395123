"""What `put` says of the copies that there are, and of those that could not be made."""

from typing import Any

from node.commands.content import copies_words

UNTIL_WALL_S = 1_800_000_000


def found(copies: int, wanted: int, **other: Any) -> dict[str, Any]:
    return {
        "copies": copies,
        "copies_wanted": wanted,
        "peers_looked_at": 5,
        "holders": [],
        "refusals": [],
        **other,
    }


def test_one_copy_is_told_with_what_makes_more() -> None:
    (line,) = copies_words(found(1, 0))
    assert line == "1 copy: here (none of 5 other peers has it; --copies 3 asks for more)"
    (line,) = copies_words(found(1, 0, peers_looked_at=0))
    assert line == "1 copy: here (no other peer is known; --copies 3 asks for more)"
    assert copies_words(found(1, 1)) == ["1 copy: here"]


def test_copies_are_told_with_their_places_and_times() -> None:
    holders = [
        {"peer": "peer-one", "until_wall_s": UNTIL_WALL_S},
        {"peer": "peer-two", "until_wall_s": None},
    ]
    (line,) = copies_words(found(3, 3, holders=holders))
    assert line == "3 copies: here, at …er-one until 2027-01-15, at …er-two for now"
    holders[0] = {"peer": "peer-one", "until_wall_s": UNTIL_WALL_S, "paid": 20_000}
    (line,) = copies_words(found(3, 3, holders=holders))
    assert "at …er-one until 2027-01-15 for 0.02 credits, at" in line


def test_too_few_copies_are_told_with_each_reason_as_text_alone() -> None:
    refusals = [{"peer": "peer-one", "why": "its store\x1b[2J is [bold]full"}]
    first, second = copies_words(found(1, 3, refusals=refusals))
    assert first == "1 of 3 copies: here"
    assert second == "not at …er-one: its store\N{REPLACEMENT CHARACTER}[2J is \\[bold]full"
    _, why = copies_words(found(1, 2))
    assert why == "no further peer is known that keeps content for others"


def test_copies_that_were_not_counted_as_kept_are_said_to_be_for_now() -> None:
    holders = [{"peer": "peer-two", "until_wall_s": None}]
    assert copies_words(found(2, 0, holders=holders)) == ["2 copies: here, at …er-two for now"]
