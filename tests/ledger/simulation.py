"""A network of members and owners in one process, by pure cores: time, disk and wire from a seed.

Messages are late, lost, doubled and overtake each other. A member may crash at any write: what it
wrote is there or is not, and what it was about to say is not said.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Any

from node.ledger.books import Account
from node.ledger.committee import Committee, collected, proof_of
from node.ledger.committee_calls import MemberReplies
from node.ledger.jury_draw import is_due, secret_for
from node.ledger.loading import LoadedReplica, first_rows, load
from node.ledger.member_role import TELL_AGAIN_S, TELL_EVERY_S
from node.ledger.motion_shelf import CASE
from node.ledger.order_lists import in_bucket
from node.ledger.rows import MOTIONS, ROUNDS, RowChange, account_row, of_epoch
from node.ledger.seats import seat_row
from wire.checkpoint import (
    ORDER_BUCKETS,
    AgreementPhase,
    AgreementVote,
    CheckpointHeader,
    Proposal,
    Seal,
    bucket_of,
    buckets_of,
    digest_in,
)
from wire.content import ContentId, PeerId
from wire.errors import Refused, WireError
from wire.jury import CaseRow
from wire.kinds import RefusalCode
from wire.ledger import (
    AccountOrder,
    Certificate,
    Genesis,
    Grant,
    Member,
    Payment,
    Vote,
    order_digest,
)
from wire.motion import SeatClaim
from wire.signed import Signed, open_signed, sign
from wire.signing import SigningKey

EPOCH_S = 100.0
# How long an owner tries, every 2 s. Members come out of an epoch one after the other, and who is
# late has to be told by those that are not.
TRIES = 12
GRANT = 100_000_000
NOTHING = buckets_of(())
# What a member answers to an owner: its signature, or that it refuses.
Reply = Callable[[int, bytes | Refused], None]
KEYS = [SigningKey(bytes((40 + number,)) * 32) for number in range(31)]
OWNERS = [SigningKey(bytes((100 + number,)) * 32) for number in range(6)]


def genesis_of(members: int, *, epoch_s: int = 100, fund: int = 5) -> Genesis:
    """A network of so many members of the same weight, in which every owner has a grant."""
    return Genesis(
        version=1,
        name="test",
        nonce=bytes(16),
        epoch_s=epoch_s,
        account_min=1000,
        fund=fund,
        grants=tuple(
            Grant(account=it.peer, amount=GRANT) for it in sorted(OWNERS, key=lambda k: k.peer)
        ),
        members=tuple(
            Member(key=it.peer, weight=1) for it in sorted(KEYS[:members], key=lambda k: k.peer)
        ),
    )


@dataclass
class Disk:
    """Rows by their keys; `forgets` names tables whose writes are lost in a crash."""

    rows: dict[bytes, bytes] = field(default_factory=dict)
    forgets: bytes = b""

    def write(self, rows: list[RowChange]) -> None:
        for key, value in rows:
            if key[:1] in self.forgets and self.forgets:
                continue
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value

    def scan(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        return sorted((key, it) for key, it in self.rows.items() if key.startswith(prefix))


@dataclass
class Plan:
    """What goes wrong in a run."""

    seed: int
    members: int
    bad: int
    epochs: int = 3
    loss: float = 0.1
    crash: float = 0.02
    forgets: bytes = b""
    # How many acknowledgements an owner takes for settled; None: a quorum.
    settled_by: int | None = None
    cheats: int = 2
    # Whether bad members do nothing at the end of an epoch but seal, and each hides from another
    # one what it has sealed.
    hides: bool = False
    # Peers besides that keep the ledger, and the changes of members that have passed: from which
    # epoch on, who by number, and its weight.
    candidates: int = 0
    seats: tuple[tuple[int, int, int], ...] = ()
    # Who is bad, by number; drawn by `bad` if nobody is named.
    villains: tuple[int, ...] = ()
    # A case that waits for a jury from the beginning; its bond is its accuser's.
    case: CaseRow | None = None


@dataclass
class Found:
    """What a run came to."""

    certified: dict[tuple[int, PeerId, int], set[bytes]] = field(
        default_factory=lambda: defaultdict(set)
    )
    settled: dict[bytes, int] = field(default_factory=dict)
    crashes: int = 0
    epochs_ended: int = 0
    rounds: int = 0

    @property
    def doubled(self) -> int:
        """Accounts and sequences with certificates for two orders."""
        return sum(len(orders) > 1 for orders in self.certified.values())


class Simulation:
    """One run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.random = Random(f"ledger:{plan.seed}:{plan.members}:{plan.bad}")
        self.genesis = genesis_of(plan.members)
        self.committee = Committee(self.genesis.members)
        self.now_s = 0.0
        self.count = 0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.found = Found()
        keys = {it.peer: it for it in KEYS}
        bad = set(self.random.sample(range(plan.members), plan.bad)) | set(plan.villains)
        own = [keys[it.key] for it in self.genesis.members]
        own += KEYS[plan.members : plan.members + plan.candidates]
        self.own = own
        self.members: list[Any] = [
            (BadMember if at in bad else SimulatedMember)(self, at, key)
            for at, key in enumerate(own)
        ]
        self.honest = [it for it in self.members if isinstance(it, SimulatedMember)]
        self.owners = [Owner(self, key, number) for number, key in enumerate(OWNERS)]
        # Of each epoch that has ended: its header and its orders, as the first member had them.
        self.ended: dict[int, tuple[CheckpointHeader, frozenset[bytes]]] = {}

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now_s + delay_s, self.count, what))

    def send(self, what: Callable[[], None]) -> None:
        """A message: late, perhaps lost, perhaps doubled."""
        if self.random.random() < self.plan.loss:
            return
        self.later(self.random.expovariate(5.0), what)
        if self.random.random() < 0.05:
            self.later(self.random.expovariate(1.0), what)

    def settle_many(self) -> None:
        """Have so many orders settled at the beginning that buckets have several."""
        for sequence in range(5):
            for owner in self.owners:
                payment = Payment(to=self.owners[owner is self.owners[0]].key.peer, amount=1000)
                order = owner.order(0, sequence, payment)
                proofs = {}
                for member in self.honest:
                    vote, row = member.replica.vote(order)
                    member.disk.write([row])
                    proofs[member.place] = proof_of(Vote, sign(vote, member.key).raw)
                raw = Certificate(order=order.raw, votes=collected(proofs)).to_bytes()
                for member in self.members:
                    member.confirm(raw, lambda *_: None)

    def run(self) -> Found:
        if self.plan.hides:
            self.settle_many()
        for member in self.members:
            member.begin()
        for owner in self.owners:
            owner.begin()
        until_s = EPOCH_S * (self.plan.epochs + 6)
        while self.events and self.now_s < until_s:
            if all(it.replica.epoch >= self.plan.epochs for it in self.honest):
                break
            self.now_s, _, what = heapq.heappop(self.events)
            what()
        self.found.epochs_ended = min(it.replica.epoch for it in self.honest)
        return self.found

    def note_end(self, header: CheckpointHeader, orders: frozenset[bytes]) -> None:
        """A member has ended an epoch: all have to end it alike."""
        before = self.ended.setdefault(header.epoch, (header, orders))
        assert before == (header, orders), f"epoch {header.epoch} has two ends"
        assert header.supply == self.genesis.supply

    def tip_before(self, epoch: int) -> CheckpointHeader | None:
        """The checkpoint before an epoch, once it is known."""
        before = self.ended.get(epoch - 1)
        return None if before is None else before[0]

    def committee_of(self, epoch: int) -> Committee:
        """Who keeps an epoch that has begun at a member."""
        before = self.tip_before(epoch)
        return self.committee if before is None else Committee(before.members)

    def seat_rows(self) -> list[RowChange]:
        """The changes of members that have passed, as rows of the books."""
        rows: list[RowChange] = []
        for at, (since, number, weight) in enumerate(self.plan.seats):
            claim = SeatClaim(member=self.own[number].peer, weight=weight, since=since)
            key, value = seat_row(bytes((at,)) * 32, claim)
            rows.append((MOTIONS + key, value))
        return rows

    def lost(self) -> list[bytes]:
        """Settled orders of ended epochs that the checkpoint does not have."""
        return [
            order
            for order, epoch in self.found.settled.items()
            if epoch in self.ended and order not in self.ended[epoch][1]
        ]


