"""A share of the answers that nobody checked is checked later, so that liars are found there too.

Nothing waits for these checks: an answer is drawn once it is kept, and checked when no task is
under way, or after a while all the same. Which are drawn is decided by a secret of this peer, so
nobody can tell by a task whether its answer will be looked at. How many are drawn of whom is in
`node.asking.audit_share`. Of answers that were checked when they came, some are drawn too: not to
be checked again, but to send a wrong copy to a verifier.
"""

import hashlib
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from node.asking.answers import Answers, KeptAnswer, Later
from node.asking.audit_share import TIMES_MAX, audited_share
from node.asking.canaries import Canaries
from node.asking.rechecking import Rechecking
from node.checking.quorum import Checking
from wire.chain import doers_of, legs_to_check
from wire.content import PeerId
from wire.errors import StoreError
from wire.kinds import Level
from wire.latest import Latest
from wire.operations import OPERATIONS
from wire.receipt import Answer, Receipt
from wire.signed import Envelope, Signed, open_signed
from wire.task import Task

# With fewer verifiers than this, one that lies could have an honest peer banned.
VERIFIERS_MIN = 2
# Answers that wait; one more is let go unchecked.
WAITING_MAX = 64
AT_ONCE = 4
# A busy gateway is never idle: what it has checked is bounded by AT_ONCE, not by its rest.
WAIT_FOR_IDLE_S = 2.0
PEERS_KNOWN_MAX = 1024
# Of the answers whose checks held, so many are sent once more with a row altered.
CANARY_SHARE = 1 / 8


@dataclass(frozen=True, slots=True, kw_only=True)
class BackgroundStatistics:
    """Counts since the start: answers drawn, and what came of their checks."""

    drawn: int
    held: int
    wrong: int
    undecided: int
    # Let go unchecked: too many waited, or too few verifiers are known.
    left_out: int
    # Receipts sent to verifiers that are wrong on purpose, and how many of them were agreed with.
    canaries: int = 0
    fooled: int = 0


