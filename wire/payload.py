"""What the legs of a task read and write: passages, vectors, hits. All are canonical."""

import json
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from wire import limits
from wire.content import ContentId
from wire.errors import Malformed
from wire.schema import Between, Int, Omitted, Record

Text = Annotated[str, Between(0, limits.TEXT_BYTES_MAX)]
Score = Annotated[float, Between(-2, 2)]
TokenCount = Annotated[int, Between(0, 65_536)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts(Record):
    """Texts to be embedded, as they are."""

    texts: Annotated[tuple[Text, ...], Between(1, limits.PASSAGES_MAX)]


@dataclass(frozen=True, slots=True)
class QueryText:
    """A query and a text that may answer it. In `Texts` each pair is one text: a JSON array.

    Its score is a row of `Vectors`: the score, and a 1 beside it, so that scores near zero are
    compared by how far they are apart, not by how many times one is the other.
    """

    query: str
    text: str

    COLUMNS: ClassVar[int] = 2

    def to_text(self) -> str:
        """What `from_text` reads: a JSON array."""
        return json.dumps([self.query, self.text], ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_text(cls, data: str) -> Self:
        """Malformed unless it is an array of two texts."""
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Malformed("a pair is a JSON array of a query and a text") from error
        if not isinstance(found, list) or [type(it) for it in found] != [str, str]:
            raise Malformed("a pair is a JSON array of a query and a text")
        return cls(*found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passages(Record):
    """Passages brought in by a data peer: each a block of UTF-8 text, named by content.

    `source` says where they were fetched from. The source was cut into `total` passages; these
    begin at number `first`. `attested` is the record of the fetch (`wire.fetch`),
    where there is one.
    """

    source: Annotated[str, Between(1, 256)]
    first: Int
    total: Int
    passages: Annotated[tuple[ContentId, ...], Between(1, limits.PASSAGES_MAX)]
    attested: Annotated[tuple[ContentId, ...], Between(0, 1), Omitted(())] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors(Record):
    """One row of 32-bit little-endian floats for each text, `dimensions` to a row."""

    dimensions: Annotated[int, Between(1, 65_536)]
    rows: Annotated[int, Between(1, limits.PASSAGES_MAX)]
    data: bytes
    # The number of tokens of each text; empty if the engine does not count them.
    tokens: Annotated[tuple[TokenCount, ...], Between(0, limits.PASSAGES_MAX), Omitted(())] = ()

    SIZE_BYTES_MAX: ClassVar[int] = limits.PASSAGES_MAX * (4096 * 4 + 5) + 1024

    def check(self) -> None:
        if len(self.tokens) not in (0, self.rows):
            raise Malformed(f"{len(self.tokens)} counts of tokens for {self.rows} rows")
        if len(self.data) != 4 * self.dimensions * self.rows:
            raise Malformed(f"{len(self.data)} bytes are not {self.rows} x {self.dimensions}")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPart(Record):
    """The passages of one task and the vectors that answered it, both by content."""

    passages: ContentId
    vectors: ContentId


@dataclass(frozen=True, slots=True, kw_only=True)
class Index(Record):
    """What is searched for a question: parts, in order."""

    model: ContentId
    parts: Annotated[tuple[IndexPart, ...], Between(1, 2048)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Record):
    """A question in words and the index it is searched in."""

    text: Annotated[str, Between(1, limits.TEXT_BYTES_MAX)]
    index: ContentId
    count: Annotated[int, Between(1, 32)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit(Record):
    """A passage and its cosine with the question."""

    passage: ContentId
    row: Int
    score: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits(Record):
    """The best passages, best first."""

    hits: Annotated[tuple[Hit, ...], Between(0, 32)]
