"""What a member signs for owners: durable first, then one signature for all that came together.

A word that is alone has a signature of its own, so that a certificate stays small while a member
has little to do. Where many come at once they share a commit and a signature, each with a proof
that holds alone.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from node.ledger.rows import RowChange
from store import Row, Store, Table, Write
from wire.errors import BatonError, Refused, StoreError
from wire.ledger import Acknowledgement, Vote
from wire.signed import sign_many
from wire.signing import SigningKey

GROUP_MAX = 64
WAITING_MAX = 4096


@dataclass(slots=True, eq=False)
class _Word:
    """A vote or an acknowledgement that is not signed yet, and the rows to write before."""

    record: Vote | Acknowledgement
    rows: Sequence[RowChange]
    raw: bytes = b""
    error: BatonError | None = None
    ended: trio.Event = field(default_factory=trio.Event)


def as_write(rows: Sequence[RowChange]) -> Write:
    """Rows of the ledger as one commit."""
    return Write(rows=tuple(Row(Table.LEDGER, key, value) for key, value in rows))


@dataclass(slots=True)
class GroupSigning:
    """The words of one member that are not durable yet. `run` has to run meanwhile."""

    key: SigningKey
    store: Store
    signatures: int = 0
    words: int = 0
    _waiting: deque[_Word] = field(default_factory=deque)
    _came: trio.Event = field(default_factory=trio.Event)

    async def signed(self, record: Vote | Acknowledgement, rows: Sequence[RowChange]) -> bytes:
        """The signed record, once its rows are durable; StoreError, and nothing was signed."""
        if len(self._waiting) >= WAITING_MAX:
            raise Refused("this member has too much to do", retry_after_s=1.0)
        word = _Word(record, rows)
        self._waiting.append(word)
        self._came.set()
        await word.ended.wait()
        if word.error is not None:
            raise word.error
        return word.raw

    async def run(self) -> None:
        """Make durable and sign what waits, as much at once as there is."""
        while True:
            await self._came.wait()
            # Whoever is about to ask as well shares the commit.
            await trio.lowlevel.checkpoint()
            while self._waiting:
                count = min(len(self._waiting), GROUP_MAX)
                await self._sign([self._waiting.popleft() for _ in range(count)])
            self._came = trio.Event()

    async def _sign(self, words: list[_Word]) -> None:
        try:
            rows = [row for word in words for row in word.rows]
            if rows:
                await self.store.commit(as_write(rows))
            batch = sign_many([it.record for it in words], self.key)
        except StoreError as error:
            for word in words:
                word.error = type(error)(error.message, todo=error.todo)
        else:
            self.signatures += 1
            self.words += len(words)
            for word, signed in zip(words, batch, strict=True):
                word.raw = signed.raw
        for word in words:
            word.ended.set()
