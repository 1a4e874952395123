"""Keys of apps at this gateway: who may come in with one, and what pays for its calls."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from node.apps.app_keys import AppKeys, digest_of, owner_of
from node.apps.held_credits import held_by
from node.apps.known_keys import KnownKey
from node.asking.answers import Answered
from node.asking.run import TaskRequest
from node.gateway.errors import ErrorDetail, HttpError
from node.gateway.http_exchange import Exchange
from node.gateway.key_budgets import KeyPurse, spent_of
from node.gateway.owner_payment import OwnerDraw, OwnerPayments, away
from node.gateway.prices import HttpPrices, TaskPrice
from node.gateway.rate_limit import Allowance
from node.gateway.spending import PaidTask
from node.peer import Node
from store import Store
from wire.amount import show_credits
from wire.app import AppMode
from wire.errors import BatonError, Refused
from wire.kinds import RefusalCode
from wire.latest import Latest

PURSES_MAX = 100_000
# Keys that are not known here cost a question to their owner: from one address so many a minute.
UNKNOWN_PER_MINUTE = 60
# What goes on long after it was asked for, when the key may be revoked.
_OFTEN = "this key may ask"
_NEW = "keys of apps that are new here may be shown from one address"
NOT_FOR_APPS = (b"/v1/batches", b"/v1/files")


@dataclass(slots=True, eq=False)
class AppPurse(KeyPurse):
    """What one key of an app may spend at this gateway: its share of the budget.

    A call takes the app's price. What the tasks themselves cost is paid by the app's owner: at its
    own gateway by the gateway's account, elsewhere by a voucher for each. Or its users pay that:
    then tasks are counted here, and their requests pay (`PaidRequest`).
    """

    known: KnownKey = field(kw_only=True)
    payments: OwnerPayments = field(kw_only=True)
    _draws: dict[PaidTask, OwnerDraw] = field(default_factory=dict)

    async def begin(self, request: TaskRequest) -> PaidTask:
        """See `Purse`."""
        price = await self.price(request)
        due = price.most - self.known.policy.price
        if due and self.known.policy.users_pay:
            raise _fault(
                402,
                f"this costs up to {show_credits(due)} credits, and users of the app"
                f" {self.known.policy.app!r} pay for each request by themselves (x402): a gateway"
                " takes that with --http-pay credits, at /v1/chat/completions and the like",
                "users_pay",
            )
        task = await self.reserve(request, price)
        if due and self.known.owner != self.prices.node.peers.me:
            try:
                self._draws[task] = await self.payments.draw(self.known, due)
            finally:
                if task not in self._draws:
                    KeyPurse.end(self, task, None)
        return task

    async def count(self, request: TaskRequest) -> PaidTask:
        """Let a task begin that its user pays for: the key is used for the app's price alone."""
        return await self.reserve(request, TaskPrice(self.known.policy.price, 0))

    def uncount(self, task: PaidTask) -> None:
        """It was not paid for, and did not begin."""
        KeyPurse.end(self, task, None)

    async def refill(self, most: int) -> None:
        """See `KeyPurse`: the app's owner is asked for a larger share."""
        need = self.spent + self.held + most
        if need <= self.known.key.budget:
            try:
                self.budget = await self.payments.keys.more(self.known, need)
            except BatonError as error:
                raise HttpError(away(error)) from error

    async def price(self, request: TaskRequest) -> TaskPrice:
        """The most that a call takes from the budget."""
        price = await self.prices.most(request)
        return TaskPrice(price.own + self.known.policy.price, price.peers)

    def taken_by(self, task: PaidTask, answered: Answered | None) -> int:
        """What a task came to; one that gave nothing takes no price."""
        gave = answered is not None or task.shown
        if self.known.policy.users_pay:
            return task.price.most if gave else 0
        taken = task.comes_to(self.prices, answered) + (self.known.policy.price if gave else 0)
        return min(task.price.most, taken)

    def end(self, task: PaidTask, answered: Answered | None) -> None:
        """See `Purse`."""
        if (draw := self._draws.pop(task, None)) is not None:
            cost = task.comes_to(self.prices, answered)
            draw.end(cost, task.request.stages[0].model)
        KeyPurse.end(self, task, answered)
        self.payments.keys.used(self.known, self.spent)

    def _too_little(self, price: int) -> ErrorDetail:
        budget, share = self.known.key.budget, self.budget
        if not budget:
            return ErrorDetail(
                status=402,
                message=f"this costs up to {show_credits(price)} credits, which nobody pays for"
                f" keys of the app {self.known.policy.app!r}: at a gateway that has prices they get"
                " only what is free",
                code="insufficient_quota",
            )
        return ErrorDetail(
            status=402,
            message=f"this may take {show_credits(price)} credits of this key's budget of"
            f" {show_credits(budget)}, of which {show_credits(share)} may be spent at this gateway"
            f" and {show_credits(self.left)} are left ({show_credits(self.held)} are held for what"
            " is under way): its app's owner can give another key",
            code="insufficient_quota",
        )


