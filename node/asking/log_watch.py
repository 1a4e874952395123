"""Watches others' logs: rarely it swaps news of heads, and asks a signer where a receipt of it is.

Who shows two logs is banned, and both heads are kept as one record, as a file too, that anybody can
check with `verify`. Who does not show a receipt that it signed is only noted: a third party cannot
know that it was asked.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import trio

from node.asking.answers import Answers
from node.asking.record_files import RecordFiles
from node.checking.audit_log import read_place
from node.serving.log_role import LogRole
from p2p.connect import TROUBLES
from p2p.peers import Peers
from p2p.score import Offence, Standing
from p2p.timeouts import stretched
from store import Row, Table, Write
from wire import limits
from wire.content import PeerId
from wire.errors import Refused, StoreError, WireError
from wire.kinds import RefusalCode
from wire.log import AskHeads, AskPlace, LogFork, LogHead, LogNews, LogPlace, LogPlaces, judge
from wire.message import encode
from wire.receipt import Receipt
from wire.signed import Signed, open_signed, sign

NEWS_EVERY_S = 600.0
# After a start: so many neighbours are asked, within so long; how long anybody is waited for.
SOME, SOME_S, NOBODY_S, LOOK_S = 3, 5.0, 60.0, 0.5
CALL_S = 10.0
# Of so many of the latest answers one receipt is looked for in its signer's log.
LOOKED_AT = 32
FORK_SUFFIX = ".fork"
# In the verdicts table: the fork of a peer.
_FORK = b"fork:"
FORKS_READ_MAX = 64
# A ban fades; one for which there is proof is renewed, with so much each time.
OFFENCES = 4


@dataclass(slots=True)
class LogWatch:
    """One peer's watch over the logs of others."""

    peers: Peers
    role: LogRole
    answers: Answers
    files: RecordFiles
    nursery: trio.Nursery
    random: Random
    # Receipts that their signer did not show in its log, by the latest look.
    not_shown: dict[PeerId, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.role.on_fork, self.role.on_lost = self.found, self._lost
        rows = self.answers.store.scan(Table.VERDICTS, prefix=_FORK, limit=FORKS_READ_MAX)
        for key, raw in rows:
            try:
                self.role.book.forks[PeerId(key.removeprefix(_FORK))] = LogFork.from_bytes(raw)
            except WireError:
                # It is damaged on the disk.
                continue

    def found(self, fork: LogFork) -> None:
        """Two heads contradict each other: their signer is banned, and the proof is kept."""
        forks = self.role.book.forks
        before = list(forks)
        try:
            culprit = self.role.book.take(fork)
        except WireError:
            return
        if culprit is None or culprit == self.peers.me:
            return
        gone = [it for it in before if it not in forks]
        self._ban(culprit)
        self.peers.note_problem(f"log of {culprit}", judge(fork).why)
        self.nursery.start_soon(self._keep, culprit, fork, gone)

    async def _keep(self, culprit: PeerId, fork: LogFork, gone: Sequence[PeerId]) -> None:
        signed = sign(fork, self.peers.key)
        # As many are on the disk as are known: keys, and forks of them, cost nothing to make.
        rows = [Row(Table.VERDICTS, _FORK + it, None) for it in gone]
        rows.append(Row(Table.VERDICTS, _FORK + culprit, fork.to_bytes()))
        try:
            await self.answers.store.commit(Write(rows=tuple(rows)))
        except StoreError:
            # The ban holds all the same, until the next start.
            return
        finally:
            await self.files.write(f"{signed.id}{FORK_SUFFIX}", signed.raw)

    def _ban(self, culprit: PeerId) -> None:
        for _ in range(OFFENCES):
            self.peers.offended(culprit, Offence.WRONG_ANSWER)

    def _lost(self) -> None:
        words = "it has signed more than this folder knows, which was put back from a copy: another"
        self.peers.note_problem("own log", f"{words} log begins, as if the disk had been lost")

    async def make_sure(self) -> None:
        """Hear from some neighbours which was the latest head of this peer, then sign new ones."""
        if not self.role.log.is_unsure:
            return
        asked: set[PeerId] = set()
        until_at_s = trio.current_time() + stretched(NOBODY_S)
        soon_at_s = trio.current_time() + stretched(SOME_S)
        while trio.current_time() < (soon_at_s if asked else until_at_s) and len(asked) < SOME:
            # Drawn: who is the first by its key could say nothing, and we would convict ourselves.
            others = sorted(self.peers.view.connected - asked)
            self.random.shuffle(others)
            for peer in others[: SOME - len(asked)]:
                if await self.swap_with(peer):
                    asked.add(peer)
            await trio.sleep(LOOK_S)
        self.role.log.sure()

    async def run(self) -> None:
        """Look around now and then, for as long as this peer runs."""
        await self.make_sure()
        while True:
            await trio.sleep(NEWS_EVERY_S)
            for culprit in self.role.book.forks:
                if culprit != self.peers.me:
                    self._ban(culprit)
            await self.swap_news()
            # A disk that cannot be read now is no reason to stop.
            with suppress(StoreError):
                await self.look_for_one()

    async def swap_news(self) -> None:
        """Tell one neighbour what is known here, and hear what it knows."""
        able = [it for it in sorted(self.peers.view.connected) if self._is_asked(it)]
        if able:
            await self.swap_with(self.random.choice(able))

    async def swap_with(self, peer: PeerId) -> bool:
        """Tell this peer what is known here, and hear what it knows; whether it told anything."""
        try:
            if not await self._knows_logs(peer):
                return False
            async with self.peers.call(peer, deadline_s=stretched(CALL_S)) as call:
                await call.send(await self.role.news(peer))
                await self.role.take(await call.expect(LogNews))
        except (*TROUBLES, Refused, StoreError):
            # Another neighbour is asked next time.
            return False
        return True

    async def look_for_one(self) -> None:
        """Ask the signer of one kept receipt for its place, and hear its head."""
        latest = await self.answers.latest(LOOKED_AT)
        if not latest:
            return
        receipts = self.random.choice(latest).record.receipts
        receipt = open_signed(self.random.choice(receipts), Receipt)
        if receipt.signer != self.peers.me and self._is_asked(receipt.signer):
            await self.place_of(receipt)

    async def places_of(self, receipts: Sequence[Signed[Receipt]]) -> bytes | None:
        """Where these receipts are in their signers' logs, as what lies beside them.

        None if no signer shows any.
        """
        found: list[bytes] = [b""] * len(receipts)

        async def look(at: int) -> None:
            place = await self.place_of(receipts[at])
            found[at] = b"" if place is None else encode(place)

        async with trio.open_nursery() as nursery:
            for at in range(len(receipts)):
                nursery.start_soon(look, at)
        return LogPlaces(places=tuple(found)).to_bytes() if any(found) else None

    async def place_of(self, receipt: Signed[Receipt]) -> LogPlace | None:
        """Where a receipt is in its signer's log, checked; None if that is not shown."""
        try:
            place = await self._asked_place(receipt)
            if place is None:
                return None
            read_place(encode(place), receipt)
        except WireError:
            # What it says is signed by nobody, so that it proves nothing to others.
            self.peers.offended(receipt.signer, Offence.MALFORMED)
            return None
        self.not_shown.pop(receipt.signer, None)
        await self._hear(open_signed(place.head, LogHead))
        return place

    async def _asked_place(self, receipt: Signed[Receipt]) -> LogPlace | None:
        signer = receipt.signer
        if signer == self.peers.me:
            return await self._own_place(receipt)
        try:
            with trio.move_on_after(stretched(CALL_S)):
                if not await self._knows_logs(signer):
                    return None
                while True:
                    try:
                        async with self.peers.call(signer, deadline_s=stretched(CALL_S)) as call:
                            await call.send(AskPlace(receipt=receipt.raw))
                            return await call.expect(LogPlace)
                    except Refused as error:
                        if error.code is RefusalCode.NOT_FOUND:
                            self._not_shown(receipt)
                        if error.retry_after_s is None:
                            return None
                        await trio.sleep(error.retry_after_s)
        except (*TROUBLES, Refused):
            return None
        return None

    async def _own_place(self, receipt: Signed[Receipt]) -> LogPlace | None:
        with trio.move_on_after(stretched(CALL_S)):
            while True:
                try:
                    return await self.role.log.place(receipt.id)
                except Refused as error:
                    if error.retry_after_s is None:
                        return None
                    await trio.sleep(error.retry_after_s)
        return None

    def _not_shown(self, receipt: Signed[Receipt]) -> None:
        if len(self.not_shown) < LOOKED_AT or receipt.signer in self.not_shown:
            self.not_shown[receipt.signer] = str(receipt.id)
        words = f"it does not show the receipt {receipt.id} in its log"
        self.peers.note_problem(f"log of {receipt.signer}", words)

    async def _hear(self, head: Signed[LogHead]) -> None:
        """Take a head in, and have its signer show that it follows on the last that was known."""
        book = self.role.book
        known = book.heads.get(head.signer)
        await self.role.take(LogNews(heads=(head.raw,), forks=()))
        if known is None or head.signer == self.peers.me:
            return
        before, after = known.record, head.record
        same_log = before.began_at_ms == after.began_at_ms
        if not same_log or after.number <= before.number + 1:
            return
        try:
            async with self.peers.call(head.signer, deadline_s=stretched(CALL_S)) as call:
                await call.send(AskHeads(number=before.number + 1))
                between = await call.expect(LogNews)
        except (*TROUBLES, Refused):
            return
        # Each follows on the one before, or else two of them prove a fork.
        chain = [known]
        for raw in (*between.heads, head.raw):
            try:
                chain.append(open_signed(raw, LogHead))
            except WireError:
                return
            if (fork := _fork_of(chain[-2], chain[-1])) is not None:
                self.found(fork)
                return

    async def _knows_logs(self, peer: PeerId) -> bool:
        version = await self.peers.neighbours.version_of(peer, deadline_s=stretched(CALL_S))
        return version >= limits.LOG_VERSION

    def _is_asked(self, peer: PeerId) -> bool:
        return self.peers.standing(peer) is not Standing.BANNED


def kept_fork(answers: Answers, peer: PeerId) -> LogFork | None:
    """The proof that a peer showed two logs, if this peer has one."""
    raw = answers.store.read(Table.VERDICTS, _FORK + peer)
    return None if raw is None else LogFork.from_bytes(raw)


def _fork_of(known: Signed[LogHead], other: Signed[LogHead]) -> LogFork | None:
    fork = LogFork(first=known.raw, second=other.raw)
    try:
        judge(fork)
    except WireError:
        return None
    return fork
