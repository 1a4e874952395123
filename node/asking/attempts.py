"""A task's own path: attempts to have it done, each checked, until one answer is accepted.

An answer that the verdicts reject is never returned; the task goes to another peer. Who signed it
is in doubt, and banned only for what this peer computed itself or a dispute has proved: verifiers
are strangers too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import trio

from node.asking.answers import Answers
from node.asking.charging import charge, reject, unpayable
from node.asking.disputing import Disputing
from node.asking.journal import Journal
from node.asking.run import TaskState
from node.checking.check_request import CheckRequest
from node.checking.enough import fewer_verdicts
from node.checking.quorum import Checking
from node.checking.segments import guilty_of
from node.checking.tally import Tally
from node.dispatch.begun import Begun
from node.dispatch.directory import PeerDirectory
from node.dispatch.dispatcher import Dispatcher
from node.dispatch.handoff import Handoff, LegResult
from node.dispatch.resuming import check_built_on
from node.serving.role import nowhere
from node.task.events import Failed
from node.task.units import units_of
from p2p.adverts import Environment
from p2p.blobs import Blobs
from p2p.score import Offence
from store import Store
from wire import limits
from wire.amount import show_credits
from wire.chain import doers_of, legs_to_check
from wire.content import PeerId
from wire.errors import Missing, NotAgreed, TaskFailed, TooSlow, WireError
from wire.kinds import Level, Role
from wire.lottery import is_drawn, secret_of
from wire.plural import plural
from wire.signed import Signed
from wire.task import Task

OUTPUT_BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class AcceptedAnswer:
    """What came of a task, with the verdicts on each leg, and is not kept yet."""

    delivered: LegResult
    counted: Mapping[int, Tally]
    output: bytes


@dataclass(slots=True)
class _Avoided:
    """Whom a task does not go to again. Who was only doubted has another chance, with other
    verifiers, once nobody else is left: else a few that lie could use up all workers of a model.
    """

    given_up: frozenset[PeerId] = frozenset()
    doubted: frozenset[PeerId] = frozenset()

    def of(self, task: Signed[Task], directory: PeerDirectory) -> frozenset[PeerId]:
        """The peers to avoid in the next attempt."""
        every = self.given_up | self.doubted
        if self.doubted and not all(directory.able(it, every) for it in task.record.stages):
            self.doubted, every = frozenset(), self.given_up
        return every


@dataclass(frozen=True, slots=True)
class _Checked:
    """What checking an answer came to: who may be at fault, if anybody; the verdicts on each leg.

    `is_final`: the task does not go there again, whoever else is left.
    """

    guilty: frozenset[PeerId] = frozenset()
    counted: Mapping[int, Tally] = field(default_factory=dict)
    is_final: bool = False


@dataclass(slots=True)
class Attempts:
    """Has tasks of one peer's own clients done, each on a path of its own."""

    environment: Environment
    store: Store
    journal: Journal
    blobs: Blobs
    dispatcher: Dispatcher
    checking: Checking
    answers: Answers
    disputing: Disputing
    # Answers that were not accepted.
    retried: int = 0

    async def until_accepted(self, run: TaskState, deadline_at_s: float) -> AcceptedAnswer:
        """Hand a task on, and again, until its answer is accepted; TaskFailed if none is."""
        task = run.task
        inline, units = await self._input(run)
        avoided = _Avoided()
        while run.attempt <= limits.ATTEMPTS_MAX:
            lane = self.dispatcher.directory.lanes.of(run.owner)
            avoid = avoided.of(task, self.dispatcher.directory)
            # Before anybody is chosen, what later legs cost is kept back.
            now_unpayable = partial(unpayable, self.dispatcher.directory, run)
            now_unpayable()
            handoff = Handoff(
                task=task,
                input=inline,
                units=units,
                avoid=avoid,
                unpayable=now_unpayable,
                lane=lane,
                only=run.only,
                bill=run.bill,
            )
            begun, run.begun = run.begun, None
            if begun is not None and begun.delivered is not None:
                delivered = begun.delivered
            else:
                delivered = await self._hand_on(run, handoff, begun, deadline_at_s)
            output = await self._output(run, delivered, deadline_at_s)
            if output is None:
                found = _Checked(frozenset((delivered.receipts[-1].signer,)), is_final=True)
            else:
                found = await self._check(run, delivered, inline, output, deadline_at_s)
                if not found.guilty:
                    counted = found.counted
                    charge(self.dispatcher.directory.payer, run, delivered, output, counted)
                    return AcceptedAnswer(delivered, counted, output)
            reject(self.dispatcher.directory.payer, run, delivered, found.counted)
            # What was shown may be wrong: whoever goes on signs for all of it.
            run.shown.forget_segments()
            self.retried += 1
            guilty = self._avoidable(task, found.guilty, avoid)
            if found.is_final:
                avoided.given_up |= guilty
            else:
                avoided.doubted |= guilty
            run.attempt += 1
            # The attempt is durable before its secret is revealed: no secret is used twice.
            await run.until_journaled()
            await self.journal.renew(run)
        raise NotAgreed(
            f"{limits.ATTEMPTS_MAX} attempts gave no answer that was accepted",
            todo="see who: python -m node peers",
        )

    async def _hand_on(
        self, run: TaskState, handoff: Handoff, begun: Begun | None, deadline_at_s: float
    ) -> LegResult:
        try:
            return await self.dispatcher.hand_on(
                handoff,
                run.on_event,
                nowhere,
                deadline_at_s=deadline_at_s,
                shown=run.shown,
                failed=run.failed,
                begun=begun,
            )
        except TaskFailed as error:
            if not handoff.avoid:
                raise
            words = f"no answer was accepted, and nobody else is left: {error.message}"
            raise NotAgreed(words, todo=error.todo, code=error.code) from error

    def _avoidable(
        self, task: Signed[Task], guilty: frozenset[PeerId], avoid: frozenset[PeerId]
    ) -> frozenset[PeerId]:
        """The guilty peers, except a data peer that no other can replace."""
        data = task.record.stages[0]
        if data.role is Role.DATA and not self.dispatcher.directory.able(data, avoid | guilty):
            return guilty - frozenset(self.dispatcher.directory.able(data, avoid))
        return guilty

    async def _input(self, run: TaskState) -> tuple[bytes | None, int]:
        """The first leg's input, if it is small enough to travel with an offer; and its units."""
        source, stage = run.task.record.input, run.task.record.stages[0]
        if source is None or run.inline is not None:
            return run.inline, units_of(stage, run.inline)
        if not self.store.has(source):
            # The journal's own commit is still running, and stores what is no part of its row.
            await run.until_journaled()
        data = await self.store.get(source)
        small = len(data) <= limits.INLINE_BYTES_MAX
        return data if small else None, units_of(stage, data)

    async def _output(
        self, run: TaskState, delivered: LegResult, deadline_at_s: float
    ) -> bytes | None:
        """The output, fetched from its signer if needed; None if it is withheld."""
        if delivered.output is not None:
            return delivered.output
        receipt = delivered.receipts[-1]
        holders = [it.signer for it in reversed(delivered.receipts)]
        try:
            found = await self.blobs.get(
                receipt.record.output,
                holders,
                deadline_s=max(0.1, deadline_at_s - trio.current_time()),
                size_bytes_max=OUTPUT_BYTES_MAX,
            )
            if run.was_streamed:
                check_built_on(receipt, run.shown.given, found)
            return found
        except (Missing, TooSlow, WireError) as error:
            # The output is withheld, too large, or no valid tree, and this peer signed for it.
            lies = isinstance(error, WireError)
            offence = Offence.MALFORMED if lies else Offence.UNANSWERED
            self.checking.peers.offended(receipt.signer, offence)
            run.on_event(Failed("infer", receipt.signer, error.message))
            return None

    async def _check(
        self,
        run: TaskState,
        delivered: LegResult,
        inline: bytes | None,
        output: bytes,
        deadline_at_s: float,
    ) -> _Checked:
        """Have every leg that ran a model checked."""
        counted: dict[int, Tally] = {}
        level, secret = run.task.record.checking.level, secret_of(run.seed, run.attempt)
        if level is Level.SIGNED:
            return _Checked()
        if level is Level.SPOT_CHECKED and not is_drawn(secret, delivered.receipts[-1].id):
            return _Checked()
        last = len(delivered.receipts) - 1
        for stage in legs_to_check(delivered.receipts):
            small = stage == last and len(output) <= limits.INLINE_BYTES_MAX
            claimed = CheckRequest(
                task=run.task,
                receipts=delivered.receipts[: stage + 1],
                secret=secret,
                input=inline if stage == 0 else delivered.source if stage == last else None,
                output=output if small else None,
                later=frozenset(
                    it for leg in delivered.receipts[stage + 1 :] for it in doers_of(leg)
                ),
            )
            claimed = await self._mixed(claimed, deadline_at_s)
            votes, lost = await self._counted(run, claimed, output, deadline_at_s)
            counted[stage] = votes
            if lost:
                for maker in sorted(lost):
                    # It was made to answer for that already.
                    run.on_event(Failed("answer rejected", maker, "it lost a dispute about it"))
                return _Checked(lost, counted, is_final=True)
            if votes.agreed is None:
                payer = self.dispatcher.directory.payer
                charge(payer, run, delivered, output, counted, accepted=False)
                raise self._unchecked(run, votes)
            if not votes.agreed:
                # A row in dispute that nobody could look at is not to be missed by another draw.
                guilty = self._rejected(run, claimed, votes)
                return _Checked(guilty, counted, is_final=votes.disputed)
        return _Checked(counted=counted)

    async def _mixed(self, claimed: CheckRequest, deadline_at_s: float) -> CheckRequest:
        """The request with what candidates contribute to its draw; as it is where too few do."""
        checking = self.checking
        if checking.contributions is None:
            return claimed
        weights = {it: checking.weight(it) for it in checking.candidates(claimed)}
        left_s = deadline_at_s - trio.current_time()
        drawn = await checking.contributions.drawn(claimed, weights, left_s)
        return replace(claimed, drawn=drawn)

    def _unchecked(self, run: TaskState, votes: Tally) -> NotAgreed:
        """Why an answer that is there is not given out: too few verifiers have spoken."""
        found, needed, known = votes.agreeing, votes.needed, len(votes.candidates)
        why = f"the answer came, but {found} of the verdicts agree and {needed} have to"
        if known < needed and found == len(votes.verdicts):
            why = (
                f"the answer came, but could not be checked, and is not given out: {found} of the"
                f" verdicts agree, {needed} have to, and {plural(known, 'peer')} could give one"
            )
            joining = self.dispatcher.directory.peers.joining()
            check = joining.have("of another owner check", "--role verify --model NAME")
            todo = f"ask anew with {fewer_verdicts(known)}; or {check}"
        else:
            todo = (
                "give it more time (--deadline), ask for fewer (--verdicts 1/1), or wait until more"
                " verifiers are there, of other owners: python -m node peers"
            )
        if self.dispatcher.directory.payer is not None:
            todo += "; verifiers that ask for credits need --pay-max, and credits in the wallet"
        if run.bill is not None and run.bill.charged:
            why += f"; {show_credits(run.bill.charged)} credits were charged for the work"
        return NotAgreed(why, todo=todo)

    async def _counted(
        self, run: TaskState, claimed: CheckRequest, output: bytes, deadline_at_s: float
    ) -> tuple[Tally, frozenset[PeerId]]:
        """The verdicts on a leg, and who of its makers is wrong, as a dispute showed."""
        terms = run.task.record.checking

        async def check(claimed: CheckRequest) -> Tally:
            more = run.attempt - 1
            while True:
                votes = await self.checking.check(
                    claimed, run.on_event, deadline_at_s=deadline_at_s, rejected=more
                )
                more = min(more, votes.needed - terms.needed) - 1
                # More verdicts are needed after each attempt, where there are so many verifiers.
                if votes.agreed is not None or not votes.ran_out or more < 0:
                    return votes

        votes, ruling = await self.disputing.counted(check, claimed, output, run.on_event)
        for liar in ruling.lost if ruling.proven else ():
            self.answers.accuse(liar, int(self.environment.wall_s() * 1000))
        level = run.task.record.checking.level
        if level is Level.EXACT and votes.agreed and ruling.leaves_open(votes):
            # Of whole numbers no two honest peers differ: somebody is wrong, and nobody knows who.
            votes = replace(votes, agreed=False, disputed=True)
        return votes, ruling.lost

    def _rejected(self, run: TaskState, claimed: CheckRequest, votes: Tally) -> frozenset[PeerId]:
        """The peers not to ask again for this task, after verdicts against an answer."""
        receipt, policy = claimed.receipt, run.task.record.checking
        reasons = {it.record.reason for it in votes.verdicts if it.record.reason}
        why = "; ".join(sorted(reasons)) or "the numbers differ"
        if votes.disputed:
            why += ", and too few could look at the rows in dispute"
        verdicts = [it.record for it in votes.verdicts]
        guilty = guilty_of(receipt, verdicts, policy.verifiers - policy.needed)
        for signer in guilty or (receipt.signer,):
            run.on_event(Failed("answer rejected", signer, why))
        for signer in guilty:
            # That is the word of strangers: it is asked less for a while, and no more than that.
            self.checking.peers.doubted(signer)
        if guilty:
            return guilty
        # Something was withheld from the verifiers, and it is not known by whom, or a dispute could
        # not be decided: this chain of peers is not used again, but none of them is blamed.
        return frozenset(it for leg in claimed.receipts for it in doers_of(leg))
