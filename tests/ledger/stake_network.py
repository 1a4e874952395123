"""A network with stakes, liars and lazy verifiers, epoch by epoch, in which crimes are accused.

Records, signatures, draws, evidence and the ledger are the real ones; only the wire is left out.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from node.evidence.offences import judge
from node.ledger.committee import Committee
from node.ledger.slashing import BOND_MIN
from tests.evidence.crimes import ROWS, SECRET, Leg, forked
from tests.ledger.made import Made
from tests.ledger.simulation import KEYS
from tests.ledger.test_chain_file import end_epoch
from wire.amount import CREDIT
from wire.content import PeerId
from wire.errors import Refused
from wire.evidence import Evidence
from wire.kinds import Role
from wire.ledger import Accusation, Genesis, Grant, Member
from wire.lottery import draw, rows_of_part, weighted_draw
from wire.signing import SigningKey
from wire.stake import StakePart

NEEDED, VERIFIERS = 2, 3
GRANT, STAKE = 1000 * CREDIT, 100 * CREDIT
WHALE_SHARE = 0.3


@dataclass(frozen=True)
class StakePlan:
    """Who takes part; shares are of the workers and of the verifiers."""

    seed: int = 0
    peers: int = 300
    epochs: int = 20
    legs: int = 20
    liars: float = 0.2
    lazy: float = 0.2
    members: int = 4


@dataclass
class StakeOutcome:
    """What a run came to."""

    crimes: int = 0
    accused: int = 0
    refused: int = 0
    unpunished: int = 0
    # Accused in an epoch in which others took all that there was.
    nothing_left: int = 0
    honest_slashed: int = 0
    wrong: int = 0
    accepted_by_stake: int = 0
    accepted_by_key: int = 0
    false_accusations: int = 0
    false_accusations_taken: int = 0
    taken: int = 0
    culprits: set[PeerId] = field(default_factory=set)


class StakeNetwork(Made):
    """One run: a fifth of the peers are askers, two fifths workers, two fifths verifiers."""

    def __init__(self, plan: StakePlan) -> None:
        self.plan, self.random = plan, Random(f"stakes:{plan.seed}")
        keys = [
            SigningKey(hashlib.sha256(f"{plan.seed}:{at}".encode()).digest())
            for at in range(plan.peers)
        ]
        self.askers = keys[: plan.peers // 5]
        rest = keys[plan.peers // 5 :]
        self.workers, self.verifiers = rest[::2], rest[1::2]
        self.liars = set(self.workers[: int(len(self.workers) * plan.liars)])
        self.lazy = set(self.verifiers[: int(len(self.verifiers) * plan.lazy)])
        self.whale = self.verifiers[0]
        self.genesis = self._genesis(keys)
        self.committee = Committee(self.genesis.members)
        by_key = {it.peer: it for it in KEYS}
        self.keys = [by_key[it.key] for it in self.genesis.members]
        self.replicas = [self.replica(key) for key in self.keys]
        self.found = StakeOutcome()
        self.nonce = 0
        self.acts: list[tuple[PeerId, Evidence]] = []

    def _genesis(self, keys: Sequence[SigningKey]) -> Genesis:
        others = (len(self.verifiers) - 1) * STAKE
        self.whale_stake = int(others * WHALE_SHARE / (1 - WHALE_SHARE))
        amounts = {it.peer: GRANT for it in keys}
        amounts[self.whale.peer] += self.whale_stake
        members = sorted(it.peer for it in KEYS[: self.plan.members])
        return Genesis(
            version=1,
            name="stakes",
            nonce=bytes(16),
            epoch_s=100,
            account_min=1000,
            fund=5,
            grants=tuple(Grant(account=it, amount=amounts[it]) for it in sorted(amounts)),
            members=tuple(Member(key=it, weight=1) for it in members),
        )

    def settle(self, key: SigningKey, **action: Any) -> None:
        """Have an order voted for and applied by all members; Refused if one does not."""
        order = self.order(key, **action)
        for replica in self.replicas:
            replica.vote(order)
        count = self.plan.members * 2 // 3 + 1
        raw = self.certificate(order, range(count))
        for replica in self.replicas:
            replica.confirm(raw)

    def run(self) -> StakeOutcome:
        """All epochs; the sums are compared at each end by the replicas themselves."""
        for key in (*self.workers, *self.verifiers):
            amount = self.whale_stake if key is self.whale else STAKE
            role = Role.VERIFY if key in self.verifiers else Role.INFER
            self.settle(key, stake=(StakePart(role=role, amount=amount),))
        self.end()
        first = {it: row.total for it, row in self.replicas[0].books.stakes.rows.items()}
        for _ in range(self.plan.epochs):
            self.epoch()
            self.end()
        self._compare(first)
        return self.found

    def end(self) -> None:
        end_epoch(self, tuple(range(self.plan.members * 2 // 3 + 1)))

    def epoch(self) -> None:
        for _ in range(self.plan.legs):
            self.leg()
        thief = self.random.choice(sorted(self.liars, key=lambda it: it.peer))
        began_at_ms = self.replicas[0].epoch * 1000 + 1
        self.accuse(thief, forked(thief, began_at_ms=began_at_ms))
        self.accuse_falsely()

    def leg(self) -> None:
        """One leg, checked by who is drawn; what was done wrong and is seen is accused."""
        random, self.nonce = self.random, self.nonce + 1
        worker = random.choice(self.workers)
        wrong = (random.randrange(ROWS),) if worker in self.liars else ()
        leg = Leg(worker=worker, wrong=wrong, nonce=self.nonce)
        rows = self.replicas[0].books.stakes.rows
        weights = {
            it.peer: rows[it.peer].of_role(Role.VERIFY) // CREDIT if it.peer in rows else 0
            for it in self.verifiers
        }
        by_key = draw(SECRET, leg.receipt.id, weights)
        drawn = weighted_draw(SECRET, leg.receipt.id, weights)
        if wrong:
            self.found.wrong += 1
            self.found.accepted_by_key += self.is_accepted(leg, by_key[:VERIFIERS])
            self.found.accepted_by_stake += self.is_accepted(leg, drawn[:VERIFIERS])
        self.accuse_of(leg, drawn[:VERIFIERS])

    def is_accepted(self, leg: Leg, drawn: Sequence[PeerId]) -> bool:
        """Whether of those asked first nobody honest has a wrong row in its part."""
        lazy = {it.peer for it in self.lazy}
        for number, peer in enumerate(drawn[:NEEDED], start=1):
            part = rows_of_part(SECRET, leg.receipt.id, ROWS, number, NEEDED)
            if peer not in lazy and set(part) & set(leg.wrong):
                return False
        return True

    def accuse_of(self, leg: Leg, drawn: Sequence[PeerId]) -> None:
        by_peer = {it.peer: it for it in self.verifiers}
        seen = False
        verdicts = []
        for number, peer in enumerate(drawn):
            verifier = by_peer[peer]
            part = number % NEEDED + 1
            sampled = rows_of_part(SECRET, leg.receipt.id, ROWS, part, NEEDED)
            bad = [row for row in sampled if row in leg.wrong]
            if verifier in self.lazy:
                # Some of them say no to what is right.
                spite = not leg.wrong and self.random.random() < 0.2
                verdicts.append((verifier, leg.verdict(verifier, sampled, agrees=not spite)))
                self.found.crimes += spite or bool(bad)
                seen |= spite
            else:
                seen |= bool(bad)
        if leg.wrong:
            self.found.crimes += 1
        if not seen:
            return
        if leg.wrong:
            self.accuse(leg.worker, leg.against_worker())
        for verifier, verdict in verdicts:
            bad = [row for row in verdict.record.sampled if row in leg.wrong]
            if bad or not verdict.record.agrees:
                self.accuse(verifier, leg.against(verdict))

    def accuse(self, culprit: SigningKey, evidence: Evidence) -> None:
        """Accuse; now and then the culprit asks for its stake back an order before."""
        stake = self.replicas[0].draft.stake(culprit.peer)
        if stake.parts and self.random.random() < 0.1:
            self.settle(culprit, unbond=stake.parts)
        accuser = self.random.choice(self.askers)
        accusation = Accusation(evidence=evidence.to_bytes(), bond=BOND_MIN)
        try:
            self.settle(accuser, accuse=(accusation,))
        except Refused as error:
            # It has lost all that it had, or another accused it of the same.
            if "no stake" not in error.message and "before" not in error.message:
                raise
            self.found.refused += 1
            return
        self.found.accused += 1
        self.found.culprits.add(culprit.peer)
        self.acts.append((culprit.peer, evidence))

    def accuse_falsely(self) -> None:
        """Evidence against honest peers: of right answers, true verdicts, and other forgeries."""
        self.nonce += 1
        worker = next(it for it in reversed(self.workers) if it not in self.liars)
        verifier = next(it for it in reversed(self.verifiers) if it not in self.lazy)
        right, wrong = Leg(worker=worker, nonce=self.nonce), Leg(wrong=(5,), nonce=self.nonce)
        for evidence in (
            right.against_worker(),
            right.against(right.verdict(verifier, range(ROWS))),
            wrong.against(wrong.verdict(verifier, (1, 2))),
            wrong.against(wrong.verdict(verifier, (5,), agrees=False)),
        ):
            self.found.false_accusations += 1
            accusation = Accusation(evidence=evidence.to_bytes(), bond=BOND_MIN)
            try:
                self.settle(self.askers[0], accuse=(accusation,))
            except Refused:
                continue
            self.found.false_accusations_taken += 1

    def _compare(self, first: dict[bytes, int]) -> None:
        books = self.replicas[0].books
        guilty = {it.peer for it in (*self.liars, *self.lazy)}
        for account, amount in first.items():
            left = books.stakes.row(account).total
            if account not in guilty:
                self.found.honest_slashed += left != amount
        for culprit, evidence in self.acts:
            (conviction,) = judge(evidence).convictions
            assert conviction.culprit == culprit
            if conviction.act in books.stakes.acts:
                continue
            # Who has lost all of it has nothing left that another act could cost.
            left = books.stakes.row(culprit).total
            self.found.unpunished += left > 0
            self.found.nothing_left += left == 0
        self.found.taken = books.fund - 5
        assert books.supply == self.genesis.supply
