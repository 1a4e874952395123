"""Receipts out of a store and into another, alone or with everything that they name."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from node.asking.answers import Answers, KeptAnswer
from node.checking.audit import audit
from node.checking.named import named_by
from node.local import bundles
from node.local.bundles import export_receipt, import_receipt, open_bundle
from node.local.receipts import IMPORTED_MAX, imported, list_receipts, read_answer
from store import Store, open_memory_store
from store.car_file import open_car, write_car
from tests.checking.answers import ASKER, NOW_MS, WORKER, answer_to, changed
from tests.node.asking import MANIFEST, TEXTS, VECTORS, complete
from wire.car import header_of, section_of
from wire.content import ContentId, PeerId
from wire.errors import InputError, Malformed, Missing, StoreFull
from wire.receipt import Answer, Receipt
from wire.signed import Signed, open_signed, sign
from wire.task import Task
from wire.tree import Block, TreeNode, name_of

# More than one block.
LARGE = bytes(range(256)) * 1100
ANSWER = answer_to()


@asynccontextmanager
async def storing(answer: Signed[Answer], *contents: bytes) -> AsyncIterator[Store]:
    """A store that keeps an answer of its own, and so much of what it names."""
    async with open_memory_store(quota_bytes=64 << 20) as store:
        task = open_signed(answer.record.task, Task)
        output = contents[-1]
        kept = KeptAnswer(task, answer, output, name_of(output))
        await Answers(store).keep([kept])
        for content in contents:
            await store.put(content)
        yield store


async def exported(path: Path, answer: Signed[Answer] = ANSWER, output: bytes = VECTORS) -> Path:
    async with storing(answer, TEXTS, output) as store:
        await export_receipt(store, answer.id, path)
    return path


def rewritten(path: Path, **changes: bytes | None) -> Path:
    """The archive once more, without the blocks named in `changes`."""
    car = open_car(path)
    left = [it for it in car.places if str(it) not in changes]
    write_car(path, car.root, left, car.block)
    return path


async def test_a_bundle_has_the_receipt_and_all_that_it_names(tmp_path: Path) -> None:
    async with storing(ANSWER, TEXTS, VECTORS) as store:
        told = await export_receipt(store, ANSWER.id, tmp_path / "x.car")
    assert told["blobs"] == 2
    assert told["models"] == 1
    bundle = open_bundle(tmp_path / "x.car")
    assert bundle.answer == ANSWER.raw
    contents = {it: bundle.have(it) for it in named_by(ANSWER).blobs}
    assert contents == {name_of(TEXTS): TEXTS, name_of(VECTORS): VECTORS}
    assert bundle.have(MANIFEST.id) == MANIFEST.to_bytes()
    assert bundle.have(name_of(b"other")) is None
    assert audit(bundle.answer, bundle.have).holds


async def test_a_receipt_alone_is_the_bytes_that_were_signed(tmp_path: Path) -> None:
    path = await exported(tmp_path / "x.receipt")
    assert path.read_bytes() == ANSWER.raw


async def test_what_is_not_kept_any_more_is_fetched_or_named(tmp_path: Path) -> None:
    path = tmp_path / "x.car"
    asked: list[Sequence[PeerId]] = []
    async with storing(ANSWER, VECTORS) as store:

        async def fetch(content_id: ContentId, sources: Sequence[PeerId]) -> None:
            assert content_id == name_of(TEXTS)
            asked.append(sources)
            await store.put(TEXTS)

        with pytest.raises(InputError, match=str(name_of(TEXTS))):
            await export_receipt(store, ANSWER.id, path)
        assert not path.exists()
        await export_receipt(store, ANSWER.id, path, fetch)
    assert asked == [(WORKER.peer,)]
    assert open_bundle(path).have(name_of(TEXTS)) == TEXTS


async def test_a_bundle_is_imported_whole_listed_and_never_an_answer_of_ours(
    tmp_path: Path,
) -> None:
    answer = answer_to(complete(3), source=LARGE)
    async with storing(answer, LARGE, VECTORS) as store:
        await export_receipt(store, answer.id, tmp_path / "x.car")
    async with open_memory_store(quota_bytes=64 << 20) as store:
        told = await import_receipt(store, tmp_path / "x.car", NOW_MS)
        assert told == {
            "receipt": str(answer.id),
            "blobs": 3,
            "disputed": False,
            "known_before": False,
        }
        again = await import_receipt(store, tmp_path / "x.car", NOW_MS + 1)
        assert again["known_before"]
        assert len(imported(store)) == 1
        assert await store.get(name_of(LARGE)) == LARGE
        assert await store.missing(name_of(LARGE)) == []
        assert (await read_answer(store, answer.id))["output"] == VECTORS
        answers = Answers(store)
        (row,) = (await list_receipts(answers, lambda _: None))["receipts"]
        assert row["imported"]
        assert row["receipt"] == str(answer.id)
        # It may be made up: whoever asks for the same job has it done.
        assert await answers.of_job(complete(3), name_of(LARGE), 0) is None
        with pytest.raises(Missing):
            await answers.of_task(open_signed(answer.record.task, Task).id)
        # And it goes on from here.
        await export_receipt(store, answer.id, tmp_path / "y.car")
    assert (tmp_path / "y.car").read_bytes() == (tmp_path / "x.car").read_bytes()


async def test_a_receipt_alone_is_imported_too(tmp_path: Path) -> None:
    path = await exported(tmp_path / "x.receipt")
    async with open_memory_store(quota_bytes=64 << 20) as store:
        await import_receipt(store, path, NOW_MS)
        assert (await read_answer(store, ANSWER.id))["answer"] == ANSWER.raw


async def test_a_bundle_that_lacks_a_blob_is_refused_by_name(tmp_path: Path) -> None:
    output = name_of(VECTORS)
    path = rewritten(await exported(tmp_path / "x.car"), **{str(output): None})
    async with open_memory_store(quota_bytes=64 << 20) as store:
        with pytest.raises(InputError, match=f"not whole: the receipt names {output}"):
            await import_receipt(store, path, NOW_MS)
        assert imported(store) == []
        assert store.pins() == []


async def test_a_bundle_that_lacks_a_block_of_a_tree_is_refused_by_name(tmp_path: Path) -> None:
    answer = answer_to(complete(3), source=LARGE)
    async with storing(answer, LARGE, VECTORS) as store:
        await export_receipt(store, answer.id, tmp_path / "x.car")
        node = TreeNode.from_bytes(await store.get_block(name_of(LARGE)))
    car, lacks = open_car(tmp_path / "x.car"), node.children[-1]
    left = [Block(it, car.block(it)) for it in car.places if it != lacks]
    car.path.write_bytes(header_of(car.root) + b"".join(map(section_of, left)))
    with pytest.raises(InputError, match=f"of its blocks {lacks} is missing"):
        open_bundle(car.path)


async def test_a_receipt_that_does_not_hold_is_not_imported(tmp_path: Path) -> None:
    stranger = sign(ANSWER.record, WORKER)
    unchecked = changed(ANSWER, verdicts=())
    for number, answer in enumerate((stranger, unchecked)):
        path = tmp_path / f"{number}.receipt"
        path.write_bytes(answer.raw)
        async with open_memory_store(quota_bytes=64 << 20) as store:
            with pytest.raises(InputError, match="not imported, because it does not hold"):
                await import_receipt(store, path, NOW_MS)
            assert imported(store) == []
    (tmp_path / "x.receipt").write_bytes(b"# Baton")
    async with open_memory_store(quota_bytes=64 << 20) as store:
        with pytest.raises(InputError, match="not imported"):
            await import_receipt(store, tmp_path / "x.receipt", NOW_MS)
        with pytest.raises(InputError, match="cannot be read"):
            await import_receipt(store, tmp_path / "none.receipt", NOW_MS)


async def test_an_import_that_has_no_room_leaves_nothing_behind(tmp_path: Path) -> None:
    path = await exported(tmp_path / "x.car")
    async with open_memory_store(quota_bytes=1000) as store:
        with pytest.raises(StoreFull):
            await import_receipt(store, path, NOW_MS)
        assert imported(store) == []
        assert store.pins() == []


async def test_the_oldest_import_makes_way_for_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert IMPORTED_MAX > 2
    monkeypatch.setattr(bundles, "IMPORTED_MAX", 2)
    answers = [changed(ANSWER, duration_ms=it) for it in range(3)]
    async with open_memory_store(quota_bytes=64 << 20) as store:
        for number, answer in enumerate(answers):
            path = tmp_path / f"{number}.receipt"
            path.write_bytes(answer.raw)
            await import_receipt(store, path, NOW_MS + number)
        assert [it.answer_id for it in imported(store)] == [it.id for it in answers[1:]]
        assert {it.id for it in store.pins()} == {it.id for it in answers[1:]}


async def test_a_bundle_whose_tree_lies_is_refused(tmp_path: Path) -> None:
    lie = TreeNode(300_000, (name_of(TEXTS), name_of(VECTORS))).to_bytes()
    root = ContentId.of_tree(lie)
    answer = answer_to()
    receipt = open_signed(answer.record.receipts[0], Receipt).record
    lying = sign(replace(receipt, output=root), WORKER)
    forged = changed(answer, receipts=(lying.raw,))
    blocks = {
        forged.id: forged.raw,
        root: lie,
        name_of(TEXTS): TEXTS,
        name_of(VECTORS): VECTORS,
    }
    path = tmp_path / "x.car"
    write_car(path, forged.id, list(blocks), blocks.__getitem__)
    with pytest.raises(Malformed):
        open_bundle(path).have(root)
    assert ASKER.peer == forged.signer
