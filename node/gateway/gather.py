"""Several tasks for one request: all are answered, or the first that fails says why."""

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.gateway.errors import ErrorDetail, HttpError
from node.gateway.task_service import TaskService
from node.task.events import ignore_event
from wire.content import ContentId


@dataclass(frozen=True, slots=True)
class Finished:
    """A task, and its answer."""

    task: ContentId
    answered: Answered


async def all_done(service: TaskService, requests: Sequence[TaskRequest]) -> list[Finished]:
    """The answers, in order; HttpError for the first that fails, and the others are cancelled."""
    if len(requests) == 1:
        one_task: list[ContentId] = []
        answered = await service.done(requests[0], ignore_event, one_task.append)
        return [Finished(one_task[0], answered)]
    found: dict[int, Finished] = {}
    faults: list[ErrorDetail] = []

    async def one(place: int, nursery: trio.Nursery) -> None:
        tasks: list[ContentId] = []
        try:
            answered = await service.done(requests[place], ignore_event, tasks.append)
        except HttpError as error:
            faults.append(error.fault)
            nursery.cancel_scope.cancel()
        else:
            found[place] = Finished(tasks[0], answered)

    async with trio.open_nursery() as nursery:
        for place in range(len(requests)):
            nursery.start_soon(one, place, nursery)
    if faults:
        raise HttpError(faults[0])
    return [found[place] for place in range(len(requests))]


def ids_of(finished: Sequence[Finished]) -> dict[str, str]:
    """The ids of tasks and receipts, with commas between them."""
    return {
        "task": ",".join(str(it.task) for it in finished),
        "receipt": ",".join(str(it.answered.answer.id) for it in finished),
    }


def headers_of(finished: Sequence[Finished]) -> dict[str, str]:
    return {f"x-baton-{name}": value for name, value in ids_of(finished).items()}
