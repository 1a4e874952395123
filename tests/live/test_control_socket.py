"""The door for commands on the same machine takes any bytes at all, and the peer lives on."""

import socket
import struct
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.live.command_line import Peer
from wire.codec import pack, unpack

COMMANDS = ("status", "peers", "models", "receipts", "ask", "embed", "sources", "put", "get")
COMMANDS += ("models-add", "models-rm", "models-pull", "put-folder", "get-folder")
COMMANDS += ("export-content", "import-content")
VALUES: tuple[Any, ...] = (None, True, -1, 1 << 60, 0.5, -1e308, "", "x", "\0", "/", "/\0")
VALUES += (b"\xff", [], [1, [2]], {}, {"a": {}}, "/proc/self/mem", "a" * 5000)
NAMES = ("model", "text", "index", "operation", "parameters", "count", "deadline_s", "needed")
NAMES += ("verifiers", "fresh", "sources", "path", "id", "what", "name")


def framed(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def told(state: Path, data: bytes) -> bytes:
    """What the peer answers to these bytes, after which nothing more comes from us."""
    with closing(socket.socket(socket.AF_UNIX)) as caller:
        # Waits for its turn where many have called.
        caller.connect(str(state / "control.sock"))
        caller.settimeout(60)
        answer = b""
        try:
            caller.sendall(data)
            caller.shutdown(socket.SHUT_WR)
            while part := caller.recv(65_536):
                answer += part
        except (BrokenPipeError, ConnectionResetError):
            """The peer has heard enough."""
        return answer


def is_well(peer: Peer) -> None:
    answer = told(peer.state, framed(pack({"command": "status", "arguments": {}})))
    assert unpack(answer[4:])["result"]["peer"] == peer.id


def test_garbage_does_not_end_the_peer(asker: Peer) -> None:
    random = Random(5)
    told(asker.state, b"")
    told(asker.state, b"\0")
    told(asker.state, struct.pack(">I", 0xFFFFFFFF))
    told(asker.state, struct.pack(">I", 1000) + b"too little")
    for _ in range(200):
        told(asker.state, random.randbytes(random.randrange(1, 200)))
        told(asker.state, framed(random.randbytes(random.randrange(1, 60))))
    is_well(asker)


def test_values_that_are_no_commands_are_refused_or_ignored(asker: Peer) -> None:
    for value in VALUES:
        told(asker.state, framed(pack(value)))
        told(asker.state, framed(pack({"command": value, "arguments": {}})))
        told(asker.state, framed(pack({"command": "ask", "arguments": value})))
    is_well(asker)


@pytest.mark.parametrize("command", ["ask", "embed", "put", "get", "models-add"])
def test_a_command_with_any_arguments_is_answered_or_refused_in_words(
    asker: Peer, command: str
) -> None:
    random = Random(command)
    good = {"model": "hash", "text": "hello", "sources": [], "deadline_s": 1}
    good |= {"needed": 0, "verifiers": 0, "path": str(asker.state / "out"), "id": "x"}
    good |= {"what": "x"}
    for name in NAMES:
        for value in random.sample(VALUES, 9):
            arguments = {**good, "fresh": True, name: value}
            answer = told(asker.state, framed(pack({"command": command, "arguments": arguments})))
            assert b"error" in answer or b"result" in answer, arguments
    is_well(asker)


def test_a_client_that_goes_away_ends_nothing(asker: Peer) -> None:
    asked = {"command": "ask", "arguments": {"model": "hash", "text": "gone", "fresh": True}}
    for _ in range(20):
        with closing(socket.socket(socket.AF_UNIX)) as caller:
            caller.connect(str(asker.state / "control.sock"))
            caller.sendall(framed(pack(asked)))
    is_well(asker)


def test_more_clients_than_there_is_room_for_do_not_end_the_peer(asker: Peer) -> None:
    callers = [socket.socket(socket.AF_UNIX) for _ in range(80)]
    try:
        for caller in callers:
            caller.connect(str(asker.state / "control.sock"))
    finally:
        for caller in callers:
            caller.close()
    is_well(asker)
