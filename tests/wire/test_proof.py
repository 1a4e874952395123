"""One signature for many records: each holds alone, and no proof has a second form."""

import gc
import hashlib
import struct
import threading
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wire
from tests.wire.samples import BY_NAME, KEY, MODEL, OTHER_KEY, SIGNED, altered, name_of
from wire import limits, merkle, proof
from wire.codec import pack, unpack
from wire.compact import BatchRoot, Travelling, compact, opened
from wire.errors import BadSignature, Malformed, Oversize, WireError
from wire.kinds import Kind, Level, Role
from wire.proof import check_proof, prove, recover_some
from wire.signed import SignedRecord, open_signed, sign, sign_many
from wire.signing import separated
from wire.task import Task

MOST = limits.BATCH_RECORDS_MAX

every_signed_record = pytest.mark.parametrize("record", SIGNED, ids=name_of)


def bodies_of(count: int) -> list[tuple[str, bytes]]:
    return [("task", b"body %d" % at) for at in range(count)]


def tasks(count: int) -> list[Task]:
    found = [altered("Task", nonce=at.to_bytes(16, "big")) for at in range(count)]
    assert all(isinstance(task, Task) for task in found)
    return found  # type: ignore[return-value]


def placed(whole: bytes, index: int, count: int) -> bytes:
    """A proof that says it is of another place."""
    return whole[:64] + struct.pack(">II", index, count) + whole[72:]


