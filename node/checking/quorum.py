"""Having a leg checked: draws the verifiers, asks them, and counts their verdicts.

The lottery's secret is revealed only here, after the receipt was signed. `needed` verifiers are
asked first, each for another part of the rows; more, in the order of the draw, only when some
disagree, refuse or fall silent. A row that one of them finds wrong is recomputed by the others too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import trio

from node.checking.check_order import CheckOrders
from node.checking.odds import raised_by
from node.checking.ties import Ties, apart_first, tied_among, ties_of
from node.checking.verdict import check_verdict
from node.checking.votes import Votes
from node.dispatch.backoff import Backoff
from node.paying.payer import Payer
from node.task.events import Checked, EventSink, Failed
from node.task.refusals import ask_again_s
from p2p.peers import Peers
from p2p.score import Offence, Standing
from p2p.timeouts import stretched
from wire import limits
from wire.content import ContentId, PeerId
from wire.counting import counted
from wire.errors import Refused, RemoteProtocolError, TransportError, WireError
from wire.kinds import RefusalCode, Role
from wire.lottery import OWN_DRAW, Share, draw
from wire.message import Check, VerdictReply
from wire.operations import OPERATIONS, Comparison, by_rows
from wire.receipt import Receipt, Verdict
from wire.signed import Signed, is_of_many, open_signed
from wire.task import CheckPolicy as Terms
from wire.task import Task

# A verifier recomputes a part of a leg that may have taken minutes.
CHECK_DEADLINE_S = 60.0
PAUSE_S = 0.25
# A guess: a verifier that is running answers within this; after it, another is asked too.
SLOW_AFTER_S = 5.0
# A dispute that nobody is left to decide is given up after this: the task goes elsewhere.
DISPUTE_LOST_AFTER_S = 5.0
# A guess: for so long a verifier that says it is busy is waited for while rows are in dispute.
BUSY_IN_DISPUTE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRequest:
    """A leg to be checked: the chain up to and with it, and small payloads at hand."""

    task: Signed[Task]
    receipts: tuple[Signed[Receipt], ...]
    secret: bytes
    input: bytes | None
    output: bytes | None
    # Whose verdicts on it do not count any more: they lost a dispute about it.
    void: frozenset[PeerId] = frozenset()

    @property
    def receipt(self) -> Signed[Receipt]:
        return self.receipts[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The count of the verdicts. `agreed` is None while too few verifiers could be found.

    `disputed`: a verdict names a wrong row, and too few could look at it for a decision.
    """

    agreed: bool | None
    verdicts: tuple[Signed[Verdict], ...]
    candidates: tuple[PeerId, ...]
    disputed: bool = False
    # Of the verifiers that agree, how many may be one owner's for all this peer knows.
    tied: int = 0

    @property
    def agreeing(self) -> int:
        return sum(it.record.agrees for it in self.verdicts)


@dataclass(slots=True)
class Quorum:
    """Who was asked what, who is being asked since when, and the votes."""

    votes: Votes
    asked: dict[PeerId, Share] = field(default_factory=dict)
    under_way: dict[PeerId, float] = field(default_factory=dict)
    # Since when each verifier says that it is busy; any other answer of it ends that.
    busy_since_at_s: dict[PeerId, float] = field(default_factory=dict)
    disputed_since_at_s: float | None = None

    def wanted(self, slow_since_at_s: float) -> int:
        """How many more to ask now; verifiers asked before `slow_since_at_s` do not count."""
        votes = self.votes
        awaited = sum(asked_at_s > slow_since_at_s for asked_at_s in self.under_way.values())
        heard = votes.counted + votes.against + awaited
        wanted = min(votes.needed - votes.counted - awaited, votes.verifiers - heard)
        return max(0, min(wanted, limits.VERIFIERS_MAX - len(votes.latest)))

    def next_share(self, slow_since_at_s: float) -> Share:
        """What the next verifier is asked for."""
        taken = [
            self.asked[it].part for it, at_s in self.under_way.items() if at_s > slow_since_at_s
        ]
        part = self.votes.part_wanted(taken)
        return Share(part, self.votes.needed, self.votes.disputed)

    def again(self) -> dict[PeerId, Share]:
        """Who agreed without having looked at what is disputed now, and is to look at it."""
        disputed = self.votes.disputed
        return {
            it: replace(self.asked[it], rows=disputed)
            for it in self.votes.not_looked
            if it not in self.under_way and not disputed <= self.asked[it].rows
        }

    def is_busy(self, verifier: PeerId, now_at_s: float) -> None:
        """A verifier is to be asked again for what it was asked for now."""
        self.busy_since_at_s.setdefault(verifier, now_at_s)
        if verifier in self.votes.latest:
            self.asked[verifier] = replace(self.asked[verifier], rows=frozenset())
        else:
            del self.asked[verifier]

    def stalling(self, now_at_s: float) -> set[PeerId]:
        """Who has been busy for too long in a dispute: it may still answer, but nobody waits."""
        if not self.votes.disputed:
            return set()
        if self.disputed_since_at_s is None:
            self.disputed_since_at_s = now_at_s
        # Who began to look in time may take as long as any other.
        return {
            it
            for it, since_at_s in self.busy_since_at_s.items()
            if self.under_way.get(it, now_at_s) - max(since_at_s, self.disputed_since_at_s)
            >= BUSY_IN_DISPUTE_S
        }


