"""Lines of use: who paid whom in an epoch, for how many tasks, as it was redeemed. Pure.

Nothing of a prompt or of a single task is in them. The header of a checkpoint names their digest;
whoever has the epoch's orders computes the same lines.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from wire.amount import Amount, Balance
from wire.content import PeerId
from wire.errors import Malformed
from wire.schema import Between, Int, Omitted, Record

# Empty for an epoch in which nothing was redeemed.
UseDigest = Annotated[bytes, Between(0, 32), Omitted(b"")]


@dataclass(frozen=True, slots=True, kw_only=True)
class UseLine(Record):
    """What `payee` redeemed of `payer` in one epoch, in millionths, and for how many tasks.

    `growth` is the part of it that went to the network's fund.
    """

    payer: PeerId
    payee: PeerId
    paid: Amount
    growth: Balance
    tasks: Int

    def check(self) -> None:
        """Malformed if the fund got more than was paid."""
        if self.growth > self.paid:
            raise Malformed("a line of use of which the fund got more than was paid")


def lines_digest(lines: Sequence[UseLine]) -> bytes:
    """32 bytes that the lines of an epoch hash to, empty if there are none."""
    if not lines:
        return b""
    whole = hashlib.sha256(b"baton/1/use_lines\0")
    for line in lines:
        raw = line.to_bytes()
        whole.update(len(raw).to_bytes(2, "big") + raw)
    return whole.digest()
