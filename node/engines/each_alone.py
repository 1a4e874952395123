"""Many jobs for an engine that gains nothing by having them at once."""

from collections.abc import Awaitable, Callable, Sequence

import trio

from node.engines.interface import Found, Job, Output
from wire.errors import BatonError


async def each_alone(infer: Callable[[Job], Awaitable[Output]], jobs: Sequence[Job]) -> list[Found]:
    """`Engine.infer_many` for an engine that gains nothing by having several at once."""
    found: dict[int, Found] = {}

    async def one(at: int, job: Job) -> None:
        try:
            found[at] = await infer(job)
        except BatonError as error:
            found[at] = error

    async with trio.open_nursery() as nursery:
        for at, job in enumerate(jobs):
            nursery.start_soon(one, at, job)
    return [found[at] for at in range(len(jobs))]
