"""What is kept for others: bounded for each and for all, for a time, and never before the owner."""

import pytest

from node.serving.kept_for_others import (
    FAILED_S,
    FETCH_S_MAX,
    FETCH_S_MIN,
    FETCHES_MAX,
    ITEMS_MAX,
    WORTH_WRITING_S,
    KeptForOthers,
    KeptItem,
    fetch_deadline_s,
)
from tests.p2p.transports import key_of
from wire.content import ContentId, PeerId
from wire.errors import Malformed, Refused, WireError
from wire.kinds import RefusalCode

QUOTA = 16_000
# A quarter of it is for others, and half of that for one of them.
ALL, EACH = 4000, 2000
NOW_S = 1_800_000_000.0
DAY_S = 86_400.0


def peer(name: str) -> PeerId:
    return key_of(name).peer


def content(number: int) -> ContentId:
    return ContentId.of(str(number).encode())


def keep(
    kept: KeptForOthers, asker: str, number: int, size_bytes: int, wall_s: float = NOW_S
) -> None:
    """One fetch that succeeds."""
    kept.begin(peer(asker), content(number), size_bytes, 0, wall_s)
    kept.done(peer(asker), content(number), size_bytes, wall_s + DAY_S)
    kept.ended(peer(asker), content(number), wall_s)


def refusal(
    kept: KeptForOthers, asker: str, number: int, size_bytes: int, **other: float
) -> Refused:
    wall_s, held_bytes = other.get("wall_s", NOW_S), int(other.get("held_bytes", 0))
    with pytest.raises(Refused) as caught:
        kept.begin(peer(asker), content(number), size_bytes, held_bytes, wall_s)
    return caught.value


def test_nobody_has_more_than_a_part_and_all_together_no_more_than_theirs() -> None:
    kept = KeptForOthers(QUOTA)
    assert kept.others_bytes_max == ALL
    # What would never fit is refused for good.
    never = refusal(kept, "a", 0, EACH + 1)
    assert (never.code, never.retry_after_s) == (RefusalCode.UNSUPPORTED, None)
    keep(kept, "a", 1, EACH)
    full = refusal(kept, "a", 2, 1)
    assert (full.code, full.retry_after_s) == (RefusalCode.BUSY, FAILED_S)
    keep(kept, "b", 3, EACH)
    assert "4000 of the 4000 bytes" in refusal(kept, "c", 4, 1).message
    assert kept.used_bytes == ALL


def test_what_the_owner_pins_leaves_less_for_others() -> None:
    kept = KeptForOthers(QUOTA)
    # A quarter of the quota stays free of either.
    assert "the owner" in refusal(kept, "a", 1, 1001, held_bytes=11_000).message
    kept.begin(peer("a"), content(1), 1000, 11_000, NOW_S)
    assert "the owner" in refusal(kept, "b", 2, 1, held_bytes=11_000).message


def test_contents_are_counted_too_for_each_and_for_all() -> None:
    kept = KeptForOthers(QUOTA)
    for number in range(ITEMS_MAX // 2):
        keep(kept, "a", number, 0)
    assert "512 contents" in refusal(kept, "a", -1, 0).message
    for number in range(ITEMS_MAX // 2):
        keep(kept, "b", 10_000 + number, 0)
    refusal(kept, "c", -1, 0)
    assert len(kept.items) == ITEMS_MAX


def test_the_same_asked_again_is_counted_once_and_kept_for_the_longest_time() -> None:
    kept = KeptForOthers(QUOTA)
    keep(kept, "a", 1, EACH)
    keep(kept, "a", 1, EACH, NOW_S + DAY_S / 2)
    # Who asks for what another asked for takes no room, and cannot shorten it.
    keep(kept, "b", 1, EACH, NOW_S)
    assert kept.used_bytes == EACH
    item = kept.items[content(1)]
    assert item == KeptItem(peer("a"), EACH, NOW_S + 1.5 * DAY_S)
    little = kept.done(peer("a"), content(1), EACH, item.until_wall_s + WORTH_WRITING_S)
    assert little == item
    with pytest.raises(Malformed, match="has 2000 bytes, not 7"):
        kept.begin(peer("c"), content(1), 7, 0, NOW_S)


def test_fetches_are_few_and_one_for_each() -> None:
    kept = KeptForOthers(QUOTA)
    for number in range(FETCHES_MAX):
        kept.begin(peer(str(number)), content(number), 1, 0, NOW_S)
    assert "something else from you" in refusal(kept, "0", 9, 1).message
    assert "fetches for others" in refusal(kept, "z", 9, 1).message
    kept.ended(peer("0"), content(0), NOW_S)
    kept.begin(peer("z"), content(9), 1, 0, NOW_S)


def test_a_fetch_that_failed_counts_for_a_while_and_once() -> None:
    kept = KeptForOthers(QUOTA)
    for _ in range(3):
        # The same again is not counted twice.
        kept.begin(peer("a"), content(1), EACH, 0, NOW_S)
        kept.ended(peer("a"), content(1), NOW_S)
    assert kept.used_bytes == EACH
    refusal(kept, "a", 2, 1)
    # It is a matter of who asked: another may have the same content kept.
    keep(kept, "b", 1, EACH)
    refusal(kept, "a", 2, 1, wall_s=NOW_S + FAILED_S - 1)
    keep(kept, "a", 2, EACH, NOW_S + FAILED_S)
    assert kept.used_bytes == 2 * EACH


def test_what_is_over_is_let_go() -> None:
    kept = KeptForOthers(QUOTA)
    keep(kept, "a", 1, 10)
    keep(kept, "a", 2, 10, NOW_S + 1)
    assert kept.expire(NOW_S + DAY_S - 1) == []
    assert kept.expire(NOW_S + DAY_S) == [content(1)]
    assert list(kept.items) == [content(2)]


def test_an_item_reads_as_it_was_written_and_nothing_else_does() -> None:
    item = KeptItem(peer("a"), 10, NOW_S)
    assert KeptItem.from_bytes(item.to_bytes()) == item
    for wrong in (
        b"",
        b"\x90",
        b"\x93\x01\x02\x03",
        item.to_bytes()[:-1],
        b"\x93\xc4\x01x\x01\x01",
    ):
        with pytest.raises(WireError):
            KeptItem.from_bytes(wrong)


def test_a_fetch_has_a_deadline_by_its_size() -> None:
    assert fetch_deadline_s(0) == FETCH_S_MIN
    assert fetch_deadline_s(1 << 20) == FETCH_S_MIN + 8
    assert fetch_deadline_s(1 << 40) == FETCH_S_MAX
