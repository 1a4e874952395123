"""What gossip costs: processor time by task, bytes by message.

Processor time is taken at each step of each task, and booked on what that task is for: `gossip`
(adverts, meeting, pinging, and libp2p's pubsub below them), `work` (legs, checks, content, engines,
the path), `wire` (streams and connections, which carry both), `devnet` (the run itself). The time
reported for gossip is its own time, and a share of the wire's time: gossip's share of all bytes.
The handlers of gossip's messages run in the wire's tasks, but are booked on gossip.

The bytes of gossip are all bytes less those of work. They include what the streams need for
themselves, so the figure is too high rather than too low.
"""

import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

import trio

from p2p.frames import HEADER_BYTES
from p2p.frames import FrameKind as FrameKind
from p2p.peers import Handler
from p2p.transport import Accept, ByteStream, Endpoint, Transport
from p2p.typed_call import TypedCall
from wire.content import PeerId
from wire.kinds import Kind
from wire.message import Message
from wire.signing import SigningKey

_HEADER = struct.Struct(">BI")
# A message is a list of two items, the first a small number: two bytes tell the message's kind.
_LIST_OF_TWO = 0x92
_GOSSIP_TASKS = (
    *("p2p.adverts", "p2p.neighbours", "p2p.discovery", "p2p.peers"),
    "p2p.over_libp2p.gossip",
)
_WIRE_TASKS = ("p2p.", "libp2p.")
# libp2p's pubsub, by the names of its tasks; the task that accepts a stream also reads it.
_PUBSUB_TASKS = (
    "libp2p.pubsub",
    "libp2p.network.connection.swarm_connection.SwarmConn._handle_muxed_stream",
    *("_handle_new_peer", "_replay_recent", "handle_sending_messages[", "heartbeat["),
)
_SERVICE_TASK = "[daemon="
_WORK_TASKS = ("p2p.blobs", "p2p.fetching", "p2p.pulling", "p2p.gather", "node.")
WORK_KINDS = frozenset(
    (
        *(Kind.OFFER, Kind.ACCEPT, Kind.REFUSE, Kind.PIECE, Kind.RESULT),
        *(Kind.CHECK, Kind.FINDING, Kind.QUOTE, Kind.QUOTED, Kind.WANT, Kind.BLOCK),
        *(Kind.WANT_BLOCKS, Kind.BLOCKS_COMING, Kind.BLOCKS_SENT, Kind.KEEP, Kind.KEEPING),
        *(Kind.OPEN_CHECKS, Kind.CHECKS, Kind.VERDICTS),
        *(Kind.COMMITMENTS, Kind.TELL_VERDICTS, Kind.VERDICT_COMMITTED, Kind.TELL_VERDICT),
        *(Kind.ASK_CONTRIBUTION, Kind.CONTRIBUTED),
    )
)


def purpose_of(name: str) -> str:
    """What a task is for, by the name of the function it runs."""
    if name.startswith("node.devnet"):
        return "devnet"
    if name.startswith((*_GOSSIP_TASKS, *_PUBSUB_TASKS)):
        return "gossip"
    if name.startswith(_WORK_TASKS):
        return "work"
    return "wire" if name.startswith(_WIRE_TASKS) or _SERVICE_TASK in name else "other"


