"""The verify role: recomputes a part of a leg that another peer signed, and signs a verdict."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import trio

from node.engines.compare import worst_differences
from node.engines.interface import Engine
from node.paying.till import Till, VerdictSeat
from node.serving.asked_check import Asked, read_check
from node.serving.claimed_leg import PPB, Again, ClaimedLeg, Found, wrong, wrong_units
from node.serving.fair_semaphore import FairSemaphore
from node.serving.findings import by_segment, right, segment_of_byte, wrong_segments
from node.serving.held_verdicts import HELD_PER_ASKER_MAX, NOT_ASKED_FOR, HeldPlaces, HeldVerdict
from node.serving.infer_role import InferRole
from node.serving.proof_check import found_by_proof
from node.serving.replayed_leg import ReplayedLeg
from node.serving.role import Done, LegInput, nowhere
from node.task.levels import proves
from p2p.adverts import Environment
from p2p.blobs import Blobs
from p2p.timeouts import stretched
from p2p.typed_call import TypedCall, refusal_of
from wire import limits
from wire.calibration import Calibration
from wire.chain import doers_of, source_of
from wire.commitment import TellVerdict, VerdictCommitted
from wire.content import ContentId, PeerId
from wire.counting import counted
from wire.errors import (
    EngineError,
    Missing,
    Refused,
    StoreError,
    TooSlow,
    TransportError,
    WireError,
)
from wire.kinds import RefusalCode, Role
from wire.lottery import Share
from wire.message import Check, Message, VerdictReply
from wire.operations import EMBED, EMBED_PASSAGES, NEAREST, OPERATIONS, RERANK, Comparison
from wire.payload import Hits, Passages, Texts, Vectors
from wire.receipt import Verdict
from wire.signed import sign
from wire.signing import SigningKey
from wire.task import Stage
from wire.tree import name_of

CHECKS_AT_ONCE = 4
# The most checks that fetch content or wait for a place; one asker cannot have all of them.
WAITING_MAX = 16
WAITING_PER_ASKER_MAX = 2
# A check that takes longer than this is given up, even if its asker would wait longer.
CHECK_S_MAX = 60.0
BRING_S_MAX = 15.0
# If there was less time than this to fetch content, its absence proves nothing against others.
BRING_S_MIN = 2.0
OUTPUT_BYTES_MAX = Vectors.SIZE_BYTES_MAX


@dataclass(slots=True)
class VerifyRole:
    """Checks receipts of models that are loaded here."""

    key: SigningKey
    environment: Environment
    engine: Engine
    infer_role: InferRole
    blobs: Blobs
    willing: bool = True
    # Why no checks are done for now, in words; empty if they are.
    paused: str = ""
    checked: int = 0
    # What this peer asks for verdicts; None where they are free.
    till: Till | None = None
    # Whoever recomputes has one of these.
    places: FairSemaphore = field(default_factory=lambda: FairSemaphore(CHECKS_AT_ONCE))
    # What honest engines differ by, of models that this peer's owner had calibrated.
    calibrations: Mapping[ContentId, Calibration] = field(default_factory=dict)
    _waiting: Counter[PeerId] = field(default_factory=Counter)
    _holding: HeldPlaces = field(default_factory=HeldPlaces)

    async def on_check(self, call: TypedCall, message: Message) -> None:
        """Answer a Check with a signed verdict, or refuse."""
        assert isinstance(message, Check)
        asked = read_check(message)
        until_at_s = trio.current_time() + self.deadline_s(asked)
        try:
            self.check_willing(asked, call.peer)
            verdict = await self.verdict_on(asked, call.peer)
            self.checked += 1
            if message.commit:
                verdict = await self._held(call, verdict, until_at_s)
        except (Refused, EngineError, StoreError) as error:
            # A failure of this peer is refused: it must not become a verdict against another.
            await call.send(refusal_of(error))
            return
        await call.send(VerdictReply(verdict=sign(verdict, self.key).raw))

    async def _held(self, call: TypedCall, verdict: Verdict, until_at_s: float) -> Verdict:
        """The verdict as it is told, once the asker has the commitments of others too."""
        held = self.held(verdict, until_at_s)
        with self._holding.place(call.peer, until_at_s, HELD_PER_ASKER_MAX):
            await call.send(VerdictCommitted(digest=held.commitment(self.key.peer)))
            telling = await call.expect(TellVerdict)
            return held.told(telling.shown, telling.count)
        raise Refused(NOT_ASKED_FOR, code=RefusalCode.LATE)

    def held(self, verdict: Verdict, until_at_s: float) -> HeldVerdict:
        """A verdict that is committed to before it is told."""
        return HeldVerdict(verdict, self.environment.entropy(32), until_at_s)

    @staticmethod
    def deadline_s(asked: Asked) -> float:
        """How long a check may take here, with its commitment."""
        return min(asked.check.deadline_ms / 1000, stretched(CHECK_S_MAX))

    def check_willing(self, asked: Asked, asker: PeerId) -> None:
        """Refused if this peer does no such check now, or not for this asker."""
        if asked.task.signer != asker:
            # Else a verifier could have another one look in its place.
            raise Refused("only who signed a task has it checked", code=RefusalCode.NOT_WILLING)
        if not self.willing:
            raise Refused("this peer does not verify", code=RefusalCode.NOT_WILLING)
        if self.paused:
            raise Refused(f"this peer is paused: {self.paused}", code=RefusalCode.PAUSED)
        if self.key.peer in doers_of(asked.receipt):
            raise Refused("nobody checks its own work", code=RefusalCode.NOT_WILLING)
        if self.till is not None:
            self.till.check_verdict(asked.task)
        # The receipt is of this stage, so of its model and operation.
        self.infer_role.check_able(asked.stage)

    async def verdict_on(self, asked: Asked, asker: PeerId) -> Verdict:
        """What this peer finds; Refused, EngineError or StoreError if it could not look."""
        seat = self.seat_of(asked, asker)
        try:
            verdict = await self._verdict_on(asked, asker)
            if seat is not None:
                seat.charge()
            return verdict
        finally:
            if seat is not None:
                seat.close()

    def seat_of(self, asked: Asked, asker: PeerId) -> VerdictSeat | None:
        """What is held for a verdict; None where it is free. Refused unless it is paid for.

        Who signed a task pays for what it asks for: not for what this peer looks at for itself.
        """
        if self.till is None or asker != asked.task.signer:
            return None
        return self.till.verdict_seat(asked.task)

    async def _verdict_on(self, asked: Asked, asker: PeerId) -> Verdict:
        started_at_s = trio.current_time()
        deadline_s = self.deadline_s(asked)
        could_check = True
        try:
            with trio.fail_after(deadline_s):
                claim = await self._claim_and_place(asked, asker)
                try:
                    found = await self._recompute(claim, asked.check)
                finally:
                    self.places.dequeue(asker)
        except (trio.TooSlowError, TooSlow) as error:
            raise Refused("no time left to check", code=RefusalCode.LATE) from error
        except (Missing, TransportError) as error:
            # The content was withheld from us: that counts as a failed check.
            could_check, found = False, Found(rows=0, reason=error.message)
        except WireError as error:
            # The leg's own output cannot be read: whoever signed for it is at fault.
            found = wrong(1, error.message)
        return self.verdict_of(asked, found, started_at_s, could_check=could_check)

    def verdict_of(
        self, asked: Asked, found: Found, started_at_s: float, *, could_check: bool = True
    ) -> Verdict:
        """The verdict that says what was found; Refused if the model is gone meanwhile."""
        model = asked.stage.model
        assert model is not None
        loaded = self.engine.ready(model)
        if loaded is None:
            raise Refused("the model was unloaded meanwhile", code=RefusalCode.NO_SUCH_MODEL)
        found = by_segment(asked.receipt, found)
        tolerance_ppb = int(loaded.manifest.tolerance * PPB)
        reason = found.reason.encode()[: limits.REASON_BYTES_MAX].decode(errors="ignore")
        return Verdict(
            receipt=asked.receipt.id,
            secret=asked.check.secret,
            agrees=could_check and all(it <= tolerance_ppb for it in found.worst_ppb),
            could_check=could_check,
            rows=found.rows,
            sampled=found.sampled,
            worst_ppb=found.worst_ppb,
            profile=loaded.profile,
            reason=reason,
            checked_at_ms=int(self.environment.wall_s() * 1000),
            duration_ms=int((trio.current_time() - started_at_s) * 1000),
            replay=found.replay if asked.check.statistics else (),
        )

    async def _claim_and_place(self, asked: Asked, asker: PeerId) -> ClaimedLeg:
        """Fetch the claim, then take a place: a place is never held while fetching."""
        if self._waiting[asker] >= WAITING_PER_ASKER_MAX:
            raise Refused("this peer is already checking legs of yours", retry_after_s=0.5)
        if self._waiting.total() >= WAITING_MAX:
            raise Refused("this peer is already checking other legs", retry_after_s=0.5)
        with counted(self._waiting, asker):
            claim = await self._brought(asked, asker)
            await self.places.enqueue(asker)
        return claim

    async def _brought(self, asked: Asked, asker: PeerId) -> ClaimedLeg:
        # The peer that has the content may be dead: then the asker needs time for another.
        deadline_s = min(asked.check.deadline_ms / 3000, stretched(BRING_S_MAX))
        try:
            return await self._claim(asked, asker, deadline_s)
        except TooSlow as error:
            if deadline_s < BRING_S_MIN:
                raise
            # There was time to ask the holders; not every store peer can be asked.
            raise Missing(error.message) from error

    async def _claim(self, asked: Asked, asker: PeerId, deadline_s: float) -> ClaimedLeg:
        receipts, receipt = asked.receipts, asked.receipt
        stage, check = asked.stage, asked.check
        doers = [it.signer for it in reversed(receipts)]
        passages = stage.operation == EMBED_PASSAGES
        # The peer that embedded passages has kept them, and is the one judged: it is asked before
        # the data peer. Other input is at the peer that made it, or at the asker.
        holders = (*doers, asker) if passages else (*doers[1:], asker, doers[0])

        async def bring(
            inline: bytes | None, content: ContentId, holders: tuple[PeerId, ...]
        ) -> bytes:
            if inline is not None and name_of(inline) == content:
                return inline
            return await self.blobs.get(
                content, holders, deadline_s=deadline_s, size_bytes_max=OUTPUT_BYTES_MAX
            )

        input_id = source_of(asked.task, receipts, receipt.record.stage)
        assert input_id is not None
        source = LegInput(
            id=input_id,
            data=await bring(check.input, input_id, holders),
            holders=holders,
            deadline_s=deadline_s,
        )
        output = await bring(check.output, receipt.record.output, (*doers, asker))
        texts = None
        assert source.data is not None
        if passages:
            texts = await self.infer_role.texts_of(Passages.from_bytes(source.data), source)
        elif stage.operation == NEAREST:
            await self.infer_role.bring_index(stage, source)
        return ClaimedLeg(stage=stage, receipt=receipt, source=source, output=output, texts=texts)

    async def _recompute(self, claim: ClaimedLeg, check: Check) -> Found:
        again = self.again(claim, check)
        if isinstance(again, Found):
            return again
        if proves(claim.stage):
            return await found_by_proof(self.infer_role, claim)
        if again is None:
            if claim.stage.operation == NEAREST:
                return await self._recompute_hits(claim)
            return await self._replay(claim)
        return again.judge(await self.infer_role.do(again.stage, again.source, nowhere))

    def again(self, claim: ClaimedLeg, check: Check) -> Again | Found | None:
        """What is to be recomputed, or what is found without it; None if it is no leg of its own.

        WireError if the output cannot be read.
        """
        claimed_bytes = claim.receipt.record.output_size_bytes
        if claimed_bytes != len(claim.output):
            return wrong(1, f"the output has {len(claim.output)} bytes, not {claimed_bytes}")
        if proves(claim.stage):
            return None
        operation = OPERATIONS.get(claim.stage.operation)
        match None if operation is None else operation.comparison:
            case Comparison.ROWS:
                return self._rows_again(claim, check)
            case Comparison.HITS:
                return None
            case Comparison.REPLAY:
                return None
            case _:
                return Again(claim.stage, claim.source, partial(_same, claim))

    async def _replay(self, claim: ClaimedLeg) -> Found:
        """Judge every token of an answer by how far it is from what would be drawn here."""
        stage, data = claim.stage, claim.source.data
        assert stage.model is not None
        assert data is not None
        loaded, known = self.infer_role.check_able(stage), self.calibrations.get(stage.model)
        replayed = ReplayedLeg(stage, claim.receipt, data, claim.output)
        return await replayed.found(self.engine, loaded, known)

    def _rows_again(self, claim: ClaimedLeg, check: Check) -> Again | Found:
        data = claim.source.data
        assert data is not None
        claimed = Vectors.from_bytes(claim.output)
        texts = claim.texts or Texts.from_bytes(data)
        rows = len(texts.texts)
        if claimed.rows != rows:
            return wrong(rows, f"{claimed.rows} rows for {rows} texts")
        if claim.receipt.record.units != rows:
            return wrong(rows, f"{claim.receipt.record.units} units for {rows} texts")
        share = Share(check.part, check.parts, frozenset(check.rows))
        sampled = share.due(check.secret, claim.receipt.id, self.key.peer, rows)
        sample = Texts(texts=tuple(texts.texts[row] for row in sampled))
        stage = Stage(
            role=Role.INFER,
            operation=RERANK if claim.stage.operation == RERANK else EMBED,
            model=claim.stage.model,
            parameters=claim.stage.parameters,
        )
        again = LegInput(
            id=None,
            data=sample.to_bytes(),
            holders=(),
            deadline_s=claim.source.deadline_s,
        )

        def judge(done: Done) -> Found:
            worst = worst_differences(claimed, Vectors.from_bytes(done.data), sampled)
            return Found(rows=rows, sampled=sampled, worst_ppb=worst)

        return Again(stage, again, judge)

    async def _recompute_hits(self, claim: ClaimedLeg) -> Found:
        assert claim.stage.operation == NEAREST
        claimed = Hits.from_bytes(claim.output).hits
        done = await self.infer_role.do(claim.stage, claim.source, nowhere)
        mine = Hits.from_bytes(done.data).hits
        if done.units != claim.receipt.record.units:
            return wrong_units(len(mine), done.units)
        if [(it.passage, it.row) for it in claimed] != [(it.passage, it.row) for it in mine]:
            return wrong(len(mine), "the nearest passages differ")
        worst = tuple(
            min(PPB, int(abs(one.score - two.score) * PPB))
            for one, two in zip(claimed, mine, strict=True)
        )
        return Found(rows=len(mine), sampled=tuple(range(len(mine))), worst_ppb=worst)


def _same(claim: ClaimedLeg, done: Done) -> Found:
    if done.data != claim.output:
        pairs = enumerate(zip(done.data, claim.output, strict=False))
        at = next((at for at, (a, b) in pairs if a != b), min(len(done.data), len(claim.output)))
        # What comes after is not looked at: with other tokens before it, it would be another.
        row = segment_of_byte(claim.receipt, at)
        found = wrong(1, "the output differs")
        return wrong_segments(claim.receipt, frozenset((row,)), found.reason, found)
    if done.units != claim.receipt.record.units:
        return wrong_units(1, done.units)
    return right()
