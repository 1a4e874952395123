"""The two ends of a payment channel, as each side counts what is paid and charged. Pure.

Amounts are in millionths. A voucher is cumulative, so that of all that were signed the highest
counts, in whatever order they come. Work draws on what was paid and is not charged yet. The payer
never promises more than one increment beyond what it was charged and shown, and the payee never
works for more than was promised: neither risks more than one increment.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wire import limits
from wire.amount import CREDIT
from wire.codec import Value, pack, unpack
from wire.content import ContentId, PeerId
from wire.ledger import NAMED_REDEMPTION_MIN, ModelPart, Voucher

# Of the vouchers that paid for a request each so many are remembered, the highest.
USED_KEPT = 64
# What a payee is promised ahead before it has done anything: so much, or so many tasks.
RISKED_MIN = CREDIT // 100
RISKED_TASKS = 16

# The next channel to a peer is opened when less than this part of a deposit is left.
LOW_PART = 3


@dataclass(slots=True)
class PaidChannel:
    """The payer's end."""

    payee: PeerId
    name: bytes
    deposit: int
    expiry: int
    # Shows the payee that the channel was opened.
    settlement: bytes
    # The total of the highest voucher that was signed, and of the highest that the payee has.
    signed: int = 0
    heard: int = 0
    charged: int = 0
    tasks: int = 0
    # What the payee says that it has charged.
    told: int = 0
    told_at_s: float = -math.inf
    # Of tasks under way: what is held for them, and what their shown tokens cost.
    held: int = 0
    shown: int = 0
    # The tariff that both agreed on last, and its increment; None before the payee was asked.
    tariff: ContentId | None = None
    increment: int = 0
    # The most that a task needed before it began.
    need: int = 0
    # How much was promised ahead the last time: it doubles, so that few vouchers pay for many.
    ahead: int = 0
    # Whether this peer has opened it since it began, and not been answered in it yet.
    is_new: bool = False
    # Whether the payee has less than was thought: it is shown the channel, and asked how it stands.
    unsure: bool = False
    # What the payee was charged in the channels before this one: it is known by that work, too.
    before: int = 0
    # What of `charged` was for which model, and what vouchers have said of that: they say it of the
    # first few models, and never less than before.
    models: dict[ContentId, int] = field(default_factory=dict)
    named: dict[ContentId, int] = field(default_factory=dict)
    # Whether bytes that the payee passes on are to be paid out of it, and whether it was told so;
    # what of `charged` was for them, by this peer's count, and by what the payee says.
    pays_relays: bool = False
    # Whether its payee asks for nothing else.
    bytes_alone: bool = False
    relays: bool = False
    relayed: int = 0
    relayed_bytes: int = 0
    told_relayed: int = 0

    @property
    def left(self) -> int:
        """What is not charged of the deposit."""
        return self.deposit - self.charged

    @property
    def owes(self) -> bool:
        """Whether more was charged than the payee has the payer's word for."""
        return min(self.charged, self.deposit) > self.heard

    @property
    def is_low(self) -> bool:
        """Whether the next channel is to be opened, before work has to wait for it."""
        return LOW_PART * self.left < self.deposit

    def is_over(self, need: int, epoch: int) -> bool:
        """Whether another channel has to take its place: little is left in it, or little time."""
        return self.left < need or self.expiry <= epoch

    @property
    def available(self) -> int:
        """What further tasks can draw on at the payee now."""
        return self.heard - max(self.charged, self.told) - self.held

    @property
    def most(self) -> int:
        """The highest total that may be signed now."""
        return min(self.deposit, self.charged + self.shown + self.risked)

    @property
    def risked(self) -> int:
        """How much is promised ahead at most, of the increment that the payee itself names.

        Whoever has done little is promised little: some tasks like those here, or as much again.
        Who only passes bytes on has fewer: anybody can have lines asked of many relays.
        """
        least = max(RISKED_MIN, RISKED_TASKS * self.need)
        if self.bytes_alone:
            least = self.need
        return min(self.increment, max(least, self.before + self.charged))

    def wants(self, need: int) -> bool:
        """Whether another voucher is due, so that a task that needs so much does not wait."""
        return self.available < max(need, self.ahead // 2) and self.most > self.signed

    def next_total(self, need: int) -> int:
        """The total of the next voucher."""
        self.ahead = min(self.risked, max(need, 2 * self.ahead))
        wanted = max(self.charged, self.told) + self.held + self.ahead
        return max(self.signed, min(self.most, wanted))

    def note_model(self, model: ContentId, amount: int) -> None:
        """Note that so much of what was charged was for this model."""
        if model in self.models or len(self.models) < limits.VOUCHER_MODELS_MAX:
            self.models[model] = max(0, self.models.get(model, 0) + amount)

    def name_models(self) -> tuple[ModelPart, ...]:
        """What the next voucher says of models."""
        left = self.signed - sum(self.named.values())
        for model, charged in self.models.items():
            more = min(left, max(0, charged - self.named.get(model, 0)))
            if more > 0:
                self.named[model] = self.named.get(model, 0) + more
                left -= more
        return tuple(ModelPart(model=it, amount=paid) for it, paid in sorted(self.named.items()))

    def hear(self, told: int, voucher: Voucher | None, relayed: int = 0) -> None:
        """Take in what the payee says that it has charged, and the highest voucher that it shows.

        `relayed` of it was for bytes. After a loss of our disk only what we signed ourselves is
        believed.
        """
        self.told, self.heard = told, 0 if voucher is None else voucher.total
        self.told_relayed = relayed
        if voucher is None or voucher.total <= self.signed:
            return
        self.signed = voucher.total
        self.named = {it.model: it.amount for it in voucher.models}
        self.models = dict(self.named)
        self.charged = max(self.charged, min(told, self.signed))
        self.relayed = max(self.relayed, min(relayed, self.charged))

    def as_map(self) -> dict[str, Any]:
        """For people and programs."""
        return {
            "peer": str(self.payee),
            "channel": self.name.hex(),
            "deposit": self.deposit,
            "promised": self.signed,
            "charged": self.charged,
            # What the payee has counted and this peer has not, when it was last asked.
            "not_counted_here": max(0, self.told - self.charged),
            "tasks": self.tasks,
            # What of it was for bytes that the peer passed on.
            "relayed": self.relayed,
            "relayed_bytes": self.relayed_bytes,
            "expires_after_epoch": self.expiry,
        }

    def charges_to_bytes(self) -> bytes:
        """What is kept of its charges beside it, more often."""
        counts = [self.charged, self.tasks, self.relayed, self.relayed_bytes]
        return pack([*counts, self.relays])

    def take_charges(self, data: bytes) -> None:
        """Go on with charges that were kept; never with more than was signed for."""
        charged, tasks, *later = unpack(data)
        self.charged = max(self.charged, min(charged, self.signed))
        self.tasks = max(self.tasks, tasks)
        if later:
            self.relayed, self.relayed_bytes, self.relays = later

    def to_bytes(self) -> bytes:
        """What is kept of it."""
        return pack(
            [
                bytes(self.payee),
                self.deposit,
                self.expiry,
                self.settlement,
                self.signed,
                self.charged,
                self.tasks,
                _pairs(self.models),
                _pairs(self.named),
                self.before,
            ]
        )

    @classmethod
    def from_bytes(cls, name: bytes, data: bytes) -> "PaidChannel":
        """WireError if a row is none."""
        payee, deposit, expiry, settlement, signed, charged, tasks, *later = unpack(data)
        models, named = map(_read_pairs, later[:2]) if later else ({}, {})
        found = cls(PeerId(payee), name, deposit, expiry, settlement, signed, 0, charged, tasks)
        found.models, found.named = models, named
        found.before = later[2] if len(later) > 2 else 0
        return found


@dataclass(slots=True)
class EarningChannel:
    """The payee's end."""

    payer: PeerId
    name: bytes
    deposit: int
    expiry: int
    highest: int = 0
    voucher: bytes = b""
    charged: int = 0
    tasks: int = 0
    # Of work under way: in all, and of each kind.
    held: int = 0
    held_for: Counter[ContentId | None] = field(default_factory=Counter)
    # What was taken out of the channel by orders that are settled.
    redeemed: int = 0
    # The tariff that the payer agreed to last.
    tariff: ContentId | None = None
    # What was read for tasks that the payer gave up, and that nothing it paid since makes up for.
    given_up: int = 0
    # What of `charged` was for which model, and what the highest voucher says of that.
    models: dict[ContentId, int] = field(default_factory=dict)
    named: Mapping[ContentId, int] = field(default_factory=dict)
    # The totals of vouchers that have paid for a request each, as far as they are remembered, in
    # order; none up to `floor` does so again.
    used: tuple[int, ...] = ()
    floor: int = 0
    # Whether its payer said that bytes which are passed on for it are paid out of this.
    relays: bool = False

    def available_for(self, work: ContentId | None) -> int:
        """What further work of this kind may come to; None is what no voucher names.

        What was promised in the name of a model, of which the author has a share, pays for that.
        """
        others = _named_ahead(self, self.named, but=work)
        return self.highest - self.charged - self.held - others

    def set_aside(self, amount: int, work: ContentId | None) -> None:
        """Hold so much more, or less, for work of this kind that is under way."""
        self.held += amount
        self.held_for[work] += amount

    @property
    def left(self) -> int:
        """What may still be charged."""
        return self.deposit - self.charged

    @property
    def unredeemed(self) -> int:
        """What the highest voucher promises beyond what was redeemed."""
        return self.highest - self.redeemed

    @property
    def is_due(self) -> bool:
        """Whether there is something to redeem."""
        return self.unredeemed >= (NAMED_REDEMPTION_MIN if self.named else 1)

    def misnamed(self, voucher: Voucher) -> str:
        """Why a voucher is not taken for what it says of models; empty if it is right.

        A model's author has a share of what is named, so nothing is named that was charged for
        something else; a crash may have forgotten some of what was charged for it.
        """
        named = {it.model: it.amount for it in voucher.models}
        if voucher.total <= self.highest:
            return ""
        if any(named.get(model, 0) < before for model, before in self.named.items()):
            return "the voucher names less for a model than the one before"
        ahead = _named_ahead(self, named)
        if ahead and ahead > voucher.total - self.charged - self.held:
            return "the voucher names more for a model than was worked with it here"
        return ""

    def take(self, voucher: Voucher, raw: bytes) -> bool:
        """Keep a voucher whose signature holds; whether it is higher than all before."""
        if not self.highest < voucher.total <= self.deposit:
            return False
        self.highest, self.voucher = voucher.total, raw
        self.named = {it.model: it.amount for it in voucher.models}
        return True

    def use_up(self, total: int) -> None:
        """Have the voucher with this total pay for one request, and for no other."""
        used = sorted({*self.used, total})
        if len(used) > USED_KEPT:
            self.floor = max(self.floor, used[-USED_KEPT - 1])
        self.used = tuple(used[-USED_KEPT:])

    def unuse(self, total: int) -> None:
        """Let a voucher pay for another request: the first came to nothing."""
        self.used = tuple(it for it in self.used if it != total)

    def is_used(self, total: int) -> bool:
        """Whether a voucher has paid for a request, or is so low that nobody remembers."""
        return total <= self.floor or total in self.used

    def to_bytes(self) -> bytes:
        """What is kept of it."""
        return pack(
            [
                bytes(self.payer),
                self.deposit,
                self.expiry,
                self.voucher,
                self.highest,
                self.charged,
                self.tasks,
                self.redeemed,
                None if self.tariff is None else bytes(self.tariff),
                [self.floor, *self.used],
                _pairs(self.models),
                _pairs(self.named),
                self.given_up,
                self.relays,
            ]
        )

    @classmethod
    def from_bytes(cls, name: bytes, data: bytes) -> "EarningChannel":
        """WireError if a row is none."""
        payer, deposit, expiry, voucher, highest, charged, tasks, redeemed, *more = unpack(data)
        tariff = ContentId(more[0]) if more and more[0] is not None else None
        floor, *used = more[1] if len(more) > 1 else [0]
        models, named = map(_read_pairs, more[2:4]) if more[2:] else ({}, {})
        return cls(
            PeerId(payer),
            name,
            deposit,
            expiry,
            highest,
            voucher,
            charged,
            tasks,
            redeemed=redeemed,
            tariff=tariff,
            used=tuple(used),
            floor=floor,
            models=models,
            named=named,
            given_up=more[4] if len(more) > 4 else 0,
            relays=more[5] if len(more) > 5 else False,
        )


def _named_ahead(
    channel: EarningChannel, named: Mapping[ContentId, int], but: ContentId | None = None
) -> int:
    """What is named for models that was neither charged nor is held for work with them.

    `but`: without what is named for this one.
    """
    ahead, done, held = 0, channel.models, channel.held_for
    for model, of in named.items():
        if model != but:
            ahead += max(0, of - done.get(model, 0) - held[model])
    return ahead


def _pairs(amounts: Mapping[ContentId, int]) -> Value:
    return [[bytes(model), amount] for model, amount in amounts.items()]


def _read_pairs(pairs: Any) -> dict[ContentId, int]:
    return {ContentId(model): amount for model, amount in pairs}
