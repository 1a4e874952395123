"""Who pays for the tasks of HTTP clients: a task asks before it begins, and says what it cost."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.gateway.prices import HttpPrices, TaskPrice
from node.paying.bill import Bill


@dataclass(slots=True, eq=False)
class PaidTask:
    """One task that somebody pays for. `bill` is what its peers are paid by."""

    request: TaskRequest
    price: TaskPrice
    bill: Bill | None = None
    shown: int = 0

    @property
    def priced(self) -> TaskRequest:
        """The request, with what its peers may be paid."""
        return replace(self.request, price_max=self.price.peers)

    def comes_to(self, prices: HttpPrices, answered: Answered | None) -> int:
        """What it came to, in millionths, with an answer or without one."""
        if answered is None:
            own = prices.cost_of_part(self.request, self.shown)
            peers = 0 if self.bill is None else self.bill.so_far
        else:
            own = prices.cost_of_answer(self.request, answered)
            charges = () if answered.kept_before else answered.answer.record.charges
            peers = sum(it.amount for it in charges)
        return min(self.price.most, own + peers)


class Purse(Protocol):
    """What pays for the tasks of one request, or for those of one key."""

    def expect(self, request: TaskRequest) -> None:
        """Know of a task that is going to be asked for."""

    async def begin(self, request: TaskRequest) -> PaidTask:
        """Let a task begin; HttpError if it is not paid for."""
        ...

    def end(self, task: PaidTask, answered: Answered | None) -> None:
        """Take in what a task came to."""

    @property
    def amount(self) -> int | None:
        """What a request pays by itself so far, in millionths; None where something else pays."""
        ...


@dataclass(slots=True)
class Purses:
    """The purses of those who pay, by whose request it is.

    `of_key` gives that of a key with a budget; None for who needs none.
    """

    of_key: Callable[[bytes], Purse | None] = lambda _: None
    _of_requests: dict[bytes, Purse] = field(default_factory=dict)

    def of(self, owner: bytes) -> Purse | None:
        """What pays for the tasks of this owner; None if nobody needs to."""
        found = self._of_requests.get(owner)
        return self.of_key(owner) if found is None else found

    def open(self, owner: bytes, purse: Purse) -> None:
        """Have a purse pay for what this owner asks."""
        self._of_requests[owner] = purse

    def close(self, owner: bytes) -> None:
        """The request is over."""
        self._of_requests.pop(owner, None)
