"""The lottery is fair, cannot be steered by the order of names, and is redrawn by anybody."""

import hashlib
import itertools
import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.samples import BLOCK, TREE
from wire import limits, lottery
from wire.content import ContentId, PeerId
from wire.lottery import draw, rank, rows_due, rows_to_check, weighted_draw

PEERS = [PeerId(hashlib.sha256(bytes((at,))).digest()) for at in range(8)]
DRAWS = 4000
# The 99.9th percentile of chi-square with 7 and with 15 degrees of freedom.
CHI_SQUARE_7 = 24.3
CHI_SQUARE_15 = 37.7


def secret_of(number: int) -> bytes:
    return hashlib.sha256(b"secret" + number.to_bytes(4, "big")).digest()


def chi_square(counts: Counter[object], cells: int) -> float:
    expected = counts.total() / cells
    missing = (cells - len(counts)) * expected
    return missing + sum((count - expected) ** 2 / expected for count in counts.values())


@pytest.mark.parametrize("place", [0, 1, 7])
def test_every_peer_is_drawn_as_often_as_any_other(place: int) -> None:
    drawn = Counter(draw(secret_of(at), BLOCK, PEERS)[place] for at in range(DRAWS))
    assert chi_square(Counter(drawn), len(PEERS)) < CHI_SQUARE_7


def test_another_receipt_is_another_draw() -> None:
    # The prover commits to the receipt before it knows the secret: each receipt is a new ticket.
    secret = secret_of(0)
    receipts = [ContentId.of(at.to_bytes(4, "big")) for at in range(DRAWS)]
    drawn = Counter(draw(secret, receipt, PEERS)[0] for receipt in receipts)
    assert chi_square(Counter(drawn), len(PEERS)) < CHI_SQUARE_7


def test_who_is_drawn_second_does_not_depend_on_who_is_drawn_first() -> None:
    pairs = Counter(tuple(draw(secret_of(at), BLOCK, PEERS[:4])[:2]) for at in range(DRAWS))
    assert set(pairs) == set(itertools.permutations(PEERS[:4], 2))
    # 12 cells have 11 degrees of freedom; the bound for 15 is the looser one.
    assert chi_square(Counter(pairs), 12) < CHI_SQUARE_15


@given(st.permutations(PEERS), st.binary(min_size=32, max_size=32))
def test_the_order_in_which_candidates_are_named_does_not_matter(
    order: list[PeerId], secret: bytes
) -> None:
    assert draw(secret, BLOCK, order) == draw(secret, BLOCK, PEERS)


def test_to_be_named_twice_does_not_give_two_tickets() -> None:
    assert draw(secret_of(1), BLOCK, PEERS + PEERS[:3]) == draw(secret_of(1), BLOCK, iter(PEERS))


def test_a_candidate_more_moves_nobody_past_another() -> None:
    whole = draw(secret_of(2), BLOCK, PEERS)
    for absent in PEERS:
        rest = [peer for peer in PEERS if peer != absent]
        assert draw(secret_of(2), BLOCK, rest) == [peer for peer in whole if peer != absent]


def test_nobody_is_drawn_from_nobody() -> None:
    assert draw(secret_of(3), BLOCK, []) == []


def test_a_rank_is_the_hash_of_what_the_design_says() -> None:
    words = secret_of(4) + BLOCK + PEERS[0]
    assert rank(secret_of(4), BLOCK, PEERS[0]) == hashlib.sha256(words).digest()


@given(st.integers(0, 300), st.integers(0, 70), st.integers(0, 1000))
def test_rows_are_distinct_in_order_and_within_range(rows: int, count: int, number: int) -> None:
    found = rows_to_check(secret_of(number), TREE, PEERS[0], rows, count)
    assert len(found) == min(rows, count)
    assert list(found) == sorted(set(found))
    assert all(0 <= row < rows for row in found)
    assert found == rows_to_check(secret_of(number), TREE, PEERS[0], rows, count)


def test_every_row_is_checked_as_often_as_any_other() -> None:
    counts: Counter[object] = Counter()
    for at in range(DRAWS):
        counts.update(rows_to_check(secret_of(at), BLOCK, PEERS[0], 16, 4))
    assert chi_square(counts, 16) < CHI_SQUARE_15


