"""Connections that an open peer passes on to a peer behind a router: the copying of bytes.

The asker opens a stream to the relay and names whom it wants; the relay opens one to that peer, on
the connection that the peer keeps open to it; from then on bytes are copied both ways. The two ends
make a connection of libp2p's over that stream, noise and yamux included, so the relay can neither
read nor alter anything, and cannot answer for the peer.

Who may ask for what is for the rules to say (`p2p.transport.RelayRules`).
"""

from collections.abc import Awaitable, Callable

import trio
from libp2p.abc import IMuxedConn
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from p2p import timeouts
from p2p.over_libp2p.errors import contained, shaking_hands
from p2p.over_libp2p.host import HANDSHAKE_DEADLINE_S, SoundSwarm, libp2p_id, peer_of
from p2p.over_libp2p.muxer import SoundYamux
from p2p.over_libp2p.stream import LibStream
from p2p.transport import Lined, LineEnd, Moved, RelayAnswer, RelayRules
from wire.content import PeerId
from wire.errors import Disconnected, Malformed, TransportError, Unreachable

# Asked of a relay; asked by a relay.
RELAY = TProtocol("/baton/relay/1")
RELAYED = TProtocol("/baton/relayed/1")

_COPY_BYTES = 256 << 10
_KEY_BYTES = 32
# To say who is wanted, and to say whether it is there.
HEADER_S = 5.0
ONWARD_S = 8.0
# Both ends ping each other every few seconds: a line without a byte for so long has no ends.
_IDLE_S = 30.0
# After one end has closed, the other has so long.
_PARTING_S = 2.0
# A line whose bytes are not paid for waits so long at most, and looks so often: its ends ping each
# other, and would take each other for dead before long.
UNPAID_S, _UNPAID_LOOK_S = 4.0, 0.1
# Of so many relays it is remembered what moved through them.
_RELAYS_COUNTED = 256

OpenStream = Callable[[PeerId, TProtocol, float], Awaitable[LibStream]]


class Line:
    """A stream as the socket of a connection, as libp2p uses one.

    `moved` counts its bytes too: what whoever asked for the line may be asked to pay.
    """

    IS_RELAYED = True

    def __init__(
        self, stream: LibStream, remote: tuple[str, int] | None, moved: Moved | None = None
    ) -> None:
        self._stream = stream
        self._moved = moved or Moved()
        self._remote = remote
        self._closed = trio.CancelScope()
        # Since it was opened: both ways, and from the other end.
        self.moved_bytes = 0
        self.read_bytes = 0
        # The connection that is made over it, once it is.
        self.muxed: IMuxedConn | None = None

    async def read(self, n: int | None = None) -> bytes:
        """As libp2p's sockets read; ConnectionClosedError once the line is gone."""
        if self._closed.cancel_called:
            raise ConnectionClosedError("the line is closed", transport="relay")
        reading = self._closed = trio.CancelScope()
        with reading:
            try:
                data = await self._stream.read(n or _COPY_BYTES)
                self._count(len(data))
                self.read_bytes += len(data)
                return data
            except Disconnected as error:
                raise ConnectionClosedError(str(error), transport="relay") from error
        raise ConnectionClosedError("the line is closed", transport="relay")

    async def write(self, data: bytes) -> None:
        """Send all of `data`; ConnectionClosedError once the line is gone."""
        self._count(len(data))
        try:
            await self._stream.write(data)
        except Disconnected as error:
            raise ConnectionClosedError(str(error), transport="relay") from error

    def _count(self, size_bytes: int) -> None:
        self.moved_bytes += size_bytes
        self._moved.size_bytes += size_bytes

    def seen(self, relay: PeerId, dialed: bool) -> Lined:
        """What moved, and for whom."""
        brought, fetched, called = self.read_bytes, self.moved_bytes - self.read_bytes, 0
        if isinstance(muxed := self.muxed, SoundYamux):
            # As much again is for headers and credit, and for what is on its way to its reader.
            brought -= 2 * muxed.called_read_bytes
            fetched -= 2 * muxed.called_written_bytes
            called = muxed.called_read_bytes + muxed.called_written_bytes
        return Lined(relay, self.moved_bytes, dialed, max(0, brought), max(0, fetched), called)

    async def close(self) -> None:
        """End the line here; a read that waits ends too."""
        self._closed.cancel()
        with contained("closing a line"):
            await self._stream.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self._remote


