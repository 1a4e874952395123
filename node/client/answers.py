"""What a client gets: records of whole answers, and answers that arrive piece by piece."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from node.client.http import HttpCall, ResponseBody, ResponseLine, within
from node.client.reading import AnswerPiece, Array, EventReader, PieceReader
from wire.errors import Malformed


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """A row of 32-bit floats for each text."""

    vectors: Array
    task: str
    receipt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranked:
    """The places of texts in the order in which they answer a query, and how well each does."""

    places: tuple[int, ...]
    scores: tuple[float, ...]
    task: str
    receipt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferred:
    """The named arrays that a model computed from named arrays."""

    outputs: Mapping[str, Array]
    task: str
    receipt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """What became of a task: its output as bytes, who did it, who checked it."""

    task: str
    receipt: str
    output: bytes
    verified: bool
    route: Sequence[Mapping[str, Any]]
    verdicts: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptInfo:
    """A kept answer's receipt. `data` is the file that `python -m node verify` checks offline."""

    receipt: str
    task: str
    verified: bool
    route: Sequence[Mapping[str, Any]]
    verdicts: Sequence[Mapping[str, Any]]
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model that can be asked, by name or by content id, and how many peers run it."""

    name: str
    id: str
    peers: int


@dataclass(slots=True, eq=False)
class Pieces:
    """An answer that arrives piece by piece. The request is sent when the first piece is asked for.

    If the caller stops early, the work stops with the next call, or at once in `async with`.
    """

    _line: ResponseLine
    _call: HttpCall
    _until_at_s: float | None = None
    _body: ResponseBody | None = None
    _over: bool = False
    _event_reader: EventReader = field(default_factory=EventReader)
    _reader: PieceReader = field(default_factory=PieceReader)
    _ready: deque[AnswerPiece] = field(default_factory=deque)

    async def next_piece(self) -> AnswerPiece | None:
        """The next piece; None after the last."""
        if self._until_at_s is None:
            self._until_at_s = self._call.until_at_s
        well = False
        try:
            with within(self._until_at_s, "the answer"):
                while not self._ready and not self._over:
                    await self._more(self._until_at_s)
            well = True
        finally:
            if not well:
                await self.aclose()
        return self._ready.popleft() if self._ready else None

    async def whole(self) -> AnswerPiece:
        """The rest of the answer as one piece."""
        found = []
        while (piece := await self.next_piece()) is not None:
            found.append(piece)
        if not found:
            return AnswerPiece()
        last, calls = found[-1], tuple(it for piece in found for it in piece.tool_calls)
        told = [it for piece in found for it in (piece.logprobs or {}).get("content") or ()]
        return AnswerPiece(
            text="".join(it.text for it in found),
            finish_reason=last.finish_reason,
            task=last.task,
            receipt=last.receipt,
            usage=last.usage,
            tool_calls=calls,
            logprobs={"content": told} if told else last.logprobs,
        )

    async def aclose(self) -> None:
        """Read no more, and have the gateway stop."""
        self._over = True
        if self._body is not None:
            await self._body.aclose()

    async def _more(self, until_at_s: float) -> None:
        if self._body is None:
            self._body = await self._line.open(self._call, until_at_s)
        data = await self._body.part()
        if data is None:
            raise Malformed("the gateway's answer ended in the middle")
        for event in self._event_reader.feed(data):
            self._ready += self._reader.take(event)
            if self._reader.over:
                self._line.note_answered(self._body.asked, self._reader.amount)
                await self.aclose()
                return

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AnswerPiece:
        piece = await self.next_piece()
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._body is not None and not self._body.closed:
            self._line.left.append(self._body)
