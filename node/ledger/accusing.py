"""How this peer has a jury asked: it announces a case, and shows the evidence an epoch later.

The evidence is written down before anything is announced: a case that is never shown costs its
bond.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from node.evidence.charges import charged
from node.ledger.books import Draft
from node.ledger.case_places import NOTICE_EPOCHS, CasePlaces, check_new, notices_in
from node.ledger.juries import salt_for
from node.ledger.rows import PENDING
from node.ledger.wallet import Emit, Ordered, Wallet, unheard
from store import Table
from wire.codec import pack, unpack
from wire.errors import BatonError
from wire.evidence import Evidence
from wire.jury import CaseNotice, JurySteps, ShownCase, charge_seal, evidence_digest

LOOK_EVERY_S_MAX, LOOK_EVERY_S_MIN = 60.0, 0.5
# One account has one case at a time; others are left over where that was refused.
PENDING_MAX = 64


@dataclass(slots=True)
class Accusing:
    """`run` has to run, so that what was announced is shown."""

    wallet: Wallet
    # The books that are known here, and after asking for the latest.
    draft: Callable[[], Draft]
    latest_draft: Callable[[], Awaitable[Draft]]

    async def announce(self, evidence: bytes, bond: int, emit: Emit) -> Ordered:
        """Announce a case with this bond, or what is needed now if that is more; until it settles.

        WireError if no jury can be asked about it.
        """
        key, draft = self.wallet.key, await self.latest_draft()
        act = check_new(draft, key.peer, charged(Evidence.from_bytes(evidence)))
        bond = max(bond, CasePlaces.of(draft.books.motions.rows).bond(act))
        digest = evidence_digest(evidence)
        seal = charge_seal(key.peer, digest, salt_for(key, digest))
        await self.wallet.store.write(Table.LEDGER, PENDING + seal, pack([draft.epoch, evidence]))
        step = JurySteps(announce=(CaseNotice(seal=seal, bond=bond),))
        return await self.wallet.order(emit, jury=(step,))

    async def run(self) -> None:
        """For ever: show what was announced in an epoch that has ended."""
        every_s = max(LOOK_EVERY_S_MIN, min(LOOK_EVERY_S_MAX, self.wallet.genesis.epoch_s / 8))
        while True:
            await trio.sleep(every_s)
            for key, value in self._pending():
                try:
                    await self._show(key, value)
                except BatonError as error:
                    self.wallet.peers.note_problem("accusing", error.message)

    def _pending(self) -> list[tuple[bytes, bytes]]:
        return self.wallet.store.scan(Table.LEDGER, prefix=PENDING, limit=PENDING_MAX)

    async def _show(self, key: bytes, value: bytes) -> None:
        draft, seal = self.draft(), key[len(PENDING) :]
        since, evidence = unpack(value)
        notices = notices_in(draft.books.motions.rows.items())
        case = next((name for name, it in notices.items() if it.seal == seal), None)
        if case is None:
            if draft.epoch > since + NOTICE_EPOCHS:
                # It was shown, or never settled, or it is too late for it.
                await self.wallet.store.write(Table.LEDGER, key, None)
            return
        salt = salt_for(self.wallet.key, evidence_digest(evidence))
        step = JurySteps(charge=(ShownCase(case=case, salt=salt, evidence=evidence),))
        await self.wallet.order(unheard, jury=(step,))
        await self.wallet.store.write(Table.LEDGER, key, None)
