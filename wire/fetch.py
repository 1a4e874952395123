"""Outside data: where it comes from, what is made of it, and what a data peer signs for it."""

from dataclasses import dataclass
from typing import Annotated

from wire.content import ContentId, PeerId
from wire.schema import Between, Digest, Inline, Int, Name, Omitted, Parameters, Record

QUORUM_MAX = 16
COLUMNS_MAX = 64
HEADERS_MAX = 16
URLS_MAX = 8
URL_BYTES_MAX = 2048
QUERY_BYTES_MAX = 8192
PAGES_MAX = 32

STEPS_MAX = 16
# Formats, and steps of preparation, by what they give; other steps give a table.
_READ_AS = {"json": "table", "csv": "table", "rows": "table", "html": "text"}
_PREPARED_AS = dict.fromkeys(("stack", "window", "tokenise", "image"), "tensor")
Expression = Annotated[str, Between(0, 512)]
Url = Annotated[str, Between(1, URL_BYTES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderField(Record):
    """One header of HTTP, its name in lower case."""

    name: Name
    value: Annotated[str, Between(0, 1024)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Record):
    """One column of a table: what it is called, and where a row has it."""

    name: Name
    select: Annotated[str, Between(1, 512)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparationStep(Record):
    """One step of preparation, of those that there are, with what it is told."""

    name: Name
    parameters: Parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation(Record):
    """The steps of a preparation, in order."""

    steps: Annotated[tuple[PreparationStep, ...], Between(1, STEPS_MAX)]

    @property
    def id(self) -> ContentId:
        """What names these very steps."""
        return ContentId.of(self.to_bytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction(Record):
    """What is made of a body: text, a table of rows, or a tensor.

    `format` is json, csv, rows (a table as outputs have it), text, html or binary; whoever does not
    know a format refuses it.
    `select` is JMESPath to the rows of JSON, or XPath to the parts of HTML; empty for all of it.
    A column's `select` is JMESPath within a row, or the heading of a column of CSV or rows (its
    number, from 1 on, where `heading` is False). Without columns all are taken. `encoding` is
    empty for UTF-8, or for what HTML itself says; `delimiter` is empty for a comma. A body that is
    `paged` is a list of pages, each as it came, whose rows are one table. `prepare` is done to
    what comes out, if there is one.
    """

    format: Name
    select: Expression
    columns: Annotated[tuple[Column, ...], Between(0, COLUMNS_MAX)]
    encoding: Annotated[str, Between(0, 32)]
    delimiter: Annotated[str, Between(0, 4)]
    heading: bool
    paged: Annotated[bool, Omitted(False)] = False
    prepare: Annotated[tuple[Preparation, ...], Between(0, 1), Omitted(())] = ()

    @property
    def reads(self) -> str:
        """What the body is read as: table, text or binary."""
        return _READ_AS.get(self.format, self.format)

    @property
    def gives(self) -> str:
        """What comes out: table, text, binary or tensor."""
        if self.prepare:
            return _PREPARED_AS.get(self.prepare[0].steps[-1].name, "table")
        return self.reads

    @property
    def is_table(self) -> bool:
        return self.gives == "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging(Record):
    """How the page after a page is found; at most `pages_max` are fetched.

    `next` is JMESPath in a page: the next URL, or what goes into the URL's `parameter`. Without it
    that parameter counts from `start` by `step`, until a page has no rows.
    """

    next: Expression
    parameter: Annotated[str, Between(0, 64)]
    start: Int
    step: Int
    pages_max: Annotated[int, Between(1, PAGES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecord(Record):
    """A source, as its content id names it.

    `kind` is `http`, with a URL for `place`, or `files`, with a folder or a file for it, of which
    `glob` says which; `sql`, with a database that is asked the `query`, logged in to with the
    `credential` of this name; or `dataset`, with a content id, and a path where that is a folder.
    `headers` are sent: a value `credential:NAME` stands for a credential of
    whoever fetches, and is never the credential itself. `kept_headers` are those of the answer
    that are attested.
    """

    kind: Name
    place: Url
    glob: Annotated[str, Between(0, 256)]
    extraction: Extraction
    headers: Annotated[tuple[HeaderField, ...], Between(0, HEADERS_MAX)]
    kept_headers: Annotated[tuple[Name, ...], Between(0, HEADERS_MAX)]
    query: Annotated[str, Between(0, QUERY_BYTES_MAX), Omitted("")] = ""
    credential: Annotated[str, Between(0, 64), Omitted("")] = ""
    paging: Annotated[tuple[Paging, ...], Between(0, 1), Omitted(())] = ()

    @property
    def id(self) -> ContentId:
        """What it is named by everywhere."""
        return ContentId.of(self.to_bytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedPage(Record):
    """One of several pages: the URL that was asked, and what came."""

    url: Url
    status: Annotated[int, Between(0, 599)]
    certificates: Digest | None
    body: ContentId


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedFetch(Record):
    """What a data peer says of one fetch; its leg's output commits to this record.

    `urls` are those asked, first to last (redirects); of other kinds, the place or the file's name.
    `status` is 0 where no server was asked. `certificates` is the hash of the chain that the server
    showed. `body` is what came, without its compression, and `output` what `extraction` made of it:
    UTF-8 text, or a table as lines of JSON, the names of its columns first. `pages` are those of a
    `paged` body, of which the fields before speak for the first, and `more` says that there are
    further ones. `folders` is a list of the nodes of the folders that lead to a file of a data set,
    from its id on, unless they are large.
    """

    source: ContentId
    urls: Annotated[tuple[Url, ...], Between(1, URLS_MAX)]
    fetched_at_ms: Int
    status: Annotated[int, Between(0, 599)]
    headers: Annotated[tuple[HeaderField, ...], Between(0, HEADERS_MAX)]
    certificates: Digest | None
    body: ContentId
    body_size_bytes: Int
    extraction: Extraction
    output: ContentId
    pages: Annotated[tuple[FetchedPage, ...], Between(0, PAGES_MAX), Omitted(())] = ()
    folders: Annotated[Inline, Omitted(b"")] = b""
    more: Annotated[bool, Omitted(False)] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchAgreement(Record):
    """Several fetches of one source that agree: what the asker counted, for whoever recounts it.

    Each of the tasks, whose `answers` are named, was signed with the terms (`quorum`, `agree`) and
    with `round`, which no other agreement has. `agreeing` are the data peers that agree,
    `outliers` the others; `output` is what was agreed on.
    """

    source: ContentId
    quorum: Annotated[int, Between(1, QUORUM_MAX)]
    agree: Annotated[str, Between(1, 64)]
    round: Annotated[bytes, Between(16, 16)]
    answers: Annotated[tuple[ContentId, ...], Between(1, QUORUM_MAX)]
    agreeing: Annotated[tuple[PeerId, ...], Between(1, QUORUM_MAX)]
    outliers: Annotated[tuple[PeerId, ...], Between(0, QUORUM_MAX)]
    output: ContentId
