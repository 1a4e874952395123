"""Lines of use: who paid whom in an epoch, for how many tasks, as it was redeemed. Pure.

Nothing of a prompt or of a single task is in them. The header of a checkpoint names their digest;
whoever has the epoch's orders computes the same lines.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from wire import limits
from wire.amount import Amount, Balance
from wire.content import ContentId, PeerId
from wire.errors import Malformed
from wire.schema import Between, Int, Omitted, Record

# Empty for an epoch in which nothing was redeemed.
UseDigest = Annotated[bytes, Between(0, 32), Omitted(b"")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUse(Record):
    """What was paid for work with one model, and the part of it that its author had."""

    model: ContentId
    paid: Amount
    author: Balance

    def check(self) -> None:
        """Malformed if the author got more than was paid."""
        if self.author > self.paid:
            raise Malformed("a line of use of which an author got more than was paid")


ModelUses = Annotated[tuple[ModelUse, ...], Between(0, limits.LINE_MODELS_MAX), Omitted(())]


@dataclass(frozen=True, slots=True, kw_only=True)
class UseLine(Record):
    """What `payee` redeemed of `payer` in one epoch, in millionths, and for how many tasks.

    `growth` is the part of it that went to the network's fund. `models` are those that vouchers
    named, in order; what they named none for is not in them.
    """

    payer: PeerId
    payee: PeerId
    paid: Amount
    growth: Balance
    tasks: Int
    models: ModelUses = ()

    def check(self) -> None:
        """Malformed if the fund got more than was paid, or models are not in order or too much."""
        if self.growth > self.paid:
            raise Malformed("a line of use of which the fund got more than was paid")
        names = [it.model for it in self.models]
        if sorted(set(names)) != names or sum(it.paid for it in self.models) > self.paid:
            raise Malformed("the models of a line of use stand in order, and are no more than it")


def lines_digest(lines: Sequence[UseLine]) -> bytes:
    """32 bytes that the lines of an epoch hash to, empty if there are none."""
    if not lines:
        return b""
    whole = hashlib.sha256(b"baton/1/use_lines\0")
    for line in lines:
        raw = line.to_bytes()
        whole.update(len(raw).to_bytes(2, "big") + raw)
    return whole.digest()
