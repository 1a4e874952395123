"""The final accounts of a network with credits: what work was done, what of it is paid, by whom.

What work was done is what receipts say, by the prices of who signed them. What is paid is what the
ledger says, from genesis to its last checkpoint, and what vouchers in the payee's hands still give.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from node.asking.answers import Answers
from node.devnet.economy_watch import Pair, earning_of, paying_of
from node.devnet.peer import DevPeer
from node.devnet.tasks import DevnetQuestion
from node.ledger.books import Books
from node.ledger.chain_file import Replayed, replay
from node.ledger.replica import Replica
from node.ledger.rows import CERTIFICATES, CHECKPOINTS, of_epoch
from node.paying.bill import begun_of
from node.paying.channels import EarningChannel
from node.paying.pricing import cost_of_leg
from store import Store, Table
from store.seam import SCAN_ROWS_MAX
from wire.content import ContentId, PeerId
from wire.errors import Malformed, Missing, StoreError, WireError
from wire.ledger import Voucher
from wire.receipt import Receipt, Verdict
from wire.signed import open_signed
from wire.tariff import RELAYED, Tariff

Asked = Mapping[ContentId, tuple[DevPeer, DevnetQuestion]]


def parts_of(store: Store, replica: Replica) -> Iterator[bytes]:
    """The whole ledger as a member's disk has it, as `ledger check` reads it from a file."""
    yield replica.genesis.to_bytes()
    for epoch in range(replica.epoch):
        checkpoint = store.read(Table.LEDGER, of_epoch(CHECKPOINTS, epoch))
        if checkpoint is None:
            raise Malformed(f"the checkpoint of epoch {epoch} is not on the disk")
        yield checkpoint
        prefix, start = of_epoch(CERTIFICATES, epoch), b""
        while True:
            rows = store.scan(Table.LEDGER, start=start, prefix=prefix, limit=SCAN_ROWS_MAX)
            yield from (raw for _, raw in rows)
            if len(rows) < SCAN_ROWS_MAX:
                break
            start = rows[-1][0] + b"\0"


def whole_ledger(members: Sequence[DevPeer]) -> Replayed:
    """The ledger from genesis on, checked offline, by the member that has come furthest.

    WireError says which epoch does not hold.
    """
    furthest: tuple[int, DevPeer, Replica] | None = None
    for peer in members:
        ledger = None if peer.node is None else peer.node.ledger
        if ledger is None or ledger.member is None:
            continue
        replica = ledger.member.replica
        if furthest is None or replica.epoch > furthest[0]:
            furthest = (replica.epoch, peer, replica)
    if furthest is None or furthest[1].store is None:
        raise Malformed("no member of the ledger is up")
    return replay(parts_of(furthest[1].store, furthest[2]))


def redeemable(channel: EarningChannel, books: Books, epoch: int) -> int:
    """What a payee has been paid and can still redeem of one channel."""
    found = books.channels[channel.name[0]].get(channel.name)
    if found is None:
        # It is closed, and what was redeemed is all there was.
        return channel.redeemed
    if found.expiry < epoch or not channel.voucher:
        return found.paid
    try:
        voucher = open_signed(channel.voucher, Voucher)
    except WireError:
        return found.paid
    good = voucher.signer == found.payer and voucher.record.channel == channel.name
    return max(found.paid, min(voucher.record.total, found.deposit) if good else 0)


async def said_by_answers(asked: Asked, tariffs: Mapping[PeerId, Tariff]) -> dict[Pair, int]:
    """What the receipts and verdicts in all answers say that payers owe payees, in millionths."""
    found: defaultdict[Pair, int] = defaultdict(int)
    for task_id, (asker, question) in asked.items():
        if asker.store is None:
            continue
        try:
            answer = (await Answers(asker.store).of_task(task_id)).answer.record
        except (Missing, StoreError):
            continue
        payer = asker.key.peer
        for envelope in answer.receipts:
            receipt = open_signed(envelope, Receipt)
            if (tariff := tariffs.get(receipt.signer)) is not None:
                amount = _cost(tariff, question, receipt.record)
                found[payer, receipt.signer] += amount
        for envelope in answer.verdicts:
            verdict = open_signed(envelope, Verdict)
            if (tariff := tariffs.get(verdict.signer)) is not None:
                found[payer, verdict.signer] += tariff.verdict
    return found


def _cost(tariff: Tariff, question: DevnetQuestion, receipt: Receipt) -> int:
    request = question.request
    source = request.input if receipt.stage == 0 else None
    stage = request.stages[receipt.stage]
    return cost_of_leg(tariff, stage, receipt, source, None, begun_of(receipt, 0))


@dataclass(slots=True)
class WorkerAccount:
    """What one worker's receipts and verdicts say, and what of that it is paid, in millionths."""

    number: int
    said: int = 0
    paid: int = 0
    # Of that, by payers that no fault has misbehave.
    said_of_honest: int = 0
    paid_by_honest: int = 0
    # Paid beyond what its receipts and verdicts say: ahead, or for nothing.
    beyond: int = 0
    by_payer: dict[PeerId, tuple[int, int]] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The part of what receipts say that is paid, whoever owes it; 1 of nothing."""
        return self.paid / self.said if self.said else 1.0

    @property
    def honest_ratio(self) -> float:
        """The part that is paid of what honest payers owe by receipts; 1 of nothing."""
        return self.paid_by_honest / self.said_of_honest if self.said_of_honest else 1.0


def account_of(
    peer: DevPeer, ledger: Replayed, said: Mapping[Pair, int], honest: AbstractSet[PeerId]
) -> WorkerAccount:
    """The account of one worker; each payer's credits pay for that payer's work alone."""
    paid: defaultdict[PeerId, int] = defaultdict(int)
    for channel in earning_of(peer):
        # What it was paid for passing bytes on pays for no task.
        passed_on = channel.models.get(RELAYED, 0)
        paid[channel.payer] += max(0, redeemable(channel, ledger.books, ledger.epochs) - passed_on)
    mine = {payer: owed for (payer, payee), owed in said.items() if payee == peer.key.peer}
    account = WorkerAccount(peer.number)
    for payer in sorted({*mine, *paid}):
        owed, given = mine.get(payer, 0), paid[payer]
        account.by_payer[payer] = (owed, given)
        account.said += owed
        account.paid += min(owed, given)
        if payer in honest:
            account.said_of_honest += owed
            account.paid_by_honest += min(owed, given)
        account.beyond += max(0, given - owed)
    return account


def forgotten(peer: DevPeer, books: Books) -> int:
    """What a payer has in channels that it does not know of, and so never takes back."""
    known = {it.name for it in paying_of(peer)}
    names = books.payers.get(peer.key.peer, set())
    channels = [books.channels[it[0]][it] for it in names if it not in known]
    return sum(it.locked for it in channels)
