"""Requests that come with an app's key, and that their user pays: the key is counted beside."""

from dataclasses import dataclass, field

from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.gateway.app_door import AppPurse
from node.gateway.spending import PaidTask, Purse


@dataclass(slots=True, eq=False)
class CountedPurse:
    """A purse of one request, whose tasks a key is used for as well."""

    paid: Purse
    key: AppPurse
    _counted: dict[PaidTask, PaidTask] = field(default_factory=dict)

    def expect(self, request: TaskRequest) -> None:
        """See `Purse`."""
        self.paid.expect(request)

    async def begin(self, request: TaskRequest) -> PaidTask:
        """See `Purse`: nobody is asked to pay for what the key may not do."""
        counted, task = await self.key.count(request), None
        try:
            task = await self.paid.begin(request)
        finally:
            if task is None:
                self.key.uncount(counted)
        self._counted[task] = counted
        return task

    def end(self, task: PaidTask, answered: Answered | None) -> None:
        """See `Purse`."""
        self.paid.end(task, answered)
        counted = self._counted.pop(task)
        counted.shown = task.shown
        self.key.end(counted, answered)

    @property
    def amount(self) -> int | None:
        """See `Purse`."""
        return self.paid.amount
