"""A mapping that keeps the latest N items: every table that other peers can fill is one. Pure."""

from collections.abc import Iterator, MutableMapping
from typing import TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


class Latest(MutableMapping[K, V]):
    """A mapping of at most `items_max` keys: setting one makes it the newest, and drops the oldest.

    Iteration is from the oldest to the newest. Reading a value does not make it newer.
    """

    __slots__ = ("_kept", "items_max")

    def __init__(self, items_max: int) -> None:
        self.items_max = items_max
        self._kept: dict[K, V] = {}

    def __setitem__(self, key: K, value: V) -> None:
        self._kept.pop(key, None)
        self._kept[key] = value
        while len(self._kept) > self.items_max:
            self.forget_oldest()

    def __getitem__(self, key: K) -> V:
        return self._kept[key]

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, /, default: V | T) -> V | T: ...

    def get(self, key: K, /, default: object = None) -> object:
        """As of every mapping; that of the base class raises and catches a KeyError for it."""
        return self._kept.get(key, default)

    def __delitem__(self, key: K) -> None:
        del self._kept[key]

    def __contains__(self, key: object) -> bool:
        return key in self._kept

    def __iter__(self) -> Iterator[K]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"Latest({self.items_max}, {self._kept!r})"

    def forget_oldest(self) -> None:
        """Drop the oldest item; KeyError if there is none."""
        if not self._kept:
            raise KeyError("nothing is kept")
        del self._kept[next(iter(self._kept))]
