"""Receipts in and out of a store: alone, or as a bundle with everything that they name.

A bundle is a CAR archive whose root is the answer. What is imported is pinned and listed, and
never taken for an answer to a task of this peer: whoever made it may have made it up.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from node.checking.audit import audit
from node.checking.audit_log import log_of
from node.checking.named import named_by
from node.checking.report import Status
from node.ingest.model_inputs import read_fetched
from node.ingest.tokenise import tables_of
from node.local.receipts import BY_IMPORT, IMPORTED_MAX, Imported, imported, read_kept
from node.models.model_store import ModelStore
from store import Row, Store, Table, Write
from store.car_file import CarFile, open_car, write_car
from store.files import appearing
from wire import limits
from wire.codec import pack
from wire.content import ContentId, PeerId
from wire.errors import InputError, Missing, StoreError, TransportError, WireError
from wire.fetch import AttestedFetch
from wire.log import LogPlaces
from wire.model import Manifest
from wire.operations import CALL, FETCH
from wire.payload import Passages
from wire.receipt import Answer, Receipt
from wire.signed import Signed, open_signed
from wire.task import Task
from wire.tree import Block, split

CONTENT_BYTES_MAX = 64 << 20
BUNDLE_SUFFIX = ".car"
# A map of one, "places".
_LOG_HEAD = b"\x81\xa6places"

# Brings content into the store from whoever may have it; raises as `Blobs.fetch` does.
Fetch = Callable[[ContentId, Sequence[PeerId]], Awaitable[None]]


# A model's manifest from whoever runs it; None if none can be had.
Learn = Callable[[ContentId], Awaitable[Manifest | None]]
# Where receipts are in their signers' logs, as `wire.log.LogPlaces`; None if nobody shows any.
PlacesOf = Callable[[Sequence[Signed[Receipt]]], Awaitable[bytes | None]]
LOG_SUFFIX = ".log"


async def no_places(_: Sequence[Signed[Receipt]]) -> None:
    """For a folder without a running peer: no signer can be asked."""
    return


async def learn_nothing(_: ContentId) -> None:
    """For a folder without a running peer: no other peer can be asked."""
    return


async def fetch_nothing(_: ContentId, __: Sequence[PeerId]) -> None:
    """For a folder without a running peer: what is not in its store cannot be had."""
    raise Missing("no peer is running that could fetch it")


async def export_receipt(
    store: Store,
    answer_id: ContentId,
    path: Path,
    fetch: Fetch = fetch_nothing,
    places_of: PlacesOf = no_places,
    learn: Learn = learn_nothing,
) -> dict[str, Any]:
    """Write a kept answer to `path`: a bundle where that ends in .car, else the answer alone.

    InputError if the answer is not kept here, or for a bundle if something that it names cannot be
    had: a bundle is whole or is not written. What was fetched, and manifests of others' models, are
    put into it if they can still be had. Where the receipts are in logs is put into the bundle, or
    into a file beside the answer, if their signers show it.
    """
    answer = await read_kept(store, answer_id)
    places = await places_of([open_signed(it, Receipt) for it in answer.record.receipts])
    if path.suffix != BUNDLE_SUFFIX:
        await trio.to_thread.run_sync(_write, path, answer.raw)
        if places is not None:
            await trio.to_thread.run_sync(_write, path.with_suffix(LOG_SUFFIX), places)
        counts = {"blobs": 0, "models": 0, "log": places is not None}
        return {"path": str(path), "size_bytes": len(answer.raw), **counts}
    named = named_by(answer)
    for content_id, signer in named.blobs.items():
        await _bring(store, content_id, signer, fetch)
    fetched = await _bring_fetched(store, answer, fetch)
    shelf = ModelStore(store)
    found = [shelf.manifest_of(it) or await learn(it) for it in named.models]
    manifests = [it.to_bytes() for it in found if it is not None]
    beside = {ContentId.of(it): it for it in (*manifests, *([] if places is None else [places]))}

    def read(block: ContentId) -> bytes:
        if (manifest := beside.get(block)) is not None:
            return manifest
        return trio.from_thread.run(store.get_block, block)

    blobs = list(dict.fromkeys([answer_id, *beside, *named.blobs, *fetched]))
    written = partial(write_car, path, answer_id, blobs, read)
    return {
        "path": str(path),
        "size_bytes": await trio.to_thread.run_sync(written),
        "blobs": len({*named.blobs, *fetched}),
        "models": len(manifests),
        "log": places is not None,
    }


async def _bring_fetched(store: Store, answer: Signed[Answer], fetch: Fetch) -> list[ContentId]:
    """Of each fetch its record, what came, and what was made of that; what can be had, is here."""
    wanted = await _bring_fetches_of_calls(store, answer, fetch)
    for raw in answer.record.receipts:
        receipt = open_signed(raw, Receipt)
        if receipt.record.operation != FETCH:
            continue
        with suppress(StoreError, TransportError, WireError):
            passages = Passages.from_bytes(await store.get(receipt.record.output))
            for record_id in passages.attested:
                await _bring_here(store, record_id, receipt.signer, fetch)
                record = AttestedFetch.from_bytes(await store.get(record_id))
                wanted.append(record_id)
                tables = tables_of(record.extraction)
                rest = dict.fromkeys((record.output, *passages.passages, record.body, *tables))
                for content_id in rest:
                    await _bring_here(store, content_id, receipt.signer, fetch)
                    wanted.append(content_id)
    return wanted


async def _bring_fetches_of_calls(
    store: Store, answer: Signed[Answer], fetch: Fetch
) -> list[ContentId]:
    """The receipts of fetches that calls name, each with all that belongs to it; what can be had.

    They are of this peer's own tasks, so they are here, unless they made room.
    """
    wanted: list[ContentId] = []
    task = open_signed(answer.record.task, Task)
    for stage in task.record.stages:
        with suppress(InputError, StoreError, TransportError, WireError):
            for named in read_fetched(stage.parameters) if stage.operation == CALL else ():
                one = await read_kept(store, named)
                wanted.append(named)
                for content_id, signer in named_by(one).blobs.items():
                    await _bring_here(store, content_id, signer, fetch)
                    wanted.append(content_id)
                wanted += await _bring_fetched(store, one, fetch)
    return wanted


async def _bring_here(store: Store, content_id: ContentId, signer: PeerId, fetch: Fetch) -> None:
    if await store.missing(content_id, limit=1):
        await fetch(content_id, (signer,))


async def _bring(store: Store, content_id: ContentId, signer: PeerId, fetch: Fetch) -> None:
    if not await store.missing(content_id, limit=1):
        return
    try:
        await _bring_here(store, content_id, signer, fetch)
    except (StoreError, TransportError) as error:
        raise InputError(
            f"a bundle cannot be made: {content_id}, which the receipt names, is not kept here any"
            f" more ({error.message})",
            todo="export the receipt alone: --output NAME.receipt",
        ) from error


def _write(path: Path, data: bytes) -> None:
    with appearing(path) as file:
        file.write(data)


@dataclass(frozen=True, slots=True)
class ReceiptBundle:
    """A receipt as somebody hands it over, with what came beside it; everything was hashed."""

    answer: bytes
    car: CarFile | None = None

    def have(self, content_id: ContentId) -> bytes | None:
        """Content that came with it; None where there is none."""
        if self.car is None or content_id not in self.car.places:
            return None
        return self.car.content(content_id, CONTENT_BYTES_MAX)

    @property
    def log(self) -> bytes | None:
        """The places in logs that came with it; None if there are none."""
        if self.car is None:
            return None
        for content_id, (_, size_bytes) in self.car.places.items():
            if size_bytes > LogPlaces.SIZE_BYTES_MAX or content_id == self.car.root:
                continue
            data = self.car.block(content_id)
            if data.startswith(_LOG_HEAD):
                return data
        return None


def open_bundle(path: Path) -> ReceiptBundle:
    """Read an archive; InputError unless it has an answer and everything that the answer names.

    Models are left out of that: their manifests need not be there.
    """
    car = open_car(path)
    raw = car.block(car.root)
    try:
        named = named_by(open_signed(raw, Answer))
    except WireError:
        # What is wrong with the answer is for an audit to say.
        return ReceiptBundle(raw, car)
    for content_id in named.blobs:
        try:
            missing = car.missing(content_id)
        except WireError as error:
            raise InputError(
                f"{path}: the blocks of {content_id} do not fit together: {error.message}",
                todo="have it exported again: python -m node receipts export",
            ) from error
        if missing:
            raise InputError(
                f"{path} is not whole: the receipt names {content_id}, and of its blocks"
                f" {missing[0]} is missing",
                todo="have it exported again: python -m node receipts export",
            )
    return ReceiptBundle(raw, car)


async def import_receipt(store: Store, path: Path, now_ms: int) -> dict[str, Any]:
    """Keep the receipt in `path`, and what comes with it; InputError if it does not hold."""
    bundle = await trio.to_thread.run_sync(_read, path)
    judge = partial(audit, bundle.answer, bundle.have, now_ms=now_ms, check_log=log_of(bundle.log))
    report = await trio.to_thread.run_sync(judge)
    bad = report.first_bad
    if report.answer is None or (bad is not None and bad.status is not Status.DISPUTED):
        what = "it cannot be read" if bad is None else bad.what
        raise InputError(
            f"{path} is not imported, because it does not hold: {what!r} fails",
            todo=f"see all that is wrong with it: python -m node verify {path}",
        )
    answer_id = report.answer.id
    blobs = [answer_id]
    if bundle.car is not None:
        named = named_by(report.answer)
        blobs += [it for it in (*named.models, *named.blobs) if it in bundle.car.places]
    blobs = list(dict.fromkeys(blobs))
    known = {it.answer_id for it in imported(store)}
    if answer_id not in known:
        await _keep(store, bundle, blobs, now_ms)
    return {
        "receipt": str(answer_id),
        "blobs": len(blobs) - 1,
        "disputed": report.disputed,
        "known_before": answer_id in known,
    }


def _read(path: Path) -> ReceiptBundle:
    if path.suffix == BUNDLE_SUFFIX:
        return open_bundle(path)
    try:
        with path.open("rb") as file:
            raw = file.read(limits.FRAME_BYTES_MAX + 1)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", todo="check the path and its permissions"
        ) from error
    if len(raw) > limits.FRAME_BYTES_MAX:
        raise InputError(
            f"{path} is larger than a receipt can be", todo="a bundle's name ends in .car"
        )
    return ReceiptBundle(raw)


async def _keep(
    store: Store, bundle: ReceiptBundle, blobs: Sequence[ContentId], now_ms: int
) -> None:
    """Pin and list first, so that nothing is evicted while it comes; undone if it cannot come."""
    key = BY_IMPORT + now_ms.to_bytes(8, "big") + blobs[0].digest
    row = Row(Table.ANSWERS, key, pack([bytes(it) for it in blobs]))
    one = Imported(key, blobs[0], tuple(blobs))
    await store.commit(Write(rows=(row,), pins=one.pins))
    is_whole = False
    try:
        for content_id in blobs:
            await _put(store, bundle, content_id)
        is_whole = True
    finally:
        if not is_whole:
            with trio.CancelScope(shield=True):
                await forget_import(store, one)
    for old in imported(store)[:-IMPORTED_MAX]:
        await forget_import(store, old)


async def _put(store: Store, bundle: ReceiptBundle, root: ContentId) -> None:
    """Put the blocks of one blob into the store, one after the other."""
    car = bundle.car
    if car is None:
        for block in split(bundle.answer):
            await store.put_block(block)
        return
    wanted = [root]
    while wanted:
        for content_id in wanted:
            data = await trio.to_thread.run_sync(car.block, content_id)
            await store.put_block(Block(content_id, data))
        wanted = [content_id for content_id, _ in await store.missing(root)]


async def forget_import(store: Store, one: Imported) -> None:
    """Let an import go: what of it nothing else holds may be evicted."""
    await store.commit(Write(rows=(Row(Table.ANSWERS, one.key, None),), unpins=one.pins))