def test_another_verifier_secret_or_receipt_gives_other_rows() -> None:
    def rows(secret: bytes, receipt: ContentId, peer: PeerId) -> tuple[int, ...]:
        return rows_to_check(secret, receipt, peer, 256, 32)

    found = {rows(secret_of(5), BLOCK, peer) for peer in PEERS}
    found |= {rows(secret_of(6), BLOCK, PEERS[0]), rows(secret_of(5), TREE, PEERS[0])}
    assert len(found) == len(PEERS) + 2


def test_three_verifiers_see_about_as_many_rows_as_chance_allows() -> None:
    # 32 of 256 rows each, drawn independently: 3 x 32 less the overlaps, about 84.5.
    union = [
        len(
            {
                row
                for peer in PEERS[:3]
                for row in rows_to_check(secret_of(at), BLOCK, peer, 256, 32)
            }
        )
        for at in range(40)
    ]
    assert 82 < sum(union) / len(union) < 87


@pytest.mark.parametrize(
    ("rows", "due"),
    [(0, 0), (1, 1), (3, 3), (4, 4), (5, 4), (32, 4), (33, 5), (256, 32), (512, 64), (10**6, 64)],
)
def test_an_eighth_of_the_rows_is_due_within_bounds(rows: int, due: int) -> None:
    assert rows_due(rows) == due


def test_what_is_due_always_fits_a_verdict() -> None:
    assert max(map(rows_due, range(2000))) <= limits.SAMPLE_MAX


def test_the_test_of_fairness_can_fail() -> None:
    biased = Counter(Random(0).choices(range(8), weights=[2, 1, 1, 1, 1, 1, 1, 1], k=DRAWS))
    assert chi_square(Counter(biased), 8) > CHI_SQUARE_7


def test_each_attempt_has_a_secret_of_its_own_and_all_fit_what_was_signed() -> None:
    seed = secret_of(7)
    secrets = [lottery.secret_of(seed, attempt) for attempt in range(1, limits.ATTEMPTS_MAX + 1)]
    assert len(set(secrets)) == limits.ATTEMPTS_MAX
    signed = lottery.secret_hash_of(seed)
    for attempt, secret in enumerate(secrets, 1):
        assert lottery.attempt_of(secret, signed) == attempt


def test_a_revealed_secret_gives_earlier_ones_and_no_later_one() -> None:
    seed = secret_of(8)
    first, second = lottery.secret_of(seed, 1), lottery.secret_of(seed, 2)
    assert hashlib.sha256(second).digest() == first
    assert second not in (hashlib.sha256(first).digest(), first)


def test_a_secret_of_another_task_is_no_attempt() -> None:
    signed = lottery.secret_hash_of(secret_of(9))
    assert lottery.attempt_of(secret_of(10), signed) is None
    assert lottery.attempt_of(signed, signed) is None


def test_a_draw_by_weight_is_first_for_each_in_proportion_to_its_weight() -> None:
    weights = {peer: number for number, peer in enumerate(PEERS, start=1)}
    first: Counter[PeerId] = Counter()
    second: Counter[PeerId] = Counter()
    for at in range(DRAWS):
        order = weighted_draw(secret_of(at), BLOCK, weights)
        first[order[0]] += 1
        if order[0] == PEERS[7]:
            second[order[1]] += 1
    total = sum(weights.values())
    for counts, cells, among in ((first, PEERS, total), (second, PEERS[:7], total - 8)):
        expected = {it: counts.total() * weights[it] / among for it in cells}
        found = sum((counts[it] - expected[it]) ** 2 / expected[it] for it in cells)
        assert found < CHI_SQUARE_7


def test_who_has_no_weight_comes_last_and_without_weights_it_is_the_draw_by_key() -> None:
    for at in range(50):
        secret = secret_of(at)
        assert weighted_draw(secret, BLOCK, dict.fromkeys(PEERS, 0)) == draw(secret, BLOCK, PEERS)
        weights = {peer: (number < 3) * 2**62 for number, peer in enumerate(PEERS)}
        order = weighted_draw(secret, BLOCK, weights)
        assert set(order[:3]) == set(PEERS[:3])
        assert order[3:] == draw(secret, BLOCK, PEERS[3:])


def test_logarithms_in_whole_numbers_are_right_to_a_billionth() -> None:
    random = Random(5)
    numbers = [1, 2, 3, 2**32, 2**63, 2**64 - 1, 2**64]
    for number in [*numbers, *(random.randrange(1, 2**64 + 1) for _ in range(200))]:
        assert abs(lottery._bits_below(number) / 2**32 - (64 - math.log2(number))) < 1e-9
