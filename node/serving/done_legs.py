"""Legs that were done here, remembered so that none is done twice, also after a restart."""

from collections.abc import Sequence
from dataclasses import dataclass

from node.dispatch.handoff import Handoff
from node.serving.role import Done
from store import Row, Store, Table
from wire.chain import source_of
from wire.codec import unpack
from wire.content import ContentId
from wire.errors import StoreError
from wire.kinds import Role
from wire.receipt import Receipt
from wire.segment import standing
from wire.signed import Signed, open_signed

# The number of legs remembered; above this, the oldest is forgotten.
LEGS_KEPT = 50_000
RING, RING_NEXT = b"leg:", b"leg-next"


@dataclass(frozen=True, slots=True)
class DoneLeg:
    """The result of one leg."""

    receipt: Signed[Receipt]
    output: bytes


def job_key_of(handoff: Handoff) -> bytes:
    """The key under which the output of the next leg of a handoff is found again."""
    return handoff.leg.job_key(source_of(handoff.task, handoff.receipts, handoff.stage))


def leg_key_of(handoff: Handoff) -> bytes:
    """The key under which the next leg of a handoff is kept."""
    return handoff.task.id.digest + bytes((handoff.stage,))


@dataclass(slots=True)
class DoneLegs:
    """The receipts and outputs of legs, by task and by job, the latest of them."""

    store: Store
    _kept: int | None = None

    def knows(self, handoff: Handoff, leg_key: bytes, job_key: bytes) -> bool:
        """Whether the leg seems to have been done before; no output is read."""
        return self.know([(handoff, leg_key, job_key)])[0]

    def know(self, legs: Sequence[tuple[Handoff, bytes, bytes]]) -> list[bool]:
        """As `knows`, of many legs at once, each with its leg key and its job key."""
        keys = [
            it
            for handoff, leg_key, job_key in legs
            for it in ((Table.RECEIPTS, leg_key), (Table.JOBS, job_key))
        ]
        found = self.store.read_each(keys)
        return [
            found[2 * at] is not None
            or (handoff.leg.role is Role.INFER and found[2 * at + 1] is not None)
            for at, (handoff, _, _) in enumerate(legs)
        ]

    async def found(self, handoff: Handoff) -> DoneLeg | None:
        """This very leg, if its output is still here."""
        raw = self.store.read(Table.RECEIPTS, leg_key_of(handoff))
        if raw is None:
            return None
        receipt = open_signed(raw, Receipt)
        previous = handoff.receipts[-1].id if handoff.receipts else None
        if receipt.record.previous != previous:
            # The previous leg was done again by another peer, so the chain of receipts differs.
            return None
        try:
            output = await self.store.get(receipt.record.output)
        except StoreError:
            # The output was evicted since: the leg is done again.
            return None
        due = tuple(it.raw for it in standing(handoff.segments, output))
        # Else other peers answer for parts of it now: it is signed for anew.
        return DoneLeg(receipt, output) if receipt.record.segments == due else None

    async def reusable(self, job_key: bytes) -> Done | None:
        """The output of an earlier leg with the same job key, if it is still here."""
        row = self.store.read(Table.JOBS, job_key)
        if row is None:
            return None
        units, profile, output = unpack(row)
        try:
            data = await self.store.get(ContentId(output))
        except StoreError:
            return None
        return Done(data=data, units=units, profile=profile)

    def evict(self, legs: Sequence[tuple[bytes, bytes]]) -> list[Row]:
        """The rows that make room for further legs, each by its leg key and its job key.

        A ring, so that nobody fills the disk: a slot names the rows of one leg, and whoever takes
        the slot next deletes them.
        """
        if self._kept is None:
            self._kept = int.from_bytes(self.store.read(Table.META, RING_NEXT) or b"", "big")
        rows = []
        slots = [
            RING + ((self._kept + at) % LEGS_KEPT).to_bytes(4, "big") for at in range(len(legs))
        ]
        self._kept += len(legs)
        before = self.store.read_each([(Table.META, slot) for slot in slots])
        for (leg_key, job_key), slot, old in zip(legs, slots, before, strict=True):
            rows.append(Row(Table.META, slot, leg_key + job_key))
            if old is not None:
                rows.append(Row(Table.RECEIPTS, old[: len(leg_key)], None))
                rows.append(Row(Table.JOBS, old[len(leg_key) :], None))
        rows.append(Row(Table.META, RING_NEXT, self._kept.to_bytes(8, "big")))
        return rows
