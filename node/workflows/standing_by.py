"""A workflow with several keepers: each asks the others what they have, and one of them writes.

Whoever writes learns so that another has taken over, and stands down; whoever stands by has every
entry with its result, and takes over when the keeper that writes was silent for long.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from node.workflows.branches import DoubledSlot, doubled, with_results
from node.workflows.catching_up import CatchingUp, CaughtUp
from node.workflows.feed_calls import FeedCalls
from node.workflows.lease import FeedLease
from node.workflows.runner import WorkflowRunner
from p2p.connect import TROUBLES
from p2p.score import Offence
from wire.content import PeerId
from wire.errors import Refused, StoreError, Unreachable, WireError
from wire.feed import ENTRIES_PER_PAGE, FeedPage

# How often the other keepers are asked: this, or four times in the time of a takeover.
POLL_S = 5.0
POLLS_PER_TAKEOVER = 4
# A keeper has so long to answer, or a quarter of the time of a takeover.
CALL_S_MIN = 3.0
# Pages that are taken of one keeper before the others have their turn.
PAGES_AT_ONCE = 16


@dataclass(slots=True, eq=False)
class KeeperWatch:
    """One keeper's look at the others of one workflow, until it is cancelled."""

    runner: WorkflowRunner
    calls: FeedCalls
    note: Callable[[str], None]
    # Why a keeper's entries are not taken, by keeper.
    problems: dict[PeerId, str] = field(default_factory=dict)
    # Why this peer does not take over, though the holder is silent.
    waits: str = ""

    @property
    def lease(self) -> FeedLease:
        return self.runner.lease

    async def run(self) -> None:
        """Ask the others again and again."""
        self.lease.begin(trio.current_time())
        poll_s = min(POLL_S, self.lease.takeover_s / POLLS_PER_TAKEOVER)
        while True:
            async with trio.open_nursery() as nursery:
                for keeper in self.lease.others:
                    nursery.start_soon(self._look, keeper)
            await self._decide()
            await trio.sleep(poll_s)

    async def _look(self, keeper: PeerId) -> None:
        try:
            for _ in range(PAGES_AT_ONCE):
                if not await self._catch_up(keeper):
                    break
            self.lease.answered(keeper, trio.current_time())
            self.problems.pop(keeper, None)
        except WireError as error:
            self.calls.offended(keeper, Offence.MALFORMED)
            self._refuses(keeper, f"sends what is no entry of this feed: {error.message}")
        except (Refused, StoreError) as error:
            self._refuses(keeper, error.message)
        except TROUBLES as error:
            self.lease.unanswered(keeper)
            self.problems[keeper] = str(error)

    def _refuses(self, keeper: PeerId, why: str) -> None:
        # It lives, so nobody takes over from it.
        self.lease.answered(keeper, trio.current_time())
        self.problems[keeper] = why

    async def _catch_up(self, keeper: PeerId) -> bool:
        """Take what a keeper has that holds; whether there may be more."""
        history, lease = self.runner.history, self.lease

        async def ask(number: int) -> FeedPage:
            # A machine that stands still answers nothing, and refuses nothing either.
            with trio.move_on_after(max(CALL_S_MIN, lease.takeover_s / POLLS_PER_TAKEOVER)):
                return await self.calls.page(keeper, lease.feed, number)
            raise Unreachable(f"{keeper.short} does not answer")

        before = history.last_entry()
        catching_up = CatchingUp(lease.feed, lease.record, history, ask, self.runner.wall_ms())
        found = await catching_up.read()
        if found.fork is not None:
            path = await self.calls.keep_pair(*found.fork)
            raise Refused(f"two histories of {found.fork[0].signer}: the proof is {path}")
        await history.lost.keep(found.beside)
        if not found.fresh:
            return False
        for entry in found.fresh[-ENTRIES_PER_PAGE:]:
            await self.calls.fetch_result(entry, lease.record.keepers)
        async with self.runner.halted():
            if history.last_entry() != before:
                # An entry came meanwhile, of this peer or from another keeper.
                return True
            await self._take(found)
        return found.more

    async def _take(self, found: CaughtUp) -> None:
        history, lease = self.runner.history, self.lease
        given_up = [] if found.kept_until is None else await history.give_up(found.kept_until)
        await history.drop_begun()
        if found.is_gap:
            # What is shown to others never has a gap: entries on both sides of it are no feed.
            await history.forget_all()
        for entry in found.fresh:
            await history.adopt(entry)
        holder = lease.holder
        latest = found.fresh[-1].record.epoch
        if latest == lease.latest:
            # Its entries come by way of another keeper.
            lease.answered(holder, trio.current_time())
        if lease.learn(latest):
            self.note(f"{lease.holder} has taken over {self.runner.workflow.name}: standing by")
        await self._tell_doubles(doubled(found.fresh, with_results(given_up)))

    async def _tell_doubles(self, doubles: list[DoubledSlot]) -> None:
        if not doubles:
            return
        one = doubles[-1]
        path = await self.calls.keep_pair(one.other, one.counts)
        self.note(
            f"the workflow {self.runner.workflow.name}: {len(doubles)} slots have results of two"
            f" keepers; those of {one.counts.signer} count, of epoch {one.counts.record.epoch}"
            f" (one of them: {path})"
        )

    async def _decide(self) -> None:
        lease, name = self.lease, self.runner.workflow.name
        lease.learn(self.runner.history.head.epoch)
        self.waits = ""
        if lease.resume():
            self.runner.wake()
            return
        now_at_s = trio.current_time()
        if self.runner.history.begun is None and lease.may_give_back(now_at_s):
            async with self.runner.halted():
                lease.epoch = None
            self.note(f"{lease.holder} is heard again before a slot came: {name} is its again")
            return
        holder = lease.holder
        if not lease.may_take_over(now_at_s, hears_others=True):
            return
        if self.runner.paused:
            self.waits = f"{holder} is silent, and the workflow is paused here"
        elif not self.calls.hears_others(holder):
            self.waits = f"{holder} is silent, but this peer hears nobody else either"
        else:
            silent_s = lease.silent_s(holder, now_at_s)
            epoch = lease.take_over()
            self.note(f"{holder} was silent for {silent_s:.0f} s: {name} runs here, epoch {epoch}")
            self.runner.wake()

    def as_map(self) -> dict[str, Any]:
        """How it stands, as commands tell it."""
        lease, now_at_s = self.lease, trio.current_time()
        return {
            "holder": str(lease.holder),
            "holds": lease.epoch is not None,
            "epoch": lease.latest if lease.epoch is None else lease.epoch,
            "takeover_s": lease.takeover_s,
            "keepers": [
                {
                    "peer": str(it),
                    "silent_s": round(lease.silent_s(it, now_at_s)),
                    "problem": self.problems.get(it, ""),
                }
                for it in lease.others
            ],
            "waits": self.waits,
        }