class Accounting(trio.abc.Instrument):
    """Books processor time while it is one of trio's instruments, and the bytes it is called with.

    Steps are timed by `monotonic_s`: asking the system for processor time at each of millions of
    steps took a tenth of a run. The processor time that `cpu_s` reports, with the scheduler's part,
    is divided among purposes in proportion to their steps.
    """

    def __init__(self, monotonic_s: Callable[[], float], cpu_s: Callable[[], float]) -> None:
        self.work_bytes = 0
        self.stream_bytes = 0
        self._clock = monotonic_s
        self._cpu_s = cpu_s
        self._began_at_s = cpu_s()
        self._booked_s: defaultdict[str, float] = defaultdict(float)
        self._purposes: dict[str, str] = {}
        # The instrument is added in the middle of a step.
        self._since_at_s = monotonic_s()
        # Tasks that run a handler now, and the handler's purpose.
        self._handling: dict[trio.lowlevel.Task, str] = {}

    def after_io_wait(self, timeout: float) -> None:
        # What the scheduler does from here on counts for the task that is next: to be told before
        # each step too takes as long as being told after it.
        self._since_at_s = self._clock()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        now_at_s = self._clock()
        self._booked_s[self._purpose(task)] += now_at_s - self._since_at_s
        self._since_at_s = now_at_s

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._handling.pop(task, None)

    def _purpose(self, task: trio.lowlevel.Task) -> str:
        if self._handling and (handling := self._handling.get(task)) is not None:
            return handling
        purpose = self._purposes.get(task.name)
        if purpose is None:
            purpose = self._purposes[task.name] = purpose_of(task.name)
        return purpose

    def booked(self, handler: Handler, purpose: str) -> Handler:
        """`handler`, with its time booked on `purpose`."""

        async def booking(call: TypedCall, message: Message) -> None:
            task = trio.lowlevel.current_task()
            self.after_task_step(task)
            self._handling[task] = purpose
            try:
                await handler(call, message)
            finally:
                self.after_task_step(task)
                self._handling.pop(task, None)

        return booking

    def gossip_cpu_s(self, carried_bytes: int) -> float:
        """Processor time of gossip, in seconds; see this module's docstring."""
        gossip_bytes = self.gossip_bytes(carried_bytes)
        share = gossip_bytes / max(1, gossip_bytes + self.work_bytes)
        cpu_s = self.cpu_s()
        return cpu_s.get("gossip", 0.0) + share * cpu_s.get("wire", 0.0)

    def cpu_s(self) -> dict[str, float]:
        """Processor time by purpose, in seconds."""
        scale = (self._cpu_s() - self._began_at_s) / max(1e-9, sum(self._booked_s.values()))
        return {purpose: scale * booked_s for purpose, booked_s in self._booked_s.items()}

    def gossip_bytes(self, carried_bytes: int) -> int:
        return max(0, max(carried_bytes, self.stream_bytes) - self.work_bytes)


class CountingTransport:
    """A transport that reports to `Accounting` what its streams carry."""

    def __init__(self, inner: Transport, accounting: Accounting) -> None:
        self._inner = inner
        self._accounting = accounting

    def open(
        self, key: SigningKey, listen: Sequence[str], *, accept: Accept
    ) -> AbstractAsyncContextManager[Endpoint]:
        return self._open(key, listen, accept)

    @asynccontextmanager
    async def _open(
        self, key: SigningKey, listen: Sequence[str], accept: Accept
    ) -> AsyncIterator[Endpoint]:
        async def counting(peer: PeerId, stream: ByteStream) -> None:
            await accept(peer, _CountingStream(stream, self._accounting))

        async with self._inner.open(key, listen, accept=counting) as endpoint:
            yield cast("Endpoint", _CountingEndpoint(endpoint, self._accounting))


class _CountingEndpoint:
    """An endpoint whose new streams are counted; everything else is the endpoint's own."""

    def __init__(self, inner: Endpoint, accounting: Accounting) -> None:
        self._inner = inner
        self._accounting = accounting

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def open_stream(self, peer: PeerId, *, deadline_s: float) -> ByteStream:
        stream = await self._inner.open_stream(peer, deadline_s=deadline_s)
        return _CountingStream(stream, self._accounting)


class _CountingStream:
    """Counts what this side writes, which is whole frames; the other side counts its own."""

    def __init__(self, inner: ByteStream, accounting: Accounting) -> None:
        self._inner = inner
        self._accounting = accounting
        self._is_work = False
        self.read = inner.read
        self.close = inner.close
        self.reset = inner.reset

    @property
    def peer(self) -> PeerId:
        return self._inner.peer

    async def write(self, data: bytes) -> None:
        at, work_bytes = 0, 0
        while at + HEADER_BYTES <= len(data):
            kind, size = _HEADER.unpack_from(data, at)
            payload = at + HEADER_BYTES
            if kind == FrameKind.DATA and size > 1 and data[payload] == _LIST_OF_TWO:
                self._is_work = data[payload + 1] in WORK_KINDS
            at = payload + size
            if self._is_work:
                work_bytes += HEADER_BYTES + size
        self._accounting.work_bytes += work_bytes
        self._accounting.stream_bytes += len(data)
        await self._inner.write(data)
