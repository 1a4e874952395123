"""Wrong acts that askers come across, and what becomes of each where there are stakes.

A devnet knows who was told to misbehave, so it knows every crime. What an asker holds of one
convicts its doer only if anybody can judge it offline; then the asker's owner accuses, as `slash`
does.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio

from node.asking.disputing import Disputing
from node.checking.check_request import CheckRequest
from node.checking.tally import Tally
from node.evidence.offences import judged, work_of
from node.ledger.books import Books
from node.ledger.peer_ledger import PeerLedger
from node.ledger.slashing import BOND_MIN
from node.ledger.wallet import unheard
from node.peer import Node
from wire.content import PeerId
from wire.errors import BatonError, InputError, Refused, WireError
from wire.evidence import Evidence, OffenceKind
from wire.kinds import Role
from wire.ledger import Accusation
from wire.receipt import Receipt
from wire.signed import Signed

# What one owner has not looked at yet; what is more is not accused of.
PENDING_MAX = 4096
LOOK_EVERY_S = 0.5
# An answer and its input are small here; who does not give them in time is not accused.
INPUT_S = 10.0
LYING = "liar"
AGREEING_UNLOOKED = frozenset(("lazy_verifier", "copying_verifier", "whale", LYING))
NAYSAYING = frozenset(("naysaying_verifier", LYING))


@dataclass(slots=True)
class Crimes:
    """The wrong acts of one run. `natures` tells how a peer was told to misbehave, by its key."""

    natures: Callable[[PeerId], frozenset[str]]
    # Every act that an asker came across, by its name: whose it is.
    planted: dict[bytes, PeerId] = field(default_factory=dict)
    # Of these, those that what an asker holds proves to anybody; and those that were accused of.
    shown: dict[bytes, PeerId] = field(default_factory=dict)
    accused: set[bytes] = field(default_factory=set)
    # What was refused although it was proved, in the members' words.
    refused: dict[bytes, str] = field(default_factory=dict)
    false_accusations: int = 0
    false_accusations_taken: int = 0
    # How many accusations are on their way.
    busy: int = 0

    def watch(self, node: Node, nursery: trio.Nursery) -> None:
        """Look at whatever the peer of an asker has checked, and accuse in its owner's name."""
        assert node.ledger is not None
        asker = Accuser(self, node.ledger, node.tasks.disputing)
        node.tasks.disputing.on_checked = asker.note
        nursery.start_soon(asker.run)

    def plant(self, claimed: CheckRequest, votes: Tally) -> None:
        """Note who did something wrong here, whoever can prove it."""
        receipt = claimed.receipt
        if receipt.record.role is not Role.INFER:
            return
        is_wrong = LYING in self.natures(receipt.signer)
        if is_wrong:
            self._plant(receipt.signer, receipt)
        for verdict in votes.verdicts:
            said, natures = verdict.record, self.natures(verdict.signer)
            untrue = AGREEING_UNLOOKED if is_wrong else NAYSAYING
            if said.could_check and said.agrees is is_wrong and natures & untrue:
                self._plant(verdict.signer, receipt)

    def _plant(self, culprit: PeerId, receipt: Signed[Receipt]) -> None:
        self.planted[work_of(culprit, receipt.id).act] = culprit

    def unpunished(self, books: Books) -> list[PeerId]:
        """Who did what is proved, and lost nothing for it though there was something to lose."""
        return [it for it in self._free(books) if books.stakes.row(it).total]

    def beyond_punishment(self, books: Books) -> int:
        """How many proved acts cost nothing, because their doers had lost all they had."""
        return sum(not books.stakes.row(it).total for it in self._free(books))

    def _free(self, books: Books) -> list[PeerId]:
        """Whose each proved act is that has cost nothing."""
        return [it for act, it in self.shown.items() if act not in books.stakes.acts]

    def punished(self, books: Books) -> int:
        """For how many acts stake was taken."""
        return sum(act in books.stakes.acts for act in self.shown)


def honest_losses(
    staked: Mapping[PeerId, int], bad: frozenset[PeerId], books: Books
) -> dict[PeerId, int]:
    """What honest accounts have less at stake than they put there, in millionths."""
    lost = {it: amount - books.stakes.row(it).total for it, amount in staked.items()}
    return {it: amount for it, amount in lost.items() if amount and it not in bad}


