"""Where requests become tasks: submitted on the path, followed, and cancelled if nobody waits."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import trio

from node.asking.answers import Answered
from node.asking.following import Follower
from node.asking.run import TaskRequest, TaskState
from node.asking.tasks import TASKS_UNDER_WAY_MAX
from node.checking.enough import TooFewCanCheck
from node.engines.interface import LOADING_RETRY_S, loading_words
from node.gateway.catalogue import Catalogue
from node.gateway.checkable import makers_that_can_be_checked
from node.gateway.client_request import ClientRequest
from node.gateway.errors import (
    ErrorDetail,
    HttpError,
    bad,
    detail_of,
    fault_of,
    not_found,
    unavailable,
)
from node.gateway.metrics import GenerationMetrics
from node.gateway.shares import Shares
from node.gateway.spending import PaidTask, Purse, Purses
from node.gateway_config import GatewayConfig
from node.peer import Node
from node.task.events import Event, EventSink, Failed, Offered, Streamed, ignore_event
from node.task.levels import CheckTerms, LevelImpossible, asked_at, terms_of, terms_of_numbers
from wire import limits
from wire.content import ContentId
from wire.errors import BatonError, InputError
from wire.kinds import RefusalCode
from wire.latest import Latest
from wire.task import Stage

# A peer that took a leg and then refused it for good was asked for something that does not work.
# Another may know better; if none takes it within this, the client is told.
SECOND_OPINION_S = 1.5
RETRY_AFTER_S = 5.0
# What the peer's owner types finds room besides the tasks of HTTP clients.
TASKS_MAX = TASKS_UNDER_WAY_MAX - 16
# Of their tasks at most so many are left alone: nobody waits for them at a connection.
UNATTENDED_MAX = TASKS_UNDER_WAY_MAX // 2
TERMS_KEPT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How long a task may take, and how many verdicts its answer needs."""

    check_terms: CheckTerms
    deadline_s: int
    owner: bytes
    # Who pays for its tasks; None where nobody needs to.
    purse: Purse | None = None

    def request(self, stage: Stage, data: bytes) -> TaskRequest:
        """A task of one stage on these terms; who pays for it knows that it comes."""
        request = TaskRequest(
            stages=(asked_at(self.check_terms.level, stage),),
            input=data,
            deadline_s=self.deadline_s,
            level=self.check_terms.level,
            verifiers=self.check_terms.verifiers,
            needed=self.check_terms.needed,
            owner=self.owner,
        )
        if self.purse is not None:
            self.purse.expect(request)
        return request


