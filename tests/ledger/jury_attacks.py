"""Juries of which a part of the stake is bad, by the real code of cases: what becomes of answers.

One court has 16 cases at once, right answers and wrong ones in turn, and thirty stakers of whom
some are of one mind. What these do is a `Plot`; all others look, seal what they found, and tell it.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from itertools import combinations
from random import Random
from typing import Any

from node.ledger.case_places import CASE_BOND_MIN, CASES_OPEN_MAX
from node.ledger.juries import cases_in, is_asked, salt_for, seal_or_find, sealed_in, to_tell
from node.ledger.jury_draw import drawn_by
from tests.evidence.disputed import Answered
from tests.ledger.made import ONE
from tests.ledger.simulation import OWNERS
from tests.ledger.test_juries import Court, binomial
from tests.ledger.test_motions import Network
from wire.errors import Refused
from wire.jury import (
    AGREEING,
    JURORS,
    CaseNotice,
    CaseRow,
    JurorFinding,
    JurySteps,
    SealedFinding,
    ShownCase,
    case_id,
    charge_seal,
    evidence_digest,
)
from wire.kinds import Role
from wire.ledger import Payment
from wire.signing import SigningKey
from wire.stake import STAKE_MIN, StakePart

STAKERS = 30
STAKE = 2 * STAKE_MIN
BOND = CASE_BOND_MIN * (CASES_OPEN_MAX + 1)
# A court ends long before; one that does not is a bug.
EPOCHS_MAX = 200


class Plot(Enum):
    """What the bad part does in every case."""

    # Finds the opposite of what is true: acquits its friends, convicts others.
    LIE = "lie"
    # Seals what an honest juror has sealed, and tells what that one tells.
    COPY = "copy"
    ABSTAIN = "abstain"
    # Is bound, and then says nothing.
    SEAL_AND_NOT_TELL = "seal and not tell"
    # Lies where it has enough seats for it, and else keeps what it sealed to itself.
    TELL_IF_IT_WINS = "tell if it wins"


@dataclass(slots=True)
class Outcome:
    """What became of cases; `refused` counts what bad jurors ordered and members did not take."""

    honest: Counter[str] = field(default_factory=Counter)
    guilty: Counter[str] = field(default_factory=Counter)
    refused: int = 0

    def add(self, other: "Outcome") -> None:
        """Count another court's."""
        self.honest += other.honest
        self.guilty += other.guilty
        self.refused += other.refused


def keys_of(name: str, count: int, seed: int) -> list[SigningKey]:
    """So many keys, the same each time."""
    chance = Random(f"{name} {seed}")
    return [SigningKey(chance.randbytes(32)) for _ in range(count)]