@dataclass(slots=True)
class Accuser:
    """The owner of one asker's peer: `run` accuses of what `note` came across."""

    crimes: Crimes
    ledger: PeerLedger
    disputing: Disputing
    _pending: deque[tuple[CheckRequest, Tally, bytes]] = field(default_factory=deque)
    _has_accused_falsely: bool = False

    def note(self, claimed: CheckRequest, votes: Tally, output: bytes) -> None:
        """A leg was checked."""
        self.crimes.plant(claimed, votes)
        if len(self._pending) < PENDING_MAX:
            self.crimes.busy += 1
            self._pending.append((claimed, votes, output))

    async def run(self) -> None:
        """Look at one leg after the other, for ever."""
        try:
            while True:
                while self._pending:
                    await self._look(*self._pending[0])
                    self._pending.popleft()
                    self.crimes.busy -= 1
                await trio.sleep(LOOK_EVERY_S)
        finally:
            # What a killed peer had not looked at yet is forgotten.
            self.crimes.busy -= len(self._pending)
            self._pending.clear()

    async def _look(self, claimed: CheckRequest, votes: Tally, output: bytes) -> None:
        leg = claimed.receipt.record
        source = claimed.input
        if leg.model is None or leg.stage or source is None:
            # Nobody judges a later leg offline: what it was given is not signed by the asker.
            return
        manifest = None
        with trio.move_on_after(INPUT_S):
            manifest = await self.disputing.learn(leg.model)
        if manifest is None:
            return
        content = (manifest.to_bytes(), source, output)
        leg_of = (claimed.task.raw, claimed.receipt.raw)
        right = await self._accuse(OffenceKind.WRONG_ANSWER, leg_of, content)
        for verdict in votes.verdicts:
            records = (*leg_of, verdict.raw)
            await self._accuse(OffenceKind.UNTRUE_VERDICT, records, content)
        is_honest = not self.crimes.natures(claimed.receipt.signer)
        if right and is_honest and not self._has_accused_falsely:
            self._has_accused_falsely = True
            await self._accuse_falsely(leg_of, content)

    async def _accuse(
        self, offence: OffenceKind, records: tuple[bytes, ...], content: tuple[bytes, ...]
    ) -> bool:
        """Accuse if this proves anything; whether it does not."""
        try:
            evidence = Evidence(offence=offence, records=records, content=content).to_bytes()
            (conviction,) = judged(evidence).convictions
        except WireError:
            return True
        act, culprit = conviction.act, conviction.culprit
        if act in self.crimes.shown:
            return False
        self.crimes.shown[act] = culprit
        if self.ledger.stakes.row(culprit).total:
            await self._order(act, evidence)
        return False

    async def _order(self, act: bytes, evidence: bytes) -> None:
        accusation = Accusation(evidence=evidence, bond=BOND_MIN, with_others=True)
        while True:
            try:
                await self.ledger.wallet.order(unheard, accuse=(accusation,))
            except Refused as error:
                if error.retry_after_s is None:
                    # Others have taken all of it meanwhile: then it has none in the end either.
                    if "no stake" not in error.message:
                        self.crimes.refused[act] = error.message
                    return
            except InputError:
                # Another order of this account is stuck until the epoch ends.
                pass
            except BatonError:
                # Too few members answer now.
                pass
            else:
                self.crimes.accused.add(act)
                return
            await trio.sleep(1.0)

    async def _accuse_falsely(self, leg_of: tuple[bytes, ...], content: tuple[bytes, ...]) -> None:
        """What proves nothing is refused by the members, not only by who asks them."""
        evidence = Evidence(offence=OffenceKind.WRONG_ANSWER, records=leg_of, content=content)
        accusation = Accusation(evidence=evidence.to_bytes(), bond=BOND_MIN)
        self.crimes.false_accusations += 1
        try:
            await self.ledger.wallet.order(unheard, accuse=(accusation,))
        except BatonError:
            return
        self.crimes.false_accusations_taken += 1