@dataclass(slots=True)
class AppDoor:
    """Lets keys of apps in. `open_to_all`: of any peer's apps, not only of this peer's own."""

    node: Node
    keys: AppKeys
    prices: HttpPrices
    store: Store
    open_to_all: bool
    payments: OwnerPayments
    # Whether somebody came in with such a key since the start.
    used: bool = False
    _purses: Latest[bytes, AppPurse] = field(default_factory=lambda: Latest(PURSES_MAX))

    async def admit(
        self, secret: str, exchange: Exchange, allowance: Allowance, *, is_open: bool
    ) -> bytes:
        """Whose request this is; HttpError if it may not come in.

        `is_open` says that this gateway lets anybody in.
        """
        address, path = exchange.channel.address[0], exchange.request.head.target
        if path.startswith(NOT_FOR_APPS):
            words = "batches and files are not for keys of apps: ask for each by itself"
            raise _fault(403, words, "not_for_apps")
        now_at_s = trio.current_time()
        try:
            if not (is_open or self.open_to_all or owner_of(secret) == self.node.peers.me):
                raise _fault(
                    403,
                    "this gateway takes no keys of other peers' apps: its owner can, with"
                    " --http-apps",
                    "apps_not_taken",
                )
            known = self.keys.at_hand(digest_of(secret), now_at_s)
            if known is None:
                _take(allowance, _NEW, f"app keys at {address}", UNKNOWN_PER_MINUTE, now_at_s)
                known = await self.keys.learn(secret)
            self._check_mode(known)
        except BatonError as error:
            if isinstance(error, Refused) and error.code is RefusalCode.NOT_PAID:
                raise _fault(402, error.message, "not_subscribed") from error
            raise HttpError(away(error)) from error
        _take(allowance, _OFTEN, known.digest.hex(), known.key.per_minute, now_at_s)
        self.used = True
        return known.digest

    def _check_mode(self, known: KnownKey) -> None:
        policy = known.policy
        if policy.mode is AppMode.HOLD:
            follower = None if self.node.ledger is None else self.node.ledger.follower
            held = held_by(follower, known.key.account)
            if held < policy.hold:
                raise _fault(
                    403,
                    f"{policy.app!r} opens to an account that has held"
                    f" {show_credits(policy.hold)} credits for two epochs; this key's held"
                    f" {show_credits(held)}",
                    "too_little_held",
                )

    def purse_of(self, owner: bytes) -> AppPurse | None:
        """What pays for the calls of an app's key; None if this is none."""
        known, found = self.keys.of(owner), self._purses.get(owner)
        if known is None:
            return found
        if found is None:
            share, spent = known.key.share, spent_of(self.store, owner)
            found = AppPurse(
                owner, share, spent, self.store, self.prices, known=known, payments=self.payments
            )
            self._purses[owner] = found
        found.known, found.budget = known, known.key.share
        return found

    def paid_by_user(self, owner: bytes) -> AppPurse | None:
        """What counts the calls of an app's key whose users pay; None if this is none."""
        purse = self.purse_of(owner)
        return purse if purse is not None and purse.known.policy.users_pay else None

    def status(self) -> Mapping[str, Any]:
        """For `status`."""
        return {"open_to_all": self.open_to_all, **self.keys.statistics()}


def _take(allowance: Allowance, what: str, name: str, per_minute: int, now_at_s: float) -> None:
    if wait_s := allowance.take(name, per_minute, now_at_s):
        raise HttpError(
            ErrorDetail(
                status=429,
                message=f"{what} {per_minute} times a minute",
                code="rate_limit_exceeded",
                retry_after_s=wait_s,
            )
        )


def _fault(status: int, message: str, code: str) -> HttpError:
    return HttpError(ErrorDetail(status=status, message=message, code=code))
