"""One member's copy of the ledger: what it votes for, what it applies, how an epoch ends. Pure.

Whatever leaves a member has to be durable first: every method that makes something to be sent also
gives the rows to write before. A vote that could not be written binds this member all the same,
until it starts again: then it was never sent.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from node.ledger.books import Books, Draft, put
from node.ledger.committee import Committee
from node.ledger.epoch_outcome import EpochOutcome, outcome_of
from node.ledger.judging import check_cover, judge
from node.ledger.jury_draw import NO_DRAW, DrawnBy, is_due, secret_for
from node.ledger.order_lists import OrderLists, Resolved
from node.ledger.rows import (
    CERTIFICATES,
    CHECKPOINTS,
    SEAL,
    SITS_OUT,
    VOTES,
    RowChange,
    of_epoch,
    rows_of,
    vote_row,
)
from wire import limits
from wire.checkpoint import (
    ORDER_BUCKETS,
    Checkpoint,
    CheckpointHeader,
    Seal,
    bucket_of,
    buckets_of,
)
from wire.content import ContentId, PeerId
from wire.errors import Malformed, Refused
from wire.kinds import RefusalCode
from wire.ledger import (
    AccountOrder,
    Acknowledgement,
    Certificate,
    Genesis,
    Vote,
    order_digest,
)
from wire.signed import Signed, open_signed, sign
from wire.signing import SigningKey

# Certificates that wait for one before them.
WAITING_MAX = 4096


@dataclass(slots=True)
class Replica:
    """The ledger at one member, or at a peer that follows it."""

    genesis: Genesis
    key: SigningKey
    books: Books
    tip: CheckpointHeader | None = None
    network: ContentId = field(init=False)
    committee: Committee = field(init=False)
    draft: Draft = field(init=False)
    # What this member votes for: of each account, its sequence and the order.
    votes: dict[PeerId, tuple[int, bytes]] = field(default_factory=dict)
    # Certificates of this epoch by order, and the orders in them: applied, and only known.
    applied: dict[bytes, bytes] = field(default_factory=dict)
    known: dict[bytes, bytes] = field(default_factory=dict)
    orders: dict[bytes, Signed[AccountOrder]] = field(default_factory=dict)
    waiting: dict[bytes, None] = field(default_factory=dict)
    # Orders that were voted for, by their bytes: their signatures hold, and are not checked again.
    _voted: dict[bytes, tuple[bytes, Signed[AccountOrder]]] = field(default_factory=dict)
    seal: Signed[Seal] | None = None
    sits_out: bool = False
    # A start knows what was written, and not whether others are further: members of a quorum have
    # to say that this epoch runs. Who missed the end of one may have lost more than that.
    sure: bool = False
    running: set[int] = field(default_factory=set)
    # Why this member signs nothing any more: its books are not what they must be.
    broken: str = ""
    # Whether the end of the last epoch is not durable yet: nothing of the next is signed before.
    writing: bool = False
    lists: OrderLists = field(default_factory=OrderLists)
    # How full the buckets are.
    _filled: list[int] = field(default_factory=lambda: [0] * ORDER_BUCKETS)
    _outcomes: dict[tuple[bytes, bytes], EpochOutcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.network = self.genesis.id
        self.books.founders = frozenset(it.key for it in self.genesis.members)
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        members = self.genesis.members if self.tip is None else self.tip.members
        self.committee, self.books.members = Committee(members), members
        self.draft = Draft(self.books, self.epoch)
        for kept in (self.votes, self.applied, self.known, self.orders, self.waiting, self._voted):
            kept.clear()
        self.lists = OrderLists()
        self._filled = [0] * ORDER_BUCKETS
        self._outcomes = {}
        self.seal, self.sits_out = None, False
        self.running = {self.place} if self.place is not None else set()

    @property
    def epoch(self) -> int:
        """The epoch that runs."""
        return 0 if self.tip is None else self.tip.epoch + 1

    @property
    def place(self) -> int | None:
        """This peer's place among the members; None if it is none."""
        return self.committee.index.get(self.key.peer)

    @property
    def _takes_part(self) -> bool:
        return self.place is not None and not (self.sits_out or self.broken or self.writing)

    def note_running(self, member: PeerId, epoch: int) -> None:
        """Note that a member says which epoch runs."""
        if epoch == self.epoch and (at := self.committee.index.get(member)) is not None:
            self.running.add(at)

    @property
    def confirmed(self) -> bool:
        """Whether a quorum has said, since this start, that this epoch runs."""
        return self.sure or self.committee.is_quorum(self.running)

    # Votes

    def _check_taking(self, epoch: int) -> None:
        """Refused unless this member takes part, and the epoch runs."""
        if self.broken:
            raise Refused(f"this member has stopped: {self.broken}", code=RefusalCode.FAILED)
        self._check_running(epoch)
        if self.seal is not None or self.writing:
            raise Refused(
                f"epoch {epoch} is {'beginning' if self.writing else 'ending'}",
                code=RefusalCode.OTHER_EPOCH,
                retry_after_s=1.0,
            )
        if self.place is None or self.sits_out:
            why = "is no member" if self.place is None else "sits this epoch out"
            raise Refused(f"this peer {why}", code=RefusalCode.NOT_WILLING)
        if not self.confirmed:
            raise Refused(
                "this member waits for others to say which epoch runs",
                code=RefusalCode.OTHER_EPOCH,
                retry_after_s=1.0,
            )

    def _check_running(self, epoch: int) -> None:
        """Refused unless this epoch runs: for good only if it is over, for members may be late."""
        if epoch != self.epoch:
            raise Refused(
                f"epoch {self.epoch} runs, not {epoch}",
                code=RefusalCode.OTHER_EPOCH,
                retry_after_s=1.0 if epoch > self.epoch else None,
            )

    def consider(self, owner: PeerId, record: AccountOrder) -> None:
        """Refused at once, before any signature is looked at, if an order cannot hold here."""
        if record.network != self.network:
            raise Refused("the order is of another network", code=RefusalCode.STRANGER)
        self._check_taking(record.epoch)
        check_cover(self.draft, owner, record)

    def vote(self, order: Signed[AccountOrder]) -> tuple[Vote, RowChange]:
        """This member's vote for an order, and the row to write before it is signed.

        Refused if the owner may not order this, or this member votes for another order of it.
        """
        record, owner = order.record, order.signer
        self.consider(owner, record)
        digest = order_digest(order)
        held = self.votes.get(owner)
        if held != (record.sequence, digest):
            if held is not None and held[0] == record.sequence:
                raise Refused(
                    "another order of this account has this member's vote:"
                    " the account can be used again in the next epoch",
                    code=RefusalCode.NOT_COVERED,
                )
            if self.draft.full or self._filled[bucket_of(digest)] >= limits.BUCKET_ORDERS_MAX:
                raise Refused("this epoch is full", code=RefusalCode.BUSY, retry_after_s=60.0)
            judge(self.draft, order)
            self.votes[owner] = (record.sequence, digest)
            self._voted[order.raw] = (digest, order)
        return Vote.of(order, digest), vote_row(self.epoch, owner, record.sequence, digest)

    # Certificates

    def confirm(self, raw: bytes) -> tuple[Acknowledgement, list[RowChange]]:
        """Apply what a certificate says; the acknowledgement, and the rows to write before.

        WireError if it is none. Refused, with a time, while one before it is missing here.
        """
        digest, order, fresh = self.check_certificate(raw)
        if digest in self.applied:
            return self._acknowledgement(digest), [self._certificate_row(digest)]
        self._check_taking(order.record.epoch)
        self._check_memory(order, digest, fresh)
        self._learn(digest, raw, order)
        rows = self._apply_known([digest])
        if digest not in self.applied:
            if len(self.waiting) < WAITING_MAX:
                self.waiting[digest] = None
            raise Refused(
                "an order before this one is not known here yet",
                code=RefusalCode.NOT_COVERED,
                retry_after_s=0.2,
            )
        return self._acknowledgement(digest), rows

    def check_certificate(self, raw: bytes) -> tuple[bytes, Signed[AccountOrder], Certificate]:
        """The order that a certificate of this epoch is about; WireError or Refused if it is none.

        One that was checked before is not checked again.
        """
        certificate = Certificate.from_bytes(raw)
        if (voted := self._voted.get(certificate.order)) is not None:
            digest, order = voted
        else:
            order = open_signed(certificate.order, AccountOrder)
            digest = order_digest(order)
        record = order.record
        if record.network != self.network:
            raise Refused("the certificate is of another network", code=RefusalCode.STRANGER)
        if digest in self.orders:
            return digest, order, certificate
        self._check_running(record.epoch)
        self.committee.check(Vote.of(order, digest), certificate.votes)
        return digest, order, certificate

    def _check_memory(
        self, order: Signed[AccountOrder], digest: bytes, certificate: Certificate
    ) -> None:
        """Sit the epoch out if our own vote is shown to us and we know nothing of it."""
        place = self.place
        if place is None or not certificate.votes.members >> place & 1:
            return
        if self.votes.get(order.signer) != (order.record.sequence, digest):
            self.sits_out = True
            raise Refused(
                "this member has lost its memory of this epoch, and sits it out",
                code=RefusalCode.NOT_WILLING,
            )

    def learn(self, raw: bytes) -> bytes:
        """Know a certificate of this epoch without applying it; the order that it is about."""
        digest, order, certificate = self.check_certificate(raw)
        if digest not in self.orders:
            with suppress(Refused):
                self._check_memory(order, digest, certificate)
            self._learn(digest, raw, order)
        return digest

    def _learn(self, digest: bytes, raw: bytes, order: Signed[AccountOrder]) -> None:
        self.known[digest] = raw
        self.orders[digest] = order

    def catch_up(self) -> list[RowChange]:
        """Apply what is known and was not applied, where it can be; the rows to write."""
        if self.seal is not None or not self._takes_part:
            return []
        return self._apply_known(list(self.known))

    def _apply_known(self, digests: Iterable[bytes]) -> list[RowChange]:
        """Apply certificates that are known, and those that waited for them; the rows."""
        rows: list[RowChange] = []
        todo = [it for it in digests if it not in self.applied]
        while todo:
            done = [it for it in todo if self._apply(it)]
            rows += map(self._certificate_row, done)
            for digest in done:
                self.waiting.pop(digest, None)
            todo = [it for it in (*todo, *self.waiting) if it not in self.applied] if done else []
        return rows

    def _apply(self, digest: bytes) -> bool:
        order = self.orders[digest]
        if digest in self.applied or self.draft.awaits(order):
            return False
        self.draft.apply(order)
        self.applied[digest] = self.known.pop(digest)
        self._voted.pop(order.raw, None)
        self._filled[bucket_of(digest)] += 1
        return True

    def _certificate_row(self, digest: bytes) -> RowChange:
        return of_epoch(CERTIFICATES, self.epoch) + digest, self.applied[digest]

    def _acknowledgement(self, digest: bytes) -> Acknowledgement:
        return Acknowledgement(network=self.network, epoch=self.epoch, order=digest)

    def certificate_of(self, digest: bytes) -> bytes | None:
        """The certificate of an order of this epoch, if it is known here."""
        return self.applied.get(digest) or self.known.get(digest)

    # The end of an epoch

    def make_seal(self) -> tuple[Signed[Seal], list[RowChange]] | None:
        """Apply nothing more in this epoch, and say what was applied; None if it is not for us."""
        if not self._takes_part or self.place is None:
            return None
        if self.seal is None:
            buckets = buckets_of(self.applied)
            is_asked = is_due(self.tip, self.place)
            record = Seal(
                network=self.network,
                epoch=self.epoch,
                count=len(self.applied),
                buckets=buckets,
                secret=secret_for(self.key, self.network, self.epoch) if is_asked else b"",
            )
            self.seal = sign(record, self.key)
        return self.seal, [(SEAL, self.seal.raw)]

    def resolve(self, buckets: bytes) -> Resolved:
        """What is known of the orders that hash to these buckets."""
        return self.lists.resolve(buckets, self.applied, self.orders)

    def outcome(self, orders: Iterable[bytes], by: DrawnBy = NO_DRAW) -> EpochOutcome:
        """What these orders of this epoch, which are all known, make of the books.

        `by` is what draws juries. Malformed if the orders are not complete: one is missing that
        another rests on.
        """
        chosen = tuple(sorted(set(orders)))
        key = buckets_of(chosen), by.beacon
        if (made := self._outcomes.get(key)) is not None:
            return by.noted(made)
        known = [self.orders[it] for it in chosen]
        found = outcome_of(self.draft, self.tip, self.genesis, known, by.beacon)
        if found.header.supply != self.genesis.supply:
            self.broken = "its books do not sum up to the supply of the network"
            raise Malformed(self.broken)
        self._outcomes[key] = found
        return by.noted(found)

    def check_checkpoint(self, checkpoint: Checkpoint) -> CheckpointHeader:
        """The header of how this epoch ended; WireError unless a quorum of its members signed."""
        header = CheckpointHeader.from_bytes(checkpoint.header)
        if (header.network, header.epoch) != (self.network, self.epoch):
            raise Malformed(f"a checkpoint of another network, or not of epoch {self.epoch}")
        self.committee.check_checkpoint(checkpoint, header)
        return header

    def turn(self, checkpoint: Checkpoint, orders: Iterable[bytes]) -> list[RowChange]:
        """End the epoch by a checkpoint that was checked and its orders; the rows to write.

        Malformed if the orders do not lead to it, and nothing is changed.
        """
        by = DrawnBy.of(CheckpointHeader.from_bytes(checkpoint.header))
        outcome = self.outcome(orders, by)
        if outcome.header.to_bytes() != checkpoint.header:
            raise Malformed("the orders do not lead to the checkpoint")
        ended = self.epoch
        rows: list[RowChange] = [(of_epoch(VOTES, ended) + account, None) for account in self.votes]
        stays = set(outcome.orders)
        epoch_key = of_epoch(CERTIFICATES, ended)
        rows += [(epoch_key + it, None) for it in {*self.applied} - stays]
        rows += [(epoch_key + it, self.known[it]) for it in stays - {*self.applied}]
        changes = outcome.draft.changes()
        put(self.books, changes)
        rows += rows_of(changes)
        rows += [(SEAL, None), (of_epoch(CHECKPOINTS, ended), checkpoint.to_bytes())]
        self.sure = self.confirmed
        self.tip = outcome.header
        self._begin_epoch()
        if not self.sure:
            # It may be a copy of an older state: what it has signed since is not known to it.
            self.sits_out = True
            rows.append((SITS_OUT, self.epoch.to_bytes(8, "big")))
        return rows

    # After a start

    def restore(
        self,
        votes: Mapping[PeerId, tuple[int, bytes]],
        certificates: Iterable[bytes],
        seal: bytes | None,
    ) -> None:
        """Be as before a stop: what this member has written in the epoch that runs."""
        self.votes.update(votes)
        for raw in certificates:
            order = open_signed(Certificate.from_bytes(raw).order, AccountOrder)
            self._learn(order_digest(order), raw, order)
        self._apply_known(list(self.known))
        # A certificate whose channel is not here yet waits, as it did before.
        self.waiting.update(dict.fromkeys(self.known))
        if seal is not None:
            self.seal = open_signed(seal, Seal)
