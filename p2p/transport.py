"""The interface between Baton and the library that moves its bytes.

A `Transport` opens an `Endpoint` for one key; an endpoint connects to peers, carries byte streams
between two of them, and gossips small messages among all that subscribe to a topic. Everything
above this file uses only these protocols, so the same code runs a thousand peers in one process
over memory, and one peer on the open network.

Nothing here knows libp2p, and nothing here interprets a byte.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Protocol

from wire.content import PeerId
from wire.errors import Unreachable
from wire.signing import SigningKey

# The largest message of a topic. A delivery costs every receiver milliseconds, so anything larger
# goes over a stream.
GOSSIP_BYTES_MAX = 64 << 10
TOPIC_BYTES_MAX = 256


class WrongPeer(Unreachable):
    """Another peer than was expected answers at an address, and proved which one it is.

    `found` is None if it is of a kind that is no peer of ours. `address` is set by whoever tried
    several.
    """

    def __init__(self, message: str, *, todo: str = "", found: PeerId | None = None) -> None:
        super().__init__(message, todo=todo)
        self.found = found
        self.address = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """One message of a topic. `source` is who signed it, not who passed it on."""

    source: PeerId
    data: bytes


@dataclass(frozen=True, slots=True)
class ConnectionUp:
    """The first connection to `peer` is open."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class ConnectionDown:
    """The last connection to `peer` is closed."""

    peer: PeerId


ConnectionEvent = ConnectionUp | ConnectionDown


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatistics:
    """Counts since the endpoint opened; `connections` and `half_open` are as of now."""

    connections: int
    half_open: int
    connections_refused: int
    # Connections closed before their handshake was finished: over their time, or to make room.
    connections_evicted: int
    streams_refused: int
    heard: int
    heard_dropped: int
    gossip_refused: int
    # Both ways, over all lines that this peer asked relays for.
    relayed_bytes: int


class ByteStream(Protocol):
    """Ordered bytes to and from one peer, both ways at once.

    One task may read while another writes; two may not read, nor two write. Every method raises
    Disconnected once the stream or its connection is gone.
    """

    @property
    def peer(self) -> PeerId: ...

    async def read(self, size_bytes_max: int) -> bytes:
        """Between one byte and `size_bytes_max`; b"" when the other side has closed."""
        ...

    async def write(self, data: bytes) -> None:
        """Send all of `data`, in order.

        If this is cancelled, a part may have been sent: reset the stream then. The connection
        and every other stream on it stay sound.
        """
        ...

    async def close(self) -> None:
        """End writing. Reading goes on. Safe to call twice."""
        ...

    async def reset(self) -> None:
        """Drop the stream both ways, unread bytes included. Never raises."""
        ...


