"""Sources as people write them: a small TOML file becomes a record, and its content id names it."""

import tomllib
from collections.abc import Mapping
from typing import Any

from node.ingest.database import check_query, read_database
from node.ingest.dataset import read_place
from node.ingest.location import read_url
from node.ingest.prepare import check_preparation, read_preparation
from wire.errors import InputError, WireError
from wire.fetch import PAGES_MAX, Column, Extraction, HeaderField, Paging, SourceRecord

FILE_BYTES_MAX = 16 << 10
CREDENTIAL = "credential:"
FORMATS = ("json", "csv", "rows", "text", "html", "binary")
# What a source may not say: these belong to the connection, or to whoever fetches.
_OWN_HEADERS = frozenset(
    (
        *("host", "connection", "content-length", "transfer-encoding", "accept-encoding", "te"),
        *("upgrade", "trailer", "expect", "keep-alive", "proxy-authorization", "cookie", "range"),
        *("proxy-connection", "user-agent", "content-encoding", "content-type"),
    )
)
_PARSED = ("format", "select", "columns", "encoding", "delimiter", "heading", "prepare")
_KEYS = {
    "http": ("kind", "url", *_PARSED, "headers", "keep_headers", "paging"),
    "files": ("kind", "path", "glob", *_PARSED),
    "sql": ("kind", "database", "query", "credential", "columns", "prepare"),
    "dataset": ("kind", "content", "path", *_PARSED),
}
_PAGING = ("next", "parameter", "start", "step", "pages")
_PAGING_EXAMPLE = 'for example: [paging] next = "links.next", or parameter = "page"; pages = 10'
_EXAMPLE = 'for example: kind = "http", url = "https://…", format = "json"'
_EXAMPLES = {
    "files": 'for example: kind = "files", path = "~/texts", glob = "*.md"',
    "sql": 'for example: kind = "sql", database = "/srv/shop.db", query = "select a, b from rows"',
    "dataset": 'for example: kind = "dataset", content = "ID", path = "prices.csv", format = "csv"',
}


def read_source(text: str) -> SourceRecord:
    """The record that a TOML file describes; InputError says which line or key is wrong."""
    try:
        keys = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"the source is not TOML: {error}", todo=_EXAMPLE) from error
    return source_of(keys)


def source_of(keys: Mapping[str, Any]) -> SourceRecord:
    """The record that a table of TOML describes; InputError says which key is wrong."""
    kind = keys.get("kind")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise InputError(
            f"kind is {kind!r}, and a source is one of {', '.join(_KEYS)}", todo=_EXAMPLE
        )
    if unknown := sorted(keys.keys() - set(_KEYS[kind])):
        raise InputError(
            f"a source of the kind {kind} has no {unknown[0]!r}",
            todo=f"it may have {', '.join(_KEYS[kind])}",
        )
    try:
        source = SourceRecord(
            kind=kind,
            place=_place(kind, keys),
            glob=_text(keys, "glob", "**/*" if kind == "files" else ""),
            extraction=_extraction(kind, keys),
            headers=tuple(_headers(keys)),
            kept_headers=tuple(it.lower() for it in _texts(keys, "keep_headers")),
            query=_query(keys) if kind == "sql" else "",
            credential=_text(keys, "credential", ""),
            paging=(_paging(keys["paging"]),) if "paging" in keys else (),
        )
    except WireError as error:
        raise InputError(f"the source is refused: {error.message}") from error
    _check_extraction(source)
    return source


def credentials_of(source: SourceRecord) -> dict[str, str]:
    """Which headers stand for a credential, and its name."""
    return {
        it.name: it.value.removeprefix(CREDENTIAL)
        for it in source.headers
        if it.value.startswith(CREDENTIAL)
    }


def check_strange(source: SourceRecord) -> None:
    """InputError if a source of another peer asks for what only the owner's own may have."""
    if source.kind not in ("http", "dataset"):
        raise InputError("a source that a peer sends is of the kind http or dataset")
    if source.kind == "dataset":
        read_place(source.place)
    _check_extraction(source)
    if credentials_of(source):
        raise InputError("a source that a peer sends uses no credential of this peer's owner")
    _check_headers(source.headers)


def _place(kind: str, keys: Mapping[str, Any]) -> str:
    if kind == "files":
        glob = _text(keys, "glob", "")
        if glob.startswith(("/", "~")) or ".." in glob.split("/"):
            raise InputError(f"glob is {glob!r}, and a pattern stays below the folder")
        return _text(keys, "path")
    if kind == "sql":
        database = _text(keys, "database")
        read_database(database)
        return database
    if kind == "dataset":
        content, path = _text(keys, "content"), _text(keys, "path", "")
        place = f"{content}/{path}" if path else content
        read_place(place)
        return place
    url = _text(keys, "url")
    read_url(url)
    return url