class SimulatedMember:
    """An honest member with a disk that it may crash at."""

    def __init__(self, world: Simulation, place: int, key: SigningKey) -> None:
        self.world, self.place, self.key = world, place, key
        self.disk = Disk(forgets=world.plan.forgets)
        self.disk.write(first_rows(world.genesis) + world.seat_rows())
        if (case := world.plan.case) is not None:
            left = Account(GRANT - case.bond, 0)
            row = (MOTIONS + CASE + case.act, case.to_bytes())
            self.disk.write([row, account_row(case.accuser, left)])
        self.life = 0
        self._buckets: tuple[tuple[int, int], bytes] = ((-1, -1), b"")
        self.load()

    def load(self) -> None:
        self.life += 1
        self._buckets = ((-1, -1), b"")
        found: LoadedReplica = load(self.world.genesis, self.key, self.disk.scan)
        self.replica, self.end, self.told = found.replica, found.end, found.signed
        # Which epoch runs is what others say: here they say it at once.
        self.replica.sure = True

    def begin(self) -> None:
        self.end.advance()
        self.act()
        self.wait_for_end()
        self.gossip()

    def wait_for_end(self) -> None:
        life, epoch = self.life, self.replica.epoch
        # Clocks differ.
        delay_s = EPOCH_S * self.world.random.uniform(0.9, 1.1)

        def over() -> None:
            if self.life == life and self.replica.epoch == epoch:
                self.end.seal_now()
                self.act()

        self.world.later(delay_s, over)

    def write(self, rows: list[RowChange]) -> bool:
        """Write; False if the member crashed there, and is another since."""
        plan, random = self.world.plan, self.world.random
        if random.random() >= plan.crash:
            self.disk.write(rows)
            return True
        if random.random() < 0.5:
            self.disk.write(rows)
        self.world.found.crashes += 1
        self.load()
        self.begin()
        return False

    # What owners ask

    def submit(self, order: Signed[AccountOrder], reply: Reply) -> None:
        try:
            vote, row = self.replica.vote(order)
        except Refused as error:
            self.world.send(lambda error=error: reply(self.place, error))
            return
        if self.write([row]):
            proof = proof_of(Vote, sign(vote, self.key).raw)
            self.world.send(lambda: reply(self.place, proof))

    def confirm(self, raw: bytes, reply: Reply) -> None:
        try:
            _, rows = self.replica.confirm(raw)
        except Refused as error:
            self.world.send(lambda error=error: reply(self.place, error))
            return
        if self.write(rows):
            self.world.send(lambda: reply(self.place, b"applied"))

    # What members tell each other

    def act(self) -> None:
        to_do = self.end.take()
        if to_do.rows and not self.write(to_do.rows):
            return
        self.told += to_do.signed
        for raw in to_do.signed:
            self.tell_all(raw)
        life, epoch = self.life, self.replica.epoch
        for wait in to_do.waits:

            def over(wait: Any = wait) -> None:
                if self.life == life and self.replica.epoch == epoch:
                    self.end.on_timeout(wait.step, wait.round)
                    self.act()

            self.world.later(wait.delay_s, over)
        self.turn_if_ended()

    def tell_all(self, raw: bytes) -> None:
        for other in self.world.members:
            if other is not self and self.has_seat(other):
                self.world.send(lambda other=other: other.hear(self, raw))

    def has_seat(self, other: Any) -> bool:
        """Whether somebody is a member in the epoch that runs here."""
        return other.key.peer in self.replica.committee.index

    def gossip(self) -> None:
        """As members do: each other one is told all again, and answers with what it has to tell."""
        life = self.life

        def again() -> None:
            if self.life != life:
                return
            for other in self.world.members:
                if other is self or not self.has_seat(other):
                    continue
                if self.has_seat(self):
                    self.call(other)
                elif isinstance(other, SimulatedMember):
                    # Who is no member is told nothing: it looks how the epoch has ended.
                    self.world.send(lambda other=other: self.look_at(other))
            self.gossip()

        self.world.later(TELL_AGAIN_S if self.told else TELL_EVERY_S, again)

    def look_at(self, other: "SimulatedMember") -> None:
        if other.replica.epoch > self.replica.epoch:
            self.follow(other)

    def call(self, other: Any) -> None:
        told = tuple(self.told)

        def answered() -> None:
            other.hear_all(self, told)
            answer = tuple(other.told)
            self.world.send(lambda: self.hear_all(other, answer))

        self.world.send(answered)

    def hear(self, other: Any, raw: bytes) -> None:
        self.hear_all(other, (raw,))

    def hear_all(self, other: Any, told: tuple[bytes, ...]) -> None:
        if not self.has_seat(other):
            return
        for raw in told:
            with suppress(WireError):
                self.end.receive(raw)
        self.fetch(other)
        self.act()

    def fetch(self, other: Any) -> None:
        """Lists and certificates that are lacking, and how the epoch has ended, from another."""
        if isinstance(other, SimulatedMember) and other.replica.epoch != self.replica.epoch:
            if other.replica.epoch > self.replica.epoch:
                self.follow(other)
            return
        for buckets in [*self.end.unresolved(), other.buckets()]:
            if buckets == self.buckets():
                continue
            for number in self.replica.resolve(buckets).buckets:
                listed = other.listed(self, number, digest_in(buckets, number))
                self.replica.lists.note(listed, other.key.peer)
            for digest in self.replica.resolve(buckets).missing:
                if (raw := other.certificate_of(digest)) is not None:
                    self.replica.learn(raw)
        rows = self.replica.catch_up()
        if rows and not self.write(rows):
            return
        self.end.advance()

    def listed(self, _: Any, number: int, digest: bytes) -> Collection[bytes]:
        return self.replica.lists.listed(number, digest, self.replica.applied)

    def certificate_of(self, digest: bytes) -> bytes | None:
        return self.replica.certificate_of(digest)

    def buckets(self) -> bytes:
        """What is applied, worked out again only if it has changed."""
        now = (self.replica.epoch, len(self.replica.applied))
        if self._buckets[0] != now:
            self._buckets = (now, buckets_of(self.replica.applied))
        return self._buckets[1]

    def follow(self, other: "SimulatedMember") -> None:
        """End the epoch as another has: by its checkpoint and the certificates."""
        from node.ledger.rows import CERTIFICATES, CHECKPOINTS
        from wire.checkpoint import Checkpoint

        epoch = self.replica.epoch
        raw = other.disk.rows.get(of_epoch(CHECKPOINTS, epoch))
        if raw is None:
            return
        checkpoint = Checkpoint.from_bytes(raw)
        self.replica.check_checkpoint(checkpoint)
        prefix = of_epoch(CERTIFICATES, epoch)
        orders = {key[len(prefix) :]: it for key, it in other.disk.scan(prefix)}
        for certificate in orders.values():
            self.replica.learn(certificate)
        self.turn(checkpoint, orders)

    def turn_if_ended(self) -> None:
        if self.end.checkpoint is None:
            return
        orders = self.end.orders()
        if orders is not None:
            self.turn(self.end.checkpoint, orders)

    def turn(self, checkpoint: Any, orders: Any) -> None:
        from node.ledger.epoch_end import EpochEnd

        ended = self.replica.epoch
        chosen = frozenset(orders)
        if self.end.agreement is not None:
            self.world.found.rounds = max(self.world.found.rounds, self.end.agreement.round)
        rows = self.replica.turn(checkpoint, orders)
        rows += [(key, None) for key, _ in self.disk.scan(of_epoch(ROUNDS, ended))]
        assert self.replica.tip is not None
        self.world.note_end(self.replica.tip, chosen)
        self.end, self.told = EpochEnd(self.replica), []
        self.life += 1
        if self.write(rows):
            self.begin()


