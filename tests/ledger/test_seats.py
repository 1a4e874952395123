"""Who keeps the ledger changes by vote, while some of them are bad: as with members that stay."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from node.ledger import seats
from node.ledger.committee import Committee, places_in
from node.ledger.committees import CHANGES_MAX, Committees
from node.ledger.jury_draw import _moved
from node.ledger.motion_shelf import BALLOT, MotionShelf
from node.ledger.seats import (
    WAITING_EPOCHS_MAX,
    check_seat,
    seat_row,
    seats_after,
    taken_back,
    waiting_seats,
)
from tests.ledger.made import ONE, THREE, TWO, nobody
from tests.ledger.simulation import KEYS, OWNERS, Plan, genesis_of
from tests.ledger.test_motions import MEMBER, Network, recount_of
from tests.ledger.test_simulation import held
from wire import limits
from wire.amount import CREDIT
from wire.checkpoint import AgreementPhase, AgreementVote, Checkpoint, CheckpointHeader
from wire.errors import BadSignature, Malformed, Refused
from wire.ledger import Genesis, Member, order_digest
from wire.motion import Ballot, MotionState, SeatClaim
from wire.signed import sign
from wire.signing import SigningKey

EPOCHS = 4


@pytest.fixture
def all_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is to be seated says in each epoch that it is there."""
    monkeypatch.setattr(seats, "is_there", lambda *_: True)


def claimed(number: int, weight: int, since: int = 1) -> SeatClaim:
    return SeatClaim(member=KEYS[number].peer, weight=weight, since=since)


def rows_of(*claims: SeatClaim) -> MotionShelf:
    shelf = MotionShelf()
    shelf.put(dict(seat_row(bytes((at,)) * 32, it) for at, it in enumerate(claims)))
    return shelf


def members_of(count: int, weights: Sequence[int] = ()) -> tuple[Member, ...]:
    keys = sorted(it.peer for it in KEYS[:count])
    return tuple(Member(key=it, weight=weights[at] if weights else 1) for at, it in enumerate(keys))


def reseating(seed: int, members: int) -> Plan:
    """Changes of members drawn so that nobody ever has more bad members than it tolerates."""
    random = Random(f"seats:{seed}:{members}")
    bad = (members - 1) // 3
    while True:
        numbers = range(members + bad + 1)
        villains = tuple(random.sample(numbers, bad))
        seats = tuple(
            (random.randint(1, EPOCHS - 1), number, random.choice((0, 1)) * (number >= members))
            for number in random.sample(numbers, random.randint(2, 2 * bad + 2))
        )
        plan = Plan(
            seed=seed,
            members=members,
            bad=0,
            epochs=EPOCHS,
            candidates=bad + 1,
            seats=seats,
            villains=villains,
        )
        if any(weight for _, _, weight in seats) and tolerated(plan):
            return plan


def tolerated(plan: Plan) -> bool:
    genesis = genesis_of(plan.members)
    own = [it.key for it in genesis.members]
    own += [it.peer for it in KEYS[plan.members : plan.members + plan.candidates]]
    claims = [SeatClaim(member=own[at], weight=it, since=since) for since, at, it in plan.seats]
    shelf, now = rows_of(*claims), genesis.members
    bad = {own[it] for it in plan.villains}
    for epoch in range(1, plan.epochs + 2):
        now, done = seats_after(shelf.rows, now, epoch)
        shelf.put(done)
        count = sum(it.key in bad for it in now)
        if len(now) < 4 or count > Committee(now).tolerates:
            return False
    return True


