"""Which keys the objects of a JSON text have so far, while it is written. A pure core.

A schema's grammar knows the keys that it names, and each of them comes once. Of other keys it knows
nothing: where any key may come, the same one could come again, and readers keep one of the two.
"""

import json
from dataclasses import dataclass, field

_QUOTE, _ESCAPE = ord('"'), ord("\\")


@dataclass(slots=True)
class JsonKeys:
    """Takes a JSON text piece by piece; pieces may end anywhere, also within a character."""

    # The keys of each object that is open; None for a list.
    _open: list[set[str] | None] = field(default_factory=list)
    _in_text: bool = False
    _escaped: bool = False
    _key_next: bool = False
    # A key that is being written, as its bytes stand in the text.
    _key: bytearray | None = None

    def take(self, data: bytes) -> bool:
        """Go on with these bytes; whether a key was completed that its object has already."""
        twice = False
        for byte in data:
            if self._in_text:
                twice = self._within(byte) or twice
            else:
                self._outside(byte)
        return twice

    def quotes_min(self) -> int:
        """How many quotes a piece needs at least to complete a key; 0: there is none to repeat."""
        if not any(self._open):
            return 0
        if self._key is not None:
            return 1
        return 2 if not self._in_text else 3

    def doubles(self, data: bytes) -> bool:
        """Whether these bytes, coming next, would complete a key that is there already."""
        copy = JsonKeys(
            [None if it is None else set(it) for it in self._open],
            self._in_text,
            self._escaped,
            self._key_next,
            None if self._key is None else bytearray(self._key),
        )
        return copy.take(data)

    def _within(self, byte: int) -> bool:
        if not self._escaped and byte == _QUOTE:
            self._in_text = False
            return self._ended()
        self._escaped = not self._escaped and byte == _ESCAPE
        if self._key is not None:
            self._key.append(byte)
        return False

    def _ended(self) -> bool:
        if self._key is None:
            return False
        key, self._key = _read(bytes(self._key)), None
        keys = self._open[-1]
        assert keys is not None, "a key is of an object"
        if key in keys:
            return True
        keys.add(key)
        return False

    def _outside(self, byte: int) -> None:
        match chr(byte):
            case '"':
                self._in_text, self._escaped = True, False
                self._key = bytearray() if self._key_next else None
            case "{":
                self._open.append(set())
                self._key_next = True
            case "[":
                self._open.append(None)
                self._key_next = False
            case "}" | "]":
                if self._open:
                    self._open.pop()
                self._key_next = False
            case ",":
                self._key_next = bool(self._open) and self._open[-1] is not None
            case ":":
                self._key_next = False


def _read(key: bytes) -> str:
    """A key as readers have it: the same one may be written in several ways."""
    try:
        return str(json.loads(b'"' + key + b'"'))
    except ValueError:
        return key.decode(errors="replace")
