"""Small checks that came together are done together: one call of the engine, one signature.

What each comes to is no matter of the others, and each verdict holds alone. A check that needs
content which did not come with it, or much of the engine, goes by `VerifyRole.verdict_on`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import trio

from node.paying.till import VerdictSeat
from node.serving.asked_check import Asked
from node.serving.claimed_leg import Again, ClaimedLeg, Found, wrong
from node.serving.role import Done, LegInput
from node.serving.verify_role import VerifyRole
from wire.chain import source_of
from wire.content import PeerId
from wire.errors import BatonError, Refused, WireError
from wire.kinds import RefusalCode
from wire.operations import EMBED_PASSAGES, NEAREST
from wire.receipt import Verdict
from wire.signed import Signed, sign_many
from wire.tree import name_of

# What a check comes to: a verdict that is signed, or only committed to yet, or why there is none.
CheckEnd = Signed[Verdict] | Verdict | BatonError

# What checks in one call of the engine take of its time together, and how many they are, at most.
TOGETHER_S_MAX = 0.25
TOGETHER_MAX = 64


@dataclass(slots=True, eq=False)
class SmallCheck:
    """One of them. `ended` hears once what came of it."""

    asked: Asked
    # What is to be done again, or what was found without that.
    again: Again | Found
    cost_s: float
    deadline_at_s: float
    ended: Callable[[CheckEnd], None]
    began_at_s: float = field(default_factory=trio.current_time)
    # Whether nobody waits for it any more.
    unwanted: bool = False


def small_check(
    role: VerifyRole,
    asked: Asked,
    asker: PeerId,
    ended: Callable[[CheckEnd], None],
) -> SmallCheck | None:
    """The check as a small one, if it is."""
    check, stage, receipt = asked.check, asked.stage, asked.receipt
    source, output = check.input, check.output
    if stage.operation in {EMBED_PASSAGES, NEAREST} or source is None or output is None:
        return None
    input_id = source_of(asked.task, asked.receipts, receipt.record.stage)
    if input_id is None or name_of(source) != input_id or name_of(output) != receipt.record.output:
        # What did not come with the check is fetched.
        return None
    left_s = check.deadline_ms / 1000
    claim = ClaimedLeg(
        stage=stage,
        receipt=receipt,
        source=LegInput(id=input_id, data=source, holders=(), deadline_s=left_s),
        output=output,
        texts=None,
    )
    cost_s = 0.0
    try:
        again = role.again(claim, check)
    except WireError as error:
        # The leg's own output cannot be read: whoever signed for it is at fault.
        again = wrong(1, error.message)
    if again is None:
        return None
    if isinstance(again, Again):
        assert again.source.data is not None
        cost_s = role.infer_role.cost_s(again.stage, again.source.data, asker)
        if not role.infer_role.shares(again.stage, cost_s):
            return None
    return SmallCheck(asked, again, cost_s, trio.current_time() + left_s, ended)


async def check_together(role: VerifyRole, checks: Iterable[SmallCheck], asker: PeerId) -> None:
    """Do small checks of one asker, and tell each what came of it."""
    for some in _cut(checks):
        with trio.move_on_at(max(it.deadline_at_s for it in some)) as waiting:
            await role.places.enqueue(asker)
        if waiting.cancelled_caught:
            _end_each(some, [_late()] * len(some))
            continue
        try:
            ends = await _ends_of(role, some, asker)
        finally:
            role.places.dequeue(asker)
        _end_each(some, ends)


async def _ends_of(role: VerifyRole, checks: Sequence[SmallCheck], asker: PeerId) -> list[CheckEnd]:
    """What each comes to, in order: of those that are not paid for, a refusal."""
    ends: dict[SmallCheck, CheckEnd] = {}
    seats: dict[SmallCheck, VerdictSeat | None] = {}
    try:
        for one in checks:
            try:
                seats[one] = role.seat_of(one.asked, asker)
            except Refused as error:
                ends[one] = error
        paid = list(seats)
        for one, end in zip(paid, _signed(role, paid, await _found(role, paid)), strict=True):
            ends[one] = end
            seat = seats[one]
            if seat is not None and not isinstance(end, BatonError):
                seat.charge()
    finally:
        for seat in seats.values():
            if seat is not None:
                seat.close()
    return [ends[it] for it in checks]


def _cut(checks: Iterable[SmallCheck]) -> Iterator[list[SmallCheck]]:
    """The checks in runs that one call of the engine may have."""
    run: list[SmallCheck] = []
    run_s = 0.0
    for one in checks:
        if run and (run_s + one.cost_s > TOGETHER_S_MAX or len(run) == TOGETHER_MAX):
            yield run
            run, run_s = [], 0.0
        run.append(one)
        run_s += one.cost_s
    if run:
        yield run


async def _found(role: VerifyRole, checks: Sequence[SmallCheck]) -> list[Found | BatonError]:
    """What each is found to be, in order."""
    found: dict[SmallCheck, Found | BatonError] = {}
    # By what the engine does at once: a model and an operation.
    kinds: dict[object, list[tuple[SmallCheck, Again]]] = {}
    now_at_s = trio.current_time()
    for one in checks:
        if one.unwanted:
            found[one] = Refused("given up: nobody waits for it", retry_after_s=1.0)
        elif one.deadline_at_s <= now_at_s:
            found[one] = _late()
        elif isinstance(one.again, Found):
            found[one] = one.again
        else:
            key = (one.again.stage.model, one.again.stage.operation)
            kinds.setdefault(key, []).append((one, one.again))
    for some in kinds.values():
        works = [(again.stage, again.source) for _, again in some]
        for (one, again), done in zip(some, await role.infer_role.do_many(works), strict=True):
            found[one] = _judged(again, done)
    return [found[it] for it in checks]


def _judged(again: Again, done: Done | BatonError) -> Found | BatonError:
    if isinstance(done, BatonError):
        return done
    try:
        return again.judge(done)
    except WireError as error:
        return wrong(1, error.message)


def _signed(
    role: VerifyRole, checks: Sequence[SmallCheck], found: Sequence[Found | BatonError]
) -> list[CheckEnd]:
    """The ends of checks, in order. What is committed to is signed later, when it is told."""
    verdicts: list[Verdict | BatonError] = []
    for one, what in zip(checks, found, strict=True):
        try:
            if isinstance(what, Found):
                verdicts.append(role.verdict_of(one.asked, what, one.began_at_s))
            else:
                verdicts.append(what)
        except Refused as error:
            verdicts.append(error)
    role.checked += sum(isinstance(it, Verdict) for it in verdicts)
    to_sign = [
        it
        for one, it in zip(checks, verdicts, strict=True)
        if isinstance(it, Verdict) and not one.asked.check.commit
    ]
    signed = iter(sign_many(to_sign, role.key) if to_sign else ())
    return [
        next(signed) if isinstance(it, Verdict) and not one.asked.check.commit else it
        for one, it in zip(checks, verdicts, strict=True)
    ]


def _end_each(checks: Sequence[SmallCheck], found: Sequence[CheckEnd]) -> None:
    for one, what in zip(checks, found, strict=True):
        one.ended(what)


def _late() -> Refused:
    return Refused("no time left to check", code=RefusalCode.LATE)
