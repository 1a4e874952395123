"""The verify role: recomputes a part of a leg that another peer signed, and signs a verdict."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import trio

from node.engines.compare import worst_differences
from node.engines.interface import REPLAY, Engine, Job
from node.engines.margins import EXACT, limits_of, statistics_of, too_far
from node.engines.replay import JudgedAnswer, request, told_otherwise
from node.serving.fair_semaphore import FairSemaphore
from node.serving.infer_role import InferRole
from node.serving.role import LegInput, nowhere
from p2p.adverts import Environment
from p2p.blobs import Blobs
from p2p.timeouts import stretched
from p2p.typed_call import TypedCall, refusal_of
from wire import limits
from wire.calibration import BUILT_IN, Calibration
from wire.chain import open_receipts, source_of
from wire.content import ContentId, PeerId
from wire.counting import counted
from wire.errors import (
    EngineError,
    Missing,
    Refused,
    RemoteProtocolError,
    StoreError,
    TooSlow,
    TransportError,
    WireError,
)
from wire.kinds import RefusalCode, Role
from wire.lottery import Share, attempt_of
from wire.message import Check, Message, VerdictReply
from wire.operations import EMBED, EMBED_PASSAGES, NEAREST, OPERATIONS, Comparison, by_rows
from wire.payload import Hits, Passages, Texts, Vectors
from wire.receipt import Receipt, ReplayStatistics, Verdict
from wire.signed import Signed, open_signed, sign
from wire.signing import SigningKey
from wire.task import Stage, Task
from wire.tree import name_of

# Differences are reported in parts per billion; larger ones are reported as PPB.
PPB = 1_000_000_000
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What recomputing gave: for each sampled row, how far off the claim is."""

    rows: int
    sampled: tuple[int, ...] = ()
    worst_ppb: tuple[int, ...] = ()
    reason: str = ""
    replay: tuple[ReplayStatistics, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """A leg that another peer signed, with its input and output at hand."""

    stage: Stage
    receipt: Signed[Receipt]
    source: LegInput
    output: bytes
    # The passages' texts, if the input names passages.
    texts: Texts | None


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
    # What honest engines differ by, of models that were calibrated here.
    calibrations: Mapping[ContentId, Calibration] = field(default_factory=dict)
    _waiting: Counter[PeerId] = field(default_factory=Counter)
    _places: FairSemaphore = field(default_factory=lambda: FairSemaphore(CHECKS_AT_ONCE))

    async def on_check(self, call: TypedCall, message: Message) -> None:
        """Answer a Check with a signed verdict, or refuse."""
        assert isinstance(message, Check)
        task = open_signed(message.task, Task)
        receipts = open_receipts(task, message.receipts)
        if not receipts or receipts[-1].record.role is not Role.INFER:
            raise RemoteProtocolError("a check is of a leg that ran a model")
        if attempt_of(message.secret, task.record.checking.secret_hash) is None:
            raise RemoteProtocolError("the secret is not the one the task was signed with")
        leg = receipts[-1].record
        if message.parts and not by_rows(leg.operation):
            raise RemoteProtocolError("a leg without rows has no parts")
        if any(row >= leg.units for row in message.rows):
            raise RemoteProtocolError("the leg has not the rows that are to be recomputed")
        try:
            self._check_willing(task, receipts[-1])
            verdict = await self._verdict(task, receipts, message, call.peer)
        except (Refused, EngineError, StoreError) as error:
            # A failure of this peer is refused: it must not become a verdict against another.
            await call.send(refusal_of(error))
            return
        self.checked += 1
        await call.send(VerdictReply(verdict=verdict.raw))

    def _check_willing(self, task: Signed[Task], receipt: Signed[Receipt]) -> None:
        if not self.willing:
            raise Refused("this peer does not verify", code=RefusalCode.NOT_WILLING)
        if self.paused:
            raise Refused(f"this peer is paused: {self.paused}", code=RefusalCode.PAUSED)
        if receipt.signer == self.key.peer:
            raise Refused("nobody checks its own work", code=RefusalCode.NOT_WILLING)
        # The receipt is of this stage, so of its model and operation.
        self.infer_role.check_able(task.record.stages[receipt.record.stage])

    async def _verdict(
        self,
        task: Signed[Task],
        receipts: list[Signed[Receipt]],
        check: Check,
        asker: PeerId,
    ) -> Signed[Verdict]:
        started_at_s = trio.current_time()
        receipt = receipts[-1]
        stage = task.record.stages[receipt.record.stage]
        deadline_s = min(check.deadline_ms / 1000, stretched(CHECK_S_MAX))
        could_check = True
        try:
            with trio.fail_after(deadline_s):
                claim = await self._claim_and_place(task, receipts, check, asker)
                try:
                    found = await self._recompute(claim, check)
                finally:
                    self._places.dequeue(asker)
        except (trio.TooSlowError, TooSlow) as error:
            raise Refused("no time left to check", code=RefusalCode.LATE) from error
        except (Missing, TransportError) as error:
            # The content was withheld from us: that counts as a failed check.
            could_check, found = False, _Found(rows=0, reason=error.message)
        except WireError as error:
            # The leg's own output cannot be read: whoever signed for it is at fault.
            found = _wrong(1, error.message)
        assert stage.model is not None
        loaded = self.engine.ready(stage.model)
        if loaded is None:
            raise Refused("the model was unloaded meanwhile", code=RefusalCode.NO_SUCH_MODEL)
        tolerance_ppb = int(loaded.manifest.tolerance * PPB)
        agrees = could_check and all(it <= tolerance_ppb for it in found.worst_ppb)
        reason = found.reason.encode()[: limits.REASON_BYTES_MAX].decode(errors="ignore")
        return sign(
            Verdict(
                receipt=receipt.id,
                secret=check.secret,
                agrees=agrees,
                could_check=could_check,
                rows=found.rows,
                sampled=found.sampled,
                worst_ppb=found.worst_ppb,
                profile=loaded.profile,
                reason=reason,
                checked_at_ms=int(self.environment.wall_s() * 1000),
                duration_ms=int((trio.current_time() - started_at_s) * 1000),
                replay=found.replay if check.statistics else (),
            ),
            self.key,
        )

    async def _claim_and_place(
        self, task: Signed[Task], receipts: list[Signed[Receipt]], check: Check, asker: PeerId
    ) -> _Claim:
        """Fetch the claim, then take a place: a place is never held while fetching."""
        if self._waiting[asker] >= WAITING_PER_ASKER_MAX:
            raise Refused("this peer is already checking legs of yours", retry_after_s=0.5)
        if self._waiting.total() >= WAITING_MAX:
            raise Refused("this peer is already checking other legs", retry_after_s=0.5)
        with counted(self._waiting, asker):
            claim = await self._brought(task, receipts, check, asker)
            await self._places.enqueue(asker)
        return claim

    async def _brought(
        self, task: Signed[Task], receipts: list[Signed[Receipt]], check: Check, asker: PeerId
    ) -> _Claim:
        # The peer that has the content may be dead: then the asker needs time for another.
        deadline_s = min(check.deadline_ms / 3000, stretched(BRING_S_MAX))
        try:
            return await self._claim(task, receipts, check, asker, deadline_s)
        except TooSlow as error:
            if deadline_s < BRING_S_MIN:
                raise
            # There was time to ask the holders; not every store peer can be asked.
            raise Missing(error.message) from error

    async def _claim(
        self,
        task: Signed[Task],
        receipts: list[Signed[Receipt]],
        check: Check,
        asker: PeerId,
        deadline_s: float,
    ) -> _Claim:
        receipt = receipts[-1]
        stage = task.record.stages[receipt.record.stage]
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

        input_id = source_of(task, receipts, receipt.record.stage)
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
        return _Claim(stage=stage, receipt=receipt, source=source, output=output, texts=texts)

    async def _recompute(self, claim: _Claim, check: Check) -> _Found:
        claimed_bytes = claim.receipt.record.output_size_bytes
        if claimed_bytes != len(claim.output):
            return _wrong(1, f"the output has {len(claim.output)} bytes, not {claimed_bytes}")
        operation = OPERATIONS.get(claim.stage.operation)
        match None if operation is None else operation.comparison:
            case Comparison.ROWS:
                return await self._recompute_rows(claim, check)
            case Comparison.HITS:
                return await self._recompute_hits(claim)
            case Comparison.REPLAY:
                return await self._replay(claim)
            case _:
                done = await self.infer_role.do(claim.stage, claim.source, nowhere)
                if done.data != claim.output:
                    return _wrong(1, "the output differs")
                if done.units != claim.receipt.record.units:
                    return _wrong_units(1, done.units)
                return _Found(rows=1, sampled=(0,), worst_ppb=(0,))

    async def _replay(self, claim: _Claim) -> _Found:
        """Judge every token of an answer by how far it is from what would be drawn here."""
        stage, data = claim.stage, claim.source.data
        assert stage.model is not None
        assert data is not None
        loaded = self.infer_role.check_able(stage)
        is_exact = loaded.exact and loaded.profile == claim.receipt.record.profile
        table = self.calibrations.get(stage.model, BUILT_IN)
        asked = request(data, claim.output, 0.0 if is_exact else table.slack_millionths / 1e6)
        left_s = trio.current_effective_deadline() - trio.current_time()
        job = Job(
            model=stage.model,
            operation=REPLAY,
            input=asked.to_bytes(),
            parameters=stage.parameters,
            deadline_s=max(0.0, left_s),
        )
        told = JudgedAnswer.from_bytes((await self.engine.infer(job)).data)
        found = statistics_of(told.each, table)
        bounds = EXACT if is_exact else limits_of(table, len(asked.tokens))
        reason = too_far(found, bounds) or told_otherwise(claim.output, told)
        units = max(1, len(asked.tokens))
        if not reason and claim.receipt.record.units != units:
            reason = f"the work was {units} units"
        if reason:
            return replace(_wrong(1, reason), replay=(found,))
        return _Found(rows=1, sampled=(0,), worst_ppb=(0,), replay=(found,))

    async def _recompute_rows(self, claim: _Claim, check: Check) -> _Found:
        data = claim.source.data
        assert data is not None
        claimed = Vectors.from_bytes(claim.output)
        texts = claim.texts or Texts.from_bytes(data)
        rows = len(texts.texts)
        if claimed.rows != rows:
            return _wrong(rows, f"{claimed.rows} rows for {rows} texts")
        if claim.receipt.record.units != rows:
            return _wrong(rows, f"{claim.receipt.record.units} units for {rows} texts")
        share = Share(check.part, check.parts, frozenset(check.rows))
        sampled = share.due(check.secret, claim.receipt.id, self.key.peer, rows)
        sample = Texts(texts=tuple(texts.texts[row] for row in sampled))
        stage = Stage(
            role=Role.INFER,
            operation=EMBED,
            model=claim.stage.model,
            parameters=claim.stage.parameters,
        )
        again = LegInput(
            id=None,
            data=sample.to_bytes(),
            holders=(),
            deadline_s=claim.source.deadline_s,
        )
        done = await self.infer_role.do(stage, again, nowhere)
        recomputed = Vectors.from_bytes(done.data)
        worst = worst_differences(claimed, recomputed, sampled)
        return _Found(rows=rows, sampled=sampled, worst_ppb=worst)

    async def _recompute_hits(self, claim: _Claim) -> _Found:
        assert claim.stage.operation == NEAREST
        claimed = Hits.from_bytes(claim.output).hits
        done = await self.infer_role.do(claim.stage, claim.source, nowhere)
        mine = Hits.from_bytes(done.data).hits
        if done.units != claim.receipt.record.units:
            return _wrong_units(len(mine), done.units)
        if [(it.passage, it.row) for it in claimed] != [(it.passage, it.row) for it in mine]:
            return _wrong(len(mine), "the nearest passages differ")
        worst = tuple(
            min(PPB, int(abs(one.score - two.score) * PPB))
            for one, two in zip(claimed, mine, strict=True)
        )
        return _Found(rows=len(mine), sampled=tuple(range(len(mine))), worst_ppb=worst)


def _wrong(rows: int, reason: str) -> _Found:
    return _Found(rows=rows, sampled=(0,), worst_ppb=(PPB,), reason=reason)


def _wrong_units(rows: int, units: int) -> _Found:
    return _wrong(rows, f"the work was {units} units")
