"""What a member answers to owners, and to whoever follows the ledger."""

from collections import Counter
from dataclasses import dataclass, field
from heapq import nsmallest

import trio

from node.ledger.group_signing import GroupSigning
from node.ledger.motion_shelf import NOTICE
from node.ledger.replica import Replica
from node.ledger.rows import CERTIFICATES, CHECKPOINTS, RowChange, of_epoch
from node.ledger.slashing import BOND_MIN
from node.ledger.sync import digests_in
from p2p.peer_rpc import Handler
from p2p.typed_call import TypedCall, refusal_of
from store import Store, Table
from wire import limits
from wire.amount import show_credits
from wire.checkpoint import ORDER_BUCKETS
from wire.content import PeerId
from wire.errors import Refused, StoreError
from wire.jury import NoticeRow
from wire.kinds import RefusalCode
from wire.latest import Latest
from wire.ledger import AccountOrder, Acknowledgement, Certificate, order_digest
from wire.ledger_message import (
    AccountState,
    Acknowledged,
    AskAccount,
    AskBucket,
    AskCertificates,
    AskCheckpoint,
    BucketOrders,
    Certificates,
    CheckpointReply,
    Confirm,
    SubmitOrder,
    Voted,
)
from wire.message import Message
from wire.signed import Envelope, open_signed
from wire.stake import AskStakes, StakeRows

# A bucket has at most BUCKET_ORDERS_MAX orders of 32 bytes.
ENDED_BUCKETS_KEPT = 32
STAKE_ROWS_AT_ONCE = 4096
# In one epoch evidence of one account is looked at so often. Of all it is looked at as often as
# anybody likes, but each time it was so often the bond has to be twice as large: so many accounts
# with little never close an epoch for one that has more.
ACCUSATIONS_MAX, ACCUSATIONS_EACH_BOND = 32, 1024
# One that does not hold costs its accuser nothing, so it counts as so many.
FALSE_COUNTS = 8


