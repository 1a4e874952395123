"""Commands on the same machine reach the peer here: a Unix socket that only its user may open.

A frame is four bytes of length and a canonical value. A request is a command and its arguments; the
answer is any number of events, then one result or one error.
"""

import os
import select
import socket
import stat
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from p2p import timeouts
from p2p.timeouts import Processes
from wire import limits
from wire.codec import pack, unpack
from wire.errors import (
    BatonError,
    Disconnected,
    InputError,
    Malformed,
    Oversize,
    TooSlow,
    WireError,
)

Emit = Callable[[Mapping[str, Any]], None]
Command = Callable[[Mapping[str, Any], Emit], Awaitable[Mapping[str, Any]]]

CLIENTS_MAX = 64
EVENTS_MAX = 4096
# How long a client may take to send its command: clients are programs, nobody types here.
REQUEST_DEADLINE_S = 10.0
# How often a client that will write nothing more is looked at.
LOOK_S = 1.0
# The kernel's limit on a Unix socket's path.
PATH_BYTES_MAX = 107
# Process, user and group at the other end of a Unix socket.
_CREDENTIALS = struct.Struct("3i")


def unheard(event: Mapping[str, Any]) -> None:
    """Ignore an event: the caller waits only for the result."""


async def send(stream: trio.abc.SendStream, value: Mapping[str, Any]) -> None:
    """Disconnected if the other side is gone, WireError if the value cannot be sent."""
    data = pack(value)
    if len(data) > limits.FRAME_BYTES_MAX:
        raise Oversize(f"{len(data)} bytes, at most {limits.FRAME_BYTES_MAX} are allowed")
    try:
        await stream.send_all(len(data).to_bytes(4, "big") + data)
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise _gone() from error


async def receive(stream: trio.abc.ReceiveStream) -> dict[str, Any]:
    """The next value; Disconnected at the end, WireError for bytes that are no value."""
    head = await _exactly(stream, 4)
    size_bytes = int.from_bytes(head, "big")
    if size_bytes > limits.FRAME_BYTES_MAX:
        raise Malformed(f"a command of {size_bytes} bytes is not possible")
    value = unpack(await _exactly(stream, size_bytes))
    if not isinstance(value, dict):
        raise Malformed("a command is a map")
    return value


def _gone() -> Disconnected:
    return Disconnected(
        "the peer on this machine has closed the connection",
        todo="accepted tasks go on when the peer runs again: python -m node join",
    )