class Circuits:
    """The relayed connections of one host, and what it passes on for others."""

    def __init__(self, swarm: SoundSwarm, open_stream: OpenStream) -> None:
        self.rules: RelayRules | None = None
        # By the peer at the other end and whether we called: through whom, and what moved.
        self.lines: dict[tuple[PeerId, bool], tuple[PeerId, Line]] = {}
        self.open_stream = open_stream
        self._swarm = swarm
        # By relay, what moved over all lines that this peer asked it for, ended ones too.
        self.asked: dict[PeerId, Moved] = {}
        # What moved through those that were forgotten.
        self._forgotten_bytes = 0

    # At the asker

    async def dial(
        self, relay: PeerId, peer: PeerId, remote: tuple[str, int] | None, nursery: trio.Nursery
    ) -> None:
        """Connect to `peer` through a relay that is connected; Unreachable says why not."""
        stream = await self.open_stream(relay, RELAY, HEADER_S)
        given, connected, moved = False, False, self._moved_through(relay)
        try:
            await _ask_for(stream, peer, moved)
            given, line = True, Line(stream, remote, moved)
            raw = RawConnection(line, True)
            with shaking_hands():
                connection = await self._swarm.upgrade_outbound_raw_conn(raw, libp2p_id(peer))
            connected = True
        finally:
            moved.failed_lines += given and not connected
            if not connected:
                await stream.reset()
        line.muxed = connection.muxed_conn
        self.lines[peer, True] = (relay, line)
        nursery.start_soon(self._hold, connection.muxed_conn, stream, line)

    async def knock(self, relay: PeerId, peer: PeerId) -> None:
        """As `dial`, but part as soon as the peer has proven its key."""
        stream = await self.open_stream(relay, RELAY, HEADER_S)
        try:
            moved = self._moved_through(relay)
            await _ask_for(stream, peer, moved)
            with shaking_hands():
                raw = RawConnection(Line(stream, None, moved), True)
                await self._swarm.upgrader.upgrade_security(raw, True, libp2p_id(peer))
        finally:
            with trio.CancelScope(shield=True):
                await stream.reset()

    def seen(self) -> dict[PeerId, Lined]:
        """The lines that stand, by the peer at the other end; ours where each has called."""
        return {
            peer: line.seen(relay, dialed)
            for (peer, dialed), (relay, line) in self.lines.items()
            if dialed or (peer, True) not in self.lines
        }

    def relayed_bytes(self) -> int:
        """What moved over all lines that this peer asked for."""
        return self._forgotten_bytes + sum(it.size_bytes for it in self.asked.values())

    def _moved_through(self, relay: PeerId) -> Moved:
        """The count of a relay, which is the latest one then."""
        found = self.asked[relay] = self.asked.pop(relay, Moved())
        if len(self.asked) > _RELAYS_COUNTED:
            # Never one whose lines stand: it counts what moves, and so does this peer.
            standing = {through for through, _ in self.lines.values()} | {relay}
            for it in [it for it in self.asked if it not in standing][:1]:
                self._forgotten_bytes += self.asked.pop(it).size_bytes
        return found

    async def _hold(self, muxed: IMuxedConn, stream: LibStream, line: Line) -> None:
        """Wait for the end of a relayed connection; then leave nothing of its stream."""
        try:
            await muxed.event_closed.wait()
            await trio.sleep(_PARTING_S)
        finally:
            for known in [it for it, (_, other) in self.lines.items() if other is line]:
                del self.lines[known]
            await stream.reset()

    # At the relay

    async def pass_on(self, asking: LibStream) -> None:
        """Serve one stream of an asker: find whom it wants, then copy until either end closes."""
        rules = self.rules
        wanted = await self._wanted(asking)
        answer = RelayAnswer.NOT_KEPT if wanted is None else RelayAnswer.FULL
        if rules is None or wanted is None:
            await say(asking, answer)
            return
        answer = rules.admit(asking.peer, wanted)
        if answer is not RelayAnswer.THROUGH:
            await say(asking, answer)
            return
        onward: LibStream | None = None
        why = LineEnd.SILENT
        try:
            onward = await self._onward(asking.peer, wanted)
            if onward is None:
                await say(asking, RelayAnswer.SILENT)
                return
            why = LineEnd.DEAD
            await asking.write(bytes([RelayAnswer.THROUGH]))
            why = await self._copy_both(asking, onward, rules)
        finally:
            rules.ended(asking.peer, wanted, why)
            for stream in (asking, onward):
                if stream is not None:
                    await stream.reset()

    async def _wanted(self, asking: LibStream) -> PeerId | None:
        with timeouts.move_on_after(HEADER_S):
            try:
                return PeerId(await exactly(asking, _KEY_BYTES))
            except Malformed:
                return None
        return None

    async def _onward(self, asker: PeerId, wanted: PeerId) -> LibStream | None:
        onward = None
        try:
            with timeouts.move_on_after(ONWARD_S):
                onward = await self.open_stream(wanted, RELAYED, ONWARD_S)
                await onward.write(asker)
                if await exactly(onward, 1) == bytes([RelayAnswer.THROUGH]):
                    return onward
        except TransportError:
            pass
        if onward is not None:
            await onward.reset()
        return None

    async def _copy_both(self, one: LibStream, other: LibStream, rules: RelayRules) -> LineEnd:
        """Copy until the line ends; why it did."""
        idle, why = trio.CancelScope(), LineEnd.DEAD
        # The one who asked for the line pays for all of it.
        asker, kept = one.peer, other.peer

        async def copy(source: LibStream, target: LibStream) -> None:
            nonlocal why
            while data := await source.read(_COPY_BYTES):
                idle.deadline = trio.current_time() + timeouts.stretched(_IDLE_S)
                if not rules.charge(asker, len(data)) and not await _is_paid(
                    rules, asker, len(data)
                ):
                    why = LineEnd.UNPAID
                    idle.cancel()
                    return
                wait_s = rules.wait_s(asker, kept, len(data))
                if wait_s is None:
                    why = LineEnd.BOUND
                    idle.cancel()
                    return
                if wait_s > 0.0:
                    await trio.sleep(wait_s)
                await target.write(data)
            why = LineEnd.CLOSED
            await target.close()
            idle.deadline = trio.current_time() + _PARTING_S

        async def guarded(source: LibStream, target: LibStream) -> None:
            try:
                await copy(source, target)
            except TransportError:
                idle.cancel()

        idle.deadline = trio.current_time() + timeouts.stretched(_IDLE_S)
        with idle:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(guarded, one, other)
                await guarded(other, one)
        return why

    # At the peer that is kept

    async def take(self, stream: LibStream, remote: tuple[str, int] | None) -> None:
        """Be called by the peer that a relay of ours names; until that connection ends."""
        rules = self.rules
        with timeouts.move_on_after(HEADER_S):
            await exactly(stream, _KEY_BYTES)
        if rules is None or not rules.takes(stream.peer):
            await say(stream, RelayAnswer.NOT_KEPT)
            return
        muxed, line = None, Line(stream, remote)
        try:
            await stream.write(bytes([RelayAnswer.THROUGH]))
            # What the other end sends is anybody's.
            with contained("a relayed handshake"), timeouts.move_on_after(HANDSHAKE_DEADLINE_S):
                raw = RawConnection(line, False)
                muxed = await self._swarm.upgrade_inbound_raw_conn(raw, _NOWHERE)
            if muxed is not None:
                if (asker := peer_of(muxed.peer_id)) is not None:
                    line.muxed = muxed
                    self.lines[asker, False] = (stream.peer, line)
                await self._hold(muxed, stream, line)
        finally:
            rules.left(stream.peer)
            await stream.reset()


