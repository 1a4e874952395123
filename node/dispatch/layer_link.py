"""One conversation with a peer that has a range of layers: rows go there in order, and come back.

Passes may be on their way while earlier ones are answered. What is not the rows that were asked
for, or does not come in time, ends the conversation and counts against the peer.
"""

import math
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import trio

from node.dispatch.layer_log import RowLog
from p2p import timeouts
from p2p.peers import Peers
from p2p.timeouts import stretched
from p2p.typed_call import TypedCall, refused
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import (
    BatonError,
    Refused,
    RemoteProtocolError,
    TooSlow,
    TransportError,
    WireError,
)
from wire.layers import LayerRange
from wire.message import Message, Refuse
from wire.signed import open_signed
from wire.stage import (
    StageClose,
    StageLeg,
    StageOpen,
    StageOpened,
    StagePass,
    StagePassed,
    StageRows,
    StageSign,
    StageSigned,
)

OPEN_S = 8.0
# A pass through a range takes a fraction of a second, on a loaded machine a few.
PASS_S = 20.0
# Passes that wait here, and that are on their way, at most.
WAITING_MAX = 2
SENT_MAX = 4
# What may become of a conversation with a peer.
TROUBLES = (Refused, TransportError, WireError, RemoteProtocolError)
# No longer than a peer serves a conversation.
LIFE_S = 3000.0
# What a layer gives is far below.
NUMBER_MAX = 1e9
# Rows of a conversation that are kept, so that somebody else can run them again.
LOG_BYTES_MAX = 32 << 20


@dataclass(slots=True, eq=False)
class Passage:
    """One pass on its way; `rows` are those that come next, or the last once it is `done`."""

    rows: StageRows
    done: trio.Event = field(default_factory=trio.Event)

    def went_through(self, data: bytes) -> None:
        """Take the rows that a range gave."""
        rows = self.rows
        self.rows = StageRows(tables=rows.tables, owners=rows.owners, places=rows.places, data=data)


@dataclass(slots=True, eq=False)
class Signing:
    """What a peer is to sign; `leg` is what it signed once it is `done`."""

    asked: StageSign
    leg: bytes = b""
    done: trio.Event = field(default_factory=trio.Event)


class LayerLink:
    """`run` is its life. Passages go in by `put`, and on to `after` in the same order."""

    def __init__(self, peers: Peers, peer: PeerId, model: ContentId, layers: LayerRange) -> None:
        self.peer = peer
        self.layers = layers
        # How many pages it keeps; 0 until it is open.
        self.pages = 0
        self.opened = trio.Event()
        self.passes = 0
        self.log = RowLog(LOG_BYTES_MAX)
        # Whether the peer knows how to sign what it ran.
        self.signs = False
        self._peers = peers
        self._model = model
        self._to_send, self._waiting = trio.open_memory_channel[Passage | Signing](WAITING_MAX)
        self._note_sent, self._sent = trio.open_memory_channel[Passage | Signing](SENT_MAX)
        self._closing = trio.Event()
        self._error: BatonError | None = None

    async def put(self, passage: Passage | Signing) -> None:
        """Have a passage go through, or what went through signed; waits while there are many."""
        await self._to_send.send(passage)

    def close(self) -> None:
        """Say that nothing more comes; nobody waits for its opening any more."""
        self._closing.set()
        self.opened.set()

    async def run(self, pages: int, after: "LayerLink | None") -> None:
        """Open it and pass on rows until it is closed.

        Refused, TransportError, WireError or RemoteProtocolError if it came to nothing.
        """
        with trio.move_on_after(stretched(OPEN_S)) as opening:
            version = await self._peers.neighbours.version_of(self.peer, deadline_s=OPEN_S)
            self.signs = version >= limits.STAGE_LEGS_VERSION
            async with self._peers.call(self.peer, deadline_s=LIFE_S) as call:
                first, last = self.layers.first, self.layers.last
                await call.send(StageOpen(model=self._model, first=first, last=last, pages=pages))
                granted = (await call.expect(StageOpened)).pages
                if granted > pages:
                    raise RemoteProtocolError(f"{granted} pages where {pages} were asked for")
                opening.deadline = math.inf
                self.pages = granted
                self.opened.set()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._guarded, self._send_forever(call))
                    nursery.start_soon(self._guarded, self._receive_forever(call, after))
                    await self._closing.wait()
                    nursery.cancel_scope.cancel()
                if self._error is not None:
                    raise self._error
                await call.send(StageClose(passes=self.passes))
        if opening.cancelled_caught:
            raise TooSlow(f"{self.peer.short} did not open {self.layers} in time")

    async def _guarded(self, forever: Coroutine[Any, Any, None]) -> None:
        try:
            await forever
        except TROUBLES as error:
            self._error = self._error or error
            self._closing.set()

    async def _send_forever(self, call: TypedCall) -> None:
        async for passage in self._waiting:
            # It is noted first: the answer may be here as soon as it is sent.
            await self._note_sent.send(passage)
            if isinstance(passage, Signing):
                await call.send(passage.asked)
                continue
            number, self.passes = self.passes, self.passes + 1
            await call.send(StagePass(number=number, rows=passage.rows))

    async def _receive_forever(self, call: TypedCall, after: "LayerLink | None") -> None:
        number = 0
        async for passage in self._sent:
            if isinstance(passage, Signing):
                passage.leg = await self._signed(call, passage.asked)
                passage.done.set()
                continue
            data = await self._answer(call, number, passage)
            self.log.went_through(passage.rows, data)
            passage.went_through(data)
            number += 1
            if after is not None:
                await after.put(passage)
            else:
                passage.done.set()

    async def _signed(self, call: TypedCall, asked: StageSign) -> bytes:
        """What the peer signed; RemoteProtocolError unless it is what it gave."""
        message = await self._message(call)
        if not isinstance(message, StageSigned):
            raise RemoteProtocolError("not what was to be signed")
        signed = open_signed(message.leg, StageLeg)
        leg, layers = signed.record, self.layers
        given = (leg.model, leg.first, leg.last, leg.asker, leg.rows, leg.input, leg.output)
        right = (self._model, layers.first, layers.last, self._peers.me, asked.rows)
        if signed.signer != self.peer or given != (
            *right,
            *self.log.digests(asked.table, asked.rows),
        ):
            raise RemoteProtocolError("it signed something else than the rows that it gave")
        return message.leg

    async def _message(self, call: TypedCall) -> Message:
        try:
            with timeouts.fail_after(PASS_S):
                message = await call.receive()
        except trio.TooSlowError as error:
            raise TooSlow(f"{self.peer.short} did not answer a pass within {PASS_S:g} s") from error
        if isinstance(message, Refuse):
            raise refused(message)
        return message

    async def _answer(self, call: TypedCall, number: int, passage: Passage) -> bytes:
        message = await self._message(call)
        if not isinstance(message, StagePassed) or message.number != number:
            raise RemoteProtocolError(f"not the answer to pass {number}")
        if len(message.data) != len(passage.rows.data):
            raise RemoteProtocolError(
                f"rows of {len(message.data)} bytes where {len(passage.rows.data)} were sent"
            )
        if not (np.abs(np.frombuffer(message.data, "<f4")) <= NUMBER_MAX).all():
            raise RemoteProtocolError("rows with numbers that no layer gives")
        return message.data
