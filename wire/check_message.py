"""What an asker and a verifier say to each other."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.errors import Malformed
from wire.kinds import Kind
from wire.message_base import Message
from wire.order import TaskBytes
from wire.receipt import Envelope, VerdictEnvelope
from wire.schema import Between, Digest, Inline, Omitted, Row

Envelopes = Annotated[tuple[Envelope, ...], Between(0, limits.STAGES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Message):
    """The client asks a verifier it has drawn: here is the secret, check this receipt.

    `part` of `parts`, counted from 1, is what the verifier recomputes (`wire.lottery`), and `rows`
    besides, because another verdict disputes them. With no parts, as peers before PARTS_VERSION
    ask, the verifier's own key draws its rows.
    """

    KIND: ClassVar[Kind] = Kind.CHECK
    task: TaskBytes
    receipts: Envelopes
    secret: Digest
    input: Inline | None
    output: Inline | None
    deadline_ms: Annotated[int, Between(1, limits.DEADLINE_S_MAX * 1000)]
    part: Annotated[int, Between(0, limits.VERIFIERS_MAX), Omitted(0)] = 0
    parts: Annotated[int, Between(0, limits.VERIFIERS_MAX), Omitted(0)] = 0
    rows: Annotated[tuple[Row, ...], Between(0, limits.SAMPLE_MAX), Omitted(())] = ()
    # Whether the verdict is to tell what was measured, where that is more than rows.
    statistics: Annotated[bool, Omitted(False)] = False
    # Whether the verdict is to be committed to before it is told.
    commit: Annotated[bool, Omitted(False)] = False

    def check(self) -> None:
        """Malformed unless the part is one of the parts, and rows are in order, each once."""
        if not min(1, self.parts) <= self.part <= self.parts:
            raise Malformed(f"part {self.part} of {self.parts} is none")
        if tuple(sorted(set(self.rows))) != self.rows or (self.rows and not self.parts):
            raise Malformed("rows stand in order, each once, beside a part")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictReply(Message):
    """The verifier's signed verdict."""

    KIND: ClassVar[Kind] = Kind.FINDING
    verdict: VerdictEnvelope
