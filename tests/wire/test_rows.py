"""A row is shown alone: its path leads to the root that was signed, and no other row's does."""

from dataclasses import replace

import pytest

from tests.wire.samples import BLOCK
from wire import limits
from wire.errors import BadSignature, Malformed, WireError
from wire.rows import (
    RowBundle,
    RowDigest,
    check_row,
    digests_of,
    hashed_rows,
    path_of_row,
    root_of_rows,
)


def rows(count: int) -> list[RowDigest]:
    return [RowDigest.of(10 + it, b"question %d" % it, b"answer %d" % it) for it in range(count)]


def bundle_of(digests: list[RowDigest]) -> RowBundle:
    return RowBundle(
        model=BLOCK,
        first=digests[0].number,
        last=digests[-1].number,
        rows=len(digests),
        root=root_of_rows(digests),
        answers=(BLOCK,),
    )


@pytest.mark.parametrize("count", [1, 2, 3, 7, 255, 256])
def test_each_row_leads_to_the_root(count: int) -> None:
    digests = rows(count)
    bundle = bundle_of(digests)
    for index in {0, count // 2, count - 1}:
        path = path_of_row(digests, index)
        assert len(path) <= 32 * 8
        check_row(bundle, digests[index], index, path)
        for other in (
            replace(digests[index], output=b"\0" * 32),
            replace(digests[index], source=b"\0" * 32),
            replace(digests[index], number=digests[index].number + 1),
        ):
            with pytest.raises(BadSignature):
                check_row(bundle, other, index, path)
        for bad in (path + b"\0" * 32, path[:-32] if path else b"\0"):
            with pytest.raises(BadSignature):
                check_row(bundle, digests[index], index, bad)
        with pytest.raises(BadSignature):
            check_row(bundle, digests[index], index + count, path)


def test_hashes_that_are_kept_give_the_rows_again() -> None:
    digests = rows(5)
    kept = b"".join(it.hashes for it in digests)
    assert digests_of([it.number for it in digests], kept) == digests
    for bad in (kept[:-1], kept + b"\0", b""):
        with pytest.raises(Malformed):
            digests_of([it.number for it in digests], bad)


@pytest.mark.parametrize("count", [1, 2, 3, 256])
def test_the_fast_way_gives_the_same_hashes_and_root(count: int) -> None:
    digests = rows(count)
    questions = [b"question %d" % it for it in range(count)]
    answers = [b"answer %d" % it for it in range(count)]
    hashes, root = hashed_rows([it.number for it in digests], questions, answers)
    assert hashes == b"".join(it.hashes for it in digests)
    assert root == root_of_rows(digests)
    with pytest.raises(ValueError, match="shorter"):
        hashed_rows([it.number for it in digests], questions, answers[1:])


def test_a_bundle_is_bounded_and_has_one_receipt_or_one_for_each_row() -> None:
    bundle = bundle_of(rows(4))
    replace(bundle, answers=(BLOCK,) * 4)
    for wrong in (
        {"answers": (BLOCK,) * 3},
        {"answers": ()},
        {"last": bundle.first},
        {"last": bundle.first + limits.BUNDLE_ROWS_MAX},
        {"rows": 0},
    ):
        with pytest.raises(WireError):
            replace(bundle, **wrong)
