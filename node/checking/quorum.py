"""Having a leg checked: draws the verifiers, asks them, and counts their verdicts.

The lottery's secret is revealed only here, after the receipt was signed. `needed` verifiers are
asked first; more, in the order of the draw, only when some disagree, refuse or fall silent.
"""

from dataclasses import dataclass, field

import trio

from node.checking.verdict import check_verdict
from node.dispatch.backoff import Backoff
from node.task.events import Checked, EventSink, Failed
from node.task.refusals import ask_again_s
from p2p.peers import Peers
from p2p.score import Offence, Standing
from p2p.timeouts import stretched
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import (
    Refused,
    RemoteProtocolError,
    TransportError,
    WireError,
)
from wire.kinds import Role
from wire.lottery import draw
from wire.message import Check, VerdictReply
from wire.receipt import Receipt, Verdict
from wire.signed import Signed, open_signed
from wire.task import CheckPolicy as Terms
from wire.task import Task

# A verifier recomputes an eighth of a leg that may have taken minutes.
CHECK_DEADLINE_S = 60.0
PAUSE_S = 0.25
# A guess: a verifier that is running answers within this; after it, another is asked too.
SLOW_AFTER_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRequest:
    """A leg to be checked: the chain up to and with it, and small payloads at hand."""

    task: Signed[Task]
    receipts: tuple[Signed[Receipt], ...]
    secret: bytes
    input: bytes | None
    output: bytes | None

    @property
    def receipt(self) -> Signed[Receipt]:
        return self.receipts[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The count of the verdicts. `agreed` is None while too few verifiers could be found."""

    agreed: bool | None
    verdicts: tuple[Signed[Verdict], ...]
    candidates: tuple[PeerId, ...]

    @property
    def agreeing(self) -> int:
        return sum(it.record.agrees for it in self.verdicts)


@dataclass(slots=True)
class Quorum:
    needed: int
    verifiers: int
    asked: set[PeerId] = field(default_factory=set)
    verdicts: list[Signed[Verdict]] = field(default_factory=list)
    agree: int = 0
    differ: int = 0
    under_way: dict[PeerId, float] = field(default_factory=dict)

    @property
    def agreed(self) -> bool | None:
        if self.agree >= self.needed:
            return True
        # So many differ that the others cannot reach `needed`.
        if self.differ > self.verifiers - self.needed:
            return False
        return None

    def wanted(self, slow_since_at_s: float) -> int:
        """How many more to ask now; verifiers asked before `slow_since_at_s` do not count."""
        awaited = sum(asked_at_s > slow_since_at_s for asked_at_s in self.under_way.values())
        votes = self.agree + self.differ + awaited
        return max(0, min(self.needed - self.agree - awaited, self.verifiers - votes))


@dataclass(slots=True)
class Checking:
    """Asks verifiers for one peer."""

    peers: Peers

    def candidates(self, claimed: CheckRequest) -> list[PeerId]:
        """The known verifiers that run the leg's model, without the peers that did the task."""
        doers = {it.signer for it in claimed.receipts} | {claimed.task.signer, self.peers.me}
        known = self.verifiers(claimed.receipt.record.model) - doers
        return sorted(known)[: limits.CANDIDATES_MAX]

    def verifiers(self, model: ContentId | None) -> set[PeerId]:
        """The known verifiers that run a model, and may be asked."""
        found = self.peers.view.candidates(Role.VERIFY, model, self.peers.environment.wall_s())
        standing = self.peers.standing
        return {it.signer for it in found if standing(it.signer) is not Standing.BANNED}

    async def check(
        self,
        claimed: CheckRequest,
        on_event: EventSink,
        *,
        deadline_at_s: float,
        terms: Terms | None = None,
    ) -> Tally:
        """Collect verdicts until enough agree, too many differ, or the deadline passes.

        The task's own terms apply if no others are given.
        """
        terms = terms or claimed.task.record.checking
        poll = Quorum(terms.needed, terms.verifiers)
        known: set[PeerId] = set()
        patience = Backoff()
        wake = trio.Event()
        # A verifier recomputes a part of the leg, on a machine that may be half as fast.
        slow_after_s = SLOW_AFTER_S + min(30.0, claimed.receipt.record.duration_ms / 1000)

        async def ask(verifier: PeerId) -> None:
            nonlocal wake
            try:
                verdict = await self._ask(claimed, verifier, deadline_at_s)
            except Refused as error:
                if (again_s := ask_again_s(error)) is not None:
                    poll.asked.discard(verifier)
                    patience.refused(verifier, again_s, trio.current_time())
                on_event(Failed("verify", verifier, error.message, error.code))
            except (TransportError, WireError, RemoteProtocolError) as error:
                on_event(Failed("verify", verifier, error.message))
            else:
                self._count(poll, verdict, on_event)
            del poll.under_way[verifier]
            wake.set()
            wake = trio.Event()

        async with trio.open_nursery() as nursery:
            while poll.agreed is None and trio.current_time() < deadline_at_s:
                # Verifiers that become known during the wait are included: the draw is by key.
                known.update(self.candidates(claimed))
                now_at_s = trio.current_time()
                drawn = draw(claimed.secret, claimed.receipt.id, known)
                # Peers that were silent before are asked last: waiting for them costs the most.
                drawn.sort(key=lambda it: self.peers.standing(it) is Standing.UNWELCOME)
                ready = patience.ready([it for it in drawn if it not in poll.asked], now_at_s)
                wanted = poll.wanted(now_at_s - slow_after_s)
                if wanted > len(ready):
                    nursery.start_soon(self._look_further, claimed)
                for verifier in ready[:wanted]:
                    poll.asked.add(verifier)
                    poll.under_way[verifier] = now_at_s
                    nursery.start_soon(ask, verifier)
                event = wake
                with trio.move_on_at(min(deadline_at_s, now_at_s + PAUSE_S)):
                    await event.wait()
            slow_since_at_s = trio.current_time() - slow_after_s
            for verifier, asked_at_s in poll.under_way.items():
                if asked_at_s <= slow_since_at_s:
                    self.peers.offended(verifier, Offence.SLOW)
            nursery.cancel_scope.cancel()
        return Tally(
            agreed=poll.agreed,
            verdicts=tuple(poll.verdicts),
            candidates=tuple(sorted(known))[: limits.CANDIDATES_MAX],
        )

    async def _look_further(self, claimed: CheckRequest) -> None:
        model = claimed.receipt.record.model
        await self.peers.seek(Role.VERIFY, model, deadline_s=SLOW_AFTER_S)

    def _count(self, poll: Quorum, verdict: Signed[Verdict], on_event: EventSink) -> None:
        poll.verdicts.append(verdict)
        self.peers.view.keep(verdict.signer)
        on_event(Checked(verdict))
        if verdict.record.agrees:
            poll.agree += 1
        else:
            # What could not be checked, because something was withheld, counts as a failed check.
            poll.differ += 1

    async def _ask(
        self, claimed: CheckRequest, verifier: PeerId, deadline_at_s: float
    ) -> Signed[Verdict]:
        # A silent verifier must leave time for another.
        left_s = min(stretched(CHECK_DEADLINE_S), max(0.0, deadline_at_s - trio.current_time()) / 2)
        message = Check(
            task=claimed.task.raw,
            receipts=tuple(it.raw for it in claimed.receipts),
            secret=claimed.secret,
            input=claimed.input,
            output=claimed.output,
            deadline_ms=max(1, int(left_s * 1000)),
        )
        async with self.peers.call(verifier, deadline_s=left_s) as call:
            await call.send(message)
            finding = await call.expect(VerdictReply)
            verdict = open_signed(finding.verdict, Verdict)
            check_verdict(claimed.receipt, claimed.secret, verdict, verifier)
        return verdict
