"""Pages of kept tokens, counted by those who have them. Pure."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class PagePool:
    """`count` pages of `tokens` tokens each. A page belongs to nobody once all have dropped it."""

    count: int
    tokens: int
    _free: list[int] = field(init=False)
    _owners: list[int] = field(init=False)

    def __post_init__(self) -> None:
        # The lowest first: memory that was touched is used again.
        self._free = list(range(self.count))[::-1]
        self._owners = [0] * self.count

    def resize(self, count: int) -> None:
        """Have so many pages, while all of them are nobody's."""
        assert len(self._free) == self.count, "somebody has a page"
        self.count = count
        self.__post_init__()

    @property
    def free(self) -> int:
        """How many pages are nobody's."""
        return len(self._free)

    def of(self, tokens: int) -> int:
        """How many pages so many tokens take."""
        return -(-tokens // self.tokens)

    def take(self) -> int | None:
        """A page that is nobody's; None if there is none."""
        if not self._free:
            return None
        page = self._free.pop()
        self._owners[page] = 1
        return page

    def share(self, page: int) -> int:
        """The same page for one more."""
        self._owners[page] += 1
        return page

    def shared(self, page: int) -> bool:
        """Whether more than one has it."""
        return self._owners[page] > 1

    def drop(self, page: int) -> None:
        """One less has it."""
        self._owners[page] -= 1
        if not self._owners[page]:
            self._free.append(page)