class Subscription(Protocol):
    """The messages of one topic that others published, in the order of their arrival.

    The inbox is bounded: when it is full, the newest message is dropped and counted.
    """

    @property
    def topic(self) -> str: ...

    @property
    def dropped(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[Heard]: ...

    async def __anext__(self) -> Heard: ...

    async def unsubscribe(self) -> None:
        """Leave the topic; the iteration ends. Safe to call twice."""
        ...


class RelayAnswer(IntEnum):
    """What a relay says before it passes anything on. Append only."""

    THROUGH = 0
    # The peer that is wanted has no lease here.
    NOT_KEPT = 1
    FULL = 2
    # That peer does not answer.
    SILENT = 3

    @classmethod
    def words(cls, number: int) -> str:
        """What an answer of a peer means, whatever number it sent."""
        return _RELAY_WORDS.get(number, "it gave no reason")


class LineEnd(StrEnum):
    """Why a line that was admitted has ended."""

    # By one of its ends.
    CLOSED = "closed"
    UNPAID = "unpaid"
    # By a lease that ended, or by the bytes of the day.
    BOUND = "bound"
    # A connection broke, or nothing moved for long.
    DEAD = "dead"
    # It was never made: the peer that was wanted does not answer.
    SILENT = "silent"


_RELAY_WORDS: dict[int, str] = {
    RelayAnswer.NOT_KEPT: "it is not kept there",
    RelayAnswer.FULL: "the relay has no room now",
    RelayAnswer.SILENT: "it does not answer the relay",
}


@dataclass(frozen=True, slots=True)
class Lined:
    """A connection that `relay` passes on, and how many bytes moved over it, both ways.

    `dialed` says that this peer called. Of what it did not call for over this connection, beyond as
    much again as it did, the other end brought some, and fetched some from here.
    """

    relay: PeerId
    moved_bytes: int
    dialed: bool
    brought_bytes: int = 0
    fetched_bytes: int = 0
    # What moved by calls of this peer.
    called_bytes: int = 0


@dataclass(slots=True)
class Moved:
    """How many bytes moved, both ways, over all lines that were asked of one relay.

    `failed_lines` of them came to nothing: no connection was made, or there was no room for more.
    """

    size_bytes: int = 0
    failed_lines: int = 0


class RelayRules(Protocol):
    """Who may have a peer pass calls on, how fast, and through whom this peer is called."""

    def admit(self, asker: PeerId, kept: PeerId) -> RelayAnswer:
        """Whether `asker` gets a line to `kept` now; if THROUGH, `ended` follows."""

    def ended(self, asker: PeerId, kept: PeerId, why: LineEnd | None) -> None:
        """A line that was admitted has ended; None where two were only introduced."""

    def wait_s(self, asker: PeerId, kept: PeerId, size_bytes: int) -> float | None:
        """How long so many bytes have to wait; None where no more are passed on."""

    def charge(self, asker: PeerId, size_bytes: int) -> bool:
        """Have `asker` pay for so many bytes of its line; False while it has not promised that."""

    def takes(self, relay: PeerId) -> bool:
        """Whether this peer lets itself be called through `relay` now; if so, `left` follows."""

    def left(self, relay: PeerId) -> None:
        """A call that was taken through `relay` has ended."""

    def may_punch(self, peer: PeerId) -> bool:
        """Whether this peer calls `peer` where a relay sees it; counted if so."""


class Endpoint(Protocol):
    """One peer's connections, streams and topics, for as long as its block runs."""

    @property
    def me(self) -> PeerId: ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where others reach this peer: full multiaddrs that end in /p2p/<id>."""
        ...

    async def connect(self, address: str, *, deadline_s: float) -> PeerId:
        """Connect to a full multiaddr, unless a connection is open already.

        Raises InputError for an address that cannot be one, Unreachable when nobody or somebody
        else answers there, TooSlow when the deadline passes.
        """
        ...

    async def connect_peer(
        self, peer: PeerId, addresses: Sequence[str], *, deadline_s: float
    ) -> None:
        """Try the addresses in turn until `peer` answers at one. Raises as `connect` does."""
        ...

    def set_relay_rules(self, rules: RelayRules) -> None:
        """Pass on for others, and be called through relays, as these rules say; before, nobody."""

    def lines(self) -> Mapping[PeerId, Lined]:
        """The connections that a relay passes on, by the peer at the other end."""
        ...

    def relayed(self) -> Mapping[PeerId, Moved]:
        """By relay, what moved over all lines that this peer asked it for."""
        ...

    async def punch(self, peer: PeerId, *, deadline_s: float) -> None:
        """Have a direct connection beside that of `lines`, by both calling each other at once.

        Raises as `connect` does; then everything is as before.
        """
        ...

    async def connect_beside(self, address: str, *, deadline_s: float) -> None:
        """Have another connection to the peer of a full multiaddr, beside one that stands.

        Raises as `connect` does.
        """
        ...

    def punched(self) -> frozenset[PeerId]:
        """The peers that are connected by a call of both ends at once."""
        ...

    async def leave_line(self, peer: PeerId) -> None:
        """Close the connections to `peer` that a relay passes on."""
        ...

    async def knock(self, address: str, *, deadline_s: float) -> None:
        """Find out by a new connection whether the peer of a full multiaddr answers there.

        The connection is closed at once, and those that are open do not count. Raises as
        `connect` does.
        """
        ...

    async def open_stream(self, peer: PeerId, *, deadline_s: float) -> ByteStream:
        """A new stream on an open connection.

        Raises Disconnected without a connection, Unreachable when the peer does not speak Baton,
        TooSlow when the deadline passes.
        """
        ...

    async def disconnect(self, peer: PeerId) -> None:
        """Close every connection to `peer`, if there are any."""
        ...

    def connected(self) -> frozenset[PeerId]:
        """The peers to which at least one connection is open."""

    def is_connected(self, peer: PeerId) -> bool:
        """Whether a connection to the peer stands."""
        ...

    def is_relayed(self, peer: PeerId) -> bool:
        """Whether every connection to `peer` is passed on by another peer."""

    def remote_address(self, peer: PeerId) -> str | None:
        """The multiaddr, without the id, at the other end of the oldest connection.

        Of a peer that is connected directly and through a relay too, of the direct one.
        """
        ...

    def watch(self, callback: Callable[[ConnectionEvent], None]) -> None:
        """Call `callback` at every change, in order. The callback must neither wait nor raise."""
        ...

    async def subscribe(self, topic: str) -> Subscription:
        """The topic's messages from now on; its queue is bounded and drops what comes beyond it."""

    async def publish(self, topic: str, data: bytes) -> None:
        """Publish `data`, at most GOSSIP_BYTES_MAX; delivery is likely, not certain."""
        ...

    def statistics(self) -> EndpointStatistics:
        """What is open now, and what was refused or dropped since the endpoint was opened."""


Accept = Callable[[PeerId, ByteStream], Awaitable[None]]


class Transport(Protocol):
    """A way to move bytes, such as TCP. It has no state until it is opened."""

    def open(
        self, key: SigningKey, listen: Sequence[str], *, accept: Accept
    ) -> AbstractAsyncContextManager[Endpoint]:
        """Listen, and give an endpoint until the block ends; nothing outlives the block.

        `accept` is called, in a task of the endpoint, for every stream that a peer opens. A
        TransportError from it resets that stream; any other error is a bug and ends the endpoint.
        Raises InputError for an address that cannot be listened on.
        """
        ...