@pytest.mark.usefixtures("all_are_there")
@pytest.mark.parametrize(("members", "runs"), [(4, 5), (7, 1)])
def test_nobody_spends_twice_and_nobody_is_stuck_while_members_change(
    members: int, runs: int
) -> None:
    changes = Counter[int]()
    for seed in range(runs):
        simulation, _ = held(reseating(seed, members))
        before = {it.key for it in simulation.genesis.members}
        for _, (header, _) in sorted(simulation.ended.items()):
            now = {it.key for it in header.members}
            changes[len(now ^ before)] += 1
            # Both have a quorum's honest members in common.
            assert len(now ^ before) <= max(1, (len(before) - 1) // 3)
            before = now
    assert sum(count * at for at, count in changes.items()) >= runs


@pytest.mark.usefixtures("all_are_there")
@pytest.mark.soak
@pytest.mark.timeout(36_000)
@pytest.mark.parametrize(("members", "runs"), [(4, 400), (7, 150), (10, 60)])
def test_so_it_is_in_hundreds_of_runs(members: int, runs: int) -> None:
    for seed in range(1000, 1000 + runs):
        held(reseating(seed, members))


# By vote


class Seated(Network):
    """A network whose members change: all of them sign, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.use(ONE, TWO, CREDIT)
        # The last one that was made.
        self.motion = b""

    def do(self, key: SigningKey, **action: Any) -> bytes:
        order = self.made.order(key, **action)
        self.member.vote(order)
        self.member.confirm(self.made.certificate(order, range(len(self.made.keys))))
        return order_digest(order)

    def end(self, epochs: int = 1, **changes: Any) -> None:
        for _ in range(epochs):
            member = self.member
            header = replace(member.outcome(member.applied).header, **changes)
            vote = AgreementVote(
                network=self.made.genesis.id,
                epoch=member.epoch,
                round=0,
                phase=AgreementPhase.PRECOMMIT,
                header=header.id,
            )
            signatures = self.made.signatures(*(sign(vote, it).raw for it in self.made.keys))
            checkpoint = Checkpoint(header=header.to_bytes(), round=0, signatures=signatures)
            self.parts += [checkpoint.to_bytes(), *(member.applied[it] for it in member.applied)]
            for key, value in member.turn(checkpoint, list(member.applied)):
                self.rows.pop(key, None)
                self.rows |= {} if value is None else {key: value}
            by_key = {it.peer: it for it in (MEMBER, *OWNERS)}
            self.made.keys = [by_key[it] for it in member.committee.index]

    def decide(self, author: SigningKey, claim: SeatClaim, *also: SigningKey) -> MotionState:
        self.motion = self.propose(author, seats=(claim,))
        self.end()
        for key in (ONE, MEMBER, *also):
            self.vote(key, self.motion)
        self.end()
        return self.row(self.motion).state

    def seated(self) -> set[SigningKey]:
        return set(self.made.keys)


def seat(key: SigningKey, weight: int, since: int) -> SeatClaim:
    return SeatClaim(member=key.peer, weight=weight, since=since)


def test_a_member_comes_and_goes_by_vote_and_each_epoch_is_judged_by_its_own_members() -> None:
    network = Seated()
    assert network.decide(THREE, seat(THREE, 1, since=4)) is MotionState.PASSED
    # It begins with the epoch that the motion names.
    assert (network.member.epoch, network.seated()) == (2, {MEMBER})
    network.end()
    network.vote(THREE, network.motion)
    network.end()
    assert (network.member.epoch, network.seated()) == (4, {MEMBER, THREE})
    order = network.made.order(TWO)
    alone = network.made.certificate(order, (network.made.keys.index(MEMBER),))
    with pytest.raises(BadSignature, match="two thirds"):
        network.member.confirm(alone)
    assert network.decide(ONE, seat(THREE, 0, since=5)) is MotionState.PASSED
    # Its epoch had begun before it was decided.
    assert (network.member.epoch, network.seated()) == (6, {MEMBER})
    network.end()
    network.check()


def test_who_is_not_there_gets_no_seat_and_stops_no_ledger() -> None:
    network = Seated()
    assert network.decide(THREE, seat(THREE, 1, since=4)) is MotionState.PASSED
    # What it says holds for that epoch's end, and this one is too early.
    network.vote(THREE, network.motion)
    network.end(5)
    assert (network.member.epoch, network.seated()) == (7, {MEMBER})
    with pytest.raises(Refused, match="the motion is decided"):
        network.vote(ONE, network.motion)
    network.do(THREE, ballot=(Ballot(motion=network.motion, yes=False),))
    network.end()
    assert network.seated() == {MEMBER}
    network.vote(THREE, network.motion)
    network.end()
    assert network.seated() == {MEMBER, THREE}
    with pytest.raises(Refused, match="the motion is decided"):
        network.vote(THREE, network.motion)
    network.check()


def test_a_seat_waits_for_its_member_and_not_for_ever() -> None:
    shelf, members = rows_of(claimed(5, 1), claimed(0, 0)), members_of(4)
    mark = BALLOT + bytes(32) + KEYS[5].peer
    # Others that are due are not held up.
    now, done = seats_after(shelf.rows, members, 1)
    assert (len(now), len(done)) == (3, 1)
    shelf.put(done)
    assert seats_after(shelf.rows, now, WAITING_EPOCHS_MAX) == (now, {})
    _, done = seats_after(shelf.rows, now, 1 + WAITING_EPOCHS_MAX)
    assert done == dict.fromkeys(shelf.rows)
    shelf.put({mark: b"\1"})
    assert seats_after(shelf.rows, now, 0) == (now, {mark: None})
    seated, done = seats_after(shelf.rows, now, 2)
    assert (len(seated), done) == (4, dict.fromkeys(shelf.rows))


@pytest.mark.parametrize("has_said_so", [False, True])
def test_a_seat_that_waits_is_taken_back_at_once_by_a_later_motion(has_said_so: bool) -> None:
    network = Seated()
    assert network.decide(THREE, seat(THREE, 1, since=20)) is MotionState.PASSED
    first = network.motion
    if has_said_so:
        # Somebody else has its key by now, and is early.
        network.vote(THREE, first)
    assert network.decide(ONE, seat(THREE, 0, since=9)) is MotionState.PASSED
    assert not [*waiting_seats(network.member.books.motions.rows)]
    assert BALLOT + first + THREE.peer not in network.member.books.motions.rows
    with pytest.raises(Refused, match="the motion is decided"):
        network.vote(THREE, first)
    with pytest.raises(Refused, match="no member"):
        network.propose(ONE, seats=(seat(THREE, 0, since=30),))
    network.end(20)
    assert network.seated() == {MEMBER}
    # Another motion may seat it all the same.
    assert network.decide(THREE, seat(THREE, 1, since=30)) is MotionState.PASSED
    while network.member.epoch < 30:
        network.vote(THREE, network.motion)
        network.end()
    assert network.seated() == {MEMBER, THREE}
    network.check()


def test_who_says_that_it_is_there_in_the_epoch_that_takes_its_seat_back_has_none() -> None:
    network = Seated()
    assert network.decide(THREE, seat(THREE, 1, since=4)) is MotionState.PASSED
    first, last = network.motion, network.propose(ONE, seats=(seat(THREE, 0, since=9),))
    network.end()
    for key in (ONE, MEMBER):
        network.vote(key, last)
    network.vote(THREE, first)
    network.end()
    assert network.row(last).state is MotionState.PASSED
    assert (network.member.epoch, network.seated()) == (4, {MEMBER})
    network.check()


def test_of_a_member_that_leaves_nothing_is_taken_back_before_its_epoch() -> None:
    members = members_of(4)
    shelf = rows_of(claimed(0, 2), claimed(5, 1))
    leaves = SeatClaim(member=KEYS[0].peer, weight=0, since=9)
    assert taken_back(shelf.rows, members, leaves) == {}
    assert taken_back(shelf.rows, members, replace(leaves, member=KEYS[6].peer)) == {}
    assert len(taken_back(shelf.rows, members, replace(leaves, member=KEYS[5].peer))) == 1


def test_who_is_to_keep_the_ledger_says_so_itself_or_is_no_member() -> None:
    network = Seated()
    assert network.decide(ONE, seat(THREE, 1, since=2)) is MotionState.DECLINED
    # It has paid for a task, so it may vote; a vote against it is none for it.
    network.use(THREE, TWO, 1)
    network.end()
    assert network.decide(ONE, seat(THREE, 1, since=9), THREE) is MotionState.PASSED
    assert network.seated() == {MEMBER}
    network.check()


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        (seat(MEMBER, 0, since=5), "a ledger without members is none"),
        (seat(MEMBER, 2, since=5), "a ledger without members is none"),
        (seat(MEMBER, 1, since=5), "such a member already"),
        (seat(THREE, 0, since=5), "no member"),
        (seat(THREE, 2, since=5), "no other member weighs more than 1"),
        (seat(THREE, 1, since=0), "from epoch 1 to 100000 on"),
        (seat(THREE, 1, since=100_001), "from epoch 1 to 100000 on"),
        (SeatClaim(member=nobody(), weight=1, since=5), "nobody can have the key"),
    ],
)
def test_a_motion_that_could_not_be_followed_is_refused(claim: SeatClaim, why: str) -> None:
    with pytest.raises(Refused, match=why):
        Seated().propose(THREE, seats=(claim,))


def test_members_that_nobody_voted_for_are_found_by_a_replay_and_by_the_page() -> None:
    network = Seated()
    both = tuple(Member(key=it, weight=1) for it in sorted((MEMBER.peer, THREE.peer)))
    with pytest.raises(Malformed, match="do not lead to the checkpoint"):
        network.end(members=both)
    with pytest.raises(Exception, match="the members of the next epoch are not those"):
        recount_of(network.data)


# One epoch's end


@pytest.mark.usefixtures("all_are_there")
def test_no_more_weight_changes_at_once_than_may_be_bad() -> None:
    claims = [claimed(at, 0) for at in range(3)] + [claimed(7, 1)]
    shelf, members = rows_of(*claims), members_of(7)
    left = []
    for epoch in range(1, 5):
        members, done = seats_after(shelf.rows, members, epoch)
        shelf.put(done)
        left.append(len(members))
    # Of seven two at once; of five one, however many wait.
    assert left == [5, 4, 5, 5]
    assert not shelf.rows


@pytest.mark.usefixtures("all_are_there")
def test_one_change_is_made_however_much_it_weighs_and_what_is_void_holds_nothing_up() -> None:
    members = members_of(2, [6, 1])
    heavy, light = (next(at for at, it in enumerate(KEYS) if it.peer == one.key) for one in members)
    shelf = rows_of(claimed(light, 1), claimed(heavy, 0), claimed(light, 0))
    members, done = seats_after(shelf.rows, members, 1)
    assert [it.weight for it in members] == [1]
    # The last one stays, whatever was decided.
    assert done == dict.fromkeys(shelf.rows)


@pytest.mark.usefixtures("all_are_there")
def test_nobody_weighs_more_than_the_heaviest_other_and_no_committee_is_too_large() -> None:
    members, _ = seats_after(rows_of(claimed(5, 9)).rows, members_of(4, [1, 2, 3, 1]), 1)
    assert {it.key: it.weight for it in members}[KEYS[5].peer] == 3
    full = tuple(
        Member(key=SigningKey(bytes((at + 1,)) * 32).peer, weight=1)
        for at in range(limits.LEDGER_MEMBERS_MAX)
    )
    full = tuple(sorted(full, key=lambda it: it.key))
    assert seats_after(rows_of(claimed(5, 1)).rows, full, 1)[0] == full
    with pytest.raises(Malformed, match="the committee is full"):
        check_seat({}, full, claimed(5, 1), 0)


def test_secrets_of_a_jury_keep_their_members_when_others_come_and_go() -> None:
    before, after = members_of(4), members_of(6)[1:]
    bits = _moved(0b1011, before, after)
    kept = {before[at].key for at in (0, 1, 3)} & {it.key for it in after}
    assert {after[at].key for at in places_in(bits)} == kept


def test_an_order_is_judged_by_the_members_of_its_epoch_also_after_a_start() -> None:
    genesis = genesis_of(4)
    known = Committees(genesis)
    headers = [header_of(genesis, 0, 4), header_of(genesis, 1, 5), header_of(genesis, 2, 5)]
    assert [known.note(it) for it in headers] == [False, True, False]
    again = Committees(genesis)
    again.restore(known.to_bytes(), headers[-1])
    for one in (known, again):
        assert [len(one.of(it).members) for it in range(5)] == [4, 4, 5, 5, 5]
        assert one.epoch == 3
        assert not one.note(headers[0])
    broken = Committees(genesis)
    broken.restore(b"\xc0", None)
    assert len(broken.latest.members) == 4
    for epoch in range(3, 3 + 2 * CHANGES_MAX):
        known.note(header_of(genesis, epoch, 4 + epoch % 2))
    with pytest.raises(Refused, match="who kept the ledger in epoch 2"):
        known.of(2)


def header_of(genesis: Genesis, epoch: int, members: int) -> CheckpointHeader:
    return CheckpointHeader(
        network=genesis.id,
        epoch=epoch,
        previous=genesis.id if epoch else None,
        count=0,
        buckets=bytes(512),
        state=bytes(32),
        balances=0,
        deposits=0,
        fund=0,
        members=members_of(members),
    )
