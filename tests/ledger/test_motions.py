"""Motions: who counts, when they are decided, what they do; and a recount that shares no code."""

import importlib
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest

from node.ledger.chain_file import read_parts, replay
from node.ledger.jury_draw import drawn_by
from node.ledger.loading import first_rows, load
from node.ledger.model_registry import models_in
from node.ledger.motion_shelf import motions_in, parameter
from node.ledger.payment_channel import channel_name
from tests.ledger.made import ONE, THREE, TWO, Made
from tests.ledger.simulation import GRANT, KEYS, OWNERS
from tests.ledger.test_chain_file import file_of
from wire.amount import CREDIT
from wire.checkpoint import AgreementPhase, AgreementVote, Checkpoint
from wire.content import ContentId, PeerId
from wire.errors import Malformed, Refused, WireError
from wire.kinds import Role
from wire.ledger import Opening, Payment, Redemption, growth_of, order_digest
from wire.motion import (
    BOUNDS,
    VOTING_EPOCHS_MIN,
    Ballot,
    FundGrant,
    ModelClaim,
    Motion,
    MotionRow,
    MotionState,
    Parameter,
    ParameterChange,
    SeatClaim,
    motion_id,
)
from wire.signed import sign
from wire.signing import SigningKey
from wire.stake import StakePart

ROOT = Path(__file__).parents[2]
MEMBER = KEYS[0]
MODEL = ContentId.of(b"a model")


def recount_of(data: bytes) -> dict[bytes, dict[str, Any]]:
    """What `examples/recount.py` makes of a file."""
    found: dict[bytes, dict[str, Any]] = recount_page("recount").recount(io.BytesIO(data))
    return found


def recount_page(name: str) -> Any:
    """A page of `examples/`, as a program that lies there imports it."""
    folder = str(ROOT / "examples")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


class Network:
    """One member, and a file of what has happened."""

    def __init__(self, fund: int = 5) -> None:
        self.made = Made(1, fund)
        self.parts = [self.made.genesis.to_bytes()]
        self.rows = {key: it for key, it in first_rows(self.made.genesis) if it is not None}
        self.channels: dict[tuple[PeerId, PeerId], tuple[bytes, int]] = {}

    @property
    def member(self) -> Any:
        return self.made.replicas[0]

    def do(self, key: SigningKey, **action: Any) -> bytes:
        order = self.made.order(key, **action)
        self.member.vote(order)
        self.member.confirm(self.made.certificate(order, (0,)))
        return order_digest(order)

    def end(self, epochs: int = 1) -> None:
        for _ in range(epochs):
            member = self.member
            made = member.make_seal()
            assert made is not None
            by = drawn_by({0: made[0]}, member.tip, member.committee)
            header = member.outcome(member.applied, by).header
            vote = AgreementVote(
                network=self.made.genesis.id,
                epoch=member.epoch,
                round=0,
                phase=AgreementPhase.PRECOMMIT,
                header=header.id,
            )
            signatures = self.made.signatures(sign(vote, MEMBER).raw)
            checkpoint = Checkpoint(header=header.to_bytes(), round=0, signatures=signatures)
            self.parts += [checkpoint.to_bytes(), *(member.applied[it] for it in member.applied)]
            for key, value in member.turn(checkpoint, list(member.applied)):
                if value is None:
                    self.rows.pop(key, None)
                else:
                    self.rows[key] = value

    def propose(self, key: SigningKey = ONE, **changes: Any) -> bytes:
        """Make a motion; its id. By default it changes the growth share."""
        fields: dict[str, Any] = {"title": "more", "why": "", "epochs": VOTING_EPOCHS_MIN}
        if not changes.keys() & {"grant", "claims", "builders", "seats"}:
            change = ParameterChange(parameter=Parameter.GROWTH, value=80_000)
            fields["change"] = change
        rest = {"bond": CREDIT, "change": None, "grant": None}
        motion = Motion(**(rest | fields | changes))
        return motion_id(self.do(key, propose=(motion,)))

    def vote(self, key: SigningKey, motion: bytes, *, yes: bool = True) -> None:
        self.do(key, ballot=(Ballot(motion=motion, yes=yes),))

    def use(
        self, payer: SigningKey, payee: SigningKey, paid: int, deposit: int = 10 * CREDIT
    ) -> None:
        """Have something redeemed out of a channel of these two."""
        sides = (payer.peer, payee.peer)
        if sides not in self.channels:
            opening = Opening(payee=payee.peer, deposit=deposit, expiry=1000)
            digest = self.do(payer, open=(opening,))
            self.channels[sides] = (channel_name(digest, 0), 0)
        name, total = self.channels[sides]
        total += paid
        voucher = self.made.voucher(name, total, payer)
        self.do(payee, redeem=(Redemption(channel=name, voucher=voucher, release=False),))
        self.channels[sides] = (name, total)

    def row(self, motion: bytes) -> MotionRow:
        return motions_in(self.member.books.motions.rows)[motion]

    def balance(self, key: SigningKey) -> int:
        return self.made.balance(key)

    @property
    def data(self) -> bytes:
        return file_of(self.parts)

    def check(self) -> None:
        """The whole file holds, the independent page counts the same, a restart knows it all."""
        books = replay(read_parts(io.BytesIO(self.data))).books
        recounted = recount_page("recount").recount_all(io.BytesIO(self.data))
        counted = recounted.motions
        motions = motions_in(books.motions.rows)
        assert counted.keys() == motions.keys()
        for name, row in motions.items():
            other = counted[name]
            assert (other["title"], other["until"]) == (row.motion.title, row.until)
            state = MotionState.PASSED if row.state is MotionState.UNFUNDED else row.state
            assert other["state"] == int(state)
            if row.stake is not None and row.using is not None:
                for house, count in (("stake", row.stake), ("use", row.using)):
                    assert other[house] == (count.yes, count.no, count.total)
        told = recounted.models
        models = models_in(books.motions.rows)
        assert told == {it: (row.author, row.share, row.motion) for it, row in models.items()}
        rows = sorted(self.rows.items())
        loaded = load(
            self.made.genesis, MEMBER, lambda prefix: [it for it in rows if it[0][:1] == prefix[:1]]
        )
        assert loaded.replica.books.digest() == self.member.books.digest()
        assert loaded.replica.books.supply == self.made.genesis.supply


