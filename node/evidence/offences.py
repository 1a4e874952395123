"""Who did what, found from evidence alone: by anybody, offline, with the same result. Pure.

No verdict of others counts here, however many they are: an asker may own all his verifiers. What
counts is what the culprit itself signed, and what anybody computes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from node.evidence.charges import charged, shown_finding
from node.evidence.disputes import judge as judge_dispute
from node.evidence.recomputing import recomputed
from wire.checkpoint import AgreementVote, Seal
from wire.content import ContentId, PeerId
from wire.dispute import Dispute
from wire.errors import Malformed, ModelRefused
from wire.evidence import Evidence, OffenceKind
from wire.jury import JURORS
from wire.kinds import Kind
from wire.ledger import Vote
from wire.log import LogFork
from wire.log import judge as judge_fork
from wire.receipt import Receipt, Verdict
from wire.signed import Signed, SignedRecord, open_signed
from wire.task import Task

MILLION = 1_000_000
# What an offence costs: a share of all that is staked, in millionths, and at least so much.
SHARES: Mapping[OffenceKind, int] = {
    OffenceKind.TWO_VOTES: MILLION,
    OffenceKind.FORKED_LOG: 200_000,
    OffenceKind.LOST_DISPUTE: 500_000,
    OffenceKind.UNTRUE_VERDICT: 500_000,
    OffenceKind.WRONG_ANSWER: 500_000,
    OffenceKind.DISPUTED_WORK: 500_000,
    OffenceKind.JURY_FINDING: 500_000,
}
LEAST = 1_000_000
_VOTES: Mapping[int, type[SignedRecord]] = {
    Kind.VOTE: Vote,
    Kind.AGREEMENT_VOTE: AgreementVote,
    Kind.SEAL: Seal,
}
KEPT = 64


@dataclass(frozen=True, slots=True)
class Conviction:
    """Somebody did something. `act` names what: other evidence of the same act names it too."""

    culprit: PeerId
    act: bytes


@dataclass(frozen=True, slots=True)
class OffenceFinding:
    """What evidence proves. `network` is None if it is of no network in particular."""

    offence: OffenceKind
    convictions: tuple[Conviction, ...]
    why: str
    network: ContentId | None = None

    @property
    def share_millionths(self) -> int:
        """The part of the stake that it costs."""
        return SHARES[self.offence]


@lru_cache(maxsize=KEPT)
def judged(raw: bytes) -> OffenceFinding:
    """What evidence proves, from its bytes; WireError if it proves nothing."""
    return judge(Evidence.from_bytes(raw))


def judge(evidence: Evidence) -> OffenceFinding:
    """What evidence proves; WireError if it proves nothing."""
    match evidence.offence:
        case OffenceKind.TWO_VOTES:
            return _two_votes(evidence)
        case OffenceKind.FORKED_LOG:
            return _forked_log(evidence)
        case OffenceKind.LOST_DISPUTE:
            return _lost_dispute(evidence)
        case OffenceKind.UNTRUE_VERDICT:
            return _untrue_verdict(evidence)
        case OffenceKind.WRONG_ANSWER:
            return _wrong_answer(evidence)
        case OffenceKind.DISPUTED_WORK:
            charged(evidence)
            raise Malformed("this by itself convicts nobody: a jury looks at it (slash FILE)")
        case OffenceKind.JURY_FINDING:
            return _jury_finding(evidence)


def _act(*parts: bytes) -> bytes:
    whole = hashlib.sha256(b"baton/1/act\0")
    for part in parts:
        whole.update(len(part).to_bytes(4, "big") + part)
    return whole.digest()


def work_of(culprit: PeerId, receipt: ContentId) -> Conviction:
    """A peer's part in one leg: a wrong answer, or a verdict about it, is one act."""
    return Conviction(culprit, _act(b"work", culprit, receipt))


def _of_shape(evidence: Evidence, records: int, content: tuple[int, ...]) -> None:
    if len(evidence.records) != records or len(evidence.content) not in content:
        raise Malformed(f"evidence of {evidence.offence.name.lower()} has other parts")


# Members of the ledger


def _two_votes(evidence: Evidence) -> OffenceFinding:
    _of_shape(evidence, 2, (0,))
    one, other = (_opened_vote(it) for it in evidence.records)
    if one.signer != other.signer or type(one.record) is not type(other.record):
        raise Malformed("two words of different members, or of different kinds")
    if one.record == other.record:
        raise Malformed("a member may say the same twice")
    match one.record, other.record:
        case Vote() as first, Vote() as second:
            same = (first.network, first.epoch, first.account, first.sequence) == (
                second.network,
                second.epoch,
                second.account,
                second.sequence,
            )
            act = _act(b"vote", first.account, first.sequence.to_bytes(8, "big"))
            what = f"two orders of {first.account.short} with the number {first.sequence}"
        case AgreementVote() as first, AgreementVote() as second:
            same = (first.network, first.epoch, first.round, first.phase) == (
                second.network,
                second.epoch,
                second.round,
                second.phase,
            )
            # However often it votes twice on the end of an epoch: that is one act.
            act = b"agreement"
            what = f"two ends of the epoch, in round {first.round}"
        case Seal() as first, Seal() as second:
            same = (first.network, first.epoch) == (second.network, second.epoch)
            act = b"agreement"
            what = "two sets of orders that it has applied"
        case _:
            raise AssertionError(one.record)
    if not same:
        raise Malformed("a member may sign both of these")
    epoch = first.epoch.to_bytes(8, "big")
    conviction = Conviction(one.signer, _act(b"member", one.signer, first.network, epoch, act))
    why = f"in epoch {first.epoch} it signed for {what}"
    return OffenceFinding(evidence.offence, (conviction,), why, first.network)