class BadMember:
    """Votes for every order or refuses it, applies nothing, seals what it likes, leads astray.

    Of what it seals it tells each member another story, and only some which orders those are.
    """

    # It says nothing by itself when it is called.
    told: tuple[bytes, ...] = ()

    def __init__(self, world: Simulation, place: int, key: SigningKey) -> None:
        self.world, self.place, self.key = world, place, key
        self.seen: list[ContentId | None] = [None]
        self.rounds: set[tuple[int, int]] = set()
        # Certificates by their orders, the orders of each epoch, and those that it has sealed.
        self.certificates: dict[bytes, bytes] = {}
        self.orders: dict[int, set[bytes]] = defaultdict(set)
        self.sealed: set[int] = set()
        # Its lists of orders: what hashes so, and who is told.
        self.lists: dict[bytes, tuple[list[bytes], Collection[int]]] = {}

    def begin(self) -> None:
        self.epoch_end()

    def submit(self, order: Signed[AccountOrder], reply: Reply) -> None:
        answer: bytes | Refused = proof_of(Vote, sign(Vote.of(order), self.key).raw)
        if self.world.random.random() < 0.3:
            answer = Refused("no", code=self.world.random.choice(list(RefusalCode)))
        self.world.send(lambda: reply(self.place, answer))

    def confirm(self, raw: bytes, reply: Reply) -> None:
        order = open_signed(Certificate.from_bytes(raw).order, AccountOrder)
        digest = order_digest(order)
        self.certificates[digest] = raw
        self.orders[order.record.epoch].add(digest)
        answer = Refused("no") if self.world.random.random() < 0.3 else b"applied"
        self.world.send(lambda: reply(self.place, answer))

    def buckets(self) -> bytes:
        return NOTHING

    def listed(self, asker: Any, _: int, digest: bytes) -> Collection[bytes]:
        orders, told = self.lists.get(digest, ([], ()))
        return orders if asker.place in told else []

    def certificate_of(self, digest: bytes) -> bytes | None:
        return self.certificates.get(digest)

    def epoch_end(self) -> None:
        """A seal without any order, to some, before anybody else seals."""
        epoch = max(it.replica.epoch for it in self.world.honest) if self.world.now_s else 0
        if self.world.plan.hides and len(self.orders[epoch]) > 2:
            self.seal_apart(epoch)
        elif not self.world.plan.hides:
            self.seal(epoch, set(), share=0.5 * (self.world.random.random() < 0.5))
        self.world.later(EPOCH_S / 2, self.epoch_end)

    def seal(
        self, epoch: int, orders: set[bytes], share: float, told: Collection[int] | None = None
    ) -> None:
        """Seal these orders, tell some of it, and which they are tell some others, or `told`."""
        secret = b""
        place = self.world.committee_of(epoch).index.get(self.key.peer)
        if place is not None and is_due(self.world.tip_before(epoch), place):
            secret = secret_for(self.key, self.world.genesis.id, epoch)
        buckets = buckets_of(orders)
        seal = Seal(
            network=self.world.genesis.id,
            epoch=epoch,
            count=len(orders),
            buckets=buckets,
            secret=secret,
        )
        raw = sign(seal, self.key).raw
        random = self.world.random
        if told is None:
            told = {it.place for it in self.world.honest if random.random() < 0.6}
        for number in range(ORDER_BUCKETS):
            self.lists[digest_in(buckets, number)] = (in_bucket(orders, number), told)
        for other in self.world.members:
            if random.random() < share and other is not self:
                self.world.send(lambda other=other: other.hear(self, raw))

    def seal_apart(self, epoch: int) -> None:
        """Seal some orders, and others for other members."""
        if epoch in self.sealed:
            return
        self.sealed.add(epoch)
        if self.world.plan.hides:
            number = [it for it in self.world.members if it not in self.world.honest].index(self)
            told = {it.place for it in self.world.honest} - {self.world.honest[number].place}
            # All but one of a bucket that has several: nobody else has a list that hashes so.
            known = sorted(self.orders[epoch])
            pairs = [it for it, after in pairwise(known) if bucket_of(it) == bucket_of(after)]
            self.seal(epoch, {*known} - {*pairs[number : number + 1]}, share=1.0, told=told)
            return
        for _ in range(self.world.random.randint(0, 2)):
            some = {it for it in self.orders[epoch] if self.world.random.random() < 0.7}
            self.seal(epoch, some, share=0.7)

    def hear_all(self, other: Any, told: tuple[bytes, ...]) -> None:
        for raw in told:
            self.hear(other, raw)

    def hear(self, other: Any, raw: bytes) -> None:
        if not isinstance(other, SimulatedMember):
            return
        for kind in (Seal, Proposal, AgreementVote):
            try:
                record = open_signed(raw, kind).record
            except WireError:
                continue
            if isinstance(record, Seal):
                self.seal_apart(record.epoch)
            else:
                self.mislead(record)

    def mislead(self, record: Any) -> None:
        if self.world.plan.hides:
            return
        if isinstance(record, Proposal):
            self.seen.append(ContentId.of(record.header))
        elif record.header is not None:
            self.seen.append(record.header)
        moment = (record.epoch, record.round)
        if moment in self.rounds:
            return
        self.rounds.add(moment)
        random = self.world.random
        for other in self.world.honest:
            for phase in AgreementPhase:
                vote = AgreementVote(
                    network=self.world.genesis.id,
                    epoch=record.epoch,
                    round=record.round,
                    phase=phase,
                    header=random.choice(self.seen[-4:]),
                )
                raw = sign(vote, self.key).raw
                self.world.send(lambda other=other, raw=raw: other.hear(self, raw))
            if isinstance(record, Proposal) and random.random() < 0.5:
                # Another's proposal as its own, for a round that it may lead.
                own = Proposal(
                    network=record.network,
                    epoch=record.epoch,
                    round=record.round + random.randint(0, 2),
                    header=record.header,
                    seals=record.seals[: random.randint(1, len(record.seals))],
                    valid_round=None,
                    prevotes=None,
                )
                raw = sign(own, self.key).raw
                self.world.send(lambda other=other, raw=raw: other.hear(self, raw))