def test_what_more_than_half_of_both_houses_is_for_passes_at_once() -> None:
    network = Network()
    network.use(ONE, TWO, 3 * CREDIT)
    network.use(THREE, TWO, CREDIT)
    motion = network.propose(THREE)
    network.end()
    network.vote(MEMBER, motion)
    network.vote(THREE, motion)
    network.end()
    assert network.row(motion).state is MotionState.OPEN
    network.vote(ONE, motion)
    network.end()
    row = network.row(motion)
    assert (row.state, row.decided) == (MotionState.PASSED, 2)
    assert row.using is not None
    assert (row.using.yes, row.using.total) == (4 * CREDIT, 4 * CREDIT)
    # The bond is back; and channels that are opened from now on pay the new share.
    assert network.balance(THREE) == GRANT - 10 * CREDIT
    fund = network.member.books.fund
    network.use(THREE, ONE, CREDIT)
    network.use(ONE, TWO, CREDIT)
    network.end()
    more = growth_of(CREDIT, 80_000) + growth_of(4 * CREDIT) - growth_of(3 * CREDIT)
    assert network.member.books.fund == fund + more
    network.check()


@pytest.mark.parametrize(
    ("yes", "no", "state"),
    [
        ((OWNERS[5],), (), MotionState.LAPSED),
        ((), (MEMBER, ONE), MotionState.REJECTED),
        ((MEMBER,), (ONE,), MotionState.REJECTED),
        ((MEMBER, THREE), (), MotionState.PASSED),
    ],
)
def test_at_its_end_a_motion_has_a_fifth_of_both_houses_or_lapses(
    yes: tuple[SigningKey, ...], no: tuple[SigningKey, ...], state: MotionState
) -> None:
    network = Network()
    network.use(ONE, TWO, 3 * CREDIT)
    network.use(THREE, TWO, CREDIT)
    network.use(OWNERS[5], TWO, 1000)
    motion = network.propose(OWNERS[4])
    network.end()
    for key in yes:
        network.vote(key, motion)
    for key in no:
        network.vote(key, motion, yes=False)
    network.end(VOTING_EPOCHS_MIN - 1)
    assert network.row(motion).state is MotionState.OPEN
    assert network.balance(OWNERS[4]) == GRANT - CREDIT
    network.end()
    assert network.row(motion).state is state
    lapsed = state is MotionState.LAPSED
    assert network.balance(OWNERS[4]) == GRANT - (CREDIT if lapsed else 0)
    growth = growth_of(3 * CREDIT) + growth_of(CREDIT) + growth_of(1000)
    assert network.member.books.fund == 5 + growth + (CREDIT if lapsed else 0)
    network.check()


