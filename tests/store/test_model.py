"""Any history of calls, replayed on a store and on a model that a child could check.

The model knows only what is promised: what is pinned is there and whole, what is there is right,
the quota holds, and what was forgotten is Missing. It does not say which unpinned blob goes first.
"""

import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from store import Pin, Row, Store, Table, Write, open_memory_store, open_store
from wire.errors import Missing, StoreFull
from wire.tree import split

BLOB_SIZES = (9, 10, 1000, 2000, 300_000, 700_000)
QUOTA_BYTES = 1_500_000
KEYS = (b"a", b"ab", b"b", b"\x00", b"\xff")


def blob(number: int) -> bytes:
    size_bytes = BLOB_SIZES[number % len(BLOB_SIZES)]
    return (number.to_bytes(8, "big") * (size_bytes // 8 + 1))[:size_bytes]


IDS = {number: list(split(blob(number)))[-1].id for number in range(18)}

numbers = st.integers(0, 17)
reasons = st.sampled_from(["x", "y"])
steps = st.one_of(
    st.tuples(st.just("put"), numbers, st.none() | reasons),
    st.tuples(st.just("arrive"), numbers),
    st.tuples(st.just("get"), numbers),
    st.tuples(st.just("pin"), numbers, reasons),
    st.tuples(st.just("unpin"), numbers, reasons),
    st.tuples(st.just("write"), st.sampled_from(KEYS), st.none() | st.binary(max_size=4)),
    st.tuples(st.just("batch"), numbers, st.sampled_from(KEYS), st.lists(reasons, max_size=3)),
    st.tuples(
        st.just("rows"),
        st.lists(st.tuples(st.sampled_from(KEYS), st.none() | st.binary(max_size=4)), max_size=6),
    ),
    st.tuples(st.just("check")),
)


@dataclass
class Model:
    """What must be so, whatever was evicted."""

    pins: set[tuple[int, str]] = field(default_factory=set)
    whole: set[int] = field(default_factory=set)
    rows: dict[bytes, bytes] = field(default_factory=dict)

    def pinned(self) -> set[int]:
        return {number for number, _ in self.pins}

    def forget_what_may_be_gone(self) -> None:
        """Before anything else comes in, only what is pinned is sure to stay."""
        self.whole &= self.pinned()


async def _step(store: Store, model: Model, step: tuple) -> None:
    match step:
        case ("put", number, why):
            try:
                assert await store.put(blob(number), pin=why) == IDS[number]
            except StoreFull:
                model.forget_what_may_be_gone()
                return
            model.forget_what_may_be_gone()
            model.whole.add(number)
            if why is not None:
                model.pins.add((number, why))
        case ("arrive", number):
            model.forget_what_may_be_gone()
            try:
                for block in reversed(list(split(blob(number)))):
                    await store.put_block(block)
            except StoreFull:
                return
            if number in model.pinned():
                model.whole.add(number)
        case ("get", number):
            try:
                assert await store.get(IDS[number]) == blob(number)
            except Missing:
                assert number not in model.whole
        case ("pin", number, why):
            await store.pin(IDS[number], why)
            model.pins.add((number, why))
            if not await store.missing(IDS[number]):
                model.whole.add(number)
        case ("unpin", number, why):
            await store.unpin(IDS[number], why)
            model.pins.discard((number, why))
        case ("write", key, value):
            await store.write(Table.JOBS, key, value)
            model.rows.pop(key, None)
            if value is not None:
                model.rows[key] = value
        case ("rows", rows):
            await store.commit(Write(rows=tuple(Row(Table.JOBS, *row) for row in rows)))
            for key, value in rows:
                model.rows.pop(key, None)
                if value is not None:
                    model.rows[key] = value
        case ("batch", number, key, whys):
            row = Row(Table.JOBS, key, b"batch")
            pins = tuple(Pin(IDS[number], why) for why in whys)
            try:
                await store.commit(Write(rows=(row,), blobs=(blob(number),), pins=pins))
            except StoreFull:
                model.forget_what_may_be_gone()
                return
            model.forget_what_may_be_gone()
            model.whole.add(number)
            model.pins |= {(number, why) for why in whys}
            model.rows[key] = b"batch"
        case ("check",):
            assert (await store.check()).repairs == ()


async def _agrees(store: Store, model: Model) -> None:
    for number in model.whole:
        assert await store.missing(IDS[number]) == []
    figures = store.statistics()
    assert figures.used_bytes <= QUOTA_BYTES
    assert figures.held_bytes <= figures.used_bytes
    assert dict(store.scan(Table.JOBS)) == model.rows
    assert [key for key, _ in store.scan(Table.JOBS)] == sorted(model.rows)
    assert set(store.pins()) == {Pin(IDS[number], why) for number, why in model.pins}


async def _replay(
    opened: Callable[[], AbstractAsyncContextManager[Store]], history: list[tuple], restart: bool
) -> None:
    model = Model()
    halves = [history[: len(history) // 2], history[len(history) // 2 :]] if restart else [history]
    for half in halves:
        async with opened() as store:
            for step in half:
                await _step(store, model, step)
                await _agrees(store, model)
            for number in model.whole:
                assert await store.get(IDS[number]) == blob(number)
            assert (await store.check()).repairs == ()


def _run(work: Callable[[], Awaitable[None]]) -> None:
    trio.run(work, strict_exception_groups=True)


@settings(max_examples=120, deadline=None)
@given(st.lists(steps, max_size=40))
def test_any_history_keeps_its_promises_in_memory(history: list[tuple]) -> None:
    _run(lambda: _replay(lambda: open_memory_store(quota_bytes=QUOTA_BYTES), history, False))


@settings(max_examples=25, deadline=None)
@given(st.lists(steps, max_size=30))
def test_any_history_keeps_its_promises_on_disk_across_a_restart(history: list[tuple]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _run(
            lambda: _replay(
                lambda: open_store(Path(folder), quota_bytes=QUOTA_BYTES), history, True
            )
        )
