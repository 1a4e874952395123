"""What a store needs of the place where its rows are: transactions, and a thread for slow work."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from store.group_commit import Action, CommitStatistics
from store.placed import PlacedRows

T = TypeVar("T")


class Backend(Protocol):
    """Where the rows are."""

    async def commit(self, action: Action[T], size_bytes: int = 0) -> T:
        """Run the action in a transaction, maybe with others; durable on return."""
        ...

    def offer(self, action: Action[object]) -> bool:
        """As `commit`, without waiting; False if the queue is full."""
        ...

    def reading(self) -> AbstractContextManager[PlacedRows]:
        """The rows as they are now, from any thread. The block is short; blocks do not nest."""
        ...

    async def run_in_thread(self, work: Callable[[], T]) -> T:
        """Run slow work where it does not stop the loop."""
        ...

    def statistics(self) -> CommitStatistics:
        """How many commits and writes were done since the store was opened, and how many wait."""