@dataclass(slots=True)
class TaskService:
    """What every endpoint needs: the peer, its models, and how tasks are run on it."""

    node: Node
    config: GatewayConfig
    # Whether all of its clients are one caller.
    is_sole: Callable[[], bool]
    generations: GenerationMetrics
    purses: Purses = field(default_factory=Purses)
    catalogue: Catalogue = field(init=False)
    # Each key has its share of the tasks under way, and of those that were left alone.
    _task_shares: Shares = field(init=False)
    _unattended_shares: Shares = field(init=False)
    # The gateway's own terms, for whom it was asked last.
    _terms: Latest[bytes, Terms] = field(default_factory=lambda: Latest(TERMS_KEPT))
    # Tasks that were left alone, some of which have ended, and whose they are.
    _left: dict[ContentId, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.catalogue = Catalogue(self.node)
        self._task_shares = Shares(TASKS_MAX, self.is_sole)
        self._unattended_shares = Shares(UNATTENDED_MAX, self.is_sole)

    def terms(self, asked: ClientRequest) -> Terms:
        """The gateway's own, but for what the client's headers ask for."""
        headers, terms = asked.headers, self.own_terms(asked)
        word, verdicts = headers.get("x-baton-level"), headers.get("x-baton-verdicts")
        if word is not None or verdicts is not None:
            param = "x-baton-verdicts" if word is None else "x-baton-level"
            terms = replace(
                terms, check_terms=check_asked(word, verdicts, terms.check_terms, param)
            )
        if (text := headers.get("x-baton-deadline")) is not None:
            if not re.fullmatch(r"\d{1,6}", text) or not 1 <= int(text) <= limits.DEADLINE_S_MAX:
                raise bad(
                    f"a deadline is 1 to {limits.DEADLINE_S_MAX} seconds", param="x-baton-deadline"
                )
            terms = replace(terms, deadline_s=int(text))
        return terms

    def own_terms(self, asked: ClientRequest) -> Terms:
        """The gateway's own, for a task of whoever asked."""
        owner: bytes = asked.state.owner
        if (terms := self._terms.get(owner)) is None:
            terms = Terms(
                check_terms=terms_of_numbers(self.config.needed, self.config.verifiers),
                deadline_s=self.config.deadline_s,
                owner=owner,
                purse=self.purses.of(owner),
            )
            if terms.purse is None:
                self._terms[owner] = terms
        return terms

    def check_owns(self, asked: ClientRequest, task: ContentId) -> None:
        """HttpError for a task of another, the same as for one that never was."""
        if self.node.tasks.owner_of(task) != asked.state.owner:
            raise not_found(f"no answer to the task {task} is kept here")

    def _has_room(self, owner: bytes) -> bool:
        if self._task_shares.take(owner):
            return True
        self._sweep()
        return self._task_shares.take(owner)

    def _sweep(self) -> None:
        """Forget what was left alone and has ended."""
        for task in [it for it in self._left if not self.node.tasks.under_way(it)]:
            owner = self._left.pop(task)
            self._task_shares.give_back(owner)
            self._unattended_shares.give_back(owner)

    def _take_room(self, owner: bytes) -> None:
        """Count a task as its key's; HttpError where there is no room."""
        if not self._has_room(owner):
            raise unavailable(
                f"no room for another task; {self._task_shares.held_by(owner)} of yours are"
                " under way",
                code="busy",
                retry_after_s=RETRY_AFTER_S,
            )

    def _not_accepted(self, request: TaskRequest, error: BatonError) -> HttpError:
        """Why a task was not accepted, as its client is told."""
        if isinstance(error, LevelImpossible):
            return bad(str(error), param="x-baton-level")
        if not isinstance(error, InputError):
            return HttpError(fault_of(error))
        self._check_loading(request)
        return unavailable(str(error), code="model_not_served", retry_after_s=RETRY_AFTER_S)

    def _check_loading(self, request: TaskRequest) -> None:
        """HttpError if this peer is about to run the model that nobody runs yet."""
        loading = self.node.dependencies.engine.statistics().loading
        for model in [it.model for it in request.stages if it.model is not None]:
            if model in loading:
                raise unavailable(
                    f"the model {self.node.models.name_of(model) or model} is"
                    f" {loading_words(loading[model])}",
                    code="model_loading",
                    retry_after_s=LOADING_RETRY_S,
                )

    async def leave(self, request: TaskRequest) -> ContentId:
        """Submit a task that no connection waits for, within its key's share of those."""
        self._sweep()
        if not self._unattended_shares.take(request.owner):
            raise unavailable(
                f"{self._unattended_shares.held_by(request.owner)} unattended tasks of yours are"
                " already running, and there is no room for another",
                code="busy",
                retry_after_s=RETRY_AFTER_S,
            )
        task, purse, paid = None, self.purses.of(request.owner), None
        try:
            self._take_room(request.owner)
            try:
                if purse is not None:
                    paid = await purse.begin(request)
                    request = paid.priced
                task = await self._submitted(request)
            finally:
                if task is None:
                    self._task_shares.give_back(request.owner)
            self._left[task] = request.owner
            if purse is not None and paid is not None:
                self.node.tasks.nursery.start_soon(self._pay_at_end, task, purse, paid)
            return task
        finally:
            if task is None and purse is not None and paid is not None:
                purse.end(paid, None)
            if task is None:
                self._unattended_shares.give_back(request.owner)

    async def _pay_at_end(self, task: ContentId, purse: Purse, paid: PaidTask) -> None:
        """Have a task paid that no connection waits for, once it has ended."""
        answered, paid.bill = None, self.node.tasks.bill_of(task)
        try:
            answered = await self.node.tasks.watch(task, ignore_event)
        except BatonError:
            # What its peers had shown of it is on its bill.
            return
        finally:
            purse.end(paid, answered)

    async def _submitted(self, request: TaskRequest) -> ContentId:
        request = await self._checkable(request)
        try:
            # Cut short, it would leave a task that nobody knows the id of.
            with trio.CancelScope(shield=True):
                return await self.node.tasks.submit(request)
        except BatonError as error:
            raise self._not_accepted(request, error) from error

    async def _checkable(self, request: TaskRequest) -> TaskRequest:
        """A task as it goes to who can be checked; HttpError where the verdicts cannot come."""
        try:
            makers = await makers_that_can_be_checked(self.node, request, request.stages[-1])
        except TooFewCanCheck as error:
            fewer = f"for {error.most}/{error.most} verdicts, or " if error.most else ""
            raise unavailable(
                f"{error.message}: ask {fewer}for none, 0/0; or have another machine check them",
                code="too_few_verifiers",
                retry_after_s=RETRY_AFTER_S,
            ) from error
        return replace(request, only=makers) if makers else request

    async def done(
        self, request: TaskRequest, on_event: EventSink, accepted: Callable[[ContentId], None]
    ) -> Answered:
        """A task's answer; HttpError if there is none. Left early, the task is cancelled."""
        started_at_s = trio.current_time()
        self._take_room(request.owner)
        watch, purse, answered = _Watch(on_event, accepted), self.purses.of(request.owner), None
        try:
            if purse is not None:
                watch.paid = await purse.begin(request)
                request = watch.paid.priced
            request = await self._checkable(request)
            answered = await self.node.tasks.ask(request, watch)
        except BatonError as error:
            if watch.task is None:
                raise self._not_accepted(request, error) from error
            late = trio.current_time() - started_at_s >= request.deadline_s - 1
            raise watch.failed(fault_of(error, late=late)) from error
        finally:
            self._task_shares.give_back(request.owner)
            if purse is not None and watch.paid is not None:
                purse.end(watch.paid, answered)
        if answered is None:
            raise watch.failed(watch.fault)
        return answered


class _Watch(Follower):
    """Hears what happens to one task, and notices that it is asked for what does not work."""

    __slots__ = ("_forward", "_forward_accepted", "_taken", "code", "paid", "task", "why")

    def __init__(self, forward: EventSink, forward_accepted: Callable[[ContentId], None]) -> None:
        super().__init__()
        self._forward = forward
        self._forward_accepted = forward_accepted
        self._taken = False
        self.task: ContentId | None = None
        # Of a task that somebody pays for.
        self.paid: PaidTask | None = None
        self.why, self.code = "", RefusalCode.OTHER

    @property
    def fault(self) -> ErrorDetail:
        return detail_of(self.code, self.why)

    def failed(self, fault: ErrorDetail) -> HttpError:
        """A fault of the task, as its client is told."""
        return HttpError(replace(fault, headers={"x-baton-task": str(self.task)}))

    def follow(self, run: TaskState) -> None:
        """See `Follower`: what it comes to is seen on its bill."""
        if self.paid is not None:
            self.paid.bill = run.bill
        super().follow(run)

    def accepted(self, task: ContentId) -> None:
        self.task = task
        self._forward_accepted(task)

    def on_event(self, event: Event) -> None:
        match event:
            case Offered():
                self._taken = True
                self.wait_until(math.inf)
            case Failed(for_good=True) if self._taken:
                self.why, self.code = event.why, event.code or RefusalCode.OTHER
                self.wait_until(trio.current_time() + SECOND_OPINION_S)
            case Streamed() if self.paid is not None:
                self.paid.shown = max(self.paid.shown, event.position + event.units)
            case _:
                pass
        self._forward(event)


def check_asked(
    word: str | None, verdicts: str | None, default: CheckTerms, param: str
) -> CheckTerms:
    """What a level and `2/3` ask for together; HttpError for what cannot be done."""
    try:
        return terms_of(word, verdicts, default)
    except InputError as error:
        raise bad(str(error), param=param) from error
