"""Tasks: what a client signed. The id of a task is the content id of the signed bytes."""

import hashlib
from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.codec import pack_plain
from wire.content import ContentId
from wire.errors import Malformed
from wire.kinds import Kind, Level, Role
from wire.schema import Between, Digest, Int, Name, Parameters, Record
from wire.signed import SignedRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Record):
    """One leg: who may do it and what is to be done to the input that reaches it."""

    role: Role
    operation: Name
    model: ContentId | None
    parameters: Parameters

    def check(self) -> None:
        if self.role not in (Role.DATA, Role.INFER):
            raise Malformed(f"{self.role.name.lower()} is not a leg of a task")
        if (self.role is Role.INFER) is (self.model is None):
            raise Malformed("an infer leg names its model, and no other leg names one")

    def job_key(self, source: ContentId | None) -> bytes:
        """The key of the output: legs with equal model, input and parameters have equal outputs."""
        parameters = {name: self.parameters[name] for name in sorted(self.parameters)}
        # Names are in order, and no number of a record's parameters is other than finite.
        packed = pack_plain([self.model, self.operation, source, parameters])
        return hashlib.sha256(b"baton/1/job\0" + packed).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPolicy(Record):
    """How the answer is to be checked: `needed` of `verifiers` must agree.

    `secret_hash` is the end of a chain of secrets (`wire.lottery`) of which the client reveals one
    only once a receipt is signed, so that nobody knows the verifiers before that.
    """

    level: Level
    verifiers: Annotated[int, Between(0, limits.VERIFIERS_MAX)]
    needed: Annotated[int, Between(0, limits.VERIFIERS_MAX)]
    secret_hash: Digest

    def check(self) -> None:
        if self.needed > self.verifiers:
            raise Malformed(f"{self.needed} verdicts needed of {self.verifiers} verifiers")
        if (self.level is Level.SIGNED) is not (self.verifiers == 0):
            raise Malformed("a level above signed has verifiers, and signed has none")
        if self.verifiers and not self.needed:
            raise Malformed("a check that needs no verdict checks nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(SignedRecord):
    """The stages in order, the input of the first, and the terms."""

    KIND: ClassVar[Kind] = Kind.TASK
    SIZE_BYTES_MAX: ClassVar[int] = limits.TASK_BYTES_MAX

    version: Annotated[int, Between(1, 2**16)]
    stages: Annotated[tuple[Stage, ...], Between(1, limits.STAGES_MAX)]
    input: ContentId | None
    checking: CheckPolicy
    issued_at_ms: Int
    deadline_s: Annotated[int, Between(1, limits.DEADLINE_S_MAX)]
    price_max: Int
    nonce: Annotated[bytes, Between(16, 16)]

    def check(self) -> None:
        """Malformed unless a data leg comes first, where there is no input, and nowhere else."""
        if self.input is None and self.stages[0].role is not Role.DATA:
            raise Malformed("a task without input begins with a data leg")
        if any(stage.role is Role.DATA for stage in self.stages[1:]):
            raise Malformed("a data leg comes first, and only there")