@dataclass(slots=True)
class Checking:
    """Asks verifiers for one peer."""

    peers: Peers
    # None where every check goes by a conversation of its own.
    orders: CheckOrders | None = None
    # None in a network without credits, where nobody asks for any.
    payer: Payer | None = None
    # Checks that each verifier does for us now.
    under_way: dict[PeerId, int] = field(default_factory=dict)

    def candidates(self, claimed: CheckRequest) -> list[PeerId]:
        """The known verifiers that run the leg's model, without the peers that did the task."""
        doers = {it.signer for it in claimed.receipts} | {claimed.task.signer, self.peers.me}
        doers |= claimed.void
        known = self.verifiers(claimed.receipt.record.model) - doers
        if self.payer is not None:
            known = self.payer.payable(known, claimed.task.record)
        return sorted(known)[: limits.CANDIDATES_MAX]

    def verifiers(self, model: ContentId | None) -> set[PeerId]:
        """The known verifiers that run a model, and may be asked."""
        found = self.peers.view.candidates(Role.VERIFY, model, self.peers.environment.wall_s())
        standing = self.peers.standing
        return {it.signer for it in found if standing(it.signer) is not Standing.BANNED}

    def ties(self, peers: Iterable[PeerId]) -> Ties:
        """What ties known peers to each other."""
        wanted = set(peers)
        entries = self.peers.view.lasting(self.peers.environment.wall_s())
        return {
            it.heard.signer: ties_of(it.introducer, it.heard.record.addresses)
            for it in entries
            if it.heard.signer in wanted
        }

    async def check(
        self,
        claimed: CheckRequest,
        on_event: EventSink,
        *,
        deadline_at_s: float,
        terms: Terms | None = None,
        rejected: int = 0,
    ) -> Tally:
        """Collect verdicts until enough agree, too many differ, or the deadline passes.

        The task's own terms apply if no others are given. After `rejected` attempts as many more
        verdicts are needed, where so many more verifiers are known.
        """
        terms = terms or claimed.task.record.checking
        more = raised_by(rejected, len(self.candidates(claimed)), terms.verifiers)
        more = min(more, limits.VERIFIERS_MAX - terms.verifiers)
        quorum = Quorum(Votes(terms.needed + more, terms.verifiers + more))
        return await _Check(self, claimed, on_event, deadline_at_s, quorum).run()


