"""Where a fetch is from, checked offline: whether pages follow each other, what an id names.

What pages say is read in a process of its own, like any body.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from node.checking.report import AuditReport, ReceiptPart
from node.ingest.dataset import DatasetPlace, leads_to, read_place, unpacked
from node.ingest.location import Location, read_url
from node.ingest.paging import first_page, page_after
from node.ingest.parsing import pages_of
from node.ingest.table import DataTable
from wire.content import ContentId
from wire.errors import BatonError, InputError, Malformed, WireError
from wire.fetch import AttestedFetch, Extraction, Paging, SourceRecord
from wire.plural import plural
from wire.tree import name_of
from wire.unixfs import UnixfsId, file_id


class Extract(Protocol):
    """Repeats an extraction, as `Extractor.extract` does."""

    async def __call__(
        self, extraction: Extraction, body: bytes, tables: Mapping[str, bytes] | None = None
    ) -> bytes:
        """What is made of a body, with the published tables that it names; Malformed."""
        ...


def is_dataset(record: AttestedFetch) -> bool:
    """Whether a fetch is of published content."""
    return _place_of(record) is not None


def check_dataset(report: AuditReport, record: AttestedFetch, body: bytes) -> None:
    """Add the point about what a content id names, if the fetch is of one."""
    place = _place_of(record)
    if place is None:
        return
    good, detail = _named_by(place, record, body)
    what = "the body is the published content that the source names"
    report.note(ReceiptPart.INPUT, good, what, detail)


async def check_pages(
    report: AuditReport,
    record: AttestedFetch,
    body: bytes,
    source: SourceRecord | None,
    extract: Extract,
) -> None:
    """Add the points about the pages of a paged body: what they are, and how one led to another."""
    if not (record.extraction.paged or record.pages):
        return
    try:
        pages = pages_of(record.extraction, body)
    except WireError as error:
        report.note(ReceiptPart.INPUT, False, "the body is a list of pages", error.message)
        return
    same = [name_of(it) for it in pages] == [it.body for it in record.pages]
    report.note(
        ReceiptPart.INPUT,
        same,
        "the pages that are kept are those that were signed for",
        plural(len(pages), "page"),
    )
    if not same or source is None or not source.paging:
        return
    what = "each page leads to the next one, and the last one to whether there are more"
    try:
        urls, more = await _followed(source, source.paging[0], pages, extract)
    except BatonError as error:
        report.note(ReceiptPart.INPUT, False, what, error.message)
        return
    right = (urls, more) == ([it.url for it in record.pages], record.more)
    report.note(ReceiptPart.INPUT, right, what, "there are more" if record.more else "")


async def _followed(
    source: SourceRecord, paging: Paging, pages: list[bytes], extract: Extract
) -> tuple[list[str], bool]:
    """The URLs that these pages lead to, and whether the last one leads further."""
    first = first_page(paging, source.place)
    here: Location | None = first
    urls: list[str] = []
    for number, page in enumerate(pages):
        if here is None:
            raise Malformed(f"page {number} was the last one")
        urls.append(here.url)
        found, rows = await _said(source.extraction, paging, page, extract)
        here = page_after(paging, first, read_url(here.url), number, found, rows)
    return urls, here is not None


async def _said(
    extraction: Extraction, paging: Paging, page: bytes, extract: Extract
) -> tuple[str, int]:
    """What a page says of the next one, and how many rows it has."""
    alone = replace(extraction, paged=False, columns=(), prepare=())
    if paging.next:
        alone = replace(alone, select=paging.next)
    try:
        table = DataTable.from_bytes(await extract(alone, page))
    except WireError:
        # It selects nothing there.
        return "", 0
    if not paging.next:
        return "", len(table.rows)
    cell = table.rows[0][0] if table.rows else None
    return "" if cell is None else str(cell), 0


def _place_of(record: AttestedFetch) -> DatasetPlace | None:
    try:
        return read_place(record.urls[0])
    except InputError:
        return None


def _named_by(place: DatasetPlace, record: AttestedFetch, body: bytes) -> tuple[bool | None, str]:
    """Whether a place names these bytes, as far as it can be known; and in words."""
    if not place.is_unixfs:
        return name_of(body) == ContentId.parse(place.content), place.content
    if place.names and not record.folders:
        return None, "the folder's own nodes are large, and not kept: get the folder, and compare"
    try:
        target = leads_to(place, unpacked(record.folders))
    except BatonError as error:
        return False, error.message
    if target is None:
        return False, "the folders that are named lead elsewhere"
    if not target.is_node:
        return UnixfsId.of_leaf(body) == target, str(target)
    if file_id(body) == target:
        return True, str(target)
    return None, "its publisher cut it into other pieces than IPFS tools do: get it, and compare"
