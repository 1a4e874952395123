"""A keeper of workflows in simulated time: a memory store, and steps that a test steers."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from node.ingest.http_post import HttpPoster
from node.ingest.owned import OwnedSources
from node.task.price_bound import PriceBound, part_of_fetches
from node.workflows.definition import ModelStep, SourceStep
from node.workflows.feed_calls import FeedCalls
from node.workflows.keeper import KeeperSeams, WorkflowKeeper, open_workflows
from node.workflows.steps import BroughtInput, ModelAnswer
from p2p.score import Offence
from store import Store
from tests.ingest.servers import TLS, MadeUpNetwork
from wire.content import ContentId, PeerId
from wire.errors import BatonError, Missing, TaskFailed, Unreachable
from wire.feed import FeedEntry, FeedPage
from wire.signed import Signed
from wire.signing import SigningKey

START_S = 1_800_000_000.0
KEY = SigningKey(bytes(range(32)))
SECOND = 'every = "1s"\n[source]\nname = "prices"\n[model]\nname = "m"\n'


@dataclass
class MadeSteps:
    """Answers after `takes_s`. Tasks outlive the keeper, as those of a peer do."""

    takes_s: float = 0.3
    brought: int = 0
    submitted: int = 0
    # Called with the number of a fetch; may raise.
    on_bring: Callable[[int], None] = lambda _number: None
    on_outcome: Callable[[int], None] = lambda _number: None
    tasks: dict[ContentId, float] = field(default_factory=dict)
    # What a fetch and an answer cost, and what each of them might have.
    fetch_costs: int = 0
    model_costs: int = 0
    allowed: list[int] = field(default_factory=list)

    async def check(self, model: ModelStep) -> None:
        await trio.lowlevel.checkpoint()

    async def bring(
        self, source: SourceStep, deadline_s: int, bound: PriceBound, *, then: bool
    ) -> BroughtInput:
        self.brought += 1
        price = part_of_fetches(bound.left, source.quorum, then=then)
        self.allowed.append(price)
        bound.charged += min(price, self.fetch_costs)
        self.on_bring(self.brought)
        await trio.sleep(self.takes_s / 3)
        return BroughtInput(output=b"said", answers=(ContentId.of(b"fetch %d" % self.brought),))

    async def submit(
        self, model: ModelStep, brought: BroughtInput, deadline_s: int, price_max: int
    ) -> ContentId:
        self.submitted += 1
        self.allowed.append(price_max)
        task = ContentId.of(b"task %d" % self.submitted)
        await trio.sleep(self.takes_s / 3)
        self.tasks[task] = trio.current_time() + self.takes_s / 3
        return task

    async def outcome(self, task: ContentId) -> ModelAnswer:
        if task not in self.tasks:
            raise Missing("no such task")
        self.on_outcome(self.submitted)
        await trio.sleep(max(0.0, self.tasks[task] - trio.current_time()))
        answer = ContentId.of(b"answer" + task)
        return ModelAnswer(
            answer=answer, result={"text": "said"}, contents=(answer,), cost=self.model_costs
        )

    def cost_of(self, task: ContentId) -> int:
        return self.model_costs


def failing(*numbers: int) -> Callable[[int], None]:
    """Fails the calls with these numbers."""

    def on_call(number: int) -> None:
        if number in numbers:
            raise TaskFailed(f"call {number} has failed")

    return on_call


def always(error: BatonError) -> Callable[[int], None]:
    def on_call(_number: int) -> None:
        raise error

    return on_call


def wall_s() -> float:
    """The wall clock of simulated time; tests begin at a whole second."""
    return START_S + trio.current_time()


class NobodyElse:
    """The calls of a peer that is alone: a workflow without standbys makes none."""

    async def page(self, keeper: PeerId, feed: ContentId, number: int) -> FeedPage:
        raise Unreachable("nobody else is here")

    async def fetch_result(self, entry: Signed[FeedEntry], keepers: Sequence[PeerId]) -> int:
        return 0

    async def keep_pair(self, one: Signed[FeedEntry], other: Signed[FeedEntry]) -> str:
        raise AssertionError("nobody else writes")

    def hears_others(self, than: PeerId) -> bool:
        return False

    def offended(self, keeper: PeerId, offence: Offence) -> None:
        raise AssertionError("nobody else is here")


def seams(
    store: Store,
    folder: Path,
    steps: MadeSteps,
    site: MadeUpNetwork | None = None,
    *,
    key: SigningKey = KEY,
    calls: FeedCalls | None = None,
) -> KeeperSeams:
    network = (site or MadeUpNetwork()).seam
    return KeeperSeams(
        key=key,
        store=store,
        wall_s=wall_s,
        steps=steps,
        owned=OwnedSources(folder),
        poster=HttpPoster(network, TLS),
        calls=calls or NobodyElse(),
    )


@asynccontextmanager
async def keeping(given: KeeperSeams) -> AsyncIterator[WorkflowKeeper]:
    async with open_workflows(given) as keeper:
        yield keeper


def entries(keeper: WorkflowKeeper, name: str = "w", count: int = 1000) -> list[FeedEntry]:
    history = keeper.get(name).runner.history
    return [it.record for it in history.entries(history.head.number - count + 1, count)]


def slots(found: list[FeedEntry]) -> list[tuple[int, str]]:
    """Each slot as seconds since the start, and how it ended; of several the last."""
    return [((it.slot_ms - int(START_S * 1000)) // 1000, it.end) for it in found]


async def result(keeper: WorkflowKeeper, entry: FeedEntry) -> Any:
    data = await keeper.get("w").runner.history.result_of(entry)
    return None if data is None else json.loads(data)