def root_by_halves(leaves: Sequence[bytes]) -> bytes:
    """The root as RFC 6962 defines it: the left half is the largest power of two below."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = root_by_halves(leaves[:half]), root_by_halves(leaves[half:])
    return hashlib.sha256(b"\1" + left + right).digest()


def refused(item: tuple[str, bytes], forged: bytes) -> bool:
    try:
        check_proof(KEY.peer, *item, forged)
    except BadSignature:
        return True
    return False


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 30, 33, 256])
def test_each_record_of_many_holds_alone(count: int) -> None:
    batch = sign_many(tasks(count), KEY)
    assert len({signed.id for signed in batch}) == count
    for task, signed in zip(tasks(count), batch, strict=True):
        assert open_signed(signed.raw, Task) == signed
        assert (signed.record, signed.signer) == (task, KEY.peer)


def test_a_batch_of_one_is_a_plain_signature() -> None:
    (task,) = tasks(1)
    assert sign_many([task], KEY) == (sign(task, KEY),)
    assert len(unpack(sign(task, KEY).raw)[3]) == 64


def test_records_of_several_kinds_share_a_signature() -> None:
    for record, signed in zip(SIGNED, sign_many(SIGNED, KEY), strict=True):
        assert open_signed(signed.raw, type(record)) == signed
        assert signed.record == record


@pytest.mark.parametrize("count", [1, 2, 3, 31])
def test_what_travels_without_paths_is_the_same_where_it_arrives(count: int) -> None:
    batch = sign_many(tasks(count), KEY)
    roots, travelling = compact(batch, KEY.peer)
    # One alone has no path, and travels as it is.
    assert [it.beside for it in roots] == [b""] * (count > 1)
    assert tuple(opened(roots, travelling, Task, KEY.peer)) == batch


def travelling_of(bodies: Sequence[bytes]) -> list[Travelling]:
    return [Travelling(body, 1, at) for at, body in enumerate(bodies)]


def test_one_body_that_is_no_record_is_an_error_of_that_one() -> None:
    bodies = [task.to_bytes() for task in tasks(5)]
    bodies[3] = BY_NAME["Receipt"].to_bytes()
    proofs = prove([("task", body) for body in bodies], KEY)
    root = BatchRoot(signature=proofs[0][:64], count=5, beside=b"")
    found = opened([root], travelling_of(bodies), Task, KEY.peer)
    assert isinstance(found[3], Malformed)
    assert [at for at, it in enumerate(found) if isinstance(it, WireError)] == [3]


def test_bodies_that_were_not_signed_together_are_refused_as_a_whole() -> None:
    (root,), travelling = compact(sign_many(tasks(5), KEY), KEY.peer)
    first, second, *rest = [it.data for it in travelling]
    for bodies in (
        [second, first, *rest],
        [first, *rest],
        [first, second, *rest, rest[-1]],
        [first, second, *rest[:-1], BY_NAME["Task"].to_bytes()],
        [first, second],
    ):
        for count in {len(bodies), root.count}:
            with pytest.raises(BadSignature):
                opened([replace(root, count=count)], travelling_of(bodies), Task, KEY.peer)
    with pytest.raises(BadSignature):
        opened([root], travelling, Task, OTHER_KEY.peer)
    # The signature of one alone is none of many.
    alone = BatchRoot(signature=unpack(sign(tasks(1)[0], KEY).raw)[3], count=5, beside=b"")
    with pytest.raises(BadSignature):
        opened([alone], travelling, Task, KEY.peer)


@pytest.mark.parametrize("count", [0, MOST + 1, 10_000])
def test_none_and_too_many_are_neither_signed_nor_opened(count: int) -> None:
    items = bodies_of(count)
    with pytest.raises(Malformed, match=f"1 to {MOST}"):
        prove(items, KEY)
    with pytest.raises(BadSignature, match=f"2 to {MOST}"):
        recover_some("task", {0: items[0][1] if items else b""}, count, b"", KEY.peer, bytes(64))
    # A proof cannot say so either: its count is bounded before anything is hashed.
    whole = prove(bodies_of(2), KEY)[0]
    with pytest.raises(BadSignature, match=f"2 to {MOST}"):
        check_proof(KEY.peer, *bodies_of(1)[0], placed(whole, 0, count))


@pytest.mark.parametrize("count", [2**31, 2**32 - 1])
def test_a_count_as_large_as_it_can_be_written_is_refused(count: int) -> None:
    whole = prove(bodies_of(2), KEY)[0]
    assert refused(bodies_of(1)[0], placed(whole, 0, count))


def test_the_longest_path_fits_an_envelope() -> None:
    items = bodies_of(MOST)
    whole = prove(items, KEY)[MOST - 1]
    assert len(whole) == 72 + 12 * 32
    check_proof(KEY.peer, *items[MOST - 1], whole)
    raw = pack([int(Kind.TASK), bytes(limits.TASK_BYTES_MAX), bytes(KEY.peer), whole])
    assert len(raw) <= limits.TASK_BYTES_MAX + limits.ENVELOPE_BYTES_MAX
    with pytest.raises(BadSignature):
        open_signed(raw, Task)
    with pytest.raises(Oversize):
        open_signed(raw + bytes(limits.ENVELOPE_BYTES_MAX), Task)


def test_a_count_of_one_has_no_proof() -> None:
    # A signature of the root of one record would be a second form beside the plain one.
    (item,) = bodies_of(1)
    root = merkle.leaf(separated(*item))
    signature = KEY.sign(proof.BATCH_DOMAIN, struct.pack(">I", 1) + root)
    assert refused(item, placed(signature + bytes(8), 0, 1))
    assert refused(item, signature)


@given(st.integers(2, 40), st.data())
def test_the_root_is_that_of_the_standard(count: int, data: st.DataObject) -> None:
    leaves = [merkle.leaf(body) for _, body in bodies_of(count)]
    levels = merkle.levels_of(leaves)
    assert levels[-1] == [root_by_halves(leaves)]
    at = data.draw(st.integers(0, count - 1))
    path = merkle.path_of(levels, at)
    assert merkle.root_of(leaves[at], at, count, path) == levels[-1][0]


@given(st.integers(2, 20), st.data())
def test_a_proof_has_one_place_and_one_length(count: int, data: st.DataObject) -> None:
    items = bodies_of(count)
    whole = prove(items, KEY)
    at = data.draw(st.integers(0, count - 1))
    other = data.draw(st.integers(0, count + 2))
    assert refused(items[at], placed(whole[at], other, count)) is (other != at)
    assert refused(items[at], placed(whole[at], at, count + 1))
    assert refused(items[at], placed(whole[at], at, count - 1))
    assert refused(items[at], placed(whole[at], count, count))
    assert refused(items[(at + 1) % count], whole[at])
    for longer in (whole[at] + bytes(32), whole[at] + whole[at][-32:], whole[at] + b"\0"):
        assert refused(items[at], longer)
    for shorter in (
        whole[at][:-32],
        whole[at][:-1],
        whole[at][:72],
        whole[at][:71],
        whole[at][:65],
    ):
        assert shorter == whole[at] or refused(items[at], shorter)


def test_a_node_that_goes_up_as_it_is_is_not_doubled() -> None:
    # Of three records the third has no sibling. A tree that doubled it would have one root for
    # three records and for four.
    items = bodies_of(3)
    whole = prove(items, KEY)[2]
    leaves = [merkle.leaf(separated(*item)) for item in items]
    doubled = whole[:72] + leaves[2] + whole[72:]
    assert refused(items[2], placed(doubled, 2, 3))
    assert refused(items[2], placed(doubled, 2, 4))
    assert refused(items[2], placed(doubled, 3, 4))
    assert merkle.levels_of(leaves)[-1] != merkle.levels_of([*leaves, leaves[2]])[-1]


def test_an_inner_node_is_not_a_leaf() -> None:
    # Without different first bytes, a "record" made of two hashes would have been signed as well.
    items = bodies_of(4)
    whole = prove(items, KEY)[0]
    left, right = [merkle.leaf(separated(*item)) for item in items[:2]]
    for body in (left + right, b"\1" + left + right, b"\0" + left + right):
        for domain in ("", "task"):
            assert refused((domain, body), placed(whole[:72] + whole[104:], 0, 2))
            assert refused((domain, body), placed(whole[:72] + whole[104:], 0, 4))


def test_a_root_signed_for_another_purpose_is_no_root() -> None:
    items = bodies_of(2)
    whole = prove(items, KEY)[0]
    root = merkle.levels_of([merkle.leaf(separated(*item)) for item in items])[-1][0]
    words = struct.pack(">I", 2) + root
    for domain, body in (
        ("task", words),
        ("batch", root),
        ("", words),
        ("batch", root + words[:4]),
    ):
        assert refused(items[0], KEY.sign(domain, body) + whole[64:])
    check_proof(KEY.peer, *items[0], KEY.sign("batch", words) + whole[64:])
    # And what is signed of a batch is no record's signature, of any kind.
    for kind in Kind:
        assert kind.name.lower() != proof.BATCH_DOMAIN
        assert refused((kind.name.lower(), words), whole[:64])


@every_signed_record
def test_a_proof_with_any_byte_turned_is_refused(record: SignedRecord) -> None:
    raw = sign_many([*tasks(2), record, *tasks(2)], KEY)[2].raw
    for at in range(len(raw)):
        turned = raw[:at] + bytes((raw[at] ^ 1 << at % 8,)) + raw[at + 1 :]
        with pytest.raises(WireError):
            open_signed(turned, type(record))
    for end in range(0, len(raw), 7):
        with pytest.raises(WireError):
            open_signed(raw[:end], type(record))


@given(st.binary(max_size=200), st.integers(0, 9), st.integers(0, 9))
def test_any_bytes_are_no_proof(data: bytes, index: int, count: int) -> None:
    item = ("task", b"body")
    assert refused(item, data)
    assert refused(item, bytes(64) + struct.pack(">II", index, count) + data)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Of each signature that is checked from here on: its domain, and the size of the body."""
    # Other threads of this process may have a network of their own.
    found, here = list[tuple[str, int]](), threading.get_ident()
    check = proof.check_signature

    def counted(peer: bytes, domain: str, body: bytes, signature: bytes) -> None:
        if threading.get_ident() == here:
            found.append((domain, len(body)))
        check(peer, domain, body, signature)  # type: ignore[arg-type]

    monkeypatch.setattr(proof, "check_signature", counted)
    return found


