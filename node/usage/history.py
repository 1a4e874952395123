"""Lines of use over many weeks, kept small: who paid whom how much, and who moved credits. Pure.

Accounts are numbered as they appear, and a pair of them is one number, so that a large ledger fits
a small memory. Lines of use that do not fit are refused, never dropped; transfers that do not fit
are counted: a circle that they close is not seen.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from wire.content import ContentId, PeerId
from wire.errors import InputError
from wire.usage import UseLine

WEEK_S = 7 * 24 * 3600
# Of all weeks together: about 300 MB.
PAIRS_MAX = 1_000_000
# Further models are not told apart from what no voucher named.
MODELS_MAX = 100_000
_PAIR_BITS = 32


class Use(NamedTuple):
    """What was paid, in millionths; what of it the fund got and kept; for how many tasks."""

    paid: int = 0
    growth: int = 0
    tasks: int = 0

    def plus(self, other: "Use") -> "Use":
        """Both together."""
        return Use(self.paid + other.paid, self.growth + other.growth, self.tasks + other.tasks)


def epochs_in_week(week_s: int, epoch_s: int) -> int:
    """How many epochs are counted as one week."""
    return max(1, week_s // epoch_s)


@dataclass(slots=True)
class UseHistory:
    """The use of a network from its beginning, by week; weeks are counted from 0."""

    week_epochs: int
    pairs_max: int = PAIRS_MAX
    epochs: int = 0
    accounts: list[PeerId] = field(default_factory=list)
    weeks: dict[int, dict[int, Use]] = field(default_factory=dict)
    # Pairs between which credits moved otherwise than for tasks.
    moved: set[int] = field(default_factory=set)
    # Transfers between further pairs, which nobody pays for: they are not held.
    unseen: int = 0
    # What was paid for work with each model, and what of it its author had.
    models: dict[ContentId, tuple[int, int]] = field(default_factory=dict)
    _numbers: dict[PeerId, int] = field(default_factory=dict)
    _pairs: int = 0

    def number(self, account: PeerId) -> int:
        """The number that stands for an account."""
        found = self._numbers.get(account)
        if found is None:
            found = self._numbers[account] = len(self.accounts)
            self.accounts.append(account)
        return found

    def add(
        self,
        epoch: int,
        lines: Iterable[UseLine],
        transfers: Iterable[tuple[PeerId, PeerId]],
        matched: Mapping[tuple[PeerId, PeerId], int] | None = None,
    ) -> None:
        """Take in an epoch that has ended; InputError if there is no room for more pairs.

        What was `matched` came back out of the fund, so it cost nobody who faked that use.
        """
        self.epochs = max(self.epochs, epoch + 1)
        week = self.weeks.setdefault(epoch // self.week_epochs, {})
        for line in lines:
            pair = self._pair(line.payer, line.payee)
            before = week.get(pair)
            if before is None:
                self._count()
            for use in line.models:
                paid, author = self.models.get(use.model, (0, 0))
                if use.model in self.models or len(self.models) < MODELS_MAX:
                    self.models[use.model] = paid + use.paid, author + use.author
            back = (matched or {}).get((line.payer, line.payee), 0)
            used = Use(line.paid, line.growth - back, line.tasks)
            week[pair] = used if before is None else before.plus(used)
        for payer, payee in transfers:
            if len(self.moved) < self.pairs_max:
                self.moved.add(self._pair(payer, payee))
            else:
                self.unseen += 1

    def _pair(self, payer: PeerId, payee: PeerId) -> int:
        return self.number(payer) << _PAIR_BITS | self.number(payee)

    def _count(self) -> None:
        self._pairs += 1
        if self._pairs > self.pairs_max:
            raise InputError(
                f"more than {self.pairs_max} pairs of accounts have paid each other: this is more"
                " than is held in memory",
                todo="look at a shorter ledger, or with longer weeks: --week 28d",
            )

    def edges(self) -> Iterator[tuple[int, int]]:
        """All pairs between which credits moved, in whatever way, some of them several times."""
        for pair in self.moved:
            yield parts_of(pair)
        for week in self.weeks.values():
            for pair in week:
                yield parts_of(pair)

    @property
    def weeks_over(self) -> int:
        """How many weeks have ended."""
        return self.epochs // self.week_epochs


def parts_of(pair: int) -> tuple[int, int]:
    """The numbers of payer and payee."""
    return pair >> _PAIR_BITS, pair & (1 << _PAIR_BITS) - 1
