"""Calls to peers, over streams that are opened once and used again.

Opening a libp2p stream costs a few round trips, a pooled one costs none. `Streams.call` lends a
stream for one call. `p2p.typed_call` has the messages of a call, and `p2p.framed_stream` the stream
below it.

This module never connects: calling a peer without a connection raises Disconnected.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Self

import trio

from p2p.framed_stream import FramedCall, FramedStream, Unread
from p2p.loopback import loopback_pair
from p2p.stream_pool import StreamPool
from p2p.transport import ByteStream, Endpoint, Transport
from wire import limits
from wire.content import PeerId
from wire.counting import counted
from wire.errors import BatonError, Disconnected, LocalProtocolError, TooSlow
from wire.signing import SigningKey


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsStatistics:
    """The first four figures are as of now, the others are counts since the start."""

    open_out: int
    idle: int
    open_in: int
    unread_bytes: int
    opened: int
    reused: int
    renewed: int
    refused: int
    served: int
    failed: int


class StreamsInUse(TooSlow):
    """All our streams to the peer stayed in use until the deadline: not the peer's fault."""


class Call:
    """One side of one call.

    Every payload is at most limits.FRAME_BYTES_MAX. Waiting ends at `deadline_at_s` (a time of
    trio's clock; the serving side may change it once it knows the task) with TooSlow, and with
    Disconnected or RemoteProtocolError when the stream is gone.
    """

    def __init__(
        self, framed: FramedStream, framed_call: FramedCall | None, deadline_at_s: float
    ) -> None:
        self.deadline_at_s = deadline_at_s
        self._framed = framed
        self._framed_call = framed_call

    @property
    def peer(self) -> PeerId:
        return self._framed.peer

    async def send(self, payload: bytes) -> None:
        """Send, once the other side has room for it. If cancelled, nothing was sent."""
        await self._framed.send(self._conversation(), payload, self.deadline_at_s)

    async def receive(self) -> bytes:
        """The next payload. Disconnected when the other side has ended instead."""
        payload = await self._next()
        if payload is None:
            raise Disconnected(f"{self.peer.short} ended the conversation")
        return payload

    def finish(self) -> None:
        """Send END: nothing more follows; receiving goes on. Safe to call twice."""
        self._framed.end(self._conversation())

    def leave(self) -> None:
        """Leave the call without an error; called by the code that lent the stream."""
        if self._framed_call is None:
            self._framed.on_idle()
        else:
            self._framed.leave(self._framed_call)

    def abandon(self, error: BatonError) -> None:
        """Give the call up: resets the stream. Called by the code that lent the stream."""
        if self._framed_call is None:
            self._framed.on_idle()
        else:
            self._framed.fail(error)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The payloads up to the other side's end."""
        payload = await self._next()
        if payload is None:
            raise StopAsyncIteration
        return payload

    async def _next(self) -> bytes | None:
        return await self._framed.receive(self._conversation(), self.deadline_at_s)

    def _conversation(self) -> FramedCall:
        if self._framed_call is None:
            if self._framed.error is not None:
                raise Disconnected(self._framed.error.message)
            self._framed_call = self._framed.begin()
        return self._framed_call


class _Asking(Call):
    """A call on a pooled stream: if that stream is dead, the call is repeated once on another.

    That happens only before the other side has answered anything. The other side may have begun the
    work all the same, but every step of Baton is idempotent.
    """

    def __init__(
        self,
        framed: FramedStream,
        deadline_at_s: float,
        renew: Callable[[float], Awaitable[FramedStream]],
    ) -> None:
        super().__init__(framed, None, deadline_at_s)
        self._renew = renew
        self._said: list[bytes] = []
        self._said_bytes = 0
        self._renewable = framed.count > 0

    async def send(self, payload: bytes) -> None:
        await self._renewing(super().send, payload)
        self._said_bytes += len(payload)
        if self._said_bytes <= limits.STREAM_CREDIT_BYTES:
            self._said.append(payload)
        else:
            self._renewable = False
            self._said.clear()

    async def _next(self) -> bytes | None:
        try:
            return await super()._next()
        except Disconnected as error:
            await self._renewed(error)
            return await super()._next()

    async def _renewing(self, step: Callable[[bytes], Awaitable[None]], payload: bytes) -> None:
        try:
            await step(payload)
        except Disconnected as error:
            await self._renewed(error)
            await step(payload)

    async def _renewed(self, error: Disconnected) -> None:
        if not self._renewable or (self._framed_call is not None and self._framed_call.heard):
            raise error
        self._renewable = False
        ended = self._framed_call is not None and self._framed_call.we_ended
        self._framed = await self._renew(self.deadline_at_s)
        self._framed_call = None
        for payload in self._said:
            await super().send(payload)
        if ended:
            self.finish()


Serve = Callable[[Call], Awaitable[None]]