class Owner:
    """Pays others once an epoch; some sign two orders and send them to different members."""

    def __init__(self, world: Simulation, key: SigningKey, number: int) -> None:
        self.world, self.key = world, key
        self.cheats = number < world.plan.cheats
        # Of each epoch, whether the owner's first order was settled.
        self.done: dict[int, bool] = {}

    def begin(self) -> None:
        self.world.later(self.world.random.uniform(0, EPOCH_S / 4), self.pay)

    def pay(self) -> None:
        world, random = self.world, self.world.random
        member = random.choice(world.honest)
        epoch = member.replica.epoch
        # Next time in the next epoch, or a little later if it has not begun.
        world.later(EPOCH_S / 3, self.pay)
        if epoch in self.done or epoch >= world.plan.epochs:
            return
        self.done[epoch] = False
        sequence = member.replica.draft.account(self.key.peer).sequence
        cheats = self.cheats and epoch < world.plan.epochs - 1
        others = [it.peer for it in OWNERS if it is not self.key]
        payments = [(to, random.randint(1000, GRANT // 20)) for to in random.sample(others, 2)]
        for to, amount in payments[: 1 + cheats]:
            order = self.order(epoch, sequence, Payment(to=to, amount=amount))
            Attempt(world, self, order, cheats=cheats).step()

    def order(self, epoch: int, sequence: int, payment: Payment) -> Signed[AccountOrder]:
        order = AccountOrder(
            network=self.world.genesis.id, epoch=epoch, sequence=sequence, pay=(payment,)
        )
        return sign(order, self.key)


class Attempt:
    """One order on its way: votes, certificate, acknowledgements."""

    def __init__(
        self, world: Simulation, owner: Owner, order: Signed[AccountOrder], *, cheats: bool
    ) -> None:
        self.world, self.owner, self.order = world, owner, order
        self.digest = order_digest(order)
        self.cheats = cheats
        share = 0.7 if cheats else 1.0
        self.asked = [it for it in world.members if world.random.random() < share]
        self.committee = world.committee_of(order.record.epoch)
        self.votes, self.applied = MemberReplies(self.committee), MemberReplies(self.committee)
        self.certificate: bytes | None = None
        self.tries = 0

    def step(self) -> None:
        """Ask those that have not signed, again and again for a while, as a wallet does.

        Who signs two orders does not take a refusal for final.
        """
        self.tries += 1
        replies = self.votes if self.certificate is None else self.applied
        final = set() if self.cheats else replies.final
        over = replies.is_over and not self.cheats
        if self.tries > TRIES or over or self.digest in self.world.found.settled:
            return
        for member in self.asked:
            place = self.committee.index.get(member.key.peer)
            if place is None or place in replies.proofs or place in final:
                continue
            if self.certificate is None:
                self.world.send(lambda member=member: member.submit(self.order, self.on_vote))
            else:
                self.confirm_at(member)
        self.world.later(2.0, self.step)

    def confirm_at(self, member: Any) -> None:
        raw = self.certificate
        assert raw is not None
        self.world.send(lambda: member.confirm(raw, self.on_applied))

    def on_vote(self, number: int, answer: bytes | Refused) -> None:
        place = self.committee.index.get(self.world.own[number].peer)
        if place is None:
            return
        self.votes.note(place, answer)
        if self.certificate is None and self.votes.is_quorum:
            self.certificate = Certificate(
                order=self.order.raw, votes=collected(self.votes.proofs)
            ).to_bytes()
            record = self.order.record
            key = (record.epoch, self.order.signer, record.sequence)
            self.world.found.certified[key].add(self.digest)
            self.asked = list(self.world.members)
            for member in self.asked:
                # Some hear of it later.
                if self.world.random.random() < 0.8:
                    self.confirm_at(member)

    def on_applied(self, number: int, answer: bytes | Refused) -> None:
        place = self.committee.index.get(self.world.own[number].peer)
        if place is None:
            return
        self.applied.note(place, answer)
        enough = (
            self.applied.is_quorum
            if self.world.plan.settled_by is None
            else len(self.applied.proofs) >= self.world.plan.settled_by
        )
        if enough:
            epoch = self.order.record.epoch
            self.world.found.settled.setdefault(self.digest, epoch)
            self.owner.done[epoch] = True
