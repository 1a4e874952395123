"""What the answers that this peer keeps show of another peer, or of a model: how much of the work
was checked, by whom, and what was found.

Only answers to this peer's own tasks count. What it imported may be made up.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from node.asking.answers import Answers, Later
from node.asking.old_answers import LATER, latest_rows
from store import Table
from wire.chain import legs_to_check
from wire.codec import unpack
from wire.content import ContentId, PeerId
from wire.errors import StoreError, WireError
from wire.receipt import Answer, Receipt, Verdict
from wire.signed import Envelope, Signed, SignedRecord
from wire.task import Task

# So many of the latest answers are read.
ANSWERS_MAX = 4000


@dataclass(slots=True)
class VerifierCount:
    """The verdicts of one verifier."""

    agreed: int = 0
    against: int = 0


@dataclass(slots=True)
class TrackRecord:
    """Counts of legs that ran a model; one is checked if as many agree as its task needs."""

    answers_read: int = 0
    legs: int = 0
    checked: int = 0
    checked_later: int = 0
    found_wrong: int = 0
    # Legs of answers that a liar signed, and nobody checked since.
    suspect: int = 0
    verifiers: dict[PeerId, VerifierCount] = field(default_factory=dict)
    # Verdicts that the peer itself gave on others' legs.
    gave: VerifierCount = field(default_factory=VerifierCount)
    # When it was caught lying, by the wall clock.
    caught_at_ms: int | None = None

    def as_map(self) -> dict[str, Any]:
        """As `audit --json` has it."""
        looked_at = self.checked + self.checked_later + self.found_wrong
        return {
            "answers_read": self.answers_read,
            "legs": self.legs,
            "checked": self.checked,
            "checked_later": self.checked_later,
            "found_wrong": self.found_wrong,
            "suspect": self.suspect,
            "checked_share": round(looked_at / self.legs, 4) if self.legs else None,
            "verifiers": [
                {"peer": str(peer), "agreed": it.agreed, "against": it.against}
                for peer, it in sorted(self.verifiers.items())
            ],
            "gave": {"agreed": self.gave.agreed, "against": self.gave.against},
            "caught_at_ms": self.caught_at_ms,
        }


IsMeant = Callable[[Signed[Receipt]], bool]


async def track_record(
    answers: Answers, is_meant: IsMeant, peer: PeerId | None = None
) -> TrackRecord:
    """Read the latest answers and count the legs that are meant, of `peer` if it is one's."""
    found = TrackRecord(caught_at_ms=None if peer is None else answers.liars.get(peer))
    for _, answer_id in latest_rows(answers.store, ANSWERS_MAX):
        try:
            raw = await answers.store.get(ContentId(answer_id))
            _add(found, answers, _claimed(raw, Answer), is_meant, peer)
        except (StoreError, WireError):
            # This answer is damaged on the disk; the others can still be read.
            continue
        found.answers_read += 1
    return found


def _claimed(raw: bytes, kind: type[Any]) -> Any:
    """A record of an answer that was checked when it was kept."""
    envelope: Envelope[SignedRecord] = Envelope.read(raw, kind)
    return Signed(envelope.claimed(), envelope.signer, envelope.raw, ContentId.of(raw))


def _add(
    found: TrackRecord,
    answers: Answers,
    answer: Signed[Answer],
    is_meant: IsMeant,
    peer: PeerId | None,
) -> None:
    receipts: list[Signed[Receipt]] = [_claimed(it, Receipt) for it in answer.record.receipts]
    task: Signed[Task] = _claimed(answer.record.task, Task)
    row = answers.store.read(Table.VERDICTS, LATER + answer.id)
    later, raws = (None, []) if row is None else unpack(row)
    verdicts: list[Signed[Verdict]] = [
        _claimed(it, Verdict) for it in (*answer.record.verdicts, *raws)
    ]
    of_the_time = len(answer.record.verdicts)
    suspect = answers.suspect_legs(answer) if later is None else []
    for leg in legs_to_check(receipts):
        receipt = receipts[leg]
        own = [it for it in verdicts if it.record.receipt == receipt.id]
        if peer is not None:
            for verdict in own:
                if verdict.signer == peer:
                    _count(found.gave, verdict)
        if not is_meant(receipt):
            continue
        found.legs += 1
        for verdict in own:
            _count(found.verifiers.setdefault(verdict.signer, VerifierCount()), verdict)
        agree = sum(
            it.record.agrees for it in verdicts[:of_the_time] if it.record.receipt == receipt.id
        )
        needed = task.record.checking.needed
        if own and later == Later.WRONG.value and any(not it.record.agrees for it in own):
            found.found_wrong += 1
        elif needed and agree >= needed:
            found.checked += 1
        elif own and later == Later.HELD.value:
            found.checked_later += 1
        elif leg in suspect:
            found.suspect += 1


def _count(counted: VerifierCount, verdict: Signed[Verdict]) -> None:
    if verdict.record.agrees:
        counted.agreed += 1
    else:
        counted.against += 1
