"""What is made of a body: JSON and CSV become a table, HTML becomes text. Pure; known parsers.

It runs in a process of its own (`node.ingest.parse_worker`), with limits on memory and time: these
libraries read what strangers wrote. The same body and extraction always give the same output.
"""

import codecs
import csv
import io
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from wire.codec import unpack
from wire.errors import Malformed, Oversize
from wire.fetch import COLUMNS_MAX, PAGES_MAX, Extraction

OUTPUT_BYTES_MAX = 4 << 20
ROWS_MAX = 100_000
DEPTH_MAX = 64
CELL_CHARS_MAX = 1 << 20
_SURROGATE = re.compile("[\ud800-\udfff]")
# Made once: a table has a line for each row.
_LINE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
Cell = str | int | float | bool | None


def extract(
    extraction: Extraction, body: bytes, tables: Mapping[str, bytes] | None = None
) -> bytes:
    """The output: UTF-8 text, a table as lines of JSON, tensors, or the body itself.

    `tables` has the published tables that steps of preparation name, by their ids.
    Malformed says where and why a body cannot be read; Oversize beyond the limits.
    """
    match extraction.format:
        case "binary":
            output = body
        case "text":
            output = _decoded(body, extraction).encode()
        case "html":
            from node.ingest.html_text import text_of_html

            output = text_of_html(body, extraction.select, extraction.encoding).encode()
        case "csv":
            output = to_lines(*_table_of_csv(extraction, _decoded(body, extraction)))
        case "json":
            texts = [_decoded(it, extraction) for it in pages_of(extraction, body)]
            output = to_lines(*_table_of_json(extraction, texts))
        case "rows":
            output = to_lines(*_table_of_rows(extraction, body))
        case _:
            raise Malformed(f"the format {extraction.format!r} is not known here")
    if extraction.prepare:
        from node.ingest.prepare import prepared

        output = prepared(extraction, output, tables or {})
    if len(output) > OUTPUT_BYTES_MAX:
        raise Oversize(f"what is made of it has more than {OUTPUT_BYTES_MAX} bytes")
    return output


def to_lines(columns: list[str], rows: Iterable[list[Cell]]) -> bytes:
    """A table as lines of JSON, each a list, the names of the columns first."""
    lines: list[bytes] = []
    size_bytes = 0
    # One after the other: a table may have more rows than there is memory for.
    for row in itertools.chain((columns,), rows):
        lines.append(_LINE(row).encode())
        size_bytes += len(lines[-1]) + 1
        if size_bytes > OUTPUT_BYTES_MAX or len(lines) > ROWS_MAX + 1:
            raise Oversize(f"a table beyond {ROWS_MAX} rows or {OUTPUT_BYTES_MAX} bytes")
    return b"\n".join(lines) + b"\n"


def pages_of(extraction: Extraction, body: bytes) -> list[bytes]:
    """The pages of a body, which is the only one unless it is paged; Malformed."""
    if not extraction.paged:
        return [body]
    found = unpack(body, size_bytes_max=len(body), items_max=PAGES_MAX + 1)
    if not isinstance(found, list) or not found or not all(isinstance(it, bytes) for it in found):
        raise Malformed("the body is no list of pages")
    return found


def after_page(extraction: Extraction, select: str, page: bytes) -> tuple[str, int]:
    """What `select` (JMESPath) finds in a page of JSON, "" for nothing; and how many rows it has.

    Malformed if the page is not JSON, or what is found is neither text nor a whole number.
    """
    document = _read_json(_decoded(page, extraction))
    found = _selected(select, document) if select else None
    if isinstance(found, bool) or not isinstance(found, str | int | None):
        raise Malformed(f"{select!r} finds {type(found).__name__}, and no URL or number of a page")
    return "" if found is None else str(found), len(_items(extraction, document) or ())


def _decoded(body: bytes, extraction: Extraction) -> str:
    try:
        codec = codecs.lookup(extraction.encoding or "utf-8")
    except LookupError as error:
        raise Malformed(f"the encoding {extraction.encoding!r} is not known") from error
    try:
        text = body.decode(codec.name)
    except UnicodeDecodeError as error:
        raise Malformed(f"it is not {codec.name} text (byte {error.start})") from error
    except (LookupError, ValueError) as error:
        raise Malformed(f"{codec.name} is no encoding of text: {error}") from error
    # A lone surrogate is no text that anybody could sign for.
    if _SURROGATE.search(text):
        raise Malformed("it has half a character (a surrogate)")
    return text.removeprefix("\ufeff")


# CSV


