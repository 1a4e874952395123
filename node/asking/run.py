"""One task of this peer's own clients: what was asked, what happened so far, and who watches."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

import trio

from node.asking.answers import Answered
from node.dispatch.begun import Begun
from node.dispatch.progress import StreamProgress
from node.paying.bill import Bill
from node.task.events import Accepted, Event, EventSink, Restarted, Streamed
from p2p.adverts import Environment
from p2p.joining import Joining
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import BatonError, InputError
from wire.kinds import Level, Role
from wire.lottery import secret_hash_of
from wire.signed import Signed
from wire.task import CheckPolicy as Terms
from wire.task import Stage, Task
from wire.tree import name_of

EVENTS_MAX = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """A task as a client asks for it, before it is signed."""

    stages: tuple[Stage, ...]
    input: bytes | None
    deadline_s: int = 120
    level: Level = Level.REPLAYED
    verifiers: int = 3
    needed: int = 2
    # Which of this peer's clients the task belongs to; empty for the peer's owner.
    owner: bytes = b""
    # The only peers that may be asked for the first leg; empty for any.
    only: frozenset[PeerId] = frozenset()
    # What it may cost in all, in millionths; with 0 only those are asked that ask for nothing.
    price_max: int = 0

    @property
    def inline(self) -> bytes | None:
        """The input, if it is small enough to travel with an offer."""
        if self.input is None or len(self.input) > limits.INLINE_BYTES_MAX:
            return None
        return self.input


class Wanted(Enum):
    """A task that has not ended."""

    UNDER_WAY = auto()
    # Its client cancelled it; the end of this peer does not count as that.
    CANCELLED = auto()


@dataclass(frozen=True, slots=True)
class Succeeded:
    """`answered` is None where the answer is too large to be held here: it is in the store."""

    answered: Answered | None


@dataclass(frozen=True, slots=True)
class GaveUp:
    """The task failed, and why."""

    error: BatonError


Outcome = Wanted | Succeeded | GaveUp


@dataclass(slots=True)
class TaskState:
    """One running task, and who watches it.

    `attempt` counts the secrets that may have been revealed; a new attempt never draws by one that
    an earlier one showed to a verifier.
    """

    task: Signed[Task]
    seed: bytes
    started_at_s: float
    attempt: int = 1
    owner: bytes = b""
    # The input, where it is small and the task was begun here: it need not be read back.
    inline: bytes | None = None
    only: frozenset[PeerId] = frozenset()
    # What it costs; None where it may cost nothing.
    bill: Bill | None = None
    # Peers that did not do their part, in any attempt.
    failed: set[PeerId] = field(default_factory=set)
    events: list[Event] = field(default_factory=list)
    watchers: list[EventSink] = field(default_factory=list)
    outcome: Outcome = Wanted.UNDER_WAY
    is_journaled: bool = False
    # It could not be journaled.
    is_refused: bool = False
    # What was done of it before it got its own path.
    begun: Begun | None = None
    # Called once the journal has it.
    when_journaled: Callable[[], None] | None = None
    # Whether there is an outcome, and everybody may hear of it; who waits for that alone.
    has_ended: bool = False
    waked: trio.Event | None = None
    # What most tasks need none of is made when it is asked for.
    _shown: StreamProgress | None = None
    _journaled: trio.Event | None = None
    _ended: trio.Event | None = None
    _scope: trio.CancelScope | None = None
    # Whether its own path, if it gets one, ends at once.
    _stopped: bool = False

    @property
    def shown(self) -> StreamProgress:
        """How far it was streamed."""
        if self._shown is None:
            self._shown = StreamProgress()
        return self._shown

    @property
    def was_streamed(self) -> bool:
        """Whether a piece of it was shown."""
        return self._shown is not None and self._shown.units > 0

    def on_event(self, event: Event) -> None:
        """Keep what happened, up to `EVENTS_MAX` events, and tell whoever watches the task."""
        if isinstance(event, Restarted) and self.bill is not None:
            self.bill.void_parts(event.position)
        # Pieces are large and provisional, so they are not kept: late watchers read the output.
        if len(self.events) < EVENTS_MAX and not isinstance(event, Streamed | Restarted):
            self.events.append(event)
        for watcher in self.watchers:
            watcher(event)

    def now_journaled(self) -> None:
        """Note that the journal has the task: from now on it ends with an answer or an error."""
        self.events.insert(0, Accepted(self.task.id))
        self.is_journaled = True
        if self._journaled is not None:
            self._journaled.set()
        if self.when_journaled is not None:
            self.when_journaled()

    def now_refused(self) -> None:
        """Note that the journal will not have the task: nothing may come of it."""
        self.is_refused = True
        # This comes first: what waits for the journal, to go on with the task, is cancelled.
        self.stop()
        if self._journaled is not None:
            self._journaled.set()

    async def until_journaled(self) -> None:
        """Wait until the journal has the task, or is known not to get it."""
        if not self.is_journaled and not self.is_refused:
            if self._journaled is None:
                self._journaled = trio.Event()
            await self._journaled.wait()

    def end(self) -> None:
        """Let everybody hear of the outcome."""
        self.has_ended = True
        for event in (self._ended, self.waked):
            if event is not None:
                event.set()

    async def until_ended(self) -> None:
        """Wait for the outcome."""
        if not self.has_ended:
            if self._ended is None:
                self._ended = trio.Event()
            await self._ended.wait()

    def cancel(self) -> None:
        """End the task, because its client no longer wants it."""
        if self.outcome is Wanted.UNDER_WAY:
            self.outcome = Wanted.CANCELLED
        self.stop()

    def stop(self) -> None:
        """End its own path, now or as soon as it gets one."""
        self._stopped = True
        if self._scope is not None:
            self._scope.cancel()

    def own_path(self) -> trio.CancelScope:
        """What its own path runs in."""
        self._scope = trio.CancelScope()
        if self._stopped:
            self._scope.cancel()
        return self._scope

    @property
    def cancelled(self) -> bool:
        """Whether its client cancelled it, and it has not ended yet."""
        return self.outcome is Wanted.CANCELLED

    @property
    def input_id(self) -> ContentId | None:
        return self.task.record.input


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatistics:
    """Counts since the start."""

    accepted: int
    answered: int
    failed: int
    retried: int
    under_way: int


def record_of(request: TaskRequest, seed: bytes, environment: Environment) -> Task:
    """What the client signs: the request, its terms, and the hash of the lottery's secrets."""
    checked = request.level is not Level.SIGNED
    return Task(
        version=limits.TASK_VERSION,
        stages=request.stages,
        input=None if request.input is None else name_of(request.input),
        checking=Terms(
            level=request.level,
            verifiers=request.verifiers if checked else 0,
            needed=request.needed if checked else 0,
            secret_hash=secret_hash_of(seed),
        ),
        issued_at_ms=int(environment.wall_s() * 1000),
        deadline_s=request.deadline_s,
        price_max=request.price_max,
        nonce=environment.entropy(16),
    )


def nobody_can(stage: Stage, joining: Joining) -> InputError:
    """Why a task cannot even begin."""
    what = stage.role.name.lower()
    if stage.role is Role.INFER and stage.model is not None:
        return InputError(
            f"no other peer that is known here runs the model {stage.model}",
            todo="see what is there (python -m node models), or"
            f" {joining.have('serve it', '--role infer --model NAME')}",
        )
    return InputError(
        f"no other {what} peer is known here",
        todo="see who is there (python -m node peers), or"
        f" {joining.have('be one', f'--role {what}')}",
    )
