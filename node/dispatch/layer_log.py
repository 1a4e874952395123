"""What went through a range of layers, by where each row's token lies in pages. Pure.

The peer that has the range keeps digests, to sign them; the one that asked keeps digests to
compare, and the rows themselves as far as they fit, so that somebody else can run them again.
"""

from dataclasses import dataclass, field

from wire.errors import Refused
from wire.kinds import RefusalCode
from wire.stage import PAGE_BYTES, PAGE_TOKENS, PLACE_BYTES, StageRows, row_digest, rows_digest


@dataclass(slots=True, eq=False)
class RowLog:
    """Of what went in and came out last at each place; of `bytes_max` of rows, digests apart."""

    bytes_max: int = 0
    _digests: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    _rows: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    _bytes: int = 0

    def went_through(self, rows: StageRows, data: bytes) -> None:
        """Note the rows of a pass, and what came of them, which are as many bytes."""
        size = len(rows.data) // len(rows.owners)
        for at, owner in enumerate(rows.owners):
            place = int.from_bytes(rows.places[at * PLACE_BYTES :][:PLACE_BYTES], "little")
            part = slice(at * size, (at + 1) * size)
            key, before, after = _at(rows.tables[owner], place), rows.data[part], data[part]
            self._digests[key] = row_digest(before), row_digest(after)
            if self.bytes_max:
                self._keep(key, before, after)

    def _keep(self, key: int, before: bytes, after: bytes) -> None:
        self._forget(key)
        self._rows[key] = before, after
        self._bytes += len(before) + len(after)
        while self._bytes > self.bytes_max:
            # The oldest one: a conversation that is so long is not run again whole.
            self._forget(next(iter(self._rows)))

    def _forget(self, key: int) -> None:
        old = self._rows.pop(key, None)
        if old is not None:
            self._bytes -= sum(map(len, old))

    def digests(self, table: bytes, rows: int) -> tuple[bytes, bytes]:
        """`rows_digest` of what went in and came out at the first places of these pages.

        Refused if there was none at one of them.
        """
        try:
            # Of what cannot be there nothing is looked for: a table may name many places.
            if rows > len(self._digests):
                raise KeyError(rows)
            found = [self._digests[_at(table, place)] for place in range(rows)]
        except KeyError as error:
            raise Refused(
                "there are places among these where no row went through",
                code=RefusalCode.MALFORMED,
            ) from error
        return rows_digest(it for it, _ in found), rows_digest(it for _, it in found)

    def rows(self, table: bytes, rows: int) -> list[tuple[bytes, bytes]]:
        """What went in and came out at the first places; fewer where one is not kept any more."""
        found = []
        for place in range(rows):
            row = self._rows.get(_at(table, place))
            if row is None:
                break
            found.append(row)
        return found


def _at(table: bytes, place: int) -> int:
    """Where the token at a place of a conversation lies among all pages."""
    at = place // PAGE_TOKENS * PAGE_BYTES
    page = int.from_bytes(table[at : at + PAGE_BYTES], "little")
    return page * PAGE_TOKENS + place % PAGE_TOKENS
