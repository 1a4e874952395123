"""A member of the ledger among peers: it answers owners, and ends epochs with the other members.

The thin shell around `Replica` and `EpochEnd`: it writes before it tells, tells until it is heard,
and fetches what they lack. Nothing here decides.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from node.ledger.agreement import Wait
from node.ledger.committees import SEATED, Committees
from node.ledger.epoch_end import EpochEnd
from node.ledger.group_signing import GroupSigning, as_write
from node.ledger.member_answers import MemberAnswers
from node.ledger.replica import Replica
from node.ledger.rows import BEGUN, ROUNDS, RowChange, of_epoch
from node.ledger.sync import LedgerCalls
from p2p.peers import Peers
from p2p.timeouts import stretched
from p2p.typed_call import TypedCall, refusal_of
from store import Store, Table
from store.seam import SCAN_ROWS_MAX
from wire import limits
from wire.checkpoint import Checkpoint, buckets_of, digest_in
from wire.content import PeerId
from wire.errors import (
    Refused,
    RemoteProtocolError,
    StoreError,
    TransportError,
    WireError,
)
from wire.evidence import Evidence
from wire.kinds import RefusalCode
from wire.ledger_message import EpochNews
from wire.message import Message

TELL_EVERY_S = 5.0
TELL_AGAIN_S = 1.0
# Who is no member looks so often in an epoch how it has ended, and at least that often.
LOOK_PART, LOOK_S_MAX = 16, 60.0
CALL_DEADLINE_S = 10.0
DISK_AGAIN_S = 1.0
# Of what one member says so much waits to be taken in; older words are told again.
UNHEARD_MAX = 8
_TROUBLES = (TransportError, WireError, RemoteProtocolError, Refused)


def scan_all(store: Store, prefix: bytes) -> list[tuple[bytes, bytes]]:
    """All rows of the ledger whose keys begin so, in order."""
    found: list[tuple[bytes, bytes]] = []
    start = b""
    while True:
        some = store.scan(Table.LEDGER, start=start, prefix=prefix, limit=SCAN_ROWS_MAX)
        found += some
        if len(some) < SCAN_ROWS_MAX:
            return found
        start = some[-1][0] + b"\0"


@dataclass(slots=True)
class LedgerMember:
    """Made by `open_ledger`; `run` has to run meanwhile."""

    peers: Peers
    store: Store
    replica: Replica
    end: EpochEnd
    # What this member has signed about the end of the epoch that runs, to be told to the others.
    told: list[bytes]
    nursery: trio.Nursery
    begun_wall_s: float
    committees: Committees
    signing: GroupSigning = field(init=False)
    answers: MemberAnswers = field(init=False)
    calls: LedgerCalls = field(init=False)
    problem: str = ""
    # What is done with evidence against members.
    on_evidence: Callable[[Evidence], None] = lambda _: None
    # In this epoch.
    _accused: set[PeerId] = field(default_factory=set)
    _acting: trio.Lock = field(default_factory=trio.Lock)
    # What members said and was not taken in yet; of each the latest few.
    _unheard: dict[PeerId, deque[EpochNews]] = field(default_factory=dict)
    _fetching: set[PeerId] = field(default_factory=set)
    _news: trio.Event = field(default_factory=trio.Event)
    _turned: trio.Event = field(default_factory=trio.Event)
    # The members that are told, each by a task of its own.
    _told_of: set[PeerId] = field(default_factory=set)
    # Set when the members of the next epoch are others.
    _reseated: trio.Event = field(default_factory=trio.Event)
    _buckets: tuple[int, int, bytes] = (-1, -1, b"")

    def __post_init__(self) -> None:
        self.signing = GroupSigning(self.replica.key, self.store)
        self.answers = MemberAnswers(self.replica, self.store, self.signing)
        self.calls = LedgerCalls(self.peers)
        self.peers.handlers |= self.answers.handlers()
        self.peers.handlers[EpochNews] = self.on_news

    @property
    def others(self) -> list[PeerId]:
        """The members besides this one."""
        members = (it.key for it in self.replica.committee.members)
        return [it for it in members if it != self.peers.me]

    async def run(self) -> None:
        """Take part for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.signing.run)
            nursery.start_soon(self._seal_in_time)
            nursery.start_soon(self._tell_members, nursery)
            self.end.advance()
            await self._act()

    async def _tell_members(self, nursery: trio.Nursery) -> None:
        """Tell all other members, whoever they are."""
        while True:
            reseated = self._reseated
            for other in self.others:
                if other not in self._told_of:
                    self._told_of.add(other)
                    nursery.start_soon(self._tell, other)
            await reseated.wait()

    async def _look_at(self, other: PeerId) -> None:
        """See how epochs have ended at a member, while this peer is none: it may be seated soon."""
        try:
            await self._once(other, self._follow)
        except (*_TROUBLES, StoreError) as error:
            self.peers.note_problem(f"ledger with {other}", str(error))
        await trio.sleep(
            max(TELL_AGAIN_S, min(LOOK_S_MAX, self.replica.genesis.epoch_s / LOOK_PART))
        )

    # The end of an epoch

    async def _seal_in_time(self) -> None:
        """Seal every epoch when its time is over, by this machine's own clock."""
        while True:
            epoch, turned = self.replica.epoch, self._turned
            passed_s = self.peers.environment.wall_s() - self.begun_wall_s
            left_s = self.replica.genesis.epoch_s - max(0.0, passed_s)
            with trio.move_on_after(max(0.0, left_s)):
                await turned.wait()
            if self.replica.epoch == epoch:
                self.end.seal_now()
                await self._act()
                await turned.wait()

    async def _act(self) -> None:
        """Write what is to be written, then tell it; end the epoch if it is decided."""
        async with self._acting:
            while True:
                to_do = self.end.take()
                if to_do.rows:
                    await self._write(to_do.rows)
                if to_do.signed:
                    self.told += to_do.signed
                    self._wake()
                for wait in to_do.waits:
                    self.nursery.start_soon(self._come_back, wait, self.end)
                if (checkpoint := self.end.checkpoint) is not None:
                    orders = self.end.orders()
                    if orders is not None and not self.replica.broken:
                        await self._turn_or_stop(checkpoint, orders)
                        self.end.advance()
                        continue
                if not (to_do.rows or to_do.signed):
                    return

    async def _come_back(self, wait: Wait, end: EpochEnd) -> None:
        await trio.sleep(stretched(wait.delay_s))
        if self.end is end:
            end.on_timeout(wait.step, wait.round)
            await self._act()

    async def _write(self, rows: list[RowChange]) -> None:
        """Write, however long the disk refuses: what is to be told is not told before."""
        while True:
            try:
                await self.store.commit(as_write(rows))
            except StoreError as error:
                self.problem = f"the ledger cannot be written: {error.message}"
                await trio.sleep(DISK_AGAIN_S)
            else:
                self.problem = ""
                return

    async def _turn_or_stop(self, checkpoint: Checkpoint, orders: tuple[bytes, ...]) -> None:
        """Turn; a quorum that has decided what cannot be ends this membership, and not the peer."""
        try:
            await self._turn(checkpoint, orders)
        except WireError as error:
            self.replica.broken = f"a quorum has decided what its orders do not lead to: {error}"

    async def _turn(self, checkpoint: Checkpoint, orders: tuple[bytes, ...]) -> None:
        ended = self.replica.epoch
        rows = self.replica.turn(checkpoint, orders)
        rows += [(key, None) for key, _ in scan_all(self.store, of_epoch(ROUNDS, ended))]
        if self.replica.tip is not None and self.committees.note(self.replica.tip):
            rows.append((SEATED, self.committees.to_bytes()))
            self._reseated.set()
            self._reseated = trio.Event()
        self.begun_wall_s = self.peers.environment.wall_s()
        rows.append((BEGUN, int(self.begun_wall_s * 1000).to_bytes(8, "big")))
        self.end, self.told = EpochEnd(self.replica), []
        self._accused.clear()
        self.replica.writing = True
        await self._write(rows)
        self.replica.writing = False
        self._turned.set()
        self._turned = trio.Event()
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # News

    def _buckets_now(self) -> bytes:
        """The digests of what is applied, worked out again only if it has changed."""
        epoch, count = self.replica.epoch, len(self.replica.applied)
        if self._buckets[:2] != (epoch, count):
            self._buckets = (epoch, count, buckets_of(self.replica.applied))
        return self._buckets[2]

    def _word(self, signed: list[bytes]) -> EpochNews:
        return EpochNews(
            epoch=self.replica.epoch, buckets=self._buckets_now(), signed=tuple(signed)
        )

    async def _tell(self, other: PeerId) -> None:
        """Tell one member what we sign, soon when there is news, and all again once in a while.

        It ends by itself when that is no member any more, and is never cut off: what it is told may
        end an epoch here.
        """
        end, told = self.end, 0
        while other in self.replica.committee.index:
            if self.replica.place is None:
                await self._look_at(other)
                continue
            if self.end is not end:
                end, told = self.end, 0
            news = self._news
            some = self.told[told : told + limits.EPOCH_NEWS_MAX]
            try:
                await self._call(other, some)
            except (*_TROUBLES, StoreError):
                await trio.sleep(TELL_AGAIN_S)
                continue
            told += len(some)
            if self.end is not end or told < len(self.told):
                continue
            with trio.move_on_after(TELL_AGAIN_S if self.told else TELL_EVERY_S) as quiet:
                await news.wait()
            if quiet.cancelled_caught:
                told = 0
        self._told_of.discard(other)

    async def _call(self, other: PeerId, some: list[bytes]) -> None:
        async with self.peers.call(other, deadline_s=stretched(CALL_DEADLINE_S)) as call:
            await call.send(self._word(some))
            reply = await call.expect(EpochNews)
        await self._hear(other, reply)

    async def on_news(self, call: TypedCall, message: Message) -> None:
        """Take in what another member has signed, and tell it the same of us."""
        assert isinstance(message, EpochNews)
        if call.peer not in self.replica.committee.index:
            refusal = Refused("only members say how an epoch ends", code=RefusalCode.NOT_WILLING)
            await call.send(refusal_of(refusal))
            return
        await call.send(self._word(self.told[-limits.EPOCH_NEWS_MAX :]))
        waiting = self._unheard.get(call.peer)
        if waiting is None:
            waiting = self._unheard[call.peer] = deque(maxlen=UNHEARD_MAX)
            self.nursery.start_soon(self._hear_quietly, call.peer, waiting)
        waiting.append(message)

    async def _hear_quietly(self, other: PeerId, waiting: deque[EpochNews]) -> None:
        """Take in what one member said, one word after the other: a flood is not more work."""
        try:
            while waiting:
                # Each may be some signatures to check: others are to have their turn.
                await trio.lowlevel.checkpoint()
                try:
                    await self._hear(other, waiting.popleft())
                except (*_TROUBLES, StoreError) as error:
                    self.peers.note_problem(f"ledger with {other}", str(error))
        finally:
            del self._unheard[other]

    async def _hear(self, other: PeerId, news: EpochNews) -> None:
        if news.epoch > self.replica.epoch:
            await self._once(other, self._follow)
        if news.epoch != self.replica.epoch:
            return
        self.replica.note_running(other, news.epoch)
        for raw in news.signed:
            try:
                self.end.receive(raw)
            except WireError as error:
                # It is another's word that it passed on, or about an epoch that has just ended.
                self.peers.note_problem(f"ledger with {other}", str(error))
            if self.replica.epoch != news.epoch:
                return
        self._tell_evidence()
        await self._act()
        wanted = [*self.end.unresolved(), news.buckets]
        for buckets in wanted:
            if news.epoch == self.replica.epoch and buckets != self._buckets_now():
                await self._once(other, self._gather, buckets)

    async def _once(self, other: PeerId, fetch: object, *arguments: object) -> None:
        """Fetch from one member, unless something is being fetched from it."""
        if other in self._fetching:
            return
        self._fetching.add(other)
        try:
            await fetch(other, *arguments)  # type: ignore[operator]
        finally:
            self._fetching.discard(other)

    async def _gather(self, other: PeerId, buckets: bytes) -> None:
        """Know all orders that these buckets stand for, from one member."""
        epoch, replica = self.replica.epoch, self.replica
        listed: set[bytes] = set()
        for number in replica.resolve(buckets).buckets:
            knows_lists = self.peers.neighbours.known_version(other) >= limits.LISTS_VERSION
            digest = digest_in(buckets, number) if knows_lists else b""
            orders = await self.calls.bucket(other, epoch, number, digest)
            if self.replica.epoch != epoch:
                return
            replica.lists.note(orders, other)
            listed.update(orders)
        missing = [it for it in listed if it not in replica.orders]
        missing = list(dict.fromkeys([*replica.resolve(buckets).missing, *missing]))
        for raw in await self.calls.certificates(other, epoch, missing):
            if self.replica.epoch != epoch:
                return
            replica.learn(raw)
            self.end.equivocations.note_certificate(raw, replica.committee.members)
            # Each is some signatures to check: others are to have their turn.
            await trio.lowlevel.checkpoint()
        self._tell_evidence()
        await self._apply()

    def _tell_evidence(self) -> None:
        """Give away what was found against members since the last time."""
        for member, evidence in self.end.equivocations.found.items():
            if member not in self._accused:
                self._accused.add(member)
                self.peers.note_problem(f"ledger with {member}", "it signed two things at once")
                self.on_evidence(evidence)

    async def _apply(self) -> None:
        async with self._acting:
            rows = self.replica.catch_up()
            if rows:
                await self._write(rows)
            self.end.advance()
        await self._act()

    async def _follow(self, other: PeerId) -> None:
        """End epochs as they have ended at another member, by their checkpoints."""
        while True:
            epoch = self.replica.epoch
            running, checkpoint = await self.calls.checkpoint(other, epoch)
            self.replica.note_running(other, running)
            if checkpoint is None or self.replica.epoch != epoch:
                return
            header = self.replica.check_checkpoint(checkpoint)
            await self._gather(other, header.buckets)
            async with self._acting:
                if self.replica.epoch != epoch:
                    continue
                orders = self.replica.resolve(header.buckets).orders
                if orders is None:
                    raise Refused("a member does not give the orders of its last checkpoint")
                await self._turn(checkpoint, orders)
