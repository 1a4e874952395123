"""Looks at an answer with this peer's own engine, where that has the model: its own word is the
one that it need not take from strangers.
"""

from dataclasses import dataclass

import trio

from node.checking.check_request import CheckRequest
from node.checking.own_finding import OwnFinding
from node.serving.asked_check import Asked
from node.serving.claimed_leg import PPB
from node.serving.verify_role import VerifyRole
from wire.errors import EngineError, Refused, StoreError
from wire.lottery import OWN_DRAW, Share
from wire.message import Check
from wire.operations import by_rows
from wire.tree import name_of

# A guess: a row takes milliseconds, a language model's answer seconds.
LOOK_S = 20.0
# Where no row is in dispute, of more rows than these a part is looked at.
ALL_ROWS_MAX = 16
PARTS_OF_MANY = 8


@dataclass(slots=True)
class OwnJudge:
    """Recomputes what others claim; it is asked by this peer alone."""

    verify_role: VerifyRole

    async def look(
        self, claimed: CheckRequest, output: bytes, rows: frozenset[int] = frozenset()
    ) -> OwnFinding | None:
        """What this peer finds, `rows` among it; None if it cannot look, or has not the model."""
        role, leg = self.verify_role, claimed.receipt.record
        loaded = None if leg.model is None else role.engine.ready(leg.model)
        if loaded is None or loaded.layers is not None or role.paused:
            # With layers at other peers it would be their word again.
            return None
        share = _share_of(leg.operation, leg.units, rows)
        check = Check(
            task=claimed.task.raw,
            receipts=tuple(it.raw for it in claimed.receipts),
            secret=claimed.secret,
            input=claimed.input,
            # It goes over no wire here, so it may be large; that of another leg is not meant.
            output=output if name_of(output) == leg.output else None,
            deadline_ms=int(LOOK_S * 1000),
            part=share.part,
            parts=share.parts,
            rows=tuple(sorted(share.rows)),
            statistics=claimed.replayed,
        )
        asked = Asked(task=claimed.task, receipts=list(claimed.receipts), check=check)
        try:
            role.infer_role.check_able(asked.stage)
            with trio.move_on_after(LOOK_S):
                verdict = await role.verdict_on(asked, role.key.peer)
                tolerance_ppb = int(loaded.manifest.tolerance * PPB)
                return OwnFinding(verdict=verdict, exact=loaded.exact, tolerance_ppb=tolerance_ppb)
        except (Refused, EngineError, StoreError):
            # It is this peer's own trouble, and says nothing of others.
            return None
        return None


def _share_of(operation: str, rows: int, disputed: frozenset[int]) -> Share:
    if not by_rows(operation):
        # Everybody recomputes the whole.
        return OWN_DRAW
    parts = 1 if rows <= ALL_ROWS_MAX and not disputed else PARTS_OF_MANY
    return Share(1, parts, disputed)