class Streams:
    """Calls in both directions, and the endpoint below them. Made by `open_streams`."""

    def __init__(self, serve: Serve, serve_deadline_s: float) -> None:
        self._serve = serve
        self._serve_deadline_s = serve_deadline_s
        self._attached = trio.Event()
        self._endpoint: Endpoint
        self._nursery: trio.Nursery
        self._pools: dict[PeerId, StreamPool] = {}
        self._inbound: Counter[PeerId] = Counter()
        # All streams that others opened share this bound; the callers bound what we ask for.
        self._unread = Unread()
        self._counts: Counter[str] = Counter()

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint, for connecting and gossip."""
        return self._endpoint

    def attach(self, endpoint: Endpoint, nursery: trio.Nursery) -> None:
        """Begin with the endpoint that was opened with `accept`; streams run in `nursery`."""
        self._endpoint = endpoint
        self._nursery = nursery
        self._attached.set()

    @asynccontextmanager
    async def call(self, peer: PeerId, *, deadline_s: float) -> AsyncIterator[Call]:
        """One call to a connected peer, over within `deadline_s`.

        The caller sends first. After a normal exit the stream goes back to the pool when both
        sides have ended; after an exception or a cancellation it is reset, and every other stream
        stays sound. Raises Disconnected or Unreachable if no stream can be opened, StreamsInUse if
        none is free in time, TooSlow if the peer does not accept one in time.
        """
        deadline_at_s = trio.current_time() + deadline_s
        pool = self._pools.setdefault(peer, StreamPool())
        pool.users += 1
        try:
            framed = await self._lent(peer, pool, deadline_at_s)

            async def renew(until_at_s: float) -> FramedStream:
                self._counts["renewed"] += 1
                return await self._lent(peer, pool, until_at_s, fresh=True)

            call = _Asking(framed, deadline_at_s, renew)
            in_peace = False
            try:
                yield call
                in_peace = True
            finally:
                if in_peace:
                    call.leave()
                else:
                    call.abandon(Disconnected("we gave the call up"))
        finally:
            pool.users -= 1
            self._forget(peer, pool)

    async def accept(self, peer: PeerId, stream: ByteStream) -> None:
        """Serve a stream that `peer` opened; passed to `Transport.open`."""
        if self._inbound[peer] >= limits.STREAMS_IN_PER_PEER_MAX:
            self._counts["refused"] += 1
            await stream.reset()
            return
        framed = FramedStream(stream, opened_here=False, unread=self._unread)
        with counted(self._inbound, peer):
            # The serving side may itself have to call others.
            await self._attached.wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve_lane, framed)
                await framed.run()

    def renew(self, peer: PeerId) -> None:
        """Open new streams to `peer` for further calls; those of calls under way end with them."""
        if (pool := self._pools.pop(peer, None)) is not None:
            pool.retire()

    def statistics(self) -> StreamsStatistics:
        """Streams open now and unread bytes, and what was opened, reused, refused and served."""
        idle = sum(len(pool.idle) for pool in self._pools.values())
        return StreamsStatistics(
            open_out=self._counts["out"],
            idle=idle,
            open_in=self._inbound.total(),
            unread_bytes=self._unread.held_bytes,
            opened=self._counts["opened"],
            reused=self._counts["reused"],
            renewed=self._counts["renewed"],
            refused=self._counts["refused"],
            served=self._counts["served"],
            failed=self._counts["failed"],
        )

    async def _lent(
        self, peer: PeerId, pool: StreamPool, deadline_at_s: float, *, fresh: bool = False
    ) -> FramedStream:
        in_use = StreamsInUse(
            f"all {limits.STREAMS_PER_PEER_MAX} streams to {peer.short} are in use",
            todo="ask another peer, or allow more time",
        )
        waited = not pool.slots.value
        with trio.move_on_at(deadline_at_s) as scope:
            await pool.slots.acquire()
        if scope.cancelled_caught:
            raise in_use
        framed = None if fresh else pool.take_idle()
        try:
            if framed is None:
                left_s = max(0.0, deadline_at_s - trio.current_time())
                try:
                    stream = await self._stream_to(peer, left_s)
                except TooSlow as error:
                    # After waiting for a slot, the time left is too short to blame the peer.
                    if waited:
                        raise in_use from error
                    raise
                framed = FramedStream(stream, opened_here=True)
                self._run(peer, pool, framed)
            else:
                self._counts["reused"] += 1
            pool.busy.add(framed)
        finally:
            if framed is None:
                pool.slots.release()
        return framed

    async def _stream_to(self, peer: PeerId, deadline_s: float) -> ByteStream:
        if peer != self.endpoint.me:
            return await self.endpoint.open_stream(peer, deadline_s=deadline_s)
        here, there = loopback_pair(peer)
        self._nursery.start_soon(self.accept, peer, there)
        return here

    def _run(self, peer: PeerId, pool: StreamPool, framed: FramedStream) -> None:
        def end() -> None:
            self._counts["out"] -= 1
            pool.drop(framed)
            self._forget(peer, pool)

        framed.on_idle = partial(pool.give_back, framed)
        framed.on_end = end
        self._counts["opened"] += 1
        self._counts["out"] += 1
        self._nursery.start_soon(framed.run)

    def _forget(self, peer: PeerId, pool: StreamPool) -> None:
        if not (pool.users or pool.idle or pool.busy) and self._pools.get(peer) is pool:
            del self._pools[peer]

    async def _serve_lane(self, framed: FramedStream) -> None:
        while (framed_call := await framed.next_conversation()) is not None:
            deadline_at_s = trio.current_time() + self._serve_deadline_s
            call = Call(framed, framed_call, deadline_at_s)
            self._counts["served"] += 1
            try:
                await self._serve(call)
            except LocalProtocolError:
                raise
            except BatonError as error:
                self._counts["failed"] += 1
                call.abandon(error)
            else:
                call.leave()


@asynccontextmanager
async def open_streams(
    transport: Transport,
    key: SigningKey,
    listen: Sequence[str],
    *,
    serve: Serve,
    serve_deadline_s: float = 3600.0,
) -> AsyncIterator[Streams]:
    """An endpoint with calls on top, until the block ends.

    `serve` runs for each call that a peer begins, in a task of its own. A BatonError from it resets
    that one stream; any other exception is a bug and ends the service. Raises InputError for an
    address that cannot be listened on.
    """
    streams = Streams(serve, serve_deadline_s)
    async with (
        transport.open(key, listen, accept=streams.accept) as endpoint,
        trio.open_nursery() as nursery,
    ):
        streams.attach(endpoint, nursery)
        yield streams
        nursery.cancel_scope.cancel()