@dataclass(slots=True)
class MemberAnswers:
    """One conversation each: a question, and its answer or a refusal."""

    replica: Replica
    store: Store
    signing: GroupSigning
    votes: int = 0
    confirmed: int = 0
    # How often each account has accused in an epoch.
    _accusers: tuple[int, Counter[PeerId]] = field(default_factory=lambda: (0, Counter()))
    # The orders of buckets of epochs that have ended, those that were asked for last.
    _ended: Latest[tuple[int, int], list[bytes]] = field(
        default_factory=lambda: Latest(ENDED_BUCKETS_KEPT)
    )

    def handlers(self) -> dict[type[Message], Handler]:
        """What answers each message."""
        return {
            SubmitOrder: self.on_submit,
            Confirm: self.on_confirm,
            AskAccount: self.on_account,
            AskBucket: self.on_bucket,
            AskCertificates: self.on_certificates,
            AskCheckpoint: self.on_checkpoint,
            AskStakes: self.on_stakes,
        }

    async def on_submit(self, call: TypedCall, message: Message) -> None:
        """Vote for an order, or refuse."""
        assert isinstance(message, SubmitOrder)
        envelope = Envelope.read(message.order, AccountOrder)
        claimed = envelope.claimed()
        try:
            # What cannot hold costs no look at its signature.
            self.replica.consider(envelope.signer, claimed)
            order = envelope.checked(claimed)
            if claimed.accuse or claimed.charge:
                self._count_accusation(envelope.signer, self._bond_of(claimed))
            vote, row = self.replica.vote(order)
            raw = await self.signing.signed(vote, [row])
        except (Refused, StoreError) as error:
            if (claimed.accuse or claimed.charge) and isinstance(error, Refused):
                self._count_false(envelope.signer, error.code)
            await call.send(refusal_of(error))
            return
        self.votes += 1
        await call.send(Voted(vote=raw))

    def _bond_of(self, order: AccountOrder) -> int:
        """What an accuser has put up, in this order or before it showed what it had announced."""
        if order.accuse:
            return order.accuse[0].bond
        raw = self.replica.books.motions.rows.get(NOTICE + order.charge[0].case)
        return 0 if raw is None else NoticeRow.from_bytes(raw).bond

    def _count_accusation(self, accuser: PeerId, bond: int) -> None:
        """Refused if an account has evidence looked at too often: that costs this member work.

        The bond is one that the account has; it need not lose it.
        """
        epoch, seen = self._accusers
        if epoch != self.replica.epoch:
            seen = Counter()
            self._accusers = (self.replica.epoch, seen)
        least = BOND_MIN << seen.total() // ACCUSATIONS_EACH_BOND
        if bond < least:
            raise Refused(
                f"so much evidence was shown in this epoch that a bond of {show_credits(least)}"
                " credits is needed now",
                code=RefusalCode.BUSY,
                retry_after_s=60.0,
            )
        if seen[accuser] >= ACCUSATIONS_MAX:
            raise Refused(
                "this member has looked at enough evidence in this epoch",
                code=RefusalCode.BUSY,
                retry_after_s=60.0,
            )
        seen[accuser] += 1

    def _count_false(self, accuser: PeerId, code: RefusalCode) -> None:
        """Count what was looked at and did not hold."""
        _, seen = self._accusers
        if code is RefusalCode.MALFORMED and accuser in seen:
            seen[accuser] += FALSE_COUNTS - 1

    async def on_confirm(self, call: TypedCall, message: Message) -> None:
        """Apply a certificate and acknowledge it, or refuse."""
        assert isinstance(message, Confirm)
        try:
            acknowledgement, rows = self._confirmed(message.certificate)
            raw = await self.signing.signed(acknowledgement, rows)
        except (Refused, StoreError) as error:
            await call.send(refusal_of(error))
            return
        self.confirmed += 1
        await call.send(Acknowledged(acknowledgement=raw))

    def _confirmed(self, raw: bytes) -> tuple[Acknowledgement, list[RowChange]]:
        try:
            return self.replica.confirm(raw)
        except Refused as error:
            if error.code is not RefusalCode.OTHER_EPOCH:
                raise
            if (acknowledgement := self._acknowledged_before(raw)) is None:
                raise
            return acknowledgement, []

    def _acknowledged_before(self, raw: bytes) -> Acknowledgement | None:
        """The acknowledgement of an order with which an earlier epoch has ended; None for others.

        Its owner was late, and shows others by this that it is settled.
        """
        order, replica = open_signed(Certificate.from_bytes(raw).order, AccountOrder), self.replica
        record, digest = order.record, order_digest(order)
        if record.epoch >= replica.epoch or replica.place is None:
            return None
        if replica.writing:
            raise Refused(
                f"epoch {replica.epoch} is beginning",
                code=RefusalCode.OTHER_EPOCH,
                retry_after_s=1.0,
            )
        if self._certificate(record.epoch, digest) is None:
            return None
        return Acknowledgement(network=replica.network, epoch=record.epoch, order=digest)

    async def on_account(self, call: TypedCall, message: Message) -> None:
        """How an account stands here."""
        assert isinstance(message, AskAccount)
        draft = self.replica.draft
        account = draft.account(message.account)
        channels = draft.channels_of(message.account)
        stake = draft.stake(message.account)
        await call.send(
            AccountState(
                epoch=self.replica.epoch,
                sequence=account.sequence,
                balance=max(0, account.balance),
                deposits=max(0, sum(it.locked for it in channels)),
                channels=len(channels),
                stake=stake.parts,
                leaving=stake.leaving,
            )
        )

    async def on_bucket(self, call: TypedCall, message: Message) -> None:
        """Which orders of an epoch lie in one bucket."""
        assert isinstance(message, AskBucket)
        if message.epoch == self.replica.epoch:
            if call.peer not in self.replica.committee.index:
                refusal = Refused("only members ask for what is not settled yet")
                await call.send(refusal_of(refusal))
                return
            lists, applied = self.replica.lists, self.replica.applied
            orders = [*lists.listed(message.bucket, message.digest, applied)]
        else:
            orders = self._kept_in(message.epoch, message.bucket)
        await call.send(BucketOrders(orders=b"".join(orders[: limits.BUCKET_ORDERS_MAX])))

    def _kept_in(self, epoch: int, bucket: int) -> list[bytes]:
        """Of an epoch that has ended: the orders of a bucket, which is a run of keys.

        Certificates are read with them, so what was read is remembered: it does not change.
        """
        if (known := self._ended.get((epoch, bucket))) is not None:
            return known
        prefix = of_epoch(CERTIFICATES, epoch)
        first = bucket * 256 // ORDER_BUCKETS
        found: list[bytes] = []
        for byte in range(first, first + 256 // ORDER_BUCKETS):
            rows = self.store.scan(Table.LEDGER, prefix=prefix + bytes((byte,)), limit=10_000)
            found += [key[len(prefix) :] for key, _ in rows]
        if epoch < self.replica.epoch:
            self._ended[epoch, bucket] = found
        return found

    async def on_certificates(self, call: TypedCall, message: Message) -> None:
        """The certificates of some orders, as far as they fit."""
        assert isinstance(message, AskCertificates)
        found: list[bytes] = []
        size_bytes = 0
        for digest in digests_in(message.orders):
            raw = self._certificate(message.epoch, digest)
            # In order, up to the first that is not here, so that the asker knows which they are.
            if raw is None or size_bytes > limits.CERTIFICATES_BYTES_MAX:
                break
            found.append(raw)
            size_bytes += len(raw)
        await call.send(Certificates(certificates=tuple(found)))

    def _certificate(self, epoch: int, digest: bytes) -> bytes | None:
        if epoch == self.replica.epoch:
            return self.replica.certificate_of(digest)
        return self.store.read(Table.LEDGER, of_epoch(CERTIFICATES, epoch) + digest)

    async def on_stakes(self, call: TypedCall, message: Message) -> None:
        """Some rows of the table of stakes of the last checkpoint."""
        assert isinstance(message, AskStakes)
        tip, rows = self.replica.tip, self.replica.books.stakes.rows
        after = b"" if message.after is None else bytes(message.after)
        some = nsmallest(STAKE_ROWS_AT_ONCE, (it for it in rows if it > after))
        epoch = 0 if tip is None else tip.epoch
        # Others have their turn before the rows are packed.
        await trio.lowlevel.checkpoint()
        await call.send(StakeRows.of(epoch, map(rows.__getitem__, some)))

    async def on_checkpoint(self, call: TypedCall, message: Message) -> None:
        """How an epoch has ended."""
        assert isinstance(message, AskCheckpoint)
        epoch = self.replica.epoch
        if why := self.replica.broken or ("an epoch is beginning" if self.replica.writing else ""):
            refusal = Refused(why, code=RefusalCode.BUSY, retry_after_s=1.0)
            await call.send(refusal_of(refusal))
            return
        raw = None
        if message.epoch < epoch:
            raw = self.store.read(Table.LEDGER, of_epoch(CHECKPOINTS, message.epoch))
        await call.send(CheckpointReply(epoch=epoch, checkpoint=raw))
