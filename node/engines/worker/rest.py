"""Rows on their way to the peers that have the rest of a model's layers, and back. Worker only.

The worker has no network: it asks its engine, in the middle of a step, and waits.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from node.engines.worker.pages import PagePool
from node.engines.worker.passes import RestLied, RestLost, SlotRow
from wire.codec import Value
from wire.errors import ModelRefused
from wire.layers import LayerRange
from wire.stage import PASS_BYTES_MAX, StageRows

Array = np.ndarray[Any, Any]
Asking = Callable[[dict[str, Value]], dict[str, Any]]


class OtherPeers:
    """See `node.engines.worker.transformer.Rest`."""

    def __init__(self, here: LayerRange, asking: Asking | None, pages: PagePool) -> None:
        if asking is None:
            raise ModelRefused(f"{here} are not a whole model, and nobody has the rest")
        self._asking = asking
        self._pages = pages
        self._pages_max = pages.count
        # Whether nothing was kept before the next pass, so that nothing can be lost.
        self.fresh = True

    def __call__(self, rows: Sequence[SlotRow], states: Array, *, wait: bool) -> Array | None:
        fresh, self.fresh = self.fresh, False
        at_once = max(1, PASS_BYTES_MAX // states[:1].nbytes)
        found = []
        for first in range(0, len(rows), at_once):
            part = states[first : first + at_once]
            reply = self._asking(
                {
                    "rows": _told(rows[first : first + at_once], part).to_bytes(),
                    "wait": wait,
                    "fresh": fresh and not first,
                    "pages": self._pages.count,
                    "pages_max": self._pages_max,
                }
            )
            if "lost" in reply:
                words, final = str(reply["lost"]), bool(reply["final"])
                raise RestLost(words, final=final, pages=int(reply["pages"]))
            if wait:
                found.append(np.frombuffer(reply["data"], "<f4").reshape(part.shape))
        return np.concatenate(found) if wait else None

    def sign(self, pages: Sequence[int], rows: int) -> list[bytes]:
        """What the peers signed of an answer's rows; RestLied if one of them gave wrong ones."""
        reply = self._asking({"table": np.array(pages, "<u2").tobytes(), "signs": rows})
        if "lied" in reply:
            raise RestLied(str(reply["lied"]))
        return list(reply["legs"])


def _told(rows: Sequence[SlotRow], states: Array) -> StageRows:
    tables: dict[bytes, int] = {}
    owners = bytearray()
    for row in rows:
        # Pages that its token is not to look at are none of its business.
        table = np.array(row.pages, "<u2").tobytes()
        owners.append(tables.setdefault(table, len(tables)))
    return StageRows(
        tables=tuple(tables),
        owners=bytes(owners),
        places=np.array([row.position for row in rows], "<u4").tobytes(),
        data=states.astype("<f4").tobytes(),
    )
