"""Serving legs: takes an offered baton, does its leg once, signs for it, and hands it on.

Every step is idempotent by id: the same leg of the same task asked twice, or by two holders at
once, is done once and gives the same receipt, also after a restart.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import trio

from node.engines.seam import Part
from node.events import Tell
from node.handing import Baton, Handing, Relay
from node.resuming import Shown
from node.roles.seam import Done, LegInput, LegRole, nowhere
from p2p.adverts import Seams
from p2p.blobs import Blobs
from p2p.talk import Talk, refusal_of
from store import Row, Store, Table, Write
from wire import limits
from wire.chain import open_receipts, source_of
from wire.codec import pack, unpack
from wire.content import ContentId, PeerId
from wire.errors import (
    EngineError,
    Malformed,
    Refused,
    RemoteProtocolError,
    StoreError,
    TaskFailed,
    TransportError,
    WireError,
)
from wire.kinds import Role
from wire.message import Accept, Message, Offer, Piece, Result
from wire.receipt import Receipt
from wire.signed import Signed, open_signed, sign
from wire.signing import SigningKey
from wire.task import Task
from wire.tree import name_of

# Legs under way at once; the engine's own slots bound inference further.
LEGS_AT_ONCE = 128
# A holder in the middle that sees nobody for the next leg gives the baton back after this long.
PATIENCE_S = 3.0
INPUT_BYTES_MAX = 16 << 20
INPUT_DEADLINE_S = 60.0
# Of these, one holder may have so many: another's leg finds a place.
LEGS_PER_HOLDER = 48
# Legs remembered, so that asked again they are not done again; then the oldest goes.
LEGS_KEPT = 50_000
RING, RING_NEXT = b"leg:", b"leg-next"


@dataclass(frozen=True, slots=True)
class _Leg:
    """What one leg came to."""

    receipt: Signed[Receipt]
    output: bytes


@dataclass(slots=True)
class LegServer:
    """Does legs for others, each by the role that plays it."""

    key: SigningKey
    seams: Seams
    store: Store
    blobs: Blobs
    handing: Handing
    roles: Mapping[Role, LegRole]
    tell: Tell
    # False once the peer is leaving: what is under way is finished, nothing new is taken.
    taking: bool = True
    done: int = 0
    _under_way: dict[bytes, trio.Event] = field(default_factory=dict)
    _holders: Counter[PeerId] = field(default_factory=Counter)
    _kept: int | None = None

    @property
    def under_way(self) -> int:
        """Batons held: legs that are being done here, or by others for us."""
        return self._holders.total()

    async def on_offer(self, talk: Talk, message: Message) -> None:
        """One conversation: accept and deliver, or refuse aloud."""
        assert isinstance(message, Offer)
        task = open_signed(message.task, Task)
        receipts = open_receipts(task, message.receipts)
        if len(receipts) != message.stage or message.stage >= len(task.record.stages):
            raise RemoteProtocolError("the offer has not a receipt for each leg before it")
        baton = Baton(
            task=task,
            receipts=tuple(receipts),
            input=message.input,
            resume=message.resume,
            avoid=frozenset(message.avoid),
        )
        deadline_at_s = trio.current_time() + message.deadline_ms / 1000
        try:
            if self._holders[talk.peer] >= LEGS_PER_HOLDER:
                raise Refused("too many legs of yours under way", retry_after_s=0.5)
            role = self._role(baton)
            expected_ms = int(role.expected_s(baton.leg) * 1000)
            await talk.send(Accept(expected_ms=expected_ms))
        except Refused as error:
            await talk.send(refusal_of(error))
            return

        there = True

        async def relay(part: Part) -> None:
            nonlocal there
            try:
                if there:
                    piece = Piece(position=part.position, units=part.units, data=part.data)
                    await talk.send(piece)
            except TransportError:
                # No fault of whoever works for it. The leg is finished for when it comes back.
                there = False

        self._holders[talk.peer] += 1
        try:
            result = await self._serve(baton, role, talk, relay, deadline_at_s)
        except (Refused, EngineError, StoreError, TaskFailed, TransportError) as error:
            await talk.send(refusal_of(error))
            return
        finally:
            self._holders[talk.peer] -= 1
            if not self._holders[talk.peer]:
                del self._holders[talk.peer]
        await talk.send(result)

    def _role(self, baton: Baton) -> LegRole:
        """The role that will do this leg; Refused if none will."""
        issued_s = baton.task.record.issued_at_ms / 1000
        wall_s = self.seams.wall_s()
        if issued_s > wall_s + limits.CLOCK_SKEW_S_MAX:
            ahead_s = issued_s - wall_s
            raise Refused(f"the task was issued {ahead_s:.0f} s in the future: whose clock?")
        if issued_s + baton.task.record.deadline_s + limits.CLOCK_SKEW_S_MAX < wall_s:
            raise Refused("the task's deadline has passed")
        if not self.taking:
            raise Refused("this peer is leaving")
        role = self.roles.get(baton.leg.role)
        if role is None:
            raise Refused(f"this peer does not play the role {baton.leg.role.name.lower()}")
        if len(self._under_way) >= LEGS_AT_ONCE:
            raise Refused("too many legs under way", retry_after_s=0.5)
        role.check(baton.leg)
        return role

    def _own_role(self, onward: Baton) -> LegRole | None:
        """Our own role for the next leg, if we can do it now: nobody is nearer."""
        if self.key.peer in onward.avoid:
            return None
        try:
            return self._role(onward)
        except Refused:
            return None

    async def _serve(
        self, baton: Baton, role: LegRole, talk: Talk, relay: Relay, deadline_at_s: float
    ) -> Result:
        last = baton.stage + 1 == len(baton.task.record.stages)
        leg = await self._once(baton, role, talk, relay if last else nowhere, deadline_at_s)
        receipts = (*baton.receipts, leg.receipt)
        inline = leg.output if len(leg.output) <= limits.INLINE_BYTES_MAX else None
        if last:
            raws = tuple(it.raw for it in receipts)
            return Result(receipts=raws, output=inline, source=None)
        onward = Baton(
            task=baton.task,
            receipts=receipts,
            input=inline,
            units=leg.receipt.record.units,
            resume=baton.resume,
            avoid=baton.avoid,
        )
        if (own := self._own_role(onward)) is not None:
            result = await self._serve(onward, own, talk, relay, deadline_at_s)
            return replace(result, source=result.source or inline)
        delivered = await self.handing.hand_on(
            onward,
            self.tell,
            relay,
            deadline_at_s=deadline_at_s,
            patience_s=PATIENCE_S,
            shown=Shown.after(baton.resume),
        )
        return Result(
            receipts=tuple(it.raw for it in delivered.receipts),
            output=delivered.output,
            source=delivered.source or inline,
        )

    async def _once(
        self, baton: Baton, role: LegRole, talk: Talk, relay: Relay, deadline_at_s: float
    ) -> _Leg:
        """Do the leg, or wait for whoever is doing it, or find it done."""
        leg_key = baton.task.id.digest + bytes((baton.stage,))
        with trio.move_on_at(deadline_at_s) as scope:
            while (running := self._under_way.get(leg_key)) is not None:
                await running.wait()
        if scope.cancelled_caught:
            raise Refused("the deadline passed while the leg was under way for another holder")
        if (found := await self._found(leg_key, baton)) is not None:
            return found
        self._under_way[leg_key] = trio.Event()
        try:
            return await self._do(leg_key, baton, role, talk, relay, deadline_at_s)
        finally:
            self._under_way.pop(leg_key).set()

    async def _found(self, leg_key: bytes, baton: Baton) -> _Leg | None:
        raw = self.store.read(Table.RECEIPTS, leg_key)
        if raw is None:
            return None
        receipt = open_signed(raw, Receipt)
        previous = baton.receipts[-1].id if baton.receipts else None
        if receipt.record.previous != previous:
            # The leg before was done anew by another peer: this is another chain.
            return None
        try:
            return _Leg(receipt, await self.store.get(receipt.record.output))
        except StoreError:
            # The output was let go of since: do it again.
            return None

    async def _do(
        self,
        leg_key: bytes,
        baton: Baton,
        role: LegRole,
        talk: Talk,
        relay: Relay,
        deadline_at_s: float,
    ) -> _Leg:
        source_id = source_of(baton.task, baton.receipts, baton.stage)
        started_s, started_at_s = trio.current_time(), self.seams.wall_s()
        left_s = max(0.0, deadline_at_s - started_s)
        # Who offered it is asked last: it may have the baton from somebody else, and sit on it.
        holders = (*(it.signer for it in reversed(baton.receipts)), baton.task.signer, talk.peer)
        data = await self._input(baton, source_id, holders, left_s)
        job_key = baton.leg.job_key(source_id)
        reused = await self._reusable(job_key) if baton.leg.role is Role.INFER else None
        if reused is None:
            last = baton.stage + 1 == len(baton.task.record.stages)
            source = LegInput(
                id=source_id,
                data=data,
                holders=holders,
                deadline_s=left_s,
                resume=baton.resume if last else None,
            )
            with trio.move_on_at(deadline_at_s) as scope:
                done = await role.do(baton.leg, source, relay)
            if scope.cancelled_caught:
                raise Refused("the deadline passed while the leg was under way")
        else:
            done = reused
        receipt = sign(
            Receipt(
                task=baton.task.id,
                stage=baton.stage,
                role=baton.leg.role,
                operation=baton.leg.operation,
                model=baton.leg.model,
                input=source_id,
                output=name_of(done.data),
                output_size_bytes=len(done.data),
                units=done.units,
                started_at_ms=int(started_at_s * 1000),
                duration_ms=int((trio.current_time() - started_s) * 1000),
                profile=done.profile,
                previous=baton.receipts[-1].id if baton.receipts else None,
                reused=reused is not None,
            ),
            self.key,
        )
        job = pack([done.units, done.profile, receipt.record.output])
        rows = [*self._turn(leg_key, job_key), Row(Table.RECEIPTS, leg_key, receipt.raw)]
        if baton.leg.role is Role.INFER:
            rows.append(Row(Table.JOBS, job_key, job))
        # What is signed is kept before anybody hears of it: a leg has one receipt.
        await self.store.commit(Write(rows=tuple(rows), blobs=(done.data, *done.blobs)))
        self.done += 1
        return _Leg(receipt, done.data)

    def _turn(self, leg_key: bytes, job_key: bytes) -> list[Row]:
        """The rows that make room for one more leg: a ring, so that nobody fills the disk.

        A slot of the ring names the rows of one leg; whoever takes the slot next deletes them.
        """
        if self._kept is None:
            self._kept = int.from_bytes(self.store.read(Table.META, RING_NEXT) or b"", "big")
        number, self._kept = self._kept, self._kept + 1
        slot = RING + (number % LEGS_KEPT).to_bytes(4, "big")
        rows = [
            Row(Table.META, slot, leg_key + job_key),
            Row(Table.META, RING_NEXT, self._kept.to_bytes(8, "big")),
        ]
        if (old := self.store.read(Table.META, slot)) is not None:
            rows.append(Row(Table.RECEIPTS, old[: len(leg_key)], None))
            rows.append(Row(Table.JOBS, old[len(leg_key) :], None))
        return rows

    async def _input(
        self, baton: Baton, source_id: ContentId | None, holders: tuple[PeerId, ...], left_s: float
    ) -> bytes | None:
        if source_id is None:
            return None
        if baton.input is not None:
            if name_of(baton.input) != source_id:
                raise Malformed("the input is not the one that the task or the last receipt names")
            return baton.input
        try:
            return await self.blobs.get(
                source_id,
                holders,
                deadline_s=min(left_s, INPUT_DEADLINE_S),
                size_bytes_max=INPUT_BYTES_MAX,
            )
        except WireError as error:
            # Too large, or no tree: whoever signed that id is at fault, not who passes it on.
            raise Refused(f"the input cannot be had: {error.message}") from error

    async def _reusable(self, job_key: bytes) -> Done | None:
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