def _query(keys: Mapping[str, Any]) -> str:
    query = _text(keys, "query")
    check_query(query)
    return query


def _paging(found: Any) -> Paging:
    if not isinstance(found, dict) or found.keys() - {*_PAGING}:
        raise InputError(f"paging is a table of {', '.join(_PAGING)}", todo=_PAGING_EXAMPLE)
    settings = {"start": 1, "step": 1, "pages": 10, **found}
    for name in ("start", "step", "pages"):
        value = settings[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InputError(f"{name} in [paging] is a whole number, not {value!r}")
    if not 1 <= settings["pages"] <= PAGES_MAX:
        raise InputError(f"pages in [paging] is 1 to {PAGES_MAX}, not {settings['pages']}")
    select, parameter = _text(found, "next", ""), _text(found, "parameter", "")
    return Paging(
        next=select,
        parameter=parameter,
        start=settings["start"],
        step=settings["step"],
        pages_max=settings["pages"],
    )


def _extraction(kind: str, keys: Mapping[str, Any]) -> Extraction:
    heading = keys.get("heading", True)
    if not isinstance(heading, bool):
        raise InputError(f"heading is true or false, not {heading!r}")
    return Extraction(
        format="rows" if kind == "sql" else _text(keys, "format", "text"),
        select=_text(keys, "select", ""),
        columns=tuple(_columns(keys.get("columns", []))),
        encoding=_text(keys, "encoding", ""),
        delimiter=_text(keys, "delimiter", ""),
        heading=heading,
        paged="paging" in keys,
        prepare=tuple(read_preparation(keys["prepare"]) if "prepare" in keys else ()),
    )


def _check_extraction(source: SourceRecord) -> None:
    """InputError for a format that is not known, or for what belongs to another one."""
    extraction = source.extraction
    kind = extraction.format
    if extraction.paged != bool(source.paging) or (extraction.paged and kind != "json"):
        raise InputError("only JSON comes in pages", todo='say format = "json"')
    for paging in source.paging:
        if not paging.next and not (paging.parameter and paging.step):
            raise InputError(
                "paging says neither what is next nor what counts", todo=_PAGING_EXAMPLE
            )
    if kind not in FORMATS:
        raise InputError(f"the format {kind!r} is none of {', '.join(FORMATS)}")
    if extraction.select and kind not in ("json", "html"):
        raise InputError(f"{kind} has no rows to select")
    if extraction.columns and extraction.reads != "table":
        raise InputError(f"{kind} has no columns")
    check_preparation(extraction)
    names = [it.name for it in extraction.columns]
    if len(set(names)) != len(names):
        raise InputError("two columns have one name")


def _columns(found: Any) -> list[Column]:
    if isinstance(found, list):
        found = {it: it for it in found}
    if not isinstance(found, dict) or not all(
        isinstance(it, str) for pair in found.items() for it in pair
    ):
        raise InputError('columns is a list of names, or a table: {price = "data.last"}')
    return [Column(name=name, select=select) for name, select in found.items()]


def _headers(keys: Mapping[str, Any]) -> list[HeaderField]:
    found = keys.get("headers", {})
    if not isinstance(found, dict) or not all(isinstance(it, str) for it in found.values()):
        raise InputError('headers is a table of texts: {accept = "application/json"}')
    headers = [HeaderField(name=name.lower(), value=value) for name, value in found.items()]
    _check_headers(tuple(headers))
    return headers


def _check_headers(headers: tuple[HeaderField, ...]) -> None:
    """InputError for a header that is not a source's to send, or that would end its line."""
    for header in headers:
        name = header.name
        if name in _OWN_HEADERS or not name.replace("-", "").replace("_", "").isalnum():
            raise InputError(f"a source does not send the header {name!r}")
        if not (name + header.value).isascii() or not header.value.isprintable():
            raise InputError(f"the header {name!r} has more than printable ASCII in it")


def _text(keys: Mapping[str, Any], name: str, default: str | None = None) -> str:
    found = keys.get(name, default)
    if found is None:
        example = _EXAMPLES.get(str(keys.get("kind")), _EXAMPLE)
        raise InputError(f"the source has no {name!r}", todo=example)
    if not isinstance(found, str):
        raise InputError(f"{name} is a text, not {found!r}")
    return found


def _texts(keys: Mapping[str, Any], name: str) -> list[str]:
    found = keys.get(name, [])
    if not isinstance(found, list) or not all(isinstance(it, str) for it in found):
        raise InputError(f"{name} is a list of texts")
    return [str(it) for it in found]
