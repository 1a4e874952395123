"""Where verdicts disagree, who is wrong is found out, not voted on.

Of an integer model by a dispute, of any other by this peer's own engine, where that has the model.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import trio

from node.asking.exact_words import WrongPeers, difference, maker_of, misstated
from node.asking.record_files import RecordFiles
from node.checking.check_request import CheckRequest
from node.checking.own_finding import OwnFinding
from node.checking.segments import guilty_of
from node.checking.settling import Contested, Settling
from node.checking.tally import Tally
from node.checking.votes import disputed_by
from node.engines.worker.exact_claims import ExactClaims
from node.evidence.charges import disputed_work
from node.evidence.disputes import Judgement
from node.evidence.offences import judged
from node.task.events import EventSink, Failed
from node.task.levels import is_provable, not_exact, not_provable, proves
from p2p.blobs import Blobs
from p2p.score import Offence
from p2p.timeouts import stretched
from wire import limits
from wire.chain import source_of
from wire.content import ContentId, PeerId
from wire.dispute import Dispute
from wire.errors import BatonError, WireError
from wire.evidence import EVIDENCE_SUFFIX, Evidence, OffenceKind
from wire.kinds import Level, Role
from wire.latest import Latest
from wire.model import Manifest
from wire.operations import CALL, GENERATE
from wire.receipt import Verdict
from wire.signed import Signed
from wire.task import Stage
from wire.tree import name_of

# Of the verdicts against one answer so many are looked into: one that holds is enough.
DISPUTES_PER_ANSWER_MAX = 2
# Records that stay kept, the latest; an older one is what its owner made of it.
DISPUTES_KEPT = 256
INPUT_S = 10.0
# An answer is read again within it, or the votes decide.
READ_S = 60.0
PIN, DISPUTE_SUFFIX = "dispute", ".dispute"
# Each round takes the verdicts of liars away; beyond that the votes decide.
ROUNDS_MAX = 3

Check = Callable[[CheckRequest], Awaitable[Tally]]


class Judge(Protocol):
    """Looks at an answer here; None where this peer cannot."""

    async def look(
        self, claimed: CheckRequest, output: bytes, rows: frozenset[int] = frozenset()
    ) -> OwnFinding | None:
        """What this peer finds, `rows` among it; None if it cannot look, or has not the model."""


class DisputedModel(Protocol):
    """What a reader of integer models gives."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def data(self) -> bytes: ...


class ExactModels(Protocol):
    """Knows which models are in whole numbers, and reads them."""

    async def is_exact(self, model: ContentId) -> bool:
        """Whether a model is one, as far as can be known here."""

    async def get(self, model: ContentId) -> DisputedModel | None:
        """The model of this id; None if disputes about it are not settled here."""

    async def claims(self, model: ContentId) -> ExactClaims | None:
        """What judges answers of an exact transformer; None unless it is one, and is here."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What disputes about an answer came to: which maker of it is wrong, which verdicts are void.

    Of a stream that moved, another peer than its signer may have made the part that is wrong.
    """

    lost: frozenset[PeerId] = frozenset()
    proven: bool = False
    void: frozenset[PeerId] = frozenset()

    @property
    def prover_lost(self) -> bool:
        """Whether the answer is wrong."""
        return bool(self.lost)

    def leaves_open(self, votes: Tally) -> bool:
        """Whether a verdict against the answer stands, of whose signer nothing was shown."""
        return not self.prover_lost and any(
            it.record.could_check and not it.record.agrees and it.signer not in self.void
            for it in votes.verdicts
        )


