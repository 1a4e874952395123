"""Settles a dispute between two peers over the network: the asker is the referee.

It hears both sides, signs the record of all that was said, and judges it as anybody else will. Who
does not answer by the deadline has lost.
"""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

import trio

from node.checking.check_request import CheckRequest
from node.checking.hearing import DisputeHearing, SilentError, hear_words
from node.evidence import disputes
from node.evidence.disputes import Judgement
from node.evidence.text_disputes import OwnStates, judgement_at
from p2p.peers import Peers
from p2p.timeouts import stretched
from p2p.typed_call import M, TypedCall
from wire import limits
from wire.content import PeerId
from wire.dispute import (
    Children,
    Committed,
    Contest,
    Descend,
    Dispute,
    Reveal,
    Revealed,
    Settled,
)
from wire.errors import BatonError, Refused, RemoteProtocolError, TransportError, WireError
from wire.kinds import RefusalCode
from wire.message import Message
from wire.receipt import Verdict
from wire.signed import Signed, sign

# Both compute one row of a model that is proved to be small; a guess with room for a busy machine.
DISPUTE_S = 30.0
# Who is busy with other disputes is asked again after these, and then no more.
BUSY_PAUSES_S = (0.5, 1.0, 2.0, 4.0)
VERSION_S = 5.0
_SILENCE = (TransportError, WireError, RemoteProtocolError, Refused)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contested:
    """A leg that two peers disagree about, with all that is needed to look into it."""

    claimed: CheckRequest
    verdict: Signed[Verdict]
    manifest: bytes
    # Empty where the file is too large to be carried along.
    model_data: bytes = field(repr=False)
    input: bytes = field(repr=False)
    output: bytes = field(repr=False)

    def record(self) -> Dispute:
        """The record before anything is said."""
        small = limits.INLINE_BYTES_MAX
        return Dispute(
            manifest=self.manifest,
            receipt=self.claimed.receipt.raw,
            verdict=self.verdict.raw,
            input=self.input if len(self.input) <= small else None,
            output=self.output if len(self.output) <= small else None,
            prover=None,
            challenger=None,
            outputs=(),
            steps=(),
            sources=(),
            prover_silent=False,
            challenger_silent=False,
            settled_at_ms=0,
        )


@dataclass(slots=True)
class Settling:
    """Settles disputes for one peer."""

    peers: Peers

    async def run_dispute(self, contested: Contested) -> tuple[Signed[Dispute], Judgement]:
        """Hear both sides. WireError or ModelRefused if there is nothing to dispute.

        Refused, or TransportError, if one of them is not known to know disputes.
        """
        receipt = contested.claimed.receipt
        grounds = await trio.to_thread.run_sync(
            disputes.check_grounds,
            contested.manifest,
            receipt.raw,
            contested.verdict.raw,
            contested.model_data,
            contested.input,
            contested.output,
        )
        for peer in (receipt.signer, contested.verdict.signer):
            await self._check_version(peer)
        record = contested.record()
        deadline_at_s = trio.current_time() + stretched(DISPUTE_S)
        async with AsyncExitStack() as stack:
            sides = [
                _Called(self.peers, peer, contested, stack, deadline_at_s)
                for peer in (receipt.signer, contested.verdict.signer)
            ]
            record = await DisputeHearing(grounds, record, sides).hear()
            settled_at_ms = int(self.peers.environment.wall_s() * 1000)
            signed = sign(replace(record, settled_at_ms=settled_at_ms), self.peers.key)
            # The record is what counts, not what is remembered here.
            _, found = await trio.to_thread.run_sync(
                disputes.judge, signed, contested.model_data, contested.input, contested.output
            )
            for side in sides:
                await side.end(lost=side.peer in found.lost)
        return signed, found

    async def name_layer(
        self, contested: Contested, side: int, row: int, own: OwnStates
    ) -> tuple[Signed[Dispute], Judgement]:
        """Which layer of an exact transformer gave a wrong side something else; `own` is right.

        SilentError or UnfitError if that side does not show it.
        """
        receipt = contested.claimed.receipt
        peers = (receipt.signer, contested.verdict.signer)
        try:
            await self._check_version(peers[side], limits.TEXT_DISPUTES_VERSION)
        except _SILENCE as error:
            raise SilentError(error.message) from error
        deadline_at_s = trio.current_time() + stretched(DISPUTE_S)
        async with AsyncExitStack() as stack:
            called = _Called(self.peers, peers[side], contested, stack, deadline_at_s)
            heard = await hear_words(called, side, (receipt, peers[side]), row, own)
            await called.end(lost=True)
        settled_at_ms = int(self.peers.environment.wall_s() * 1000)
        record = replace(heard.written_in(contested.record()), settled_at_ms=settled_at_ms)
        return sign(record, self.peers.key), judgement_at(heard.place, own, peers, side, row)

    async def _check_version(self, peer: PeerId, least: int = limits.DISPUTES_VERSION) -> None:
        """Refused for a peer that knows no such disputes: it must not lose for being silent."""
        version = await self.peers.neighbours.version_of(peer, deadline_s=stretched(VERSION_S))
        if version < least:
            raise Refused(
                f"{peer.short} speaks version {version}, which knows no such disputes",
                code=RefusalCode.UNSUPPORTED,
            )


@dataclass(slots=True)
class _Called:
    """One side, asked in one conversation that lives as long as `stack`."""

    peers: Peers
    peer: PeerId
    contested: Contested
    stack: AsyncExitStack
    deadline_at_s: float
    call: TypedCall | None = None

    async def commit(self, row: int | None) -> bytes:
        """See `node.checking.hearing.Side`."""
        for pause_s in (*BUSY_PAUSES_S, None):
            try:
                return await self._committed(row)
            except Refused as error:
                if error.retry_after_s is None or pause_s is None:
                    raise SilentError(error.message) from error
                await trio.sleep(pause_s)
            except (TransportError, WireError, RemoteProtocolError) as error:
                raise SilentError(error.message) from error
        raise AssertionError("the last pause is none")

    async def _committed(self, row: int | None) -> bytes:
        left_s = max(0.1, self.deadline_at_s - trio.current_time())
        claimed, record = self.contested.claimed, self.contested.record()
        call = await self.stack.enter_async_context(self.peers.call(self.peer, deadline_s=left_s))
        contest = Contest(
            task=claimed.task.raw,
            receipts=tuple(it.raw for it in claimed.receipts),
            input=record.input,
            output=record.output,
            row=row,
            deadline_ms=max(1, int(1000 * left_s)),
        )
        await call.send(contest)
        found = (await call.expect(Committed)).commitment
        self.call = call
        return found

    async def nodes_below(self, level: int, index: int) -> tuple[bytes, bytes]:
        """See `node.checking.hearing.Side`."""
        found = await self._ask(Descend(level=level, index=index), Children)
        return found.left, found.right

    async def reveal(self, layer: int) -> tuple[bytes, bytes]:
        """See `node.checking.hearing.Side`."""
        found = await self._ask(Reveal(layer=layer), Revealed)
        return found.state, found.path

    async def end(self, *, lost: bool) -> None:
        """Say that it is over; whoever does not hear it finds out by itself."""
        try:
            if self.call is not None:
                await self.call.send(Settled(lost=lost))
        except BatonError:
            return

    async def _ask(self, question: Message, kind: type[M]) -> M:
        assert self.call is not None, "it has committed"
        try:
            await self.call.send(question)
            return await self.call.expect(kind)
        except _SILENCE as error:
            self.call = None
            raise SilentError(error.message) from error
