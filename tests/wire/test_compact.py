"""Records that travel under one signature are the same where they arrive, or are refused."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.samples import BY_NAME, KEY, OTHER_KEY, altered
from wire import limits
from wire.codec import pack, unpack
from wire.compact import BatchRoot, Travelling, check_places, compact, opened
from wire.errors import BadSignature, Malformed, Oversize, WireError
from wire.proof import prove
from wire.signed import Signed, sign, sign_many
from wire.task import Task

ME = KEY.peer


def tasks(count: int) -> list[Task]:
    found = [altered("Task", nonce=at.to_bytes(16, "big")) for at in range(count)]
    assert all(isinstance(task, Task) for task in found)
    return found  # type: ignore[return-value]


def batch(count: int) -> list[Signed[Task]]:
    return list(sign_many(tasks(count), KEY))


def size_of(roots: tuple[BatchRoot, ...], travelling: list[Travelling]) -> int:
    return sum(len(it.to_bytes()) for it in roots) + sum(len(it.data) for it in travelling)


BATCHES = {count: batch(count) for count in (2, 3, 5, 8, 30, 33)}


@given(count=st.sampled_from(list(BATCHES)), data=st.data())
def test_any_some_of_a_batch_are_the_same_where_they_arrive(
    count: int, data: st.DataObject
) -> None:
    some = data.draw(st.lists(st.sampled_from(BATCHES[count]), min_size=1, unique_by=id))
    roots, travelling = compact(some, ME)
    check_places(roots, travelling)
    assert opened(roots, travelling, Task, ME) == some
    assert len(roots) == (len(some) > 1)
    assert size_of(roots, travelling) <= sum(len(it.raw) for it in some) + 40


def test_the_largest_batch_is_the_same_where_it_arrives() -> None:
    whole = batch(limits.BATCH_RECORDS_MAX)
    some = whole[: limits.BUNDLE_ITEMS_MAX]
    roots, travelling = compact(some, ME)
    assert opened(roots, travelling, Task, ME) == some


def test_a_whole_batch_needs_no_hashes_besides() -> None:
    roots, travelling = compact(BATCHES[33], ME)
    assert [(it.count, it.beside) for it in roots] == [(33, b"")]
    paths = sum(
        len(it.raw) - len(one.data) for it, one in zip(BATCHES[33], travelling, strict=True)
    )
    assert paths > 33 * 200


def test_several_batches_and_envelopes_travel_together() -> None:
    first = BATCHES[5]
    second = list(sign_many([altered("Task", nonce=bytes([it] * 16)) for it in (7, 8)], KEY))
    alone = sign(BY_NAME["Task"], KEY)
    of_another = sign_many(tasks(2), OTHER_KEY)
    records = [first[0], alone, second[1], of_another[0], first[4], second[0], of_another[1]]
    roots, travelling = compact(records, ME)
    assert [it.count for it in roots] == [5, 2]
    assert [(it.root, it.leaf) for it in travelling] == [
        *((1, 0), (0, 0), (2, 1), (0, 0), (1, 4), (2, 0), (0, 0)),
    ]
    assert opened(roots, travelling, Task, ME) == records
    assert compact(records, None) == ((), [Travelling(it.raw) for it in records])


def test_one_that_is_there_twice_travels_the_second_time_as_an_envelope() -> None:
    first, second, *_ = BATCHES[5]
    records = [first, second, first]
    roots, travelling = compact(records, ME)
    assert [it.root for it in travelling] == [1, 1, 0]
    check_places(roots, travelling)
    assert opened(roots, travelling, Task, ME) == records


def test_a_body_that_is_no_record_is_an_error_of_that_one() -> None:
    bodies = [it.to_bytes() for it in tasks(4)]
    bodies[2] = b"\xc1 no task"
    proofs = prove([("task", it) for it in bodies], KEY)
    root = BatchRoot(signature=proofs[0][:64], count=4, beside=b"")
    travelling = [Travelling(it, 1, at) for at, it in enumerate(bodies)]
    found = opened((root,), [*travelling, Travelling(b"\xc1")], Task, ME)
    assert [isinstance(it, WireError) for it in found] == [False, False, True, False, True]
    assert not any(isinstance(it, BadSignature) for it in found)


def turned(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("leaves", [(0, 1), (0, 2, 4), (1, 3, 4), (0, 1, 2, 3, 4)])
def test_with_anything_turned_the_whole_root_is_refused(leaves: tuple[int, ...]) -> None:
    (root,), travelling = compact([BATCHES[5][it] for it in leaves], ME)
    body = travelling[0].data
    wrong = [
        *(replace(root, signature=turned(root.signature, at)) for at in (0, 40, 63)),
        *(replace(root, beside=turned(root.beside, at)) for at in range(0, len(root.beside), 9)),
        replace(root, beside=root.beside + bytes(32)),
        *([replace(root, beside=root.beside[:-32])] if root.beside else []),
        *(replace(root, count=it) for it in (6, 8, limits.BATCH_RECORDS_MAX)),
    ]
    for it in wrong:
        with pytest.raises(BadSignature):
            opened((it,), travelling, Task, ME)
    for at in range(0, len(body), 7):
        with pytest.raises(BadSignature):
            opened((root,), [Travelling(turned(body, at), 1, 0), *travelling[1:]], Task, ME)
    with pytest.raises(BadSignature):
        opened((root,), travelling[1:], Task, ME)
    with pytest.raises(BadSignature):
        opened((root,), travelling, Task, OTHER_KEY.peer)
    moved = [one._replace(leaf=(one.leaf + 1) % 5) for one in travelling]
    with pytest.raises(BadSignature):
        opened((root,), moved, Task, ME)


def test_a_root_signed_for_another_purpose_is_no_root() -> None:
    bodies = [it.to_bytes() for it in tasks(3)]
    travelling = [Travelling(it, 1, at) for at, it in enumerate(bodies)]
    # The same bodies, signed as receipts; and the signature of one of them alone.
    as_receipts = prove([("receipt", it) for it in bodies], KEY)[0][:64]
    alone = KEY.sign("task", bodies[0])
    for signature in (as_receipts, alone):
        with pytest.raises(BadSignature):
            opened((BatchRoot(signature=signature, count=3, beside=b""),), travelling, Task, ME)


def test_an_odd_node_that_is_doubled_is_refused() -> None:
    (root,), travelling = compact(BATCHES[3], ME)
    doubled = [*travelling, Travelling(travelling[2].data, 1, 3)]
    with pytest.raises(Malformed, match="leaf 3 of 3"):
        check_places((root,), doubled)
    with pytest.raises(BadSignature):
        opened((replace(root, count=4),), doubled, Task, ME)


def test_an_inner_node_is_no_leaf() -> None:
    (root,), travelling = compact(BATCHES[8][:2], ME)
    # Of eight leaves, two: what is above them, given as if it were beside them.
    with pytest.raises(BadSignature):
        opened((replace(root, count=4),), travelling, Task, ME)


ROOT = BatchRoot(signature=bytes(64), count=5, beside=b"")


@pytest.mark.parametrize(
    ("travelling", "words"),
    [
        ([Travelling(b"", 2, 0)], "root 2 of 1"),
        ([Travelling(b"", 1, 5)], "leaf 5 of 5"),
        ([Travelling(b"", 1, 0), Travelling(b"", 1, 0)], "twice"),
        ([Travelling(b"", 0, 1)], "an envelope with a leaf"),
        ([Travelling(b"", 0, 0)], "nothing is here"),
    ],
)
def test_a_place_that_there_is_not_is_refused(travelling: list[Travelling], words: str) -> None:
    with pytest.raises(Malformed, match=words):
        check_places((ROOT,), travelling)


@pytest.mark.parametrize("count", [0, 1, limits.BATCH_RECORDS_MAX + 1, 10_000, 2**32])
def test_no_root_is_of_so_many(count: int) -> None:
    with pytest.raises(Oversize):
        replace(ROOT, count=count)
    with pytest.raises(WireError):
        BatchRoot.from_bytes(pack({"beside": b"", "count": count, "signature": bytes(64)}))


def test_hashes_are_whole_ones() -> None:
    with pytest.raises(Malformed):
        replace(ROOT, beside=bytes(33))


def test_a_batch_travels_in_the_bytes_it_always_did() -> None:
    some = [BATCHES[5][it] for it in (0, 3)]
    (root,), travelling = compact(some, ME)
    raw = [unpack(it.raw) for it in some]
    assert [it.data for it in travelling] == [it[1] for it in raw]
    # The second leaf, the third, and the last one, which goes up as it is.
    first, second = raw[0][3][72:], raw[1][3][72:]
    assert root.signature == raw[0][3][:64]
    assert root.beside == first[:32] + second[:32] + first[64:]
