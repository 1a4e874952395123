"""Builders: who is given a part of the growth share of what others pay it, out of the fund. Pure.

A motion says whose use is matched. It is always less than what the fund got of the same use, and
nothing for what goes round among accounts that are taken for one owner's: so a ring loses by it.
"""

from collections.abc import Iterable, Mapping

from node.ledger.motion_shelf import parameter
from node.ledger.payment_channel import MILLION
from wire.content import PeerId
from wire.errors import Malformed
from wire.motion import BuilderClaim, Parameter
from wire.usage import UseLine

BUILDER = b"d"
Rows = Mapping[bytes, bytes]
# What a builder, the second of the two, is given for what the first paid it in an epoch.
Matched = Mapping[tuple[PeerId, PeerId], int]


def builders_in(rows: Rows) -> list[PeerId]:
    """Whose use is matched, in order."""
    return [PeerId(key[1:]) for key in sorted(rows) if key[:1] == BUILDER]


def check_builder(rows: Rows, claim: BuilderClaim) -> None:
    """Malformed for a claim that would change nothing."""
    if (BUILDER + claim.account in rows) is claim.matched:
        raise Malformed("this account is matched already" if claim.matched else "it is not matched")


def builder_row(claim: BuilderClaim) -> tuple[bytes, bytes | None]:
    """What a claim that has passed changes."""
    return BUILDER + claim.account, b"\1" if claim.matched else None


def matched_by(rows: Rows, lines: Iterable[UseLine]) -> Matched:
    """What builders are given for these lines, which are those between different owners."""
    rate = parameter(rows, Parameter.MATCHING)
    found = {
        (line.payer, line.payee): line.growth * rate // MILLION
        for line in lines
        if BUILDER + line.payee in rows
    }
    return {sides: amount for sides, amount in found.items() if amount}
