"""Ledgers from before cases were announced: what was decided holds by the rules of then."""

import io
from typing import Any

from node.ledger.chain_file import read_parts, replay
from node.ledger.juries import JURY_EPOCHS, SEAT_FEE, cases_in
from tests.evidence.crimes import forked
from tests.evidence.disputed import Answered
from tests.ledger.made import ONE, THREE, TWO
from tests.ledger.simulation import OWNERS
from tests.ledger.test_motions import Network, recount_of
from wire.amount import CREDIT
from wire.content import ContentId
from wire.evidence import Evidence
from wire.jury import JURORS, CaseState, JurorFinding, case_id
from wire.kinds import Role
from wire.ledger import Accusation, order_digest
from wire.signing import SigningKey
from wire.stake import StakePart

FOUR, FIVE, SIX = OWNERS[3:6]
BOND = JURORS * SEAT_FEE


class Before(Network):
    """A network whose members certify what members voted for then."""

    def force(self, key: SigningKey, **action: Any) -> bytes:
        order, member = self.made.order(key, **action), self.member
        digest = order_digest(order)
        member.votes[key.peer] = (order.record.sequence, digest)
        member.confirm(self.made.certificate(order, (0,)))
        return digest

    def accuse(self, key: SigningKey, evidence: Evidence, bond: int = BOND) -> bytes:
        accusation = Accusation(evidence=evidence.to_bytes(), bond=bond)
        return case_id(self.force(key, accuse=(accusation,)))

    def find(self, key: SigningKey, case: bytes, *, wrong: bool) -> None:
        self.force(key, find=(JurorFinding(case=case, wrong=wrong),))

    def state(self, case: bytes) -> CaseState:
        return cases_in(self.member.books.motions.rows)[case].state


def history() -> Before:
    """Every end that a case could have, and two that showed the same in one epoch."""
    network = Before()
    network.propose()
    for key in (ONE, FOUR, FIVE, SIX):
        role = Role.INFER if key is ONE else Role.VERIFY
        network.do(key, stake=(StakePart(role=role, amount=10 * CREDIT),))
    network.end()
    for key in (TWO, THREE):
        network.accuse(key, forked(ONE), CREDIT)
    network.end()
    # Of two about one answer that with the lower digest was taken.
    twice = [network.accuse(key, Answered(worker=ONE, nonce=1).case) for key in (TWO, FOUR)]
    right = network.accuse(THREE, Answered(worker=ONE, nonce=2).case)
    late = network.accuse(SIX, Answered(worker=ONE, nonce=3).case)
    network.end(2)
    (wrong,) = {*twice} & cases_in(network.member.books.motions.rows).keys()
    for key in (FOUR, FIVE, SIX):
        network.find(key, wrong, wrong=True)
        network.find(key, right, wrong=False)
    network.end()
    assert (network.state(wrong), network.state(right)) == (CaseState.WRONG, CaseState.RIGHT)
    network.end(JURY_EPOCHS)
    assert network.state(late) is CaseState.EVERYBODY
    for key in (FOUR, FIVE):
        network.find(key, late, wrong=True)
    network.end()
    assert network.state(late) is CaseState.WRONG
    hung = network.accuse(TWO, Answered(worker=ONE, nonce=4).case)
    network.end(2 * JURY_EPOCHS + 2)
    assert network.state(hung) is CaseState.HUNG
    return network


def test_a_ledger_of_then_holds_and_comes_to_what_it_came_to_then() -> None:
    network = history()
    network.check()
    tip = network.member.tip
    found = replay(read_parts(io.BytesIO(network.data)))
    assert found.tip is not None
    assert found.tip.id == tip.id == ContentId.parse(TIP)
    recount_of(network.data)


TIP = "bafkreift35wgx43izzmnbq5a4cwruptrtwgxdkmvligfi4qwr5feacatbq"