def _table_of_csv(extraction: Extraction, text: str) -> tuple[list[str], Iterator[list[Cell]]]:
    csv.field_size_limit(CELL_CHARS_MAX)
    delimiter = extraction.delimiter or ","
    if len(delimiter) != 1:
        raise Malformed(f"the delimiter {delimiter!r} is not one character")
    rows = _rows_of_csv(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    _, first = next(rows, (0, None))
    if first is None:
        raise Malformed("it is empty: a table has a line at least")
    headings = first if extraction.heading else [str(it + 1) for it in range(len(first))]
    wanted = columns_of(extraction, headings)
    places = list(wanted.values())

    def cells() -> Iterator[list[Cell]]:
        if not extraction.heading:
            yield [first[it] for it in places]
        for number, row in rows:
            if len(row) != len(headings):
                raise Malformed(
                    f"line {number} has {len(row)} cells, and the first {len(headings)}"
                )
            yield [row[it] for it in places]

    return list(wanted), cells()


def columns_of(extraction: Extraction, headings: Sequence[str]) -> dict[str, int]:
    """The columns to take, each with its place in a row; Malformed if one is not there."""
    if len(set(headings)) != len(headings):
        raise Malformed("two columns of the table have one heading")
    wanted = {it.name: it.select for it in extraction.columns} or {it: it for it in headings}
    if len(wanted) > COLUMNS_MAX:
        raise Oversize(f"{len(wanted)} columns, at most {COLUMNS_MAX}; name those to take")
    for select in wanted.values():
        if select not in headings:
            known = ", ".join(headings)[:200]
            raise Malformed(f"there is no column {select!r}; there are: {known}")
    return {name: headings.index(it) for name, it in wanted.items()}


def _rows_of_csv(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Each line that is not empty, and its number."""
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise Malformed(f"line {reader.line_num} is no CSV: {error}") from error
        if row:
            yield reader.line_num, row


# Rows


def _table_of_rows(extraction: Extraction, body: bytes) -> tuple[list[str], Iterator[list[Cell]]]:
    from node.ingest.table import DataTable

    table = DataTable.from_bytes(body)
    places = columns_of(extraction, table.columns)
    return list(places), ([row[it] for it in places.values()] for row in table.rows)


# JSON


def _items(extraction: Extraction, document: Any) -> list[Any] | None:
    found = _selected(extraction.select, document) if extraction.select else document
    return found if isinstance(found, list) or found is None else [found]


def _table_of_json(
    extraction: Extraction, pages: list[str]
) -> tuple[list[str], Iterator[list[Cell]]]:
    found = [_items(extraction, _read_json(it)) for it in pages]
    if found[0] is None:
        raise Malformed(f"{extraction.select!r} selects nothing of it")
    # The last of several pages may say that there is nothing left by saying nothing.
    items = [item for page in found for item in page or ()]
    if extraction.columns:
        names = [it.name for it in extraction.columns]
        selects = [_compiled(it.select) for it in extraction.columns]
        return names, ([cell_of(_search(it, item)) for it in selects] for item in items)
    if items and all(isinstance(it, dict) for it in items):
        names = list(dict.fromkeys(name for item in items for name in item))
        if not 0 < len(names) <= COLUMNS_MAX:
            raise Oversize(f"{len(names)} columns, at most {COLUMNS_MAX}; name those to take")
        return names, ([cell_of(item.get(name)) for name in names] for item in items)
    return ["value"], ([cell_of(item)] for item in items)


def _read_json(text: str) -> Any:
    def no_number(word: str) -> Any:
        raise Malformed(f"{word} is no number of JSON")

    try:
        document = json.loads(text, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is not JSON: {error}") from error
    level = [document]
    for _ in range(DEPTH_MAX):
        level = [it for item in level for it in _inside(item) if isinstance(it, dict | list)]
        if not level:
            return document
    raise Malformed(f"it is nested more than {DEPTH_MAX} deep")


def _inside(item: Any) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()


def _compiled(select: str) -> Any:
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        return jmespath.compile(select)
    except (JMESPathError, RecursionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it is empty"
        raise Malformed(f"{select!r} is no JMESPath: {reason}") from error


def _selected(select: str, document: Any) -> Any:
    return _search(_compiled(select), document)


def _search(compiled: Any, document: Any) -> Any:
    from jmespath.exceptions import JMESPathError

    try:
        return compiled.search(document)
    except (JMESPathError, RecursionError, ValueError, TypeError, ArithmeticError) as error:
        raise Malformed(f"JMESPath: {error}") from error


def cell_of(value: Any) -> Cell:
    """A value of JSON as a cell: what has parts is its own text. Malformed for what JSON lacks."""
    if isinstance(value, Mapping | list):
        try:
            value = _LINE(value)
        except ValueError as error:
            raise Malformed("a number is beyond what JSON has") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise Malformed(f"{value} is no number of JSON")
    if isinstance(value, str) and _SURROGATE.search(value):
        raise Malformed("a text has half a character (a surrogate)")
    assert value is None or isinstance(value, str | int | float)
    return value