@dataclass(slots=True)
class Disputing:
    """Settles disputes about answers to this peer's own tasks, and keeps their records."""

    settling: Settling
    blobs: Blobs
    models: ExactModels
    files: RecordFiles
    # What a model is, as far as it is known or told in time.
    learn: Callable[[ContentId], Awaitable[Manifest | None]]
    # None where this peer never looks for itself.
    judge: Judge | None = None
    # Reading an answer again takes all cores; whoever waits for it too long leaves it to the votes.
    reading: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))
    kept: Latest[ContentId, None] = field(default_factory=lambda: Latest(DISPUTES_KEPT))
    # Told of each leg that was checked, with its output; it does not wait.
    on_checked: Callable[[CheckRequest, Tally, bytes], None] = lambda *_: None

    async def check_level(self, level: Level, stages: Sequence[Stage]) -> None:
        """InputError if a level is asked for of a model that cannot be checked so."""
        if level is Level.ZERO_KNOWLEDGE:
            for stage in stages:
                known = None if stage.model is None else await self.learn(stage.model)
                if not proves(stage) or (known is not None and not is_provable(known)):
                    raise not_provable(f"the model {stage.model}")
        if level is not Level.EXACT:
            return
        for stage in stages:
            if stage.model is not None and not await self.models.is_exact(stage.model):
                raise not_exact(f"the model {stage.model}")

    async def counted(
        self, check: Check, claimed: CheckRequest, output: bytes, on_event: EventSink
    ) -> tuple[Tally, Ruling]:
        """The verdicts on a leg, and what disputes about them came to.

        Verdicts that were shown to be wrong are void, and others are asked for in their place.
        """
        void = claimed.void
        for _ in range(ROUNDS_MAX):
            votes = await check(replace(claimed, void=void))
            self.on_checked(claimed, votes, output)
            ruling = await self.rule(claimed, votes, output, on_event)
            if ruling.prover_lost or votes.agreed or not ruling.void:
                break
            void |= ruling.void
        return votes, replace(ruling, void=ruling.void | void)

    async def rule(
        self, claimed: CheckRequest, votes: Tally, output: bytes, on_event: EventSink
    ) -> Ruling:
        """Look into the verdicts against an answer; nothing is ruled where nobody can know."""
        leg = claimed.receipt.record
        against = [it for it in votes.verdicts if not it.record.agrees and it.record.could_check]
        if not against or leg.role is not Role.INFER or leg.model is None:
            return Ruling()
        ruling = None
        if leg.operation in (CALL, GENERATE):
            ruling = await self._by_dispute(claimed, leg.model, against, votes, output, on_event)
        if ruling is None:
            rows = frozenset[int]().union(*(disputed_by(it.record) for it in against))
            ruling, _ = await self.look(claimed, output, votes.verdicts, on_event, rows)
        return ruling or Ruling()

    async def look(
        self,
        claimed: CheckRequest,
        output: bytes,
        verdicts: Sequence[Signed[Verdict]],
        on_event: EventSink,
        rows: frozenset[int] = frozenset(),
    ) -> tuple[Ruling | None, OwnFinding | None]:
        """Look at an answer here, and hold its signer and who gave these verdicts to it.

        None if this peer cannot, or what it finds decides nothing.
        """
        found = None if self.judge is None else await self.judge.look(claimed, output, rows)
        if found is None or not found.decides(claimed.receipt.record):
            return None, None
        signer, peers = claimed.receipt.signer, self.settling.peers
        guilty = frozenset[PeerId]()
        if not found.verdict.agrees:
            # Of a stream that moved, who made the part that is wrong.
            if not (guilty := guilty_of(claimed.receipt, [found.verdict], 0)):
                return None, None
            for peer in sorted(guilty):
                peers.offended(peer, Offence.WRONG_ANSWER)
                on_event(Failed("dispute", peer, "this peer computed another answer itself"))
        else:
            peers.doubts.forget(signer)
        untrue = found.untrue(verdicts)
        for verifier in sorted(untrue):
            offence = Offence.WRONG_ANSWER if untrue[verifier] else Offence.UNTRUE_VERDICT
            peers.offended(verifier, offence)
            why = "its verdict is not what this peer computed itself"
            peers.note_problem(f"verdict of {verifier}", why)
            on_event(Failed("dispute", verifier, why))
        return Ruling(lost=guilty, proven=bool(guilty), void=frozenset(untrue)), found

    async def _by_dispute(
        self,
        claimed: CheckRequest,
        model_id: ContentId,
        against: Sequence[Signed[Verdict]],
        votes: Tally,
        output: bytes,
        on_event: EventSink,
    ) -> Ruling | None:
        """Have both sides of each verdict heard; None if there can be no dispute."""
        void, leg = set[PeerId](), claimed.receipt.record
        if name_of(output) != leg.output:
            # It is that of another leg, or not kept here: nobody is judged by it.
            return None
        try:
            if leg.operation == GENERATE:
                return await self._rule_words(claimed, against, output, on_event)
            model = await self.models.get(model_id)
            if model is None:
                return None
            source = await self._input(claimed)
            for verdict in against[:DISPUTES_PER_ANSWER_MAX]:
                contested = Contested(
                    claimed=claimed,
                    verdict=verdict,
                    manifest=model.manifest.to_bytes(),
                    model_data=model.data,
                    input=source,
                    output=output,
                )
                found = await self._settle(contested, on_event)
                if found.prover in found.lost:
                    if found.proven:
                        await self._keep_untrue(contested, votes)
                    return Ruling(lost=frozenset((found.prover,)), proven=found.proven)
                void |= found.lost
        except BatonError as error:
            # Then it is as with any other model.
            on_event(Failed("dispute", claimed.receipt.signer, error.message))
            return Ruling(void=frozenset(void)) if void else None
        return Ruling(void=frozenset(void))

    async def _rule_words(
        self,
        claimed: CheckRequest,
        against: Sequence[Signed[Verdict]],
        output: bytes,
        on_event: EventSink,
    ) -> Ruling | None:
        """Read an answer again where the model is here: then it is known who is wrong."""
        leg = claimed.receipt.record
        assert leg.model is not None, "a model generated it"
        source = await self._input(claimed)
        parameters = claimed.task.record.stages[leg.stage].parameters
        why, token = misstated(leg, output), None
        with trio.move_on_after(stretched(READ_S)) as scope:
            async with self.reading:
                claims = await self.models.claims(leg.model)
                if claims is None:
                    return None
                claims.before_pass = trio.from_thread.check_cancelled
                if not why:
                    why, token = await trio.to_thread.run_sync(
                        difference, claims, source, parameters, output
                    )
        if scope.cancelled_caught:
            return None
        if not why:
            why, token = "the answer is right, bit for bit", None
            ruling = Ruling(void=frozenset(it.signer for it in against))
        elif (maker := maker_of(claimed.receipt, token)) is not None:
            ruling = Ruling(lost=frozenset((maker,)), proven=True)
        else:
            return None
        # Nobody is asked for anything more before its word counts less.
        for peer in sorted(ruling.lost | ruling.void):
            self.settling.peers.offended(peer, Offence.WRONG_ANSWER)
        layers = await self._layers(claimed, against, ruling, token, claims, source, output)
        for peer in sorted(ruling.lost | ruling.void):
            told = f"{why}: it was read again here, in whole numbers"
            on_event(Failed("dispute", peer, told + layers.get(peer, "")))
        return ruling

    async def _layers(
        self,
        claimed: CheckRequest,
        against: Sequence[Signed[Verdict]],
        ruling: Ruling,
        token: int | None,
        claims: ExactClaims,
        source: bytes,
        output: bytes,
    ) -> dict[PeerId, str]:
        """Which layer each wrong peer computes otherwise, in words, of those that show it."""
        model = claimed.receipt.record.model
        manifest = None if model is None else await self.learn(model)
        # Who made a part of a stream before its signer committed to no leg of it.
        unknown = ruling.lost and (token is None or claimed.receipt.signer not in ruling.lost)
        if manifest is None or unknown:
            return {}
        contested = Contested(
            claimed=claimed,
            verdict=against[0],
            manifest=manifest.to_bytes(),
            model_data=b"",
            input=source,
            output=output,
        )
        wrong = WrongPeers(contested, against[:DISPUTES_PER_ANSWER_MAX], token)
        words: dict[PeerId, str] = {}
        with trio.move_on_after(stretched(READ_S)):
            async with self.reading:
                own = await wrong.own_states(claims)
            # A liar that is slow to answer holds up no other reading: it would be left to votes.
            named = {} if own is None else await wrong.named(self.settling, *own)
            for peer, (record, found) in named.items():
                await self._keep_record(record)
                words[peer] = f"; {found.why}; the record is {record.id}"
        return words

    async def _keep_record(self, record: Signed[Dispute]) -> None:
        await self.blobs.store.put(record.raw, pin=PIN)
        self.kept[record.id] = None
        await self.files.write(f"{record.id}{DISPUTE_SUFFIX}", record.raw)

    async def _settle(self, contested: Contested, on_event: EventSink) -> Judgement:
        signed, found = await self.settling.run_dispute(contested)
        await self._keep_record(signed)
        if found.proven:
            kept = await self._keep_evidence(
                OffenceKind.LOST_DISPUTE, (signed.raw,), (contested.model_data,)
            )
            if not kept and found.prover in found.lost:
                await self._keep_case(contested)
        for peer in sorted(found.lost):
            offence = Offence.WRONG_ANSWER if found.proven else Offence.UNANSWERED
            self.settling.peers.offended(peer, offence)
            on_event(Failed("dispute", peer, f"{found.why}; the record is {signed.id}"))
        return found

    async def _keep_untrue(self, contested: Contested, votes: Tally) -> None:
        """Evidence against whoever agreed with an answer that was proved wrong."""
        claimed = contested.claimed
        content = (contested.manifest, contested.input, contested.output, contested.model_data)
        for verdict in votes.verdicts:
            if verdict.record.agrees:
                records = (claimed.task.raw, claimed.receipt.raw, verdict.raw)
                await self._keep_evidence(OffenceKind.UNTRUE_VERDICT, records, content)

    async def _keep_evidence(
        self, offence: OffenceKind, records: tuple[bytes, ...], content: tuple[bytes, ...]
    ) -> bool:
        """Whether there is evidence that the ledger takes."""
        try:
            evidence = Evidence(offence=offence, records=records, content=content)
            judged(raw := evidence.to_bytes())
        except WireError:
            # It is too large, or cannot be judged without more.
            return False
        if len(raw) > limits.ACCUSATION_BYTES_MAX:
            return False
        await self._keep_file(evidence)
        return True

    async def _keep_case(self, contested: Contested) -> None:
        """What asks a jury: it fetches what is too large for the ledger."""
        task, receipts = contested.claimed.task, [it.raw for it in contested.claimed.receipts]
        try:
            await self._keep_file(disputed_work(task.raw, receipts, contested.manifest))
        except WireError:
            # No jury looks at such a leg.
            return

    async def _keep_file(self, evidence: Evidence) -> None:
        raw = evidence.to_file()
        await self.files.write(f"{ContentId.of(raw)}{EVIDENCE_SUFFIX}", raw)

    async def _input(self, claimed: CheckRequest) -> bytes:
        if claimed.input is not None:
            return claimed.input
        source = source_of(claimed.task, claimed.receipts, claimed.receipt.record.stage)
        assert source is not None, "a call has an input"
        return await self.blobs.get(
            source,
            tuple(it.signer for it in claimed.receipts),
            deadline_s=stretched(INPUT_S),
            size_bytes_max=limits.TENSORS_BYTES_MAX,
        )
