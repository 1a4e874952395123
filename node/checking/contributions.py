"""Asking candidates for what they contribute to draws of verifiers (`wire.contribution`).

Receipts that wait at the same time for a draw from the same candidates have one draw of
contributors, which takes one round trip. A contributor that is silent, refuses or gives a wrong
proof is named as absent, and the next one drawn is asked; where too many are absent the asker
draws alone, and its answer shows that nobody contributed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import trio

from node.checking.check_request import CheckRequest, Drawn
from node.task.flushing import grown
from p2p.peers import Peers
from p2p.timeouts import stretched
from wire import limits
from wire.content import PeerId
from wire.contribution import (
    AskContribution,
    Contributed,
    contributors,
    leaf_of,
    mix_of,
    mixed_draws,
    root_of,
    words_of,
)
from wire.errors import Refused, RemoteProtocolError, TransportError, WireError
from wire.kinds import RefusalCode
from wire.latest import Latest
from wire.vrf import output_of

# What a contributor has to do takes it a millisecond.
CONTRIBUTE_WITHIN_S = 2.0
# One after another may be silent; beyond this share of its time a task is drawn for without them.
ALL_WITHIN_S = 5.0
SHARE_OF_DEADLINE = 0.2
# Who gave nothing is taken as absent for so long, and not waited for.
ABSENT_FOR_S = 60.0
ABSENT_KEPT = 4096


@dataclass(slots=True, eq=False)
class _Waiting:
    """One receipt that waits for its draw."""

    leaf: bytes
    drawn: Drawn | None = None
    done: trio.Event = field(default_factory=trio.Event)


@dataclass(slots=True)
class _Asked:
    """One draw of contributors: who gave what, and who nothing."""

    words: bytes
    message: AskContribution
    # In order; as many may be asked as may be absent, and no more.
    order: list[PeerId]
    proofs: dict[PeerId, bytes] = field(default_factory=dict)
    outputs: dict[PeerId, bytes] = field(default_factory=dict)
    absent: set[PeerId] = field(default_factory=set)

    @property
    def is_lost(self) -> bool:
        return len(self.absent) > limits.ABSENT_MAX


@dataclass(slots=True)
class Contributions:
    """Has candidates contribute to the draws of one peer, which asks for no more than it needs."""

    peers: Peers
    nursery: trio.Nursery
    # Receipts that wait, by who may be drawn for them.
    _waiting: dict[tuple[tuple[PeerId, int], ...], list[_Waiting]] = field(default_factory=dict)
    _absent_until_at_s: Latest[PeerId, float] = field(default_factory=lambda: Latest(ABSENT_KEPT))

    async def drawn(
        self, claimed: CheckRequest, weights: Mapping[PeerId, int], left_s: float
    ) -> Drawn | None:
        """The draw for one receipt; None if too few candidates contribute in time."""
        if not limits.CONTRIBUTION_CANDIDATES_MIN <= len(weights) <= limits.CANDIDATES_MAX:
            return None
        one = _Waiting(leaf_of(claimed.secret, claimed.receipt.id, weights))
        group = tuple(sorted(weights.items()))
        if (waiting := self._waiting.get(group)) is None:
            self._waiting[group] = [one]
            self.nursery.start_soon(self._draw_for, group)
        else:
            waiting.append(one)
        with trio.move_on_after(min(stretched(ALL_WITHIN_S), left_s * SHARE_OF_DEADLINE)):
            await one.done.wait()
        return one.drawn

    async def _draw_for(self, group: tuple[tuple[PeerId, int], ...]) -> None:
        """Draw for all that wait with these candidates, and for those that come meanwhile."""
        waiting, weights = self._waiting[group], dict(group)
        while waiting:
            await grown(lambda: len(waiting), limits.DRAW_RECEIPTS_MAX)
            some = waiting[: limits.DRAW_RECEIPTS_MAX]
            del waiting[: limits.DRAW_RECEIPTS_MAX]
            with trio.move_on_after(stretched(ALL_WITHIN_S)):
                await self._draw(some, weights)
            for one in some:
                one.done.set()
        del self._waiting[group]

    async def _draw(self, some: list[_Waiting], weights: Mapping[PeerId, int]) -> None:
        leaves = [it.leaf for it in some]
        message = AskContribution(root=root_of(leaves), count=len(leaves))
        words = words_of(self.peers.me, message.root, message.count)
        order = contributors(words, weights)[: limits.CONTRIBUTORS + limits.ABSENT_MAX]
        asked = _Asked(words, message, order)
        async with trio.open_nursery() as nursery:
            for peer in order[: limits.CONTRIBUTORS]:
                nursery.start_soon(self._ask, peer, asked, nursery)
        if asked.is_lost:
            return
        gave = [it for it in order if it in asked.proofs]
        mix = mix_of([asked.outputs[it] for it in gave])
        records = mixed_draws(leaves, [asked.proofs[it] for it in gave], asked.absent)
        for one, record in zip(some, records, strict=True):
            one.drawn = Drawn(weights, mix, record)

    async def _ask(self, peer: PeerId, asked: _Asked, nursery: trio.Nursery) -> None:
        """Ask one, and in its place the next if it gives nothing."""
        now_at_s = trio.current_time()
        if self._absent_until_at_s.get(peer, now_at_s) <= now_at_s:
            try:
                asked.proofs[peer], asked.outputs[peer] = await self._given(peer, asked)
                return
            except (Refused, TransportError, WireError, RemoteProtocolError):
                self._absent_until_at_s[peer] = trio.current_time() + ABSENT_FOR_S
        asked.absent.add(peer)
        if asked.is_lost:
            nursery.cancel_scope.cancel()
            return
        nursery.start_soon(
            self._ask, asked.order[limits.CONTRIBUTORS - 1 + len(asked.absent)], asked, nursery
        )

    async def _given(self, peer: PeerId, asked: _Asked) -> tuple[bytes, bytes]:
        """A contributor's proof, and its output by that."""
        deadline_s = stretched(CONTRIBUTE_WITHIN_S)
        version = await self.peers.neighbours.version_of(peer, deadline_s=deadline_s)
        if version < limits.CONTRIBUTIONS_VERSION:
            raise Refused(
                f"it speaks version {version}, which contributes to no draw",
                code=RefusalCode.UNSUPPORTED,
            )
        async with self.peers.call(peer, deadline_s=deadline_s) as call:
            await call.send(asked.message)
            proof = (await call.expect(Contributed)).proof
            # A wrong proof counts against whoever sent it, as all that is malformed.
            return proof, output_of(peer, asked.words, proof)