def test_of_two_ballots_the_last_counts_once_and_stake_that_leaves_does_not() -> None:
    network = Network()
    network.use(ONE, TWO, CREDIT)
    part = StakePart(role=Role.VERIFY, amount=50 * CREDIT)
    network.do(ONE, stake=(part,))
    network.do(THREE, stake=(part,))
    motion, other = network.propose(), network.propose(TWO)
    network.end()
    network.vote(ONE, motion)
    network.vote(ONE, motion)
    network.vote(THREE, motion)
    network.vote(THREE, motion, yes=False)
    network.vote(THREE, other)
    network.do(ONE, unbond=(part,))
    network.end(VOTING_EPOCHS_MIN)
    row = network.row(motion)
    assert row.stake is not None
    assert row.using is not None
    assert (row.stake.yes, row.stake.no) == (0, 50 * CREDIT)
    assert row.stake.total == 1050 * CREDIT
    assert (row.using.yes, row.using.no) == (CREDIT, 0)
    network.check()


def test_what_a_ring_paid_itself_does_not_vote_and_its_grant_does_not_pass() -> None:
    network = Network(fund=1000 * CREDIT)
    ring = OWNERS[3:6]
    network.use(ONE, TWO, CREDIT // 2)
    for payer, payee in zip(ring, [*ring[1:], ring[0]], strict=True):
        network.use(payer, payee, 5 * CREDIT)
    grant = FundGrant(to=ring[0].peer, step=100 * CREDIT, steps=1, use=0)
    motion = network.propose(ring[0], grant=grant)
    network.end()
    for key in (*ring, MEMBER):
        network.vote(key, motion)
    network.end(VOTING_EPOCHS_MIN)
    row = network.row(motion)
    assert row.state is MotionState.LAPSED
    assert row.using is not None
    assert (row.using.yes, row.using.total) == (0, CREDIT // 2)
    network.check()


def test_a_grant_is_paid_step_by_step_against_use_by_others() -> None:
    network = Network(fund=100 * CREDIT)
    network.use(ONE, TWO, CREDIT)
    builder = OWNERS[5]
    grant = FundGrant(to=builder.peer, step=10 * CREDIT, steps=3, use=2 * CREDIT)
    motion = network.propose(ONE, grant=grant)
    network.end()
    network.vote(ONE, motion)
    network.vote(MEMBER, motion)
    network.end()
    assert (network.row(motion).state, network.row(motion).paid) == (MotionState.PASSED, 1)
    assert network.balance(builder) == GRANT + 10 * CREDIT
    network.use(builder, TWO, CREDIT)
    network.end()
    assert network.row(motion).paid == 1
    network.use(builder, TWO, CREDIT)
    network.end()
    assert network.row(motion).paid == 2
    # What goes round counts nothing: TWO is the builder's own from now on.
    network.do(TWO, pay=(Payment(to=builder.peer, amount=CREDIT),))
    network.use(builder, TWO, 5 * CREDIT)
    network.end()
    assert network.row(motion).paid == 2
    network.use(ONE, builder, 9 * CREDIT)
    network.end(2)
    assert network.row(motion).paid == 3
    network.check()


def test_a_fund_that_has_not_enough_pays_nothing() -> None:
    network = Network()
    network.use(ONE, TWO, CREDIT)
    grant = FundGrant(to=THREE.peer, step=CREDIT, steps=1, use=0)
    motion = network.propose(grant=grant)
    network.end()
    network.vote(ONE, motion)
    network.vote(MEMBER, motion)
    network.end()
    assert network.row(motion).state is MotionState.UNFUNDED
    assert network.balance(THREE) == GRANT
    network.check()


def test_of_two_that_change_one_parameter_the_greater_id_holds() -> None:
    network = Network()
    network.use(ONE, TWO, CREDIT)
    values = {}
    for value in (30_000, 120_000):
        change = ParameterChange(parameter=Parameter.GROWTH, value=value)
        values[network.propose(change=change)] = value
    network.end()
    for motion in values:
        network.vote(ONE, motion)
        network.vote(MEMBER, motion)
    network.end()
    rows = network.member.books.motions.rows
    assert parameter(rows, Parameter.GROWTH) == values[max(values)]
    network.check()


@pytest.mark.parametrize("which", Parameter)
def test_a_parameter_beyond_its_bounds_is_no_motion(which: Parameter) -> None:
    low, high = BOUNDS[which]
    for value in (low, high):
        ParameterChange(parameter=which, value=value)
    for value in (low - 1, high + 1, 2**62):
        with pytest.raises(WireError):
            ParameterChange(parameter=which, value=value)


def test_what_cannot_be_voted_on_or_put_up_is_refused() -> None:
    network = Network()
    motion = network.propose()
    with pytest.raises(Refused, match="no such motion, or its epoch"):
        network.vote(TWO, motion)
    with pytest.raises(Refused, match="bond of 1"):
        network.propose(TWO, bond=CREDIT - 1)
    with pytest.raises(Refused, match="the account has 0"):
        network.propose(MEMBER)
    network.end(VOTING_EPOCHS_MIN + 1)
    with pytest.raises(Refused, match="decided: lapsed"):
        network.vote(TWO, motion)
    with pytest.raises(Malformed, match="one parameter, or makes one grant"):
        Motion(title="x", why="", epochs=100, bond=1, change=None, grant=None)
    with pytest.raises(Malformed, match="which use"):
        FundGrant(to=ONE.peer, step=1, steps=2, use=0)


def test_a_key_that_has_neither_staked_nor_paid_leaves_no_row() -> None:
    network = Network()
    network.use(ONE, TWO, CREDIT)
    motion = network.propose()
    network.end()
    for key in (TWO, SigningKey(b"n" * 32)):
        with pytest.raises(Refused, match="staked nothing, and paid for no task"):
            network.vote(key, motion)
    network.vote(ONE, motion)
    network.end()
    network.check()


def test_the_more_motions_are_open_the_dearer_is_one_more() -> None:
    network = Network()
    network.propose()
    network.propose()
    network.end()
    with pytest.raises(Refused, match="bond of 3 now"):
        network.propose(bond=2 * CREDIT)
    network.propose(bond=3 * CREDIT)
    network.end()
    network.check()


def test_pairs_that_only_moved_credits_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.ledger.use_window.PLAIN_MAX", 20)
    monkeypatch.setattr(recount_page("recount"), "PLAIN_MAX", 20)
    network = Network()
    network.use(ONE, TWO, CREDIT)
    motion = network.propose()
    network.end()
    names = [SigningKey(bytes((at,)) * 32).peer for at in range(1, 31)]
    for key in (ONE, TWO):
        network.do(key, pay=tuple(Payment(to=it, amount=1000) for it in names))
    network.vote(ONE, motion)
    network.end()
    assert sum(key[:1] == b"u" for key in network.member.books.motions.rows) == 1 + 20
    network.end(VOTING_EPOCHS_MIN)
    network.check()


def random_history(seed: int) -> Network:
    """Accounts stake, use, pay, propose and vote, for as long as motions last."""
    random = Random(seed)
    network = Network(fund=random.choice((5, 500 * CREDIT)))
    for _ in range(random.randint(1, 5)):
        network.use(*random.sample(OWNERS, 2), random.randint(1, CREDIT))
    for key in random.sample(OWNERS, 3):
        amount = random.randint(CREDIT, 60 * CREDIT)
        network.do(key, stake=(StakePart(role=random.choice([*Role]), amount=amount),))
    motions = []
    network.end()
    for key in random.sample(OWNERS, random.randint(1, 3)):
        grant = FundGrant(to=random.choice(OWNERS).peer, step=CREDIT, steps=2, use=CREDIT)
        claim = ModelClaim(model=MODEL, author=random.choice(OWNERS).peer, share=70_000)
        # Who agrees to it says afterwards nothing more, so its seat waits.
        member, since = random.choice(OWNERS).peer, random.randint(2, 12)
        seat = SeatClaim(member=member, weight=1, since=since)
        some: list[dict[str, Any]] = [{}, {"grant": grant}, {"claims": (claim,)}]
        changes = random.choice([*some, {"seats": (seat,)}])
        motions.append(network.propose(key, title=f"motion {seed}", **changes))
    network.end()
    agreed = random.choice([(), motions])
    for key, motion in product([MEMBER, *OWNERS], agreed):
        with suppress(Refused):
            network.vote(key, motion, yes=random.random() < 0.9)
    for _ in range(random.randint(2, 9)):
        motion = random.choice(motions)
        if network.row(motion).state is MotionState.OPEN:
            key = random.choice([*OWNERS, MEMBER])
            with suppress(Refused):
                network.vote(key, motion, yes=random.random() < 0.7)
        action = random.random()
        if action < 0.3:
            network.use(*random.sample(OWNERS, 2), random.randint(1, CREDIT))
        elif action < 0.5:
            payer, payee = random.sample(OWNERS, 2)
            network.do(payer, pay=(Payment(to=payee.peer, amount=random.randint(1, CREDIT)),))
        if random.random() < 0.5:
            network.end()
    network.end(VOTING_EPOCHS_MIN)
    return network


def states_of(seeds: range) -> set[MotionState]:
    """How motions ended in these histories, all of which hold."""
    states = set()
    for seed in seeds:
        network = random_history(seed)
        network.check()
        states |= {it.state for it in motions_in(network.member.books.motions.rows).values()}
    return states


def test_a_recount_that_shares_no_code_agrees_on_random_histories() -> None:
    assert {MotionState.PASSED, MotionState.LAPSED} <= states_of(range(6))


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("hundred", range(10))
def test_a_recount_agrees_on_a_thousand_histories(hundred: int) -> None:
    """Ten tests, so that each has the time that one has, on a busy machine too."""
    seeds = range(100 * hundred, 100 * (hundred + 1))
    # A claim to a model that is taken already is rare: not each hundred has one.
    assert {*MotionState} - {MotionState.OPEN, MotionState.TAKEN} <= states_of(seeds)


def _replayed(data: bytes) -> object:
    return replay(read_parts(io.BytesIO(data)))


def _altered(network: Network, what: bytes, step: int) -> Iterator[bytes]:
    """The file with a bit of one byte turned, of the certificate of the last order of a kind."""
    data = network.data
    raw = [it for it in network.parts if bytes((0xA0 + len(what),)) + what in it][-1]
    at = data.index(raw)
    for place in range(at, at + len(raw), step):
        turned = data[place] ^ (1 << place % 8)
        yield data[:place] + bytes((turned,)) + data[place + 1 :]


def _of_two_epochs() -> Network:
    network = Network()
    network.use(ONE, TWO, CREDIT)
    motion = network.propose()
    network.end()
    network.vote(ONE, motion)
    network.use(ONE, TWO, CREDIT)
    network.end()
    return network


@pytest.mark.parametrize("what", [b"ballot", b"redeem"])
@pytest.mark.parametrize("check", [recount_of, _replayed])
def test_a_ballot_or_a_line_of_use_that_is_altered_is_named(
    check: Callable[[bytes], object], what: bytes
) -> None:
    network = _of_two_epochs()
    check(network.data)
    for altered in _altered(network, what, 11):
        with pytest.raises((Malformed, recount_page("recount").Wrong), match="epoch 1"):
            check(altered)


@pytest.mark.soak
@pytest.mark.parametrize("what", [b"ballot", b"redeem"])
@pytest.mark.parametrize("check", [recount_of, _replayed])
def test_each_byte_of_a_ballot_and_of_a_line_of_use_counts(
    check: Callable[[bytes], object], what: bytes
) -> None:
    for altered in _altered(_of_two_epochs(), what, 1):
        with pytest.raises((Malformed, recount_page("recount").Wrong), match="epoch 1"):
            check(altered)
