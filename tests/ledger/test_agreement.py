"""One agreement ends every epoch, alike for all, whatever less than a third of the members do."""

import heapq
from collections.abc import Callable, Iterable
from random import Random

import pytest

from node.ledger.agreement import Action, Agreement, Cast, Decide, Propose, RoundStep, Wait
from node.ledger.committee import Committee
from node.ledger.epoch_end import EpochEnd, ToDo
from node.ledger.loading import first_rows, load
from tests.ledger.made import Made
from tests.ledger.simulation import KEYS, Disk
from wire.checkpoint import AgreementPhase
from wire.content import ContentId
from wire.ledger import Member

VALUES = [ContentId.of(word) for word in (b"one", b"two", b"wrong")]
RIGHT = VALUES[:2]


class Members:
    """Members that agree by messages which are late or lost until a moment that nobody knows."""

    def __init__(self, seed: int, count: int, bad: int, *, split: bool = False) -> None:
        self.random = Random(f"agreement:{seed}:{count}")
        self.committee = Committee([Member(key=it.peer, weight=1) for it in KEYS[:count]])
        self.bad = set(self.random.sample(range(count), bad))
        # Whether the bad ones tell each half of the others the same story, all the time.
        self.split = split
        self.members = {
            at: Agreement(self.committee, at, first=seed % count)
            for at in range(count)
            if at not in self.bad
        }
        self.mine = {at: self.random.choice(RIGHT) for at in self.members}
        self.timely_at_s = self.random.choice([0.0, 20.0, 60.0])
        self.now_s, self.count = 0.0, 0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.decided: dict[int, Decide] = {}
        self.led: set[tuple[int, int]] = set()

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now_s + delay_s, self.count, what))

    def send(self, what: Callable[[], None]) -> None:
        delay_s = self.random.uniform(0.01, 0.3)
        if self.now_s < self.timely_at_s:
            # Late; what is lost is told again, and arrives when the network has become timely.
            late_s = self.timely_at_s - self.now_s
            delay_s += late_s if self.random.random() < 0.4 else self.random.uniform(0, late_s)
        self.later(delay_s, what)

    def everybody(self, sender: int, tell: Callable[[int], None]) -> None:
        for at in self.members:
            if at != sender:
                self.send(lambda at=at: tell(at))  # type: ignore[misc]

    def run(self) -> None:
        for at in self.members:
            self.do(at, self.members[at].begin())
        for at in self.bad:
            self.mislead(at, 0)
        while self.events and len(self.decided) < len(self.members) and self.now_s < 2000:
            self.now_s, _, what = heapq.heappop(self.events)
            what()

    def do(self, at: int, actions: list[Action]) -> None:
        member = self.members[at]
        for action in actions:
            match action:
                case Wait():
                    self.later(
                        action.delay_s,
                        lambda it=action: self.do(at, member.on_timeout(it.step, it.round)),  # type: ignore[misc]
                    )
                case Cast():
                    self.cast(at, action)
                case Propose():
                    self.propose(at, action)
                case Decide():
                    self.decide(at, action)

    def cast(self, at: int, vote: Cast) -> None:
        self.do(at, self.members[at].on_vote(at, vote.phase, vote.round, vote.value))
        self.everybody(
            at,
            lambda to: self.do(
                to, self.members[to].on_vote(at, vote.phase, vote.round, vote.value)
            ),
        )
        for bad in self.bad:
            self.mislead(bad, vote.round)

    def propose(self, at: int, action: Propose) -> None:
        value = action.value or self.mine[at]
        prevotes = (
            self.members[at].voters(AgreementPhase.PREVOTE, action.valid_round, value)
            if action.valid_round is not None
            else []
        )

        def told(to: int) -> None:
            for voter in prevotes:
                assert action.valid_round is not None
                phase = AgreementPhase.PREVOTE
                self.do(to, self.members[to].on_vote(voter, phase, action.valid_round, value))
            self.do(
                to,
                self.members[to].on_proposal(action.round, value, action.valid_round, good=True),
            )

        told(at)
        self.everybody(at, told)

    def decide(self, at: int, decision: Decide) -> None:
        if at in self.decided:
            return
        self.decided[at] = decision
        # A checkpoint with its signatures: nobody can make one up.
        self.everybody(at, lambda to: self.decide(to, decision))

    def mislead(self, at: int, number: int) -> None:
        """Another proposal to each, and votes for whatever there is."""
        if (at, number) in self.led:
            return
        self.led.add((at, number))
        for to in self.members:
            member = self.members[to]
            for ahead in (0, 1):
                if member.leader(number + ahead) == at:
                    value = self.story(to) or self.random.choice(VALUES)
                    self.send(
                        lambda m=member, t=to, n=number + ahead, v=value: self.do(  # type: ignore[misc]
                            t, m.on_proposal(n, v, None, good=v in RIGHT)
                        )
                    )
            for phase in AgreementPhase:
                choice = self.story(to) or self.random.choice([*VALUES, None])
                self.send(
                    lambda m=member, t=to, p=phase, v=choice: self.do(  # type: ignore[misc]
                        t, m.on_vote(at, p, number, v)
                    )
                )

    def story(self, to: int) -> ContentId | None:
        return RIGHT[list(self.members).index(to) % 2] if self.split else None