@dataclass(slots=True)
class _Check:
    """One leg that is being checked."""

    checking: Checking
    claimed: CheckRequest
    on_event: EventSink
    deadline_at_s: float
    quorum: Quorum
    known: set[PeerId] = field(default_factory=set)
    patience: Backoff = field(default_factory=Backoff)
    wake: trio.Event = field(default_factory=trio.Event)
    # Since when nobody is left who could decide a dispute.
    lost_since_at_s: float | None = None

    @property
    def peers(self) -> Peers:
        return self.checking.peers

    @property
    def slow_after_s(self) -> float:
        # A verifier recomputes a part of the leg, on a machine that may be half as fast.
        return SLOW_AFTER_S + min(30.0, self.claimed.receipt.record.duration_ms / 1000)

    async def run(self) -> Tally:
        votes = self.quorum.votes
        async with trio.open_nursery() as nursery:
            while votes.accepted is None and trio.current_time() < self.deadline_at_s:
                now_at_s = trio.current_time()
                self._ask_more(nursery, now_at_s)
                if self._is_lost(now_at_s):
                    break
                event = self.wake
                with trio.move_on_at(min(self.deadline_at_s, now_at_s + PAUSE_S)):
                    await event.wait()
            now_at_s = trio.current_time()
            under_way = self.quorum.under_way.items()
            slow = {it for it, at_s in under_way if at_s <= now_at_s - self.slow_after_s}
            for verifier in sorted(slow | self.quorum.stalling(now_at_s)):
                self.peers.offended(verifier, Offence.SLOW)
            nursery.cancel_scope.cancel()
        accepted = votes.accepted
        is_open = accepted is None and bool(votes.disputed)
        return Tally(
            # What nobody is left to decide is not accepted.
            agreed=False if is_open and self.lost_since_at_s is not None else accepted,
            verdicts=tuple(votes.in_order()),
            candidates=tuple(sorted(self.known))[: limits.CANDIDATES_MAX],
            disputed=is_open,
            tied=self._tied(),
        )

    def _tied(self) -> int:
        agree = [it.signer for it in self.quorum.votes.agreeing]
        return tied_among(agree, self.checking.ties(agree))

    def _ask_more(self, nursery: trio.Nursery, now_at_s: float) -> None:
        quorum, patience = self.quorum, self.patience

        def begin(verifier: PeerId, share: Share) -> None:
            quorum.asked[verifier] = share
            quorum.under_way[verifier] = now_at_s
            nursery.start_soon(self._ask, verifier, share)

        # Who agreed without having looked at a row in dispute is asked to look.
        again = quorum.again()
        for verifier in patience.ready(list(again), now_at_s):
            begin(verifier, again[verifier])
        slow_since_at_s = now_at_s - self.slow_after_s
        # Verifiers that become known during the wait are included: the draw is by key.
        self.known.update(self.checking.candidates(self.claimed))
        wanted = quorum.wanted(slow_since_at_s)
        # Their order takes a walk of the view, and most times nobody more is wanted.
        unasked = self._unasked() if wanted else []
        ready = patience.ready(unasked, now_at_s)
        if wanted > len(ready):
            nursery.start_soon(self._look_further)
        for verifier in ready[:wanted]:
            begin(verifier, quorum.next_share(slow_since_at_s))
        # Who is busy for ever must not keep the task here until its deadline.
        hoped_for = {*quorum.under_way, *again, *unasked}
        if hoped_for - quorum.stalling(now_at_s) or not quorum.votes.disputed:
            self.lost_since_at_s = None
        elif self.lost_since_at_s is None:
            self.lost_since_at_s = now_at_s

    def _unasked(self) -> list[PeerId]:
        """Who was not asked yet, in the order in which they are to be."""
        drawn = draw(self.claimed.secret, self.claimed.receipt.id, self.known)
        asked = self.quorum.asked
        left = [it for it in drawn if it not in asked]
        # Who said no, or nothing, leaves its place to whoever is next.
        agree = {it.signer for it in self.quorum.votes.agreeing} | self.quorum.under_way.keys()
        left = apart_first(left, agree, self.checking.ties(self.known))
        # Peers that were silent before are asked last: waiting for them costs the most.
        left.sort(key=lambda it: self.peers.standing(it) is Standing.UNWELCOME)
        return left

    def _is_lost(self, now_at_s: float) -> bool:
        since_at_s = self.lost_since_at_s
        return since_at_s is not None and now_at_s - since_at_s >= DISPUTE_LOST_AFTER_S

    async def _look_further(self) -> None:
        model = self.claimed.receipt.record.model
        await self.peers.seek(Role.VERIFY, model, deadline_s=SLOW_AFTER_S)

    async def _ask(self, verifier: PeerId, share: Share) -> None:
        quorum, on_event = self.quorum, self.on_event
        again_s: float | None = None
        try:
            verdict, share = await self._verdict(verifier, share)
        except Refused as error:
            if (again_s := ask_again_s(error)) is not None:
                quorum.is_busy(verifier, trio.current_time())
                self.patience.refused(verifier, again_s, trio.current_time())
            on_event(Failed("verify", verifier, error.message, error.code))
        except (TransportError, WireError, RemoteProtocolError) as error:
            on_event(Failed("verify", verifier, error.message))
        else:
            quorum.votes.add(verdict, share.part)
            self.peers.view.keep(verdict.signer)
            on_event(Checked(verdict))
        if again_s is None:
            quorum.busy_since_at_s.pop(verifier, None)
        del quorum.under_way[verifier]
        self.wake.set()
        self.wake = trio.Event()

    async def _verdict(self, verifier: PeerId, share: Share) -> tuple[Signed[Verdict], Share]:
        """A verifier's verdict, and what it is about: a part only where it knows parts."""
        claimed, now_at_s = self.claimed, trio.current_time()
        # A silent verifier must leave time for another.
        left_s = min(stretched(CHECK_DEADLINE_S), max(0.0, self.deadline_at_s - now_at_s) / 2)
        operation = OPERATIONS.get(claimed.receipt.record.operation)
        replayed = operation is not None and operation.comparison is Comparison.REPLAY
        of_many = is_of_many(claimed.task) or any(map(is_of_many, claimed.receipts))
        version = 0
        if replayed or of_many or by_rows(claimed.receipt.record.operation):
            version = await self.peers.neighbours.version_of(verifier, deadline_s=left_s)
        if of_many and version < limits.BUNDLES_VERSION:
            raise Refused(
                f"it speaks version {version}, which cannot read what was signed with others",
                code=RefusalCode.UNSUPPORTED,
            )
        share = _share_known_to(version, share, claimed.receipt.record.operation)
        message = Check(
            task=claimed.task.raw,
            receipts=tuple(it.raw for it in claimed.receipts),
            secret=claimed.secret,
            input=claimed.input,
            output=claimed.output,
            deadline_ms=max(1, int(left_s * 1000)),
            part=share.part,
            parts=share.parts,
            rows=tuple(sorted(share.rows)),
            statistics=replayed and version >= limits.REPLAY_VERSION,
        )
        with counted(self.checking.under_way, verifier) as at_once:
            order, orders = None, self.checking.orders
            if orders is not None and message.input is not None and message.output is not None:
                # What has to be fetched may take long, and goes by itself.
                order = await orders.at(verifier, left_s, at_once)
            if order is None:
                return await self._by_conversation(verifier, message, left_s, share), share
            verdict = await order.verdict_on(message, left_s)
            try:
                check_verdict(claimed.receipt, claimed.secret, verdict, verifier, share)
            except WireError:
                # It is what the verifier says of this leg that does not fit; others go on.
                self.peers.offended(verifier, Offence.MALFORMED)
                raise
            return verdict, share

    async def _by_conversation(
        self, verifier: PeerId, message: Check, left_s: float, share: Share
    ) -> Signed[Verdict]:
        """The verdict on one leg, asked for in a conversation of its own."""
        claimed = self.claimed
        async with self.peers.call(verifier, deadline_s=left_s) as call:
            await call.send(message)
            finding = await call.expect(VerdictReply)
            verdict = open_signed(finding.verdict, Verdict)
            check_verdict(claimed.receipt, claimed.secret, verdict, verifier, share)
        return verdict


def _share_known_to(version: int, share: Share, operation: str) -> Share:
    """What a verifier of this version is asked for: a part only where it knows parts."""
    if not by_rows(operation):
        # Everybody recomputes the whole.
        return OWN_DRAW
    if version >= limits.PARTS_VERSION:
        return share
    if share.rows:
        raise Refused(
            f"it speaks version {version}, which cannot look at a row in dispute",
            code=RefusalCode.UNSUPPORTED,
        )
    return OWN_DRAW
