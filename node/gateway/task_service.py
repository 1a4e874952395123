"""Where requests become tasks: submitted on the path, followed, and cancelled if nobody waits."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import trio

from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.asking.tasks import TASKS_UNDER_WAY_MAX
from node.gateway.catalogue import Catalogue
from node.gateway.errors import ErrorDetail, HttpError, bad, code_of, fault_of, unavailable
from node.gateway_config import GatewayConfig, check_verdicts
from node.peer import Node
from node.task.events import Event, EventSink, Failed, Offered
from wire import limits
from wire.content import ContentId
from wire.errors import BatonError, InputError
from wire.kinds import Level, Role
from wire.task import Stage

# A peer that took a leg and then refused it for good was asked for something that does not work.
# Another may know better; if none takes it within this, the client is told.
SECOND_OPINION_S = 1.5
RETRY_AFTER_S = 5.0
# Of the tasks that a peer has under way at most so many are left alone by HTTP clients.
LEFT_MAX = TASKS_UNDER_WAY_MAX // 2
# How long verifiers are looked for beyond those that are known.
SEEK_S = 2.0
# How the words begin of a worker that broke, which is no fault of the request.
WORKER = "the worker"
_VERDICTS = re.compile(r"(\d{1,2})/(\d{1,2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How long a task may take, and how many verdicts its answer needs."""

    needed: int
    verifiers: int
    deadline_s: int

    def request(self, stage: Stage, data: bytes) -> TaskRequest:
        return TaskRequest(
            stages=(stage,),
            input=data,
            deadline_s=self.deadline_s,
            level=Level.SPOT_CHECKED if self.verifiers else Level.SIGNED,
            verifiers=self.verifiers,
            needed=self.needed,
        )


@dataclass(slots=True)
class TaskService:
    """What every endpoint needs: the peer, its models, and how tasks are run on it."""

    node: Node
    config: GatewayConfig
    catalogue: Catalogue = field(init=False)
    # Tasks that were left alone, some of which have ended.
    _left: set[ContentId] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.catalogue = Catalogue(self.node)

    def terms(self, headers: Mapping[str, str]) -> Terms:
        """The gateway's own, but for what the client's headers ask for."""
        needed, verifiers = self.config.needed, self.config.verifiers
        if (text := headers.get("x-baton-verdicts")) is not None:
            needed, verifiers = verdicts_of(text, "x-baton-verdicts")
        deadline_s = self.config.deadline_s
        if (text := headers.get("x-baton-deadline")) is not None:
            if not re.fullmatch(r"\d{1,6}", text) or not 1 <= int(text) <= limits.DEADLINE_S_MAX:
                raise bad(
                    f"a deadline is 1 to {limits.DEADLINE_S_MAX} seconds", param="x-baton-deadline"
                )
            deadline_s = int(text)
        return Terms(needed=needed, verifiers=verifiers, deadline_s=deadline_s)

    async def submit(self, request: TaskRequest) -> ContentId:
        """The id of a task that was accepted; HttpError if it was not."""
        await self._somebody_checks(request)
        try:
            # Cut short, it would leave a task that nobody knows the id of.
            with trio.CancelScope(shield=True):
                return await self.node.tasks.submit(request)
        except InputError as error:
            raise unavailable(
                str(error), code="model_not_served", retry_after_s=RETRY_AFTER_S
            ) from error
        except BatonError as error:
            raise HttpError(fault_of(error)) from error

    async def leave(self, request: TaskRequest) -> ContentId:
        """As `submit`, of a task that no connection waits for: others' always find room besides."""
        self._left = {it for it in self._left if self.node.tasks.under_way(it)}
        if len(self._left) >= LEFT_MAX:
            raise unavailable(
                f"{len(self._left)} tasks are under way that nobody waits for",
                code="busy",
                retry_after_s=RETRY_AFTER_S,
            )
        task = await self.submit(request)
        self._left.add(task)
        return task

    async def _somebody_checks(self, request: TaskRequest) -> None:
        """HttpError at once where the verdicts asked for cannot come: nobody waits for those."""
        checking, model = self.node.tasks.checking, request.stages[-1].model
        if request.level is Level.SIGNED or len(checking.verifiers(model)) >= request.needed:
            return
        await self.node.peers.seek(Role.VERIFY, model, deadline_s=SEEK_S)
        if (known := len(checking.verifiers(model))) < request.needed:
            raise unavailable(
                f"{known} peers are known that check this model, and {request.needed} have to"
                " agree: ask for fewer verdicts, or for none with 0/0",
                code="too_few_verifiers",
                retry_after_s=RETRY_AFTER_S,
            )

    async def done(
        self, request: TaskRequest, on_event: EventSink, accepted: Callable[[ContentId], None]
    ) -> Answered:
        """A task's answer; HttpError if there is none. Left early, the task is cancelled."""
        started_s = trio.current_time()
        task = await self.submit(request)
        headers = {"x-baton-task": str(task)}
        accepted(task)
        watch = _Watch(on_event)
        try:
            with watch.patience:
                return await self.node.tasks.watch(task, watch.on_event)
            raise HttpError(replace(watch.fault, headers=headers))
        except BatonError as error:
            late = trio.current_time() - started_s >= request.deadline_s - 1
            raise HttpError(replace(fault_of(error, late=late), headers=headers)) from error
        finally:
            self.node.tasks.cancel(task)


@dataclass(slots=True)
class _Watch:
    """Hears what happens to one task, and notices that it is asked for what does not work."""

    forward: EventSink
    why: str = ""
    patience: trio.CancelScope = field(default_factory=trio.CancelScope)
    _taken: bool = False

    @property
    def fault(self) -> ErrorDetail:
        if self.why.startswith(WORKER):
            return ErrorDetail(
                status=503, message=self.why, code="worker_failed", retry_after_s=RETRY_AFTER_S
            )
        return ErrorDetail(status=400, message=self.why, code=code_of(self.why, "refused"))

    def on_event(self, event: Event) -> None:
        match event:
            case Offered():
                self._taken = True
                self.patience.deadline = math.inf
            case Failed(for_good=True) if self._taken:
                self.why = event.why
                self.patience.deadline = trio.current_time() + SECOND_OPINION_S
            case _:
                pass
        self.forward(event)


def verdicts_of(text: str, param: str) -> tuple[int, int]:
    """`2/3` as (needed, verifiers); HttpError for anything else."""
    match = _VERDICTS.fullmatch(text.strip())
    if match is None:
        raise bad("verdicts are asked for as 2/3, or as 0/0", param=param)
    needed, verifiers = int(match[1]), int(match[2])
    try:
        check_verdicts(needed, verifiers)
    except InputError as error:
        raise bad(str(error), param=param) from error
    return needed, verifiers