def is_relayed(muxed: IMuxedConn) -> bool:
    """Whether this connection is passed on by a relay."""
    return isinstance(muxed, SoundYamux) and muxed.is_relayed


_NOWHERE = Multiaddr("/memory/0")


async def _is_paid(rules: RelayRules, asker: PeerId, size_bytes: int) -> bool:
    """Wait until bytes that are to be passed on are paid for; False if they are not before long."""
    with timeouts.move_on_after(UNPAID_S):
        while True:
            await trio.sleep(_UNPAID_LOOK_S)
            if rules.charge(asker, size_bytes):
                return True
    return False


async def _ask_for(stream: LibStream, peer: PeerId, moved: Moved) -> None:
    """Ask the relay at the other end for a line to `peer`; Unreachable if it gives none."""
    await stream.write(peer)
    code = await exactly(stream, 1)
    if code[0] != RelayAnswer.THROUGH:
        moved.failed_lines += code[0] == RelayAnswer.FULL
        raise Unreachable(
            f"{stream.peer.short} does not pass calls on to {peer.short}:"
            f" {RelayAnswer.words(code[0])}"
        )


async def exactly(stream: LibStream, size_bytes: int) -> bytes:
    """So many bytes; Disconnected if the stream ends before."""
    data = b""
    while len(data) < size_bytes:
        piece = await stream.read(size_bytes - len(data))
        if not piece:
            raise Disconnected(f"{stream.peer.short} closed a line that was being made")
        data += piece
    return data


async def say(stream: LibStream, answer: RelayAnswer) -> None:
    """Tell why there is no line, and end."""
    try:
        await stream.write(bytes([answer]))
        await stream.close()
    except TransportError:
        await stream.reset()