async def _exactly(stream: trio.abc.ReceiveStream, size_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < size_bytes:
        try:
            part = await stream.receive_some(size_bytes - len(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _gone() from error
        if not part:
            raise _gone()
        data += part
    return bytes(data)


@dataclass(slots=True)
class _ControlServer:
    commands: Mapping[str, Command]
    clients: int = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        if self.clients >= CLIENTS_MAX:
            return
        self.clients += 1
        try:
            await self._serve(stream)
        except (Disconnected, WireError):
            # The client went away, or is not one of ours; the work that it asked for goes on.
            return
        finally:
            self.clients -= 1

    async def _serve(self, stream: trio.SocketStream) -> None:
        with timeouts.move_on_after(REQUEST_DEADLINE_S) as patience:
            request = await receive(stream)
        if patience.cancelled_caught:
            return
        # When the queue is full, further events are dropped; the result waits for room.
        outbox, inbox = trio.open_memory_channel[Mapping[str, Any]](EVENTS_MAX)

        def emit(event: Mapping[str, Any]) -> None:
            try:
                outbox.send_nowait({"event": event})
            except trio.WouldBlock:
                return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_gone, stream, nursery.cancel_scope)
            nursery.start_soon(_forward, inbox, stream, nursery.cancel_scope)
            async with outbox:
                await outbox.send(await self._answer(request, emit))

    async def _answer(self, request: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        try:
            command = self.commands.get(str(request.get("command")))
            arguments = request.get("arguments")
            if command is None or not isinstance(arguments, dict):
                raise InputError(f"there is no command {str(request.get('command'))[:40]!r}")
            return {"result": await command(arguments, emit)}
        except BatonError as error:
            return _told(error)


def _told(error: BatonError) -> dict[str, Any]:
    kind = type(error).__name__
    return {"error": {"kind": kind, "message": error.message, "todo": error.todo}}


async def _until_gone(stream: trio.SocketStream, serving: trio.CancelScope) -> None:
    """End a command whose client went away, also while there is nothing to send."""
    # A client says nothing after its command, but may say at once that nothing more will come.
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        if not await stream.receive_some(1):
            while not _hung_up(stream):
                await trio.sleep(LOOK_S)
    serving.cancel()


def _hung_up(stream: trio.SocketStream) -> bool:
    """Whether the other side neither writes nor reads any more."""
    looking = select.poll()
    looking.register(stream.socket.fileno(), 0)
    return any(event & select.POLLHUP for _, event in looking.poll(0))


async def _forward(
    inbox: trio.MemoryReceiveChannel[Mapping[str, Any]],
    stream: trio.SocketStream,
    serving: trio.CancelScope,
) -> None:
    """Send events and the result, which ends the command; so does a client that went away."""
    try:
        async for value in inbox:
            try:
                await send(stream, value)
            except WireError as error:
                await send(stream, _told(error))
    except Disconnected:
        pass
    # The result was the last.
    serving.cancel()


def check_socket_path(path: Path) -> None:
    """InputError if the path is too long for a socket."""
    size_bytes = len(os.fsencode(path))
    if size_bytes > PATH_BYTES_MAX:
        raise InputError(
            f"the path {path} is too long for a socket: {size_bytes} bytes of {PATH_BYTES_MAX}",
            todo="choose a shorter state folder with --state",
        )


@asynccontextmanager
async def open_control(path: Path, commands: Mapping[str, Command]) -> AsyncIterator[None]:
    """Serve `commands` at `path` (mode 0600) until the block ends."""
    check_socket_path(path)
    # The state folder's lock is ours, so a socket left here belongs to nobody.
    path.unlink(missing_ok=True)
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        await listening.bind(os.fspath(path))
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        listening.listen(CLIENTS_MAX)
        async with trio.open_nursery() as nursery:
            listener = trio.SocketListener(listening)
            server = _ControlServer(commands)
            nursery.start_soon(trio.serve_listeners, server.serve, [listener])
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
                path.unlink(missing_ok=True)


async def call(
    path: Path,
    command: str,
    arguments: Mapping[str, Any],
    on_event: Callable[[Mapping[str, Any]], None],
    *,
    deadline_s: float,
) -> dict[str, Any]:
    """Have the running peer do a command; returns its result, or raises the peer's own error.

    `deadline_s` does not count time in which this machine could not run, as `p2p.timeouts` says.
    """
    server: list[int] = []
    try:
        with timeouts.fail_after(deadline_s, starved=Processes(lambda: server)):
            return await _call(path, command, arguments, on_event, server)
    except trio.TooSlowError as error:
        raise TooSlow(
            f"the peer on this machine did not answer within {deadline_s:.0f} s",
            todo="look at its state: python -m node status",
        ) from error


async def _call(
    path: Path,
    command: str,
    arguments: Mapping[str, Any],
    on_event: Callable[[Mapping[str, Any]], None],
    server: list[int],
) -> dict[str, Any]:
    try:
        stream = await trio.open_unix_socket(os.fspath(path))
    except BlockingIOError as error:
        raise InputError(
            "the peer is busy with too many other commands", todo="try again in a moment"
        ) from error
    except OSError as error:
        raise InputError(
            f"no peer is running on the state folder {path.parent}",
            todo="start one: python -m node join (or name another with --state)",
        ) from error
    async with stream:
        server.extend(_process_at(stream))
        try:
            await send(stream, {"command": command, "arguments": arguments})
        except WireError as error:
            raise InputError(
                f"the arguments cannot be sent to the peer: {error}",
                todo="use names in UTF-8, and fewer of them at a time",
            ) from error
        while True:
            value = await receive(stream)
            if "event" in value:
                on_event(value["event"])
            elif "error" in value:
                raise _error(value["error"])
            else:
                result = value.get("result")
                if not isinstance(result, dict):
                    raise Malformed(f"the program that answers at {path} is not a Baton peer")
                return result


def _process_at(stream: trio.SocketStream) -> list[int]:
    """The process at the other end, where the system tells."""
    if not hasattr(socket, "SO_PEERCRED"):
        return []
    size_bytes = _CREDENTIALS.size
    told = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size_bytes)
    return [_CREDENTIALS.unpack(told)[0]]


def _error(value: Mapping[str, Any]) -> BatonError:
    message, todo = str(value.get("message")), str(value.get("todo"))
    return BatonError(message, todo=todo)
