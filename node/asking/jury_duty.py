"""What this peer does when it has a seat in a jury: it looks with its own engine, seals what it
found, and tells it once all are bound.

It abstains from what it cannot look at: a model that it has not, or whose answers on another kind
of device prove nothing; and an answer that whoever accuses does not show.
"""

from dataclasses import dataclass, field
from functools import partial

import trio

from node.asking.own_judge import OwnJudge
from node.checking.check_request import CheckRequest
from node.evidence.charges import AccusedWork, charged
from node.ledger.juries import is_asked, open_cases, seal_or_find, to_tell
from node.ledger.motion_shelf import FOUND, SEALED
from node.ledger.peer_ledger import PeerLedger
from node.ledger.wallet import unheard
from p2p.timeouts import stretched
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import BatonError
from wire.evidence import Evidence
from wire.jury import CaseRow
from wire.latest import Latest

LOOK_EVERY_S_MAX, LOOK_EVERY_S_MIN = 60.0, 1.0
# One look costs what a check costs; what could not be looked at is tried again after a while.
LOOKS_AT_ONCE = 2
AGAIN_S = 300.0
KEPT = 256
# For what a case only names, as it is too large to be in it.
BRING_S = 30.0


@dataclass(slots=True)
class JuryDuty:
    """`run` has to run at a peer that has staked on verifying."""

    ledger: PeerLedger
    judge: OwnJudge
    # How many findings were given since the start.
    given: int = 0
    _tried_at_s: Latest[bytes, float] = field(default_factory=lambda: Latest(KEPT))

    @property
    def _me(self) -> PeerId:
        return self.ledger.wallet.key.peer

    async def run(self) -> None:
        """For ever: look at cases in which this peer has a seat."""
        every_s = max(LOOK_EVERY_S_MIN, min(LOOK_EVERY_S_MAX, self.ledger.genesis.epoch_s / 4))
        while True:
            await trio.sleep(every_s)
            # What leaves may still be bound to what it has sealed.
            if not self.ledger.stakes.row(self._me).total:
                continue
            try:
                await self._tell()
                for name, row in self._due()[:LOOKS_AT_ONCE]:
                    self._tried_at_s[name] = trio.current_time()
                    await self._find(name, row)
            except BatonError as error:
                self.ledger.wallet.peers.note_problem("jury", error.message)

    async def _tell(self) -> None:
        rows = self.ledger.draft().books.motions.rows
        told = tuple(to_tell(self.ledger.wallet.key, rows))[: limits.ACTIONS_MAX]
        if told:
            await self.ledger.wallet.order(unheard, find=told)

    def _due(self) -> list[tuple[bytes, CaseRow]]:
        """Cases that this peer is asked about, and has said nothing of.

        Those not tried yet come first: who shows nothing keeps nobody else's case waiting.
        """
        draft = self.ledger.draft()
        rows = draft.books.motions.rows
        found = []
        for name, row in open_cases(rows).items():
            kind = SEALED if row.attempt else FOUND
            late_s = trio.current_time() - self._tried_at_s.get(name, float("-inf"))
            is_new = kind + name + self._me not in rows and late_s >= AGAIN_S
            if is_new and is_asked(draft, self._me, row):
                found.append((name, row))
        return sorted(found, key=lambda it: self._tried_at_s.get(it[0], float("-inf")))

    async def _find(self, name: bytes, row: CaseRow) -> None:
        wrong = await self.look(name, row)
        if wrong is None:
            return
        wallet = self.ledger.wallet
        await wallet.order(unheard, **seal_or_find(wallet.key, name, row, wrong=wrong))
        self.given += 1

    async def _payload(
        self, row: CaseRow, charge: AccusedWork
    ) -> tuple[bytes | None, bytes | None]:
        """Input and output of the accused leg; None for what nobody has, or shows this peer."""
        if charge.source is not None and charge.output is not None:
            return charge.source, charge.output
        leg = charge.receipt.record
        if leg.input is None:
            return None, None
        # Without one of them the other is of no use, and is not waited for.
        output = await self._brought(row, leg.output)
        return (None if output is None else await self._brought(row, leg.input)), output

    async def _brought(self, row: CaseRow, content: ContentId) -> bytes | None:
        # Whoever accuses has to show it; the accused has no reason to.
        holders = (row.accuser, row.asker, row.culprit)
        try:
            return await self.judge.verify_role.blobs.get(
                content,
                holders,
                deadline_s=stretched(BRING_S),
                size_bytes_max=limits.TENSORS_BYTES_MAX,
            )
        except BatonError:
            return None

    async def look(self, name: bytes, row: CaseRow) -> bool | None:
        """Whether the answer is wrong, by this peer's own engine; None if it cannot say."""
        read = partial(Evidence.from_bytes, row.evidence)
        charge = charged(await trio.to_thread.run_sync(read))
        source, output = await self._payload(row, charge)
        if source is None or output is None:
            return None
        claimed = CheckRequest(
            task=charge.task, receipts=charge.receipts, secret=name, input=source, output=output
        )
        found = await self.judge.look(claimed, output)
        if found is None or not found.decides(charge.receipt.record):
            return None
        return not found.verdict.agrees
