"""A range of a model's layers that does not have the first: rows go in, rows come out. Worker only.

Who sends rows has a session, and a session has pages of its own, which are the only ones that its
rows can name.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from node.engines.worker.attention import PAGE
from node.engines.worker.pages import PagePool
from node.engines.worker.passes import SlotRow
from node.engines.worker.transformer import LanguageModel
from wire.codec import Value
from wire.errors import ModelRefused
from wire.stage import StageRows

Array = np.ndarray[Any, Any]
WARM_UP_STEPS = 4
WARM_UP_ROWS = 8
# What a layer gives is far below: with more, keys and values that are kept might be no numbers.
NUMBER_MAX = 1e9


class LayerStage:
    """See `node.engines.worker.main.LoadedModel`; `answer` does one pass, or begins or ends."""

    def __init__(self, language: LanguageModel, sizes: Sequence[int]) -> None:
        self._language = language
        self._sizes = sizes
        self._pool = PagePool(language.pages, PAGE)
        self._sessions: dict[int, list[int]] = {}

    @property
    def memory_bytes(self) -> int:
        language = self._language
        return language.model.weights_bytes + language.pages * language.model.page_bytes

    def warm_up(self) -> tuple[float, float]:
        """Rows in a second, of many and of one; ModelRefused if they are no numbers."""
        states = np.ones((max(self._sizes), self._language.model.hidden), np.float32)
        for size in self._sizes:
            found = self._language.through([SlotRow(0, 0, 0, (0,))] * size, states[:size])
            if not np.isfinite(found).all():
                raise ModelRefused("the layers gave numbers that are not finite")
        return self._speed(states[:WARM_UP_ROWS]), self._speed(states[:1])

    def _speed(self, states: Array) -> float:
        rows = [SlotRow(0, 0, 0, (0,))] * len(states)
        began_at_s = time.perf_counter()
        for _ in range(WARM_UP_STEPS):
            self._language.through(rows, states)
        return len(rows) * WARM_UP_STEPS / max(time.perf_counter() - began_at_s, 1e-6)

    def answer(self, message: dict[str, Any]) -> dict[str, Value]:
        """ModelRefused if the rows, or the session, are not what can be run here."""
        self._language.team.allow(message["threads"])
        session = message["session"]
        data = b""
        if count := message["begin"]:
            data = self._begin(session, count).to_bytes(4, "little")
        elif message["end"]:
            self._end(session)
        else:
            data = self._through(session, message["rows"])
        return {"data": data, "pages": [self._pool.count - self._pool.free, self._pool.count]}

    def _begin(self, session: int, count: int) -> int:
        """How many pages the session has: as were asked for, or half of those that are free."""
        least, free = self._language.model.least_pages, self._pool.free
        granted = min(count, max(least, free // 2))
        if session in self._sessions or granted > free:
            raise ModelRefused(
                f"there are {free} pages for keys and values free here, and a conversation takes"
                f" {least}",
                todo="ask another peer, or again later",
            )
        taken = [self._pool.take() for _ in range(granted)]
        self._sessions[session] = [page for page in taken if page is not None]
        return granted

    def _end(self, session: int) -> None:
        for page in self._sessions.pop(session, ()):
            self._pool.drop(page)

    def _through(self, session: int, data: bytes) -> bytes:
        pages = self._sessions.get(session)
        if pages is None:
            raise ModelRefused("what was kept of these rows is gone: begin again")
        asked = StageRows.from_bytes(data)
        states = np.frombuffer(asked.data, "<f4").reshape(len(asked.owners), -1)
        rows = self._rows_of(asked, pages)
        if states.shape[1] != self._language.model.hidden:
            raise ModelRefused(
                f"rows of {states.shape[1]} numbers; the layers take {self._language.model.hidden}"
            )
        if not (np.abs(states) <= NUMBER_MAX).all():
            raise ModelRefused("rows with numbers that no layer gives")
        if len(rows) > self._sizes[-1]:
            raise ModelRefused(f"{len(rows)} rows in a pass, at most {self._sizes[-1]} are run")
        found = self._language.through(rows, states)
        if not np.isfinite(found).all():
            # Nobody is to look at what was kept of them.
            if not self._language.wipe(pages):
                # They are not given to others again.
                self._sessions[session] = []
            raise ModelRefused("these rows give numbers that are not finite")
        return found.astype("<f4").tobytes()

    def _rows_of(self, asked: StageRows, pages: list[int]) -> list[SlotRow]:
        tables = [np.frombuffer(it, "<u2") for it in asked.tables]
        if any(table.max() >= len(pages) for table in tables):
            raise ModelRefused(f"the rows name pages that are not theirs: they have {len(pages)}")
        own = [[pages[page] for page in table] for table in tables]
        rows = []
        for owner, place in zip(asked.owners, np.frombuffer(asked.places, "<u4"), strict=True):
            position = int(place)
            if position >= self._language.context or position // PAGE >= len(own[owner]):
                raise ModelRefused(f"a row stands at {position}, where it has no page")
            rows.append(SlotRow(0, owner, position, own[owner]))
        return rows