@dataclass(slots=True)
class BackgroundChecks:
    """Draws answers of one peer's own tasks, and has them checked. `share` 0 switches it off."""

    checking: Checking
    answers: Answers
    rechecking: Rechecking
    share: float
    secret: bytes
    canaries: Canaries | None = None
    # How many checks held, by the peer that was checked.
    _held: Latest[PeerId, int] = field(default_factory=lambda: Latest(PEERS_KNOWN_MAX))
    # With who gave each.
    _waiting: deque[tuple[Signed[Answer], PeerId]] = field(default_factory=deque)
    # Answers that were checked, of which a wrong copy is to be sent.
    _to_copy: deque[Signed[Answer]] = field(default_factory=deque)
    # Whose answers are being checked: one at a time of each.
    _checked_now: set[PeerId] = field(default_factory=set)
    _wake: trio.Event = field(default_factory=trio.Event)
    _is_copying: bool = False
    _drawn: int = 0
    _found_held: int = 0
    _found_wrong: int = 0
    _undecided: int = 0
    _left_out: int = 0

    def __post_init__(self) -> None:
        if self.share > 0:
            self.answers.on_kept = self.kept

    def statistics(self) -> BackgroundStatistics:
        """What was drawn and found since the start."""
        return BackgroundStatistics(
            drawn=self._drawn,
            held=self._found_held,
            wrong=self._found_wrong,
            undecided=self._undecided,
            left_out=self._left_out,
            canaries=0 if self.canaries is None else self.canaries.sent,
            fooled=0 if self.canaries is None else self.canaries.fooled,
        )

    def kept(self, kept: Sequence[KeptAnswer]) -> None:
        """Draw among answers that were kept just now."""
        drawn = [
            (it.answer, signer)
            for it in kept
            if _nobody_checked(it) and (signer := self._drawn_signer(it.answer)) is not None
        ]
        to_copy = [it.answer for it in kept if it.answer.record.verdicts and self._is_copied(it)]
        self._to_copy.extend(to_copy[: WAITING_MAX - len(self._to_copy)])
        if not drawn and not to_copy:
            return
        self._drawn += len(drawn)
        room = WAITING_MAX - len(self._waiting)
        self._left_out += max(0, len(drawn) - room)
        self._waiting.extend(drawn[: max(0, room)])
        self._wake.set()

    def _drawn_signer(self, answer: Signed[Answer]) -> PeerId | None:
        """Who gave an answer that is drawn; None if it is not."""
        ticket_share = self._ticket(b"", answer)
        # Most answers are not drawn whoever gave them, and nothing of them is read.
        if ticket_share >= self.share * TIMES_MAX:
            return None
        signer = Envelope.read(answer.record.receipts[-1], Receipt).signer
        standing = self.checking.peers.standing_at_work(signer)
        paid = sum(it.amount for it in answer.record.charges)
        share = audited_share(self.share, self._held.get(signer, 0), standing, paid)
        return signer if ticket_share < share else None

    def _is_copied(self, kept: KeptAnswer) -> bool:
        """Whether a wrong copy of an answer that was checked is sent to a verifier."""
        is_drawn = self._ticket(b"copy", kept.answer) < self.share * CANARY_SHARE
        return self.canaries is not None and is_drawn

    def _ticket(self, purpose: bytes, answer: Signed[Answer]) -> float:
        """Where an answer falls in this peer's own lottery, from 0 to 1."""
        ticket = hashlib.sha256(self.secret + purpose + answer.id).digest()
        return int.from_bytes(ticket[:8], "big") / 2**64

    async def run(self) -> None:
        """Check what was drawn, for as long as this peer runs."""
        async with trio.open_nursery() as nursery:
            while True:
                self._wake = trio.Event()
                if len(self._checked_now) < AT_ONCE and (one := self._next()) is not None:
                    answer, signer = one
                    self._checked_now.add(signer)
                    nursery.start_soon(self._check, answer, signer)
                elif self._to_copy and not self._is_copying:
                    self._is_copying = True
                    nursery.start_soon(self._copy, self._to_copy.popleft())
                else:
                    await self._wake.wait()

    def _next(self) -> tuple[Signed[Answer], PeerId] | None:
        """The first that waits for no other check of the same peer."""
        for at, (answer, signer) in enumerate(self._waiting):
            if signer not in self._checked_now:
                del self._waiting[at]
                return answer, signer
        return None

    async def _copy(self, answer: Signed[Answer]) -> None:
        try:
            await self.rechecking.until_idle(WAIT_FOR_IDLE_S)
            with suppress(StoreError):
                # Of what this peer finds wrong itself, verifiers have agreed with the original.
                if await self._look(answer) is not False:
                    await self._send_canary(answer)
        finally:
            self._is_copying = False
            self._wake.set()

    async def _look(self, answer: Signed[Answer]) -> bool | None:
        """Look at an answer that was checked; None if this peer cannot."""
        receipts = [open_signed(raw, Receipt) for raw in answer.record.receipts]
        for leg in legs_to_check(receipts):
            found = await self.rechecking.look(answer, leg)
            if found is not True:
                return found
        return True

    async def _check(self, answer: Signed[Answer], signer: PeerId) -> None:
        try:
            await self.rechecking.until_idle(WAIT_FOR_IDLE_S)
            legs = self._legs(answer)
            if not legs:
                self._left_out += 1
                return
            match await self.rechecking.check(answer, legs):
                case Later.HELD:
                    self._found_held += 1
                    self._held[signer] = self._held.get(signer, 0) + 1
                    if self._ticket(b"canary", answer) < CANARY_SHARE:
                        await self._send_canary(answer)
                case Later.WRONG:
                    self._found_wrong += 1
                    self._held.pop(signer, None)
                case _:
                    self._undecided += 1
        finally:
            self._checked_now.discard(signer)
            self._wake.set()

    async def _send_canary(self, answer: Signed[Answer]) -> None:
        """Have a wrong copy of an answer checked."""
        task = open_signed(answer.record.task, Task).record
        # A canary is made of one leg, with its input at hand.
        is_fit = len(task.stages) == 1 and task.input is not None
        if self.canaries is not None and is_fit:
            with suppress(StoreError):
                await self.canaries.send(await self.rechecking.claimed(answer.record, 0))

    def _legs(self, answer: Signed[Answer]) -> list[int]:
        """The legs that known verifiers can check now; none where there are too few of them."""
        receipts = [open_signed(raw, Receipt) for raw in answer.record.receipts]
        doers = {it for leg in receipts for it in doers_of(leg)} | {answer.signer}
        found = []
        for leg in legs_to_check(receipts):
            one = receipts[leg].record
            operation = OPERATIONS.get(one.operation)
            able = self.checking.verifiers(one.model) - doers
            if operation is not None and operation.comparison is not None:
                if len(able) < VERIFIERS_MIN:
                    return []
                found.append(leg)
        return found


def _nobody_checked(kept: KeptAnswer) -> bool:
    """Whether no verifier was to look at an answer, or the lottery of its level drew none."""
    level = kept.task.record.checking.level
    is_spared = level is Level.SPOT_CHECKED and not kept.answer.record.verdicts
    return level is Level.SIGNED or is_spared
