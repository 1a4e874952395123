"""What the books keep of motions: parameters, motions, ballots, and recent use. Pure.

All of it are rows; the first byte of a key says which kind a row is.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from node.ledger.use_window import payer_of
from wire.jury import CaseRow, NoticeRow, case_id
from wire.ledger import AccountOrder, order_digest
from wire.motion import FIRST, MotionRow, MotionState, Parameter, motion_id
from wire.signed import Signed

MOTION, BALLOT, PARAMETER = b"m", b"b", b"p"
# Cases before juries, what jurors have found, and what of both is sealed.
CASE, FOUND = b"j", b"f"
NOTICE, SEALED = b"n", b"s"
ID_BYTES = 32
Rows = Mapping[bytes, bytes]
RowChanges = Mapping[bytes, bytes | None]


def bond_of(key: bytes, value: bytes | None) -> int:
    """What is put up by the row, in millionths: only an open motion or case is bonded."""
    if value is None:
        return 0
    if key[:1] == NOTICE:
        return NoticeRow.from_bytes(value).bond
    if key[:1] == CASE:
        case = CaseRow.from_bytes(value)
        return case.bond if case.state.is_open else 0
    if key[:1] != MOTION:
        return 0
    row = MotionRow.from_bytes(value)
    return row.motion.bond if row.state is MotionState.OPEN else 0


def parameter(rows: Rows, which: Parameter) -> int:
    """What holds now."""
    found = rows.get(PARAMETER + bytes((which,)))
    return FIRST[which] if found is None else int.from_bytes(found, "big")


def parameter_row(which: Parameter, value: int) -> tuple[bytes, bytes]:
    """A parameter as it is kept."""
    return PARAMETER + bytes((which,)), value.to_bytes(8, "big")


def motions_in(rows: Rows) -> dict[bytes, MotionRow]:
    """All motions by their ids, in order."""
    keys = sorted(key for key in rows if key[:1] == MOTION)
    return {key[1:]: MotionRow.from_bytes(rows[key]) for key in keys}


def open_motions(rows: Rows) -> int:
    """How many are to be decided."""
    return sum(it.state is MotionState.OPEN for it in motions_in(rows).values())


def motion_bond(rows: Rows, count: int) -> int:
    """What one more motion is made with while `count` are open: the more these are the dearer.

    So nobody fills all places cheaply.
    """
    return parameter(rows, Parameter.MOTION_BOND) * (1 + count)


def ballots_on(rows: Rows, motion: bytes) -> dict[bytes, bool]:
    """The accounts that voted on a motion, and whether for it."""
    prefix = BALLOT + motion
    return {key[1 + ID_BYTES :]: rows[key] == b"\1" for key in rows if key.startswith(prefix)}


def rows_by(order: Signed[AccountOrder], epoch: int) -> dict[bytes, bytes]:
    """The motion that an order makes, the ballots that it casts, or what its juror has found."""
    record, found = order.record, {}
    for motion in record.propose:
        row = MotionRow(
            author=order.signer,
            motion=motion,
            begun=epoch,
            until=epoch + motion.epochs,
            state=MotionState.OPEN,
            decided=None,
            stake=None,
            using=None,
        )
        found[MOTION + motion_id(order_digest(order))] = row.to_bytes()
    for ballot in record.ballot:
        found[BALLOT + ballot.motion + order.signer] = b"\1" if ballot.yes else b"\0"
    for finding in record.find:
        found[FOUND + finding.case + order.signer] = b"\1" if finding.wrong else b"\0"
    for notice in record.announce:
        kept = NoticeRow(accuser=order.signer, seal=notice.seal, bond=notice.bond, epoch=epoch)
        found[NOTICE + case_id(order_digest(order))] = kept.to_bytes()
    for sealed in record.commit:
        found[SEALED + sealed.case + order.signer] = sealed.seal
    return found


@dataclass(slots=True)
class MotionShelf:
    """The rows of the last checkpoint."""

    rows: dict[bytes, bytes] = field(default_factory=dict)
    # All bonds of open motions together.
    bonds: int = 0
    # How many rows say that an account paid for tasks of late.
    users: Counter[bytes] = field(default_factory=Counter)
    _digest: bytes | None = None

    def put(self, changes: RowChanges) -> None:
        """Set rows, in place of what was there; None for one that is no more."""
        for key, value in changes.items():
            before = self.rows.pop(key, None)
            self.bonds += bond_of(key, value) - bond_of(key, before)
            for payer, more in ((payer_of(key, before), -1), (payer_of(key, value), 1)):
                if payer is not None:
                    self.users[payer] += more
            if value is not None:
                self.rows[key] = value
        if changes:
            self._digest = None

    def after(self, changes: RowChanges) -> dict[bytes, bytes]:
        """All rows once these are changed."""
        found = {key: it for key, it in self.rows.items() if key not in changes}
        return found | {key: it for key, it in changes.items() if it is not None}

    def bonds_after(self, changes: RowChanges) -> int:
        """All bonds once these rows are changed."""
        return self.bonds + sum(
            bond_of(key, it) - bond_of(key, self.rows.get(key)) for key, it in changes.items()
        )

    def digest(self) -> bytes:
        """32 bytes that all rows hash to; empty if there are none."""
        if not self.rows:
            return b""
        if self._digest is None:
            whole = hashlib.sha256(b"baton/1/motions\0")
            for key in sorted(self.rows):
                value = self.rows[key]
                whole.update(len(key).to_bytes(2, "big") + key)
                whole.update(len(value).to_bytes(2, "big") + value)
            self._digest = whole.digest()
        return self._digest
