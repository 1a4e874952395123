"""Checking again what a peer answered before it was caught lying here.

Answers with too few verdicts are checked once more: by two of three verifiers, drawn with the
answer's own secret. One answer is checked at a time, after live tasks. Accusations by other peers
do not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import trio

from node.asking.answers import NEEDED_LATER, Answers, Later
from node.asking.tasks import TaskRunner
from node.checking.check_request import CheckRequest
from node.checking.quorum import Checking
from node.checking.segments import guilty_of
from node.checking.tally import Tally
from node.task.events import ignore_event
from node.task.levels import proves
from p2p.timeouts import stretched
from store import Store
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import Missing, StoreError
from wire.kinds import Level
from wire.operations import CALL, OPERATIONS, Comparison
from wire.receipt import Answer, Receipt, Verdict
from wire.signed import Signed, open_signed
from wire.task import CheckPolicy as Terms
from wire.task import Task

LOOKED_AT_MAX = 256
RECHECKED_MAX = 32
VERIFIERS = 3
RECHECK_DEADLINE_S = 60.0
# Live tasks go first, but a recheck waits no longer than this for them.
WAIT_FOR_IDLE_S = 60.0
# An answer that could not be decided, for lack of verifiers, is checked again after this.
AGAIN_AFTER_S = 600.0


@dataclass(slots=True)
class Rechecking:
    """Checks suspect answers again, for one peer."""

    store: Store
    checking: Checking
    answers: Answers
    tasks: TaskRunner
    # How many answers were found wrong since the start.
    found_wrong: int = 0

    async def run(self) -> None:
        """Check again whenever a peer was caught, for as long as this peer runs."""
        while True:
            # The event is renewed before answers are read, so that no accusation is missed.
            self.answers.accused = trio.Event()
            if self.answers.liars:
                for answer in await self.suspects():
                    await self.until_idle()
                    await self._recheck(answer)
            with trio.move_on_after(AGAIN_AFTER_S):
                await self.answers.accused.wait()

    async def suspects(self) -> list[Signed[Answer]]:
        """The kept answers to be checked again, latest first."""
        latest = await self.answers.latest(LOOKED_AT_MAX)
        suspect = [it for it in latest if self.answers.later(it) is Later.SUSPECT]
        return suspect[:RECHECKED_MAX]

    async def until_idle(self, at_most_s: float = WAIT_FOR_IDLE_S) -> None:
        """Wait until no task is under way here, or for `at_most_s`."""
        with trio.move_on_after(at_most_s):
            while self.tasks.statistics().under_way:
                await trio.sleep(0.5)

    async def _recheck(self, answer: Signed[Answer]) -> None:
        verdicts: list[Signed[Verdict]] = []
        found = await self.check(answer, self.answers.suspect_legs(answer), verdicts)
        if found is Later.HELD:
            await self.answers.judged(answer, Later.HELD, verdicts)

    async def check(
        self,
        answer: Signed[Answer],
        legs: Sequence[int],
        verdicts: list[Signed[Verdict]] | None = None,
    ) -> Later | None:
        """Have these legs of a kept answer checked now: HELD, WRONG, or None if that is open.

        Who signed a wrong one is banned if this peer saw that for itself, else in doubt, and this
        result is kept. `verdicts` is added to.
        """
        verdicts = [] if verdicts is None else verdicts
        decided = True
        deadline_at_s = trio.current_time() + stretched(RECHECK_DEADLINE_S)
        for leg in legs:
            try:
                claimed = await self.claimed(answer.record, leg)
            except StoreError:
                # The input or the output is no longer kept: the leg cannot be checked any more.
                return None
            terms = Terms(
                level=Level.REPLAYED,
                verifiers=VERIFIERS,
                needed=NEEDED_LATER,
                secret_hash=claimed.task.record.checking.secret_hash,
            )
            check = partial(
                self.checking.check,
                on_event=ignore_event,
                deadline_at_s=deadline_at_s,
                terms=terms,
            )
            output = await self._output(claimed)
            votes, ruling = await self.tasks.disputing.counted(check, claimed, output, ignore_event)
            verdicts.extend(votes.verdicts)
            if ruling.prover_lost and not ruling.proven:
                # It was silent, which is no proof of a lie, and cost it already.
                return None
            guilty = _guilty(claimed, votes)
            if ruling.proven:
                guilty = ruling.lost
            if guilty:
                self.found_wrong += 1
                await self.answers.judged(answer, Later.WRONG, verdicts)
                for signer in guilty:
                    if ruling.proven:
                        self.accuse(signer)
                    else:
                        self.checking.peers.doubted(signer)
                return Later.WRONG
            decided = decided and votes.agreed is True
        return Later.HELD if decided else None

    async def look(self, answer: Signed[Answer], leg: int) -> bool | None:
        """Look at a leg of a kept answer here, and hold its signer and its verifiers to what is
        found; None if this peer cannot. StoreError if it is no longer kept.
        """
        claimed = await self.claimed(answer.record, leg)
        every = [open_signed(raw, Verdict) for raw in answer.record.verdicts]
        verdicts = [it for it in every if it.record.receipt == claimed.receipt.id]
        ruling, _ = await self.tasks.disputing.look(
            claimed, await self._output(claimed), verdicts, ignore_event
        )
        if ruling is None:
            return None
        if ruling.prover_lost:
            self.found_wrong += 1
            await self.answers.judged(answer, Later.WRONG, verdicts)
            for liar in ruling.lost:
                self.accuse(liar)
        return not ruling.prover_lost

    def accuse(self, liar: PeerId) -> None:
        """Doubt what a peer answered before it was caught lying here."""
        self.answers.accuse(liar, int(self.checking.peers.environment.wall_s() * 1000))

    async def claimed(self, answer: Answer, leg: int) -> CheckRequest:
        """What a verifier is asked about one leg; Missing if its input or output is gone."""
        task = open_signed(answer.task, Task)
        receipts = tuple(open_signed(raw, Receipt) for raw in answer.receipts[: leg + 1])
        data = None
        if leg == 0:
            assert task.record.input is not None
            data = await self._small(task.record.input)
        last = leg == len(answer.receipts) - 1
        return CheckRequest(
            task=task,
            receipts=receipts,
            secret=answer.secret,
            input=data,
            output=await self._small(receipts[-1].record.output) if last else None,
        )

    async def _output(self, claimed: CheckRequest) -> bytes:
        """What the leg gave, for a dispute about it; nothing where only its signer keeps that."""
        leg = claimed.receipt.record
        if claimed.output is not None:
            return claimed.output
        if leg.operation != CALL and not self.store.has(leg.output):
            return b""
        return await self.store.get(leg.output)

    async def _small(self, content: ContentId) -> bytes | None:
        """Small content, to be sent along; None if larger: verifiers fetch it. Missing if gone."""
        if not self.store.has(content):
            raise Missing(f"{content} is no longer kept here")
        data = await self.store.get(content)
        return data if len(data) <= limits.INLINE_BYTES_MAX else None


def _guilty(claimed: CheckRequest, votes: Tally) -> frozenset[PeerId]:
    """Who is wrong by so many verdicts that the others cannot outweigh them.

    Where outputs were compared byte for byte, another kind of device may honestly give others:
    there only verdicts of the receipt's own profile count. A proof holds everywhere, or nowhere.
    """
    receipt = claimed.receipt.record
    operation = OPERATIONS.get(receipt.operation)
    streams = operation is None or operation.comparison in (Comparison.BYTES, Comparison.REPLAY)
    streams = streams and not proves(claimed.task.record.stages[receipt.stage])
    counted = [
        it.record
        for it in votes.verdicts
        # Who measured no margins compared bytes.
        if not streams or it.record.replay or it.record.profile == receipt.profile
    ]
    if votes.agreed is not False:
        return frozenset()
    return guilty_of(claimed.receipt, counted, VERIFIERS - NEEDED_LATER)