def test_a_root_that_held_is_not_checked_again_and_one_that_did_not_is(
    checks: list[tuple[str, int]],
) -> None:
    items = [("task", b"remembered %d" % at) for at in range(9)]
    each = prove(items, KEY)
    for item, whole in zip(items, each, strict=True):
        check_proof(KEY.peer, *item, whole)
    assert [domain for domain, _ in checks] == ["batch"]
    bad = bytes((each[0][0] ^ 1,)) + each[0][1:]
    for _ in range(3):
        assert refused(items[0], bad)
    assert [domain for domain, _ in checks] == ["batch"] * 4
    # The memory is of one signer's root: another's is checked.
    with pytest.raises(BadSignature):
        check_proof(OTHER_KEY.peer, *items[0], each[0])
    assert len(checks) == 5


def test_a_small_record_that_held_is_not_checked_again(checks: list[tuple[str, int]]) -> None:
    small, large = ("receipt", bytes(1024)), ("receipt", bytes(1025))
    for item in (small, small, large, large):
        check_proof(KEY.peer, *item, KEY.sign(*item))
    assert [size_bytes for _, size_bytes in checks] == [1024, 1025, 1025]
    # Nothing else is taken for it: another domain, key, body or signature.
    signature = KEY.sign(*small)
    assert refused(("verdict", small[1]), signature)
    assert refused(("receipt", bytes(1023) + b"x"), signature)
    assert refused(small, signature[:-1] + bytes((signature[-1] ^ 1,)))
    with pytest.raises(BadSignature):
        check_proof(OTHER_KEY.peer, *small, signature)


