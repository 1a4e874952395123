"""Evidence: the records that convict somebody, with what they are about, as one file.

Nothing in it is a conclusion, and nobody's word is needed: who did what follows from what the
culprit signed (`node.evidence.offences`).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, ClassVar

from wire import limits
from wire.schema import Between, Record

MAGIC = b"baton evidence 1\n"
EVIDENCE_SUFFIX = ".evidence"
_PART = Annotated[bytes, Between(1, limits.EVIDENCE_BYTES_MAX)]


class OffenceKind(IntEnum):
    """What somebody did. They are kept: append only."""

    # A member of the ledger signed two things of which it may sign one.
    TWO_VOTES = 1
    # A peer showed two logs of its receipts.
    FORKED_LOG = 2
    # A peer lost a dispute about an integer model.
    LOST_DISPUTE = 3
    # A verdict says of a row that it sampled what anybody finds to be otherwise.
    UNTRUE_VERDICT = 4
    # A receipt names an output that anybody finds to be wrong.
    WRONG_ANSWER = 5
    # A receipt names an output that only a jury can look at. It convicts nobody by itself.
    DISPUTED_WORK = 6
    # A jury has found that an answer is wrong.
    JURY_FINDING = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence(Record):
    """`records` are signed; `content` is what they name by content, where it is needed.

    TWO_VOTES: two votes, seals or votes on the end of an epoch. FORKED_LOG: two heads.
    LOST_DISPUTE: the record of the dispute; the model's file. UNTRUE_VERDICT and WRONG_ANSWER: the
    task, the receipt, and in the first case the verdict; the model's manifest, the input, the
    output, and the model's file where it has one. DISPUTED_WORK: the task and its receipts up to
    that of the accused leg; the manifest, and the leg's input and output: where they are large they
    are not in it, and jurors fetch what the receipt names. JURY_FINDING: the checkpoint with which
    the jury was drawn, the evidence of DISPUTED_WORK, the orders of jurors; the jury, the digests
    of all that were drawn in that epoch.
    """

    SIZE_BYTES_MAX: ClassVar[int] = limits.EVIDENCE_BYTES_MAX

    offence: OffenceKind
    records: Annotated[tuple[_PART, ...], Between(1, limits.EVIDENCE_RECORDS_MAX)]
    content: Annotated[tuple[_PART, ...], Between(0, limits.EVIDENCE_PARTS_MAX)]

    def to_file(self) -> bytes:
        """What is written to a file of evidence."""
        return MAGIC + self.to_bytes()

    @classmethod
    def is_file(cls, data: bytes) -> bool:
        """Whether a file begins as evidence does."""
        return data.startswith(MAGIC)
