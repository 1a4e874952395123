"""What leaders have proposed for the end of an epoch, and what that rests on. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from wire.checkpoint import Proposal, Seal
from wire.content import ContentId
from wire.signed import Signed


@dataclass(frozen=True, slots=True)
class Content:
    """What a header that was proposed, and is right, stands for."""

    header: bytes
    seals: tuple[bytes, ...]
    orders: tuple[bytes, ...]


@dataclass(slots=True)
class Proposals:
    """The first proposal of each round, by its leader."""

    signed: dict[int, Signed[Proposal]] = field(default_factory=dict)
    # Those of which it was found out whether they are right.
    judged: set[int] = field(default_factory=set)
    contents: dict[ContentId, Content] = field(default_factory=dict)
    _rest_on: dict[int, list[bytes]] = field(default_factory=dict)

    def note(self, signed: Signed[Proposal]) -> None:
        """Remember a proposal; a second one of its round is nothing."""
        self.signed.setdefault(signed.record.round, signed)

    def note_seal(self, number: int, seal: Seal) -> None:
        """Remember a seal that the proposal of a round rests on.

        It need not be the one that its member has told us: a bad member may sign several.
        """
        known = self._rest_on.setdefault(number, [])
        if seal.buckets not in known:
            known.append(seal.buckets)

    def due(self, number: int) -> Iterator[tuple[int, Signed[Proposal]]]:
        """Those to be judged while this round runs, with their rounds."""
        for at in sorted(self.signed):
            if at not in self.judged and at <= number + 1:
                yield at, self.signed[at]

    def rests_on(self, number: int) -> Iterator[bytes]:
        """The buckets of what is to be judged in this round or after it."""
        for at, buckets in self._rest_on.items():
            if at >= number and at not in self.judged:
                yield from buckets

    def orders_of(self, header: bytes) -> tuple[bytes, ...] | None:
        """The orders that a header stands for which was proposed, and is right."""
        content = self.contents.get(ContentId.of(header))
        return None if content is None else content.orders

    def header_of(self, value: ContentId) -> bytes | None:
        """The header that was proposed with this id."""
        if value in self.contents:
            return self.contents[value].header
        headers = (it.record.header for it in self.signed.values())
        return next((it for it in headers if ContentId.of(it) == value), None)
