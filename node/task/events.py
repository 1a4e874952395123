"""The events of a task, for those who watch it: the asker's screen, a log, a test."""

from collections.abc import Callable
from dataclasses import dataclass

from wire.content import ContentId, PeerId
from wire.kinds import RefusalCode, Role
from wire.receipt import Receipt, Verdict
from wire.signed import Signed


@dataclass(frozen=True, slots=True)
class Accepted:
    """The task is journaled: it will end with an answer or an error, also after a crash."""

    task: ContentId


@dataclass(frozen=True, slots=True)
class Offered:
    """A leg was handed to `peer`, which took it."""

    stage: int
    role: Role
    peer: PeerId


@dataclass(frozen=True, slots=True)
class Failed:
    """A peer did not do its part; the task continues with another peer.

    `why` is for people; `code` says the same to programs, None if the peer did not refuse.
    """

    what: str
    peer: PeerId
    why: str
    code: RefusalCode | None = None
    # The peer refused, and would refuse again.
    for_good: bool = False


@dataclass(frozen=True, slots=True)
class Streamed:
    """A piece of the output, provisional until the receipt is checked.

    It is the `units` after the first `position`. Each is sent once, unless the stream is Restarted.
    """

    position: int
    units: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Restarted:
    """The units streamed from `position` on were wrong; the stream continues from there."""

    position: int


@dataclass(frozen=True, slots=True)
class LegDone:
    """A peer signed a receipt for its leg."""

    receipt: Signed[Receipt]


@dataclass(frozen=True, slots=True)
class Checked:
    """A verifier signed its verdict."""

    verdict: Signed[Verdict]


@dataclass(frozen=True, slots=True)
class Kept:
    """The answer is in the store under this id."""

    answer: ContentId
    output: ContentId


Event = Accepted | Offered | Failed | Streamed | Restarted | LegDone | Checked | Kept
EventSink = Callable[[Event], None]


def ignore_event(event: Event) -> None:
    """Do nothing: an event sink for a task that nobody watches."""
