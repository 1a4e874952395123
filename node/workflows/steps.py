"""What a workflow has a peer do: a seam, so that schedules are tested without a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from node.ingest.table import DataTable
from node.task.price_bound import PriceBound
from node.workflows.definition import ModelStep, SourceStep
from wire.content import ContentId


@dataclass(frozen=True, slots=True, kw_only=True)
class BroughtInput:
    """What a source gave. `table` is None for a text; `answers` are the data peers' receipts.

    `tensor_of` is the receipt of the fetch that gave this very tensor; None for anything else.
    `contents` is all that has to be kept so that it can be checked later.
    """

    output: bytes
    table: DataTable | None = None
    tensor_of: ContentId | None = None
    answers: tuple[ContentId, ...] = ()
    contents: tuple[ContentId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswer:
    """What a model said, as JSON has it, the receipt, and what it cost in millionths."""

    answer: ContentId
    result: Mapping[str, Any]
    contents: tuple[ContentId, ...]
    cost: int = 0


class Steps(Protocol):
    """Asks the network; every call raises a BatonError if it fails, and may be tried again."""

    async def check(self, model: ModelStep) -> None:
        """InputError if the model is known here and cannot do what is asked of it."""
        ...

    async def bring(
        self, source: SourceStep, deadline_s: int, bound: PriceBound, *, then: bool
    ) -> BroughtInput:
        """Have a source fetched, within what a slot may cost; what it cost is noted in `bound`.

        `then` a model is asked, for which a part of it is left.
        """
        ...

    async def submit(
        self, model: ModelStep, brought: BroughtInput, deadline_s: int, price_max: int
    ) -> ContentId:
        """Ask a model; the id of the task, which from now on ends also if this peer is killed."""
        ...

    def cost_of(self, task: ContentId) -> int:
        """What a task that failed has cost, in millionths."""
        ...

    async def outcome(self, task: ContentId) -> ModelAnswer:
        """Wait for the end of a task that `submit` gave, also in an earlier life."""
        ...