def ends(seed: int, count: int, bad: int, *, split: bool = False) -> int:
    """The round in which all honest members have decided alike."""
    members = Members(seed, count, bad, split=split)
    members.run()
    values = {it.value for it in members.decided.values()}
    assert len(values) == 1, f"seed {seed}: {values}"
    assert values <= set(RIGHT), f"seed {seed}: a wrong end was agreed on"
    assert members.decided.keys() == members.members.keys(), f"seed {seed}: it does not end"
    return max(it.round for it in members.decided.values())


@pytest.mark.parametrize(
    ("count", "bad", "runs"), [(1, 0, 3), (4, 1, 200), (7, 2, 60), (10, 3, 20)]
)
def test_it_ends_alike_for_all(count: int, bad: int, runs: int) -> None:
    rounds = [ends(seed, count, bad, split=seed % 3 == 0) for seed in range(runs)]
    assert max(rounds) < 40


@pytest.mark.soak
@pytest.mark.timeout(36_000)
@pytest.mark.parametrize(("count", "bad", "runs"), [(4, 1, 6000), (7, 2, 2500), (10, 3, 1500)])
def test_it_ends_in_ten_thousand_of_ten_thousand_runs(count: int, bad: int, runs: int) -> None:
    for seed in range(1000, 1000 + runs):
        ends(seed, count, bad, split=seed % 3 == 0)


def test_one_bad_member_too_many_ends_it_in_two_ways_or_never() -> None:
    failed = 0
    for seed in range(60):
        try:
            ends(seed, 4, 2, split=True)
        except AssertionError:
            failed += 1
    assert failed


def test_what_was_voted_before_a_stop_is_not_voted_otherwise_after_it() -> None:
    committee = Committee([Member(key=it.peer, weight=1) for it in KEYS[:4]])
    again = Agreement(committee, 1, first=0)
    again.restore(AgreementPhase.PREVOTE, 0, RIGHT[0])
    again.restore(AgreementPhase.PRECOMMIT, 0, RIGHT[0])
    assert not [it for it in again.begin() if isinstance(it, Cast)]
    later = again.on_timeout(RoundStep.PRECOMMITTED, 0)
    assert [it for it in later if isinstance(it, Propose)] == [Propose(1, RIGHT[0], 0)]
    # Locked on one, it does not prevote for another.
    voted = again.on_proposal(1, RIGHT[1], None, good=True)
    assert [it for it in voted if isinstance(it, Cast)] == [Cast(AgreementPhase.PREVOTE, 1, None)]


class Stopped:
    """Honest members that stop at once and start again from their rows; who led is gone."""

    def __init__(self) -> None:
        self.made = Made()
        self.disks = [Disk() for _ in self.made.keys]
        self.ends: dict[int, EpochEnd] = {}
        self.waits: list[tuple[int, Wait]] = []
        for at, disk in enumerate(self.disks):
            disk.write(first_rows(self.made.genesis))
            self.start(at)

    def start(self, at: int) -> list[bytes]:
        found = load(self.made.genesis, self.made.keys[at], self.disks[at].scan)
        found.replica.sure = True
        self.ends[at] = found.end
        return found.signed

    def take(self, at: int) -> ToDo:
        to_do = self.ends[at].take()
        self.disks[at].write(to_do.rows)
        self.waits += [(at, it) for it in to_do.waits]
        return to_do

    def tell(self, words: list[bytes], members: Iterable[int]) -> list[bytes]:
        """Have members hear this; what they say to it."""
        said: list[bytes] = []
        for at in members:
            for raw in words:
                self.ends[at].receive(raw)
            said += self.take(at).signed
        return said

    def talk(self, words: list[bytes], members: list[int]) -> None:
        while words:
            words = self.tell(words, members)


@pytest.mark.parametrize("locked", [[1, 2, 3], [1, 2], [3]])
def test_members_locked_on_what_is_gone_with_its_leader_end_the_epoch_after_a_stop(
    locked: list[int],
) -> None:
    world = Stopped()
    seals = []
    for at in range(4):
        world.ends[at].seal_now()
        seals += world.take(at).signed
    proposed = world.tell(seals, [0])
    prevotes = world.tell(seals + proposed, [1, 2, 3])
    world.tell(prevotes, locked)
    told = [raw for at in (1, 2, 3) for raw in world.start(at)]
    world.waits.clear()
    for at in (1, 2, 3):
        world.ends[at].advance()
        agreement = world.ends[at].agreement
        assert agreement is not None
        assert (agreement.locked is not None) is (at in locked)
    world.talk(told, [1, 2, 3])
    for _ in range(60):
        if all(world.ends[at].checkpoint for at in (1, 2, 3)):
            return
        waits, world.waits = world.waits, []
        words = []
        for at, wait in waits:
            if at in (1, 2, 3):
                world.ends[at].on_timeout(wait.step, wait.round)
                words += world.take(at).signed
        world.talk(words, [1, 2, 3])
    pytest.fail("the epoch does not end")
