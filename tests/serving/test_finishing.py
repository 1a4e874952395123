"""Legs that are done at once: one commit, one signature, and what fails is one leg alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import trio
from trio.testing import MockClock

from node.serving.done_legs import DoneLegs
from node.serving.finishing import FinishedLeg, Finishing
from store import Store, Table, Write, open_memory_store
from tests.wire.samples import BY_NAME, KEY
from wire.content import ContentId
from wire.errors import BatonError, Oversize, StoreFull
from wire.receipt import Receipt
from wire.signed import Signed, open_signed
from wire.signing import SIGNATURE_BYTES
from wire.tree import name_of


def leg_of(number: int, blob: bytes, *, shares: bool) -> FinishedLeg:
    sample = BY_NAME["Receipt"]
    assert isinstance(sample, Receipt)
    receipt = replace(sample, output=name_of(blob), output_size_bytes=len(blob))
    return FinishedLeg(
        number.to_bytes(33, "big"), number.to_bytes(32, "big"), receipt, (blob,), shares=shares
    )


@asynccontextmanager
async def finishing(quota_bytes: int = 1 << 30) -> AsyncIterator[tuple[Finishing, Store]]:
    async with (
        open_memory_store(quota_bytes=quota_bytes) as store,
        trio.open_nursery() as nursery,
    ):
        found = Finishing(KEY, store, DoneLegs(store), lambda: 1_800_000_000.0)
        nursery.start_soon(found.run)
        yield found, store
        nursery.cancel_scope.cancel()


async def all_finished(
    found: Finishing, legs: list[FinishedLeg]
) -> list[Signed[Receipt] | BatonError]:
    came: dict[int, Signed[Receipt] | BatonError] = {}

    async def one(at: int) -> None:
        try:
            came[at] = await found.finish(legs[at])
        except BatonError as error:
            came[at] = error

    async with trio.open_nursery() as nursery:
        for at in range(len(legs)):
            nursery.start_soon(one, at)
    return [came[at] for at in range(len(legs))]


async def test_legs_done_at_once_share_a_commit_and_a_signature(autojump_clock: MockClock) -> None:
    async with finishing() as (found, store):
        legs = [leg_of(it, b"%d" % it, shares=it % 10 != 0) for it in range(100)]
        receipts = await all_finished(found, legs)
        assert found.commits <= 3
        for leg, receipt in zip(legs, receipts, strict=True):
            assert isinstance(receipt, Signed)
            # It was durable before anybody heard of it, and holds alone.
            assert store.read(Table.RECEIPTS, leg.leg_key) == receipt.raw
            assert store.read(Table.JOBS, leg.job_key) is not None
            assert await store.get(receipt.record.output) == leg.blobs[0]
            assert open_signed(receipt.raw, Receipt) == receipt
            alone = len(receipt.raw) - len(receipt.record.to_bytes()) < SIGNATURE_BYTES + 50
            assert alone is not leg.shares


async def test_one_that_cannot_be_kept_fails_alone(autojump_clock: MockClock) -> None:
    async with finishing() as (found, _):
        legs = [leg_of(it, bytes(9 << 20 if it == 3 else it + 1), shares=True) for it in range(9)]
        came = await all_finished(found, legs)
        assert isinstance(came[3], Oversize)
        assert sum(isinstance(it, Signed) for it in came) == 8
        # Those that come later are kept as ever.
        (later,) = await all_finished(found, [leg_of(10, b"later", shares=True)])
        assert isinstance(later, Signed)


class SmallRoom:
    """A store in which there is room for a small write only."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, batch: Write) -> tuple[ContentId, ...]:
        if batch.size_bytes > 10_000:
            raise StoreFull("no room on the disk")
        return await self._store.commit(batch)


async def test_a_full_store_is_said_to_whom_there_is_no_room_for(
    autojump_clock: MockClock,
) -> None:
    async with finishing() as (found, store):
        found.store = cast("Store", SmallRoom(store))
        legs = [
            leg_of(it, bytes([it]) * (11_000 if it < 2 else 10), shares=True) for it in range(4)
        ]
        came = await all_finished(found, legs)
        assert [type(it).__name__ for it in came] == ["StoreFull", "StoreFull", "Signed", "Signed"]
