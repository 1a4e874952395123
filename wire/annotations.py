"""What the annotations of a record's fields say beyond their type: bounds, and what is left out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from wire import limits

Scalar = bool | int | float | str | bytes
Parameters = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Between:
    """Bounds of a number (inclusive), of a text or bytes (in bytes), of a tuple (in items)."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Omitted:
    """A field that was added later. It is left out if it has this value, which is its default.

    So older records keep their encoding. A record that contains this value is refused, because one
    record has one encoding.
    """

    value: Any


# A row of a leg, by number.
Row = Annotated[int, Between(0, limits.PASSAGES_MAX - 1)]
Int = Annotated[int, Between(0, 2**62)]
Name = Annotated[str, Between(1, limits.NAME_BYTES_MAX)]
Reason = Annotated[str, Between(0, limits.REASON_BYTES_MAX)]
Digest = Annotated[bytes, Between(32, 32)]
Inline = Annotated[bytes, Between(0, limits.INLINE_BYTES_MAX)]
