"""What every message between peers has: a number, by which the other side knows how to read it."""

from typing import ClassVar

from wire.kinds import Kind
from wire.schema import Record


class Message(Record):
    """Base of everything said on a stream."""

    __slots__ = ()
    KIND: ClassVar[Kind]
