"""A check as an asker sends it, read: what is signed holds, and the secret is the task's."""

from dataclasses import dataclass

from wire.chain import open_receipts
from wire.errors import Malformed
from wire.kinds import Role
from wire.lottery import attempt_of
from wire.message import Check
from wire.operations import by_rows
from wire.receipt import Receipt
from wire.signed import Signed, open_signed
from wire.task import Stage, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A check that was read: signatures hold, and the secret is the task's."""

    task: Signed[Task]
    receipts: list[Signed[Receipt]]
    check: Check

    @property
    def receipt(self) -> Signed[Receipt]:
        """That of the leg to be checked."""
        return self.receipts[-1]

    @property
    def stage(self) -> Stage:
        """The leg, as the task has it."""
        return self.task.record.stages[self.receipt.record.stage]


def read_check(check: Check) -> Asked:
    """Read and check what an asker sent; WireError says what is wrong."""
    task = open_signed(check.task, Task)
    receipts = open_receipts(task, check.receipts)
    if not receipts or receipts[-1].record.role is not Role.INFER:
        raise Malformed("a check is of a leg that ran a model")
    if attempt_of(check.secret, task.record.checking.secret_hash) is None:
        raise Malformed("the secret is not the one the task was signed with")
    leg = receipts[-1].record
    if check.parts and not by_rows(leg.operation):
        raise Malformed("a leg without rows has no parts")
    if any(row >= leg.units for row in check.rows):
        raise Malformed("the leg has not the rows that are to be recomputed")
    return Asked(task=task, receipts=receipts, check=check)