def _opened_vote(raw: bytes) -> Signed[SignedRecord]:
    kind = _VOTES.get(raw[1]) if len(raw) > 1 else None
    if kind is None:
        raise Malformed("neither a vote, nor a seal, nor a vote on the end of an epoch")
    return open_signed(raw, kind)


# Peers


def _forked_log(evidence: Evidence) -> OffenceFinding:
    _of_shape(evidence, 2, (0,))
    first, second = evidence.records
    found = judge_fork(LogFork(first=first, second=second))
    culprit, began_at_ms = found.first.signer, found.first.record.began_at_ms
    # A log that was forked once is forked: what follows on it is no further act.
    act = _act(b"log", culprit, began_at_ms.to_bytes(8, "big"))
    return OffenceFinding(evidence.offence, (Conviction(culprit, act),), found.why)


def _lost_dispute(evidence: Evidence) -> OffenceFinding:
    _of_shape(evidence, 1, (1,))
    dispute = open_signed(evidence.records[0], Dispute)
    source, output = dispute.record.input, dispute.record.output
    if source is None or output is None:
        raise Malformed("the record of the dispute has not got the leg's input and output in it")
    try:
        grounds, found = judge_dispute(dispute, evidence.content[0], source, output)
    except ModelRefused as error:
        raise Malformed(f"the model cannot be run: {error.message}") from error
    if not found.proven or not found.lost:
        raise Malformed("the record proves nothing against anybody: it is the asker's word")
    lost = tuple(work_of(it, grounds.receipt.id) for it in sorted(found.lost))
    return OffenceFinding(evidence.offence, lost, found.why)


def _task_and_leg(evidence: Evidence) -> tuple[Signed[Task], Signed[Receipt]]:
    task = open_signed(evidence.records[0], Task)
    receipt = open_signed(evidence.records[1], Receipt)
    if receipt.record.task != task.id:
        raise Malformed("the receipt is of another task")
    return task, receipt


def _wrong_answer(evidence: Evidence) -> OffenceFinding:
    _of_shape(evidence, 2, (3, 4))
    task, receipt = _task_and_leg(evidence)
    found = recomputed(task.record, receipt.record, evidence.content)
    wrong = [row for row in range(len(found.worst_ppb)) if found.is_wrong(row)]
    if not wrong and not found.misstated:
        raise Malformed("the answer is right: everybody computes the same")
    why = found.misstated or f"row {wrong[0]} of its answer is not what the model gives"
    return OffenceFinding(evidence.offence, (work_of(receipt.signer, receipt.id),), why)


def _untrue_verdict(evidence: Evidence) -> OffenceFinding:
    _of_shape(evidence, 3, (3, 4))
    task, receipt = _task_and_leg(evidence)
    verdict = open_signed(evidence.records[2], Verdict)
    said = verdict.record
    if said.receipt != receipt.id or verdict.signer == receipt.signer:
        raise Malformed("the verdict is on another receipt, or of whoever signed the receipt")
    if not said.could_check:
        raise Malformed("a verifier that could not check says nothing of any row")
    found = recomputed(task.record, receipt.record, evidence.content)
    rows = len(found.worst_ppb)
    if any(row >= rows for row in said.sampled):
        raise Malformed("the verdict names a row that the leg has not")
    if said.agrees:
        # Only rows that it lists as sampled: nobody has to have looked at others.
        missed = [row for row in said.sampled if found.is_wrong(row)]
        if not missed:
            raise Malformed("no row that the verdict lists as sampled is wrong")
        why = f"it agrees, and row {missed[0]}, which it lists as sampled, is wrong"
    else:
        if not found.is_right:
            raise Malformed("the answer is not right in all that a verifier looks at")
        why = "it calls an answer wrong that is right, bit for bit"
    return OffenceFinding(evidence.offence, (work_of(verdict.signer, receipt.id),), why)


def _jury_finding(evidence: Evidence) -> OffenceFinding:
    found = shown_finding(evidence)
    charge = found.charge
    conviction = work_of(charge.culprit, charge.receipt.id)
    # That the checkpoint is its network's is for its committee to say.
    why = f"{found.seats} of {JURORS} seats of a jury found its answer wrong"
    return OffenceFinding(evidence.offence, (conviction,), why, found.header.network)


def two_votes(first: bytes, second: bytes) -> Evidence:
    """Evidence that a member signed both of these."""
    return Evidence(offence=OffenceKind.TWO_VOTES, records=(first, second), content=())


def forked_log(fork: LogFork) -> Evidence:
    """Evidence that a peer showed two logs."""
    heads = (fork.first, fork.second)
    return Evidence(offence=OffenceKind.FORKED_LOG, records=heads, content=())


def lost_dispute(dispute: bytes, model: bytes) -> Evidence:
    """Evidence from the record of a dispute, and the model's file."""
    return Evidence(offence=OffenceKind.LOST_DISPUTE, records=(dispute,), content=(model,))
