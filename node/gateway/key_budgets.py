"""What API keys with a budget may spend, and have spent.

The most that a task may cost is noted durably before it begins, so that neither a crash nor tasks
at once spend a credit twice. The state folder belongs to one process: a key has one spender.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.gateway.errors import ErrorDetail, HttpError, fault_of
from node.gateway.keys import ApiKey, Keyring
from node.gateway.prices import HttpPrices, TaskPrice
from node.gateway.spending import PaidTask
from store import Store, Table
from wire.amount import show_credits
from wire.codec import pack, unpack
from wire.errors import StoreError

PREFIX = b"key:"


@dataclass(slots=True, eq=False)
class KeyPurse:
    """What one key has spent, and what is held for its tasks, in millionths."""

    owner: bytes
    budget: int
    spent: int
    store: Store
    prices: HttpPrices
    held: int = 0
    # What is durable of both; changes are written one after another.
    _kept: int = 0
    _keeping: trio.Lock = field(default_factory=trio.Lock)

    @property
    def left(self) -> int:
        """What further tasks may cost."""
        return max(0, self.budget - self.spent - self.held)

    def expect(self, request: TaskRequest) -> None:
        """See `Purse`: each task is paid for as it begins."""

    async def begin(self, request: TaskRequest) -> PaidTask:
        """See `Purse`."""
        return await self.reserve(request, await self.price(request))

    async def reserve(self, request: TaskRequest, price: TaskPrice) -> PaidTask:
        """Hold so much of the budget for a task; HttpError if that is not left."""
        if price.most > self.left:
            await self.refill(price.most)
        if price.most > self.left:
            raise HttpError(self._too_little(price.most))
        task, is_kept = PaidTask(request, price), not price.most
        self.held += price.most
        try:
            await self._keep_held()
            is_kept = True
        except StoreError as error:
            raise HttpError(fault_of(error)) from error
        finally:
            if not is_kept:
                self.held -= price.most
        return task

    async def price(self, request: TaskRequest) -> TaskPrice:
        """The most that a task may take from the budget."""
        return await self.prices.most(request)

    async def refill(self, most: int) -> None:
        """Try to have `most` millionths left, where more may be had than there is."""

    def taken_by(self, task: PaidTask, answered: Answered | None) -> int:
        """What a task took from the budget."""
        return task.comes_to(self.prices, answered)

    def end(self, task: PaidTask, answered: Answered | None) -> None:
        """See `Purse`."""
        if task.price.most:
            self.held -= task.price.most
            self.spent += self.taken_by(task, answered)
            if not self._keeping.locked():
                # One that is being written holds as much, or more.
                self._kept = self.spent + self.held
                self.store.write_soon(Table.HTTP_PAYMENTS, PREFIX + self.owner, pack([self._kept]))

    @property
    def amount(self) -> int | None:
        """See `Purse`: the key pays, out of its budget."""
        return None

    async def _keep_held(self) -> None:
        async with self._keeping:
            if self._kept < (now := self.spent + self.held):
                await self.store.write(Table.HTTP_PAYMENTS, PREFIX + self.owner, pack([now]))
                self._kept = now

    def _too_little(self, price: int) -> ErrorDetail:
        budget, held = show_credits(self.budget), show_credits(self.held)
        return ErrorDetail(
            status=402,
            message=f"this may cost {show_credits(price)} credits, and {show_credits(self.left)} of"
            f" this key's {budget} are left ({held} are held for what is under way): its gateway's"
            " owner can allow more (keys add NAME --credits), or ask for less (max_tokens)",
            code="insufficient_quota",
        )


@dataclass(slots=True)
class KeyBudgets:
    """The purses of the keys that have a budget, by whose requests they pay for."""

    keyring: Keyring
    store: Store
    prices: HttpPrices
    _purses: dict[bytes, KeyPurse] = field(default_factory=dict)

    def of(self, owner: bytes) -> KeyPurse | None:
        """The purse of a key; None if it has no budget."""
        key = self.keyring.of_owner(owner)
        if key is None or key.credits is None:
            return None
        found = self._purses.get(owner)
        if found is None:
            found = KeyPurse(
                owner, key.credits, spent_of(self.store, owner), self.store, self.prices
            )
            self._purses[owner] = found
        found.budget = key.credits
        return found

    def status(self) -> Mapping[str, Any]:
        """What each key with a budget has spent, by its name."""
        return {key.name: self._told(key) for key in self.keyring.kept if key.credits is not None}

    def _told(self, key: ApiKey) -> Mapping[str, int]:
        purse = self.of(key.owner)
        assert purse is not None
        return {"credits": purse.budget, "spent": purse.spent, "held": purse.held}


def spent_of(store: Store, owner: bytes) -> int:
    """What a key has spent, in millionths, with what was held when this was written."""
    row = store.read(Table.HTTP_PAYMENTS, PREFIX + owner)
    return 0 if row is None else int(unpack(row)[0])
