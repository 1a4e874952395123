"""What a relay says of what it passed on, in one line."""

from node.commands.output import size
from node.health.reach_words import relay_words

TOLD = {
    "carried_paid_bytes": 12_300_000,
    "carried_free_bytes": 1_048_576,
    "carried_earned": 12_012,
    "owing": 0,
}


def test_a_relay_tells_what_was_paid_and_what_was_free() -> None:
    words = "relay: 12.3 MB passed on for 0.012012 credits, 1.0 MB for nothing"
    assert relay_words(TOLD, size) == words
    assert relay_words(TOLD | {"owing": 1}, size) == f"{words}; 1 asker owes a promise"
    assert relay_words(TOLD | {"owing": 2}, size) == f"{words}; 2 askers owe a promise"


def test_a_peer_that_asks_for_nothing_says_nothing_of_it() -> None:
    assert not relay_words({"how": "open", "carried_bytes": 5}, size)
