"""Repair of the bookkeeping after disk damage: everything is counted again from blocks and pins."""

from collections import Counter
from collections.abc import Iterable

from store.catalog import Catalog
from store.rows import BLOCKS, HOLDS, QUEUE
from store.scanning import every_pin, every_row, every_size
from wire.content import ContentId


def drop_corrupt(catalog: Catalog, suspects: Iterable[ContentId]) -> int:
    """Drop the suspects that no longer hash to their id; returns how many."""
    dropped = 0
    for content_id in suspects:
        data = catalog.rows.get(BLOCKS, content_id)
        if data is not None and not content_id.matches(data):
            catalog.rows.delete(BLOCKS, content_id)
            dropped += 1
    if dropped:
        # Their lengths may have changed too, and a damaged node no longer says what it held.
        rebuild(catalog)
    return dropped


def rebuild(catalog: Catalog) -> None:
    """Count everything again from the blocks and the pins, keeping the order of the queue.

    The cost grows with the number of blocks, and writers wait for it; it is done only after damage.
    """
    rows, counters = catalog.rows, catalog.counters
    for key in [key for key, _ in every_size(rows, HOLDS)]:
        rows.delete(HOLDS, key)
    sizes = dict(every_size(rows, BLOCKS))
    order = list(dict.fromkeys(content_id for _, content_id in every_row(rows, QUEUE)))
    for tick in [tick for tick, _ in every_size(rows, QUEUE)]:
        rows.delete(QUEUE, tick)
    counters.blocks, counters.used_bytes = len(sizes), sum(sizes.values())
    counters.held_bytes = counters.holds = 0
    for key in dict.fromkeys([*order, *sizes]):
        if key in sizes:
            catalog.enqueue(ContentId(key))
    for content_id in dict.fromkeys(pin.id for pin in every_pin(rows)):
        catalog.hold(content_id)


def audit(catalog: Catalog) -> str | None:
    """Compare the bookkeeping with what is there; if they differ, rebuild and say so."""
    rows, counters = catalog.rows, catalog.counters
    blocks = dict(every_size(rows, BLOCKS))
    holds = {key: catalog.hold_of(ContentId(key)) for key, _ in every_size(rows, HOLDS)}
    counts = {key: held[0] for key, held in holds.items() if held is not None}
    held_bytes = sum(size for key, size in blocks.items() if key in holds)
    found = (len(blocks), sum(blocks.values()), held_bytes, len(holds))
    said = (counters.blocks, counters.used_bytes, counters.held_bytes, counters.holds)
    queued = {content_id for _, content_id in every_row(rows, QUEUE)}
    # A block that nothing holds and that has no place in the queue could never be evicted.
    unreachable = blocks.keys() - queued - holds.keys()
    if found == said and not unreachable and counts == _expected_holds(catalog):
        return None
    rebuild(catalog)
    return (
        f"counted afresh: {found[0]} blocks of {found[1]} bytes, {held_bytes} of them held, where "
        f"the totals said {said[0]} blocks of {said[1]} bytes, {said[2]} held"
    )


def _expected_holds(catalog: Catalog) -> dict[bytes, int]:
    """How often each block should be held, from the pins alone."""
    roots = dict.fromkeys(pin.id for pin in every_pin(catalog.rows))
    expected: Counter[bytes] = Counter(roots.keys())
    seen: set[ContentId] = set()
    work = list(roots)
    while work:
        content_id = work.pop()
        if content_id.is_tree and content_id not in seen:
            seen.add(content_id)
            children = catalog.children(content_id)
            expected.update(children)
            work.extend(children)
    return dict(expected)
