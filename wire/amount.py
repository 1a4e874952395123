"""Credits: whole millionths, bounded, shown and typed as decimals. Never floats. Pure."""

import re
from typing import Annotated

from wire.annotations import Between
from wire.errors import InputError

CREDIT = 1_000_000
AMOUNT_MAX = 2**62

# What is paid or deposited is at least a millionth; what is left of it may be nothing.
Amount = Annotated[int, Between(1, AMOUNT_MAX)]
Balance = Annotated[int, Between(0, AMOUNT_MAX)]

_TYPED = re.compile(r"(\d{1,13})(?:\.(\d{1,6}))?")


def read_credits(text: str) -> int:
    """Millionths of what a person typed, as `12` or `0.02`; InputError for anything else."""
    match = _TYPED.fullmatch(text.strip())
    if match is None or not match[0].isascii():
        raise InputError(
            f"{text[:40]!r} is not an amount of credits",
            todo="give a number with at most six decimals, for example 12 or 0.02",
        )
    amount = int(match[1]) * CREDIT + int((match[2] or "").ljust(6, "0"))
    if not 1 <= amount <= AMOUNT_MAX:
        raise InputError(
            f"{text[:40]} credits cannot be paid",
            todo=f"give 0.000001 to {AMOUNT_MAX // CREDIT} credits",
        )
    return amount


def digits_of(text: str) -> int | None:
    """Millionths as x402 writes them, a string of digits; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def show_credits(amount: int) -> str:
    """`amount` millionths as a person reads them: 20000 is `0.02`."""
    whole, part = divmod(abs(amount), CREDIT)
    sign = "-" if amount < 0 else ""
    decimals = f".{part:06}".rstrip("0") if part else ""
    return f"{sign}{whole}{decimals}"