class AttackedCourt(Network):
    """One court, from its stakers to the end of all its cases."""

    def __init__(self, plot: Plot, bad: int, seed: int) -> None:
        super().__init__()
        self.plot = plot
        self.stakers = keys_of("staker", STAKERS, seed)
        # The last ones: they see what others have sealed before they do.
        self.bad = self.stakers[STAKERS - bad :]
        self.accusers = keys_of("accuser", CASES_OPEN_MAX, seed)
        self.workers = keys_of("worker", CASES_OPEN_MAX, seed)
        self.cases: dict[bytes, bool] = {}
        self.outcome = Outcome()
        self._told: dict[bytes, JurorFinding] = {}

    def run(self) -> Outcome:
        """From the first stake to the last case; what became of right and of wrong answers."""
        self._fund()
        self._accuse()
        for _ in range(EPOCHS_MAX):
            self.end()
            states = self._states()
            if not any(it.state.is_open for it in states.values()):
                break
            for key in self.stakers:
                self._act(key)
        for name, is_wrong in self.cases.items():
            found = self.outcome.guilty if is_wrong else self.outcome.honest
            found[states[name].state.name.lower()] += 1
        return self.outcome

    def _fund(self) -> None:
        """Every account gets what it needs, out of the owners' grants."""
        due = [(it, STAKE + STAKE_MIN // 2) for it in (*self.stakers, *self.workers)]
        due += [(it, BOND + STAKE_MIN) for it in self.accusers]
        for at, owner in enumerate(OWNERS):
            part = due[at :: len(OWNERS)]
            self.do(owner, pay=tuple(Payment(to=it.peer, amount=amount) for it, amount in part))
        for keys, role in ((self.stakers, Role.VERIFY), (self.workers, Role.INFER)):
            for key in keys:
                self.do(key, stake=(StakePart(role=role, amount=STAKE),))
        self.end()

    def _accuse(self) -> None:
        shown = []
        for number, (accuser, worker) in enumerate(zip(self.accusers, self.workers, strict=True)):
            evidence = Answered(worker=worker, nonce=number).case
            digest = evidence_digest(evidence.to_bytes())
            salt = salt_for(accuser, digest)
            notice = CaseNotice(seal=charge_seal(accuser.peer, digest, salt), bond=BOND)
            case = case_id(self.do(accuser, jury=(JurySteps(announce=(notice,)),)))
            self.cases[case] = bool(number % 2)
            shown.append((accuser, ShownCase(case=case, salt=salt, evidence=evidence.to_bytes())))
        self.end()
        for accuser, charge in shown:
            self.do(accuser, jury=(JurySteps(charge=(charge,)),))

    def _states(self) -> dict[bytes, CaseRow]:
        return cases_in(self.member.books.motions.rows)

    # What jurors do

    def _act(self, key: SigningKey) -> None:
        """One juror does what is due now in all cases, by one order of each kind."""
        is_bad = key in self.bad
        draft, rows = self.member.draft, self.member.draft.motion_rows()
        commits = []
        for name, row in self._states().items():
            if is_asked(draft, key.peer, row) and key.peer not in sealed_in(rows, name):
                seal = self._bad_seal(key, name, row, rows) if is_bad else None
                if not is_bad:
                    seal = self._seal(key, name, row, wrong=self.cases[name])
                if seal is not None:
                    commits.append(SealedFinding(case=name, seal=seal))
        if commits:
            self._order(key, jury=(JurySteps(commit=tuple(commits)),))
        if is_bad:
            self._tell_badly(key, rows)
        elif told := to_tell(key, rows):
            self._told |= {it.case: it for it in told}
            self._order(key, find=tuple(told))

    def _seal(self, key: SigningKey, name: bytes, row: CaseRow, *, wrong: bool) -> bytes:
        (step,) = seal_or_find(key, name, row, wrong=wrong)["jury"]
        return bytes(step.commit[0].seal)

    def _bad_seal(
        self, key: SigningKey, name: bytes, row: CaseRow, rows: dict[bytes, bytes]
    ) -> bytes | None:
        match self.plot:
            case Plot.ABSTAIN:
                return None
            case Plot.COPY:
                # The bad act last: those before have sealed in this epoch already.
                others = sealed_in(rows, name)
                return next((it for who, it in sorted(others.items()) if who != key.peer), None)
            case _:
                return self._seal(key, name, row, wrong=not self.cases[name])

    def _tell_badly(self, key: SigningKey, rows: dict[bytes, bytes]) -> None:
        match self.plot:
            case Plot.LIE:
                self._order(key, find=tuple(to_tell(key, rows)))
            case Plot.TELL_IF_IT_WINS:
                mine = {it.peer for it in self.bad}
                wins = [
                    it
                    for it in to_tell(key, rows)
                    if sum(seat in mine for seat in self._states()[it.case].seats) >= AGREEING
                ]
                self._order(key, find=tuple(wins))
            case Plot.COPY:
                for name, found in self._told.items():
                    is_bound = key.peer in sealed_in(rows, name)
                    if self._states()[name].state.is_telling and is_bound:
                        self._order(key, find=(found,))
            case _:
                return

    def _order(self, key: SigningKey, **action: Any) -> None:
        """Order this, if it is anything; what members do not take is counted, of bad jurors."""
        if not all(action.values()):
            return
        try:
            self.do(key, **action)
        except Refused:
            assert key in self.bad
            self.outcome.refused += 1


def run_courts(plot: Plot, bad: int, courts: int) -> Outcome:
    """So many courts with so many bad stakers of thirty."""
    found = Outcome()
    for seed in range(courts):
        found.add(AttackedCourt(plot, bad, seed).run())
    return found


def row_of(plot: Plot, bad: int, courts: int) -> dict[str, Any]:
    """What became of right and of wrong answers, beside what the odds of seats say.

    An honest signer is convicted if ten seats lie. A guilty one goes free if ten seats lie, or if
    too few agree, which it may: a case that hangs is brought again. It can hang only where all
    stakers are asked and over three of thirteen parts of what they stake lie.
    """
    found, share = run_courts(plot, bad, courts), bad / STAKERS
    lies = plot in (Plot.LIE, Plot.TELL_IF_IT_WINS)
    wins = binomial(share) if lies else 0.0
    hangs = 0.0
    if plot is Plot.LIE and bad * JURORS >= AGREEING * STAKERS:
        # Where no jury agrees all are asked, and so many win that.
        wins = 1 - binomial(1 - share)
    elif plot is Plot.LIE and bad * JURORS > (JURORS - AGREEING) * STAKERS:
        hangs = 1 - binomial(share) - binomial(1 - share)
    cases = sum(found.honest.values())
    free = found.guilty["right"]
    row = {
        "plot": plot.value,
        "share": round(share, 3),
        "cases": 2 * cases,
        "honest_convicted": found.honest["wrong"],
        "guilty_acquitted": free,
        "guilty_hung": found.guilty["hung"],
        "honest_hung": found.honest["hung"],
        "formula_wins": round(wins, 7),
        "formula_hung": round(hangs, 4),
        "refused": found.refused,
    }
    held = all(is_near(it, cases * wins) for it in (found.honest["wrong"], free))
    held = held and is_near(found.guilty["hung"], cases * hangs)
    return row | {"held": held and is_near(found.honest["hung"], cases * hangs)}


def grinding(epochs: int) -> dict[str, int]:
    """How many juries a leader can have that tries every set of the seals it was sent.

    With four members there are sixteen sets; a set that lacks a secret draws nobody.
    """
    tried, juries = 0, set[tuple[bytes, bytes]]()
    for number in range(epochs):
        court = Court()
        court.accuse(Answered(worker=ONE, nonce=number).case)
        court.end()
        replica = court.replicas[0]
        seals = {}
        for at, member in enumerate(court.replicas):
            made = member.make_seal()
            assert made is not None
            seals[at] = made[0]
        for count in range(len(seals) + 1):
            for chosen in combinations(seals, count):
                tried += 1
                by = drawn_by({it: seals[it] for it in chosen}, replica.tip, court.committee)
                if by.beacon:
                    juries.add((number.to_bytes(4, "big"), by.beacon))
    return {"sets_tried": tried, "draws": epochs, "juries": len(juries)}


def is_near(found: int, expected: float) -> bool:
    """Within four standard deviations, of which a rare event has one at least."""
    return abs(found - expected) <= 4 * max(1.0 if expected else 0.0, expected) ** 0.5
