"""One answer of a language model, or one claim of an answer, on the peer's side of the pipe."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import trio

from node.engines.host.pending import PendingJob
from node.engines.interface import Job, Output
from node.engines.replay import JudgedAnswer, ReplayRequest
from wire import limits
from wire.codec import Value
from wire.errors import BatonError, WireError
from wire.generation import Ending, Token, read_frames, to_frame
from wire.message import Progress

# Tokens that are made before somebody takes them.
AHEAD_MAX = 64


@dataclass(slots=True, eq=False, kw_only=True)
class GenerationJob(PendingJob):
    """One answer: its frames as far as known, and how many of them the worker made itself.

    `tries` came to nothing since its last new token; `deaths` are of workers, and `losses` of what
    other peers kept of it, since it began; it ends with its last token, which may not have been
    emitted by then.
    """

    number: int
    job: Job
    most: int
    frames: list[bytes]
    emitted: int
    made: int = 0
    # The frames of the prompt's tokens, which are told before the ending.
    prompt: bytes = b""
    under_way: bool = False
    deaths: int = 0
    losses: int = 0
    moved: trio.Event = field(default_factory=trio.Event)
    # What is asked about an answer that somebody claims, and the margins of its tokens so far.
    claim: ReplayRequest | None = None
    # What other peers signed that ran layers for it.
    layers: tuple[bytes, ...] = ()
    margins: bytes = b""

    @property
    def paused(self) -> bool:
        return self.made - self.emitted >= AHEAD_MAX

    def move(self) -> None:
        self.moved.set()
        self.moved = trio.Event()

    def fail(self, error: BatonError) -> None:
        """End the job with this error, and wake whoever waits for its tokens."""
        PendingJob.fail(self, error)
        self.move()

    def _with_prompt(self, frame: bytes) -> bytes:
        if not self.prompt:
            return frame
        pieces = list(read_frames(frame))
        if not isinstance(pieces[-1], Ending):
            return frame
        return b"".join(map(to_frame, pieces[:-1])) + self.prompt + to_frame(pieces[-1])

    def take(self, frames: list[bytes]) -> int:
        """Take in what the worker made next; how many tokens of it are new."""
        new = 0
        for raw in frames:
            frame = self._with_prompt(raw)
            if self.made < len(self.frames) and self.frames[self.made] != frame:
                # From here on what was shown is not what this model says.
                del self.frames[self.made :]
                self.emitted = min(self.emitted, self.made)
            if self.made >= len(self.frames):
                self.frames.append(frame)
                new += 1
            self.made += 1
        *_, last = read_frames(frames[-1])
        if isinstance(last, Ending):
            del self.frames[self.made :]
            self.ended.set()
        self.move()
        return new

    def message(self) -> dict[str, Value]:
        """What the worker is told of it when it begins."""
        pieces = [piece for frame in self.frames for piece in read_frames(frame)]
        shown = [piece.id for piece in pieces if isinstance(piece, Token)]
        return {
            "id": self.number,
            "input": self.job.input,
            "parameters": dict(self.job.parameters),
            "shown": shown[: limits.ITEMS_MAX // 2],
            "claimed": None if self.claim is None else self.claim.claimed,
            "slack": 0.0 if self.claim is None else self.claim.slack_millionths / 1e6,
        }

    def replayed(self) -> Output:
        """What came of a claim."""
        told = JudgedAnswer(
            margins=self.margins,
            output=b"".join(self.frames),
            positions=len(self.margins) // 4,
        )
        return Output(data=told.to_bytes(), units=told.positions)


def shown_by(resume: Progress) -> Iterator[bytes]:
    """The frames that another peer emitted, as far as they are whole; the ending with its token."""
    last = b""
    try:
        for piece in read_frames(resume.data):
            if isinstance(piece, Token):
                if last:
                    yield last
                last = to_frame(piece)
            elif last:
                last += to_frame(piece)
    except WireError:
        # What follows is made anew; what was whole is checked like the rest.
        if last:
            yield last
        return
    if last:
        yield last