def test_what_is_remembered_of_signatures_takes_no_more_memory() -> None:
    # 0.3 MB in a peer that opens an advert every few seconds would be growth for an hour and more.
    items = [("receipt", number.to_bytes(4, "big") + bytes(900)) for number in range(500)]
    proofs = [KEY.sign(*it) for it in items]
    batches = [prove(items[at : at + 2], KEY) for at in range(0, len(items), 2)]
    # What other tests of this process left running allocates elsewhere.
    ours = tracemalloc.Filter(True, str(Path(wire.__file__).parent / "*"))
    tracemalloc.start()
    try:
        for item, signature in zip(items, proofs, strict=True):
            check_proof(KEY.peer, *item, signature)
        for at, (first, _) in enumerate(batches):
            check_proof(KEY.peer, *items[2 * at], first)
        gc.collect()
        kept = tracemalloc.take_snapshot().filter_traces([ours]).traces
    finally:
        tracemalloc.stop()
    # A table with an entry for each took 253 bytes a signature. Other threads of this process may
    # leave a few thousand in all, whatever their number.
    assert sum(it.size for it in kept) < 16 * (len(items) + len(batches))


def test_the_latest_signatures_are_remembered(checks: list[tuple[str, int]]) -> None:
    items = [("receipt", b"one of many %d" % number) for number in range(proof.SMALL_MAX)]
    proofs = [KEY.sign(*it) for it in items]
    for item, signature in zip(items, proofs, strict=True):
        check_proof(KEY.peer, *item, signature)
    assert len(checks) == len(items)
    checks.clear()
    latest = proof.SMALL_MAX // 4
    for item, signature in zip(items[-latest:], proofs[-latest:], strict=True):
        check_proof(KEY.peer, *item, signature)
    # Few of them share a bucket with four others.
    assert len(checks) <= latest // 16


def test_the_file_of_an_answer_of_a_bundle_stays_small() -> None:
    # Thirty tasks of one leg, nothing checked: task, receipt and answer each came with 29 others.
    stage = altered("Stage", role=Role.INFER, model=MODEL, operation="embed", parameters={})
    signed_only = altered("CheckPolicy", level=Level.SIGNED, verifiers=0, needed=0)
    asked = [
        altered("Task", stages=(stage,), checking=signed_only, nonce=at.to_bytes(16, "big"))
        for at in range(30)
    ]
    together = sign_many(asked, KEY)
    receipts = sign_many([altered("Receipt", task=it.id, stage=0) for it in together], OTHER_KEY)
    answers = [
        altered(
            "Answer",
            task=task.raw,
            receipts=(receipt.raw,),
            candidates=(),
            verdicts=(),
            mixed=(),
            owned=(),
        )
        for task, receipt in zip(together, receipts, strict=True)
    ]
    files = sign_many(answers, KEY)
    assert max(len(file.raw) for file in files) <= 1900
    # The same alone.
    task = sign(asked[0], KEY)
    receipt = sign(altered("Receipt", task=task.id, stage=0), OTHER_KEY)
    unchecked = replace(answers[0], task=task.raw, receipts=(receipt.raw,))
    alone = sign(unchecked, KEY)
    assert len(alone.raw) < 1300
