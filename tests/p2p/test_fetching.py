"""The plan of a download: every block asked for once, of somebody who may have it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.fetching import ROOT, Due, FetchPlan, below
from tests.p2p.transports import key_of
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import Malformed
from wire.tree import TreeNode

A, B, C = (key_of(name).peer for name in "abc")
BLOCKS = [ContentId.of(bytes([number])) for number in range(8)]


def plan_of(*blocks: ContentId) -> FetchPlan:
    plan = FetchPlan()
    for block in blocks:
        plan.need(block, ROOT)
    return plan


def test_every_block_is_asked_for_once_in_order() -> None:
    plan = plan_of(*BLOCKS, *BLOCKS)
    asked = [plan.next_for((A, B)[number % 2]) for number in range(len(BLOCKS))]
    assert asked == BLOCKS
    assert plan.next_for(A) is None
    assert not plan.done
    for block in BLOCKS:
        plan.arrived(block)
    assert plan.done


def test_a_block_that_is_waited_for_is_not_needed_anew() -> None:
    plan = plan_of(BLOCKS[0])
    assert plan.next_for(A) == BLOCKS[0]
    plan.need(BLOCKS[0], ROOT)
    assert plan.next_for(B) is None


def test_a_source_that_lacks_a_block_is_asked_for_others_only() -> None:
    plan = plan_of(*BLOCKS[:2])
    assert plan.next_for(A) == BLOCKS[0]
    plan.lacks(A, BLOCKS[0])
    assert plan.next_for(A) == BLOCKS[1]
    assert plan.next_for(A) is None
    assert not plan.idle_for_good(A)
    assert plan.next_for(B) == BLOCKS[0]


def test_a_source_that_failed_is_left_out_and_its_block_goes_to_another() -> None:
    plan = plan_of(*BLOCKS[:2])
    assert plan.next_for(A) == BLOCKS[0]
    plan.failed(A, BLOCKS[0])
    assert plan.next_for(A) is None
    assert plan.idle_for_good(A)
    assert [plan.next_for(B), plan.next_for(B)] == BLOCKS[:2]


def test_a_source_waits_while_a_block_may_still_come_back() -> None:
    plan = plan_of(BLOCKS[0])
    plan.next_for(A)
    assert plan.next_for(B) is None
    assert not plan.idle_for_good(B)
    plan.failed(A, BLOCKS[0])
    assert plan.next_for(B) == BLOCKS[0]


def test_a_block_that_nobody_has_leaves_the_plan_undone_and_everybody_idle() -> None:
    plan = plan_of(BLOCKS[0])
    for source in (A, B):
        assert plan.next_for(source) == BLOCKS[0]
        plan.lacks(source, BLOCKS[0])
    assert plan.next_for(A) is plan.next_for(B) is None
    assert plan.idle_for_good(A)
    assert plan.idle_for_good(B)
    assert not plan.done
    # The next wave of sources goes on from here.
    assert plan.next_for(C) == BLOCKS[0]


def test_below_a_node_is_what_it_says_one_deeper() -> None:
    data = TreeNode(limits.BLOCK_BYTES_MAX + 1, tuple(BLOCKS[:2])).to_bytes()
    node = ContentId.of_tree(data)
    sizes = (limits.BLOCK_BYTES_MAX, 1)
    for due in (ROOT, Due(limits.BLOCK_BYTES_MAX + 1, 2)):
        expected = [Due(size, due.depth + 1) for size in sizes]
        assert below(node, data, due) == list(zip(BLOCKS[:2], expected, strict=True))


def test_a_tree_that_is_too_deep_or_of_another_size_is_Malformed() -> None:
    data = TreeNode(5, (BLOCKS[0],)).to_bytes()
    node = ContentId.of_tree(data)
    with pytest.raises(Malformed, match="deeper"):
        below(node, data, Due(5, limits.TREE_DEPTH_MAX))
    with pytest.raises(Malformed, match="5 bytes where the tree above says 6"):
        below(node, data, Due(6, 1))
    leaf = bytes([0])
    with pytest.raises(Malformed, match="1 bytes where the tree above says 5"):
        below(BLOCKS[0], leaf, Due(5, limits.TREE_DEPTH_MAX))
    assert below(BLOCKS[0], leaf, Due(1, limits.TREE_DEPTH_MAX)) == []


@given(
    st.data(),
    st.sets(st.sampled_from(BLOCKS), min_size=1),
    st.lists(st.sets(st.sampled_from(BLOCKS)), min_size=3, max_size=3),
    st.sets(st.sampled_from([A, B, C])),
)
def test_what_somebody_sound_has_arrives_and_nobody_is_asked_twice_for_a_block(
    data: st.DataObject,
    needed: set[ContentId],
    holdings: list[set[ContentId]],
    failing: set[PeerId],
) -> None:
    plan = plan_of(*sorted(needed))
    has = dict(zip((A, B, C), holdings, strict=True))
    asked: set[tuple[PeerId, ContentId]] = set()
    under_way: list[tuple[PeerId, ContentId]] = []
    arrived: set[ContentId] = set()
    active = {A, B, C}
    while active or under_way:
        if active and (not under_way or data.draw(st.booleans())):
            source = data.draw(st.sampled_from(sorted(active)))
            block = plan.next_for(source)
            if block is not None:
                assert (source, block) not in asked
                assert block not in arrived
                assert block not in [it for _, it in under_way]
                asked.add((source, block))
                under_way.append((source, block))
            elif not under_way or plan.idle_for_good(source):
                active.discard(source)
            continue
        source, block = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
        if source in failing:
            plan.failed(source, block)
        elif block in has[source]:
            plan.arrived(block)
            arrived.add(block)
        else:
            plan.lacks(source, block)
        # As `Blobs` does: whoever was waiting looks again.
        active = {it for it in (A, B, C) if not plan.idle_for_good(it)} | active
    sound = set().union(*(has[it] for it in {A, B, C} - failing))
    assert arrived == needed & sound
    assert plan.done is (arrived == needed)
