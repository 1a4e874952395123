"""Networks that cannot be met: nobody there, somebody else there, or a network that says no."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.live.command_line import LOOPBACK, Done, Peer, at_once, joined
from wire import limits

STRANGER = "12D3KooWHesAVqSWPi4ohCdc3VcvppH54inVL3GSMg6QscGsf6aN"
CLOSED_PORT = 1


def listening(stack: ExitStack, backlog: int = 5) -> socket.socket:
    listener = stack.enter_context(closing(socket.socket()))
    listener.bind(("127.0.0.1", 0))
    listener.listen(backlog)
    return listener


def swallowing(stack: ExitStack) -> socket.socket:
    """A port whose queue is full: the system drops every further call without a word."""
    listener = listening(stack, backlog=0)
    for _ in range(2):
        caller = stack.enter_context(closing(socket.socket()))
        caller.setblocking(False)
        caller.connect_ex(listener.getsockname())
    return listener


def speaking_http(stack: ExitStack) -> socket.socket:
    listener = listening(stack)

    def answer_forever() -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            with caller:
                caller.recv(1000)
                caller.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=answer_forever)
    thread.start()
    stack.callback(thread.join)
    stack.callback(listener.shutdown, socket.SHUT_RDWR)
    return listener


NAMES = {
    "a closed port": ("no bootstrap answers", "refused", "firewall"),
    "packets swallowed": ("no bootstrap answers", "did not answer within 8 s", "firewall"),
    "a server that says nothing": ("no bootstrap answers", "did not answer within 8 s"),
    "a server of another kind": ("no bootstrap answers", "is no peer of Baton"),
    "no multiaddr": ("'example.org:4747' is not an address", "/ip4/"),
    "a multiaddr of nothing": ("'/foo/bar' is not an address", "/ip4/"),
    "no peer in the address": ("does not say which peer", "/p2p/"),
    "a peer id that is none": ("is not an address", "/p2p/"),
    "another peer's id": ("another peer answers", "is the one it printed"),
    "a way of calling that is not ours": ("of a kind this peer does not dial", "/ip4/"),
    "a name without an address": ("nosuch.invalid", "firewall"),
    "a network of another name": ("'baton'", "'other'", "--network"),
}


@pytest.fixture(scope="module")
def outcomes(
    network: dict[str, Peer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Done]]:
    address = network["asker"].address
    where = address.partition("/p2p/")[0]

    def of(listener: socket.socket) -> str:
        return f"/ip4/127.0.0.1/tcp/{listener.getsockname()[1]}/p2p/{STRANGER}"

    with ExitStack() as stack:
        commands: dict[str, tuple[str, ...]] = {
            "packets swallowed": (of(swallowing(stack)),),
            "a server that says nothing": (of(listening(stack)),),
            "a closed port": (f"/ip4/127.0.0.1/tcp/{CLOSED_PORT}/p2p/{STRANGER}",),
            "a server of another kind": (of(speaking_http(stack)),),
            "no multiaddr": ("example.org:4747",),
            "a multiaddr of nothing": ("/foo/bar",),
            "no peer in the address": (where,),
            "a peer id that is none": (f"{where}/p2p/xyz",),
            "another peer's id": (f"{where}/p2p/{STRANGER}",),
            "a way of calling that is not ours": (
                f"/ip4/127.0.0.1/udp/4747/quic-v1/p2p/{STRANGER}",
            ),
            "a name without an address": (f"/dns4/nosuch.invalid/tcp/4747/p2p/{STRANGER}",),
            "a network of another name": (address, "--network", "other"),
        }
        folder = tmp_path_factory.mktemp("b")
        done = at_once(
            [
                (
                    "join",
                    *it,
                    "--json",
                    *LOOPBACK,
                    "--role",
                    "store",
                    "--state",
                    folder / str(place),
                )
                for place, it in enumerate(commands.values())
            ]
        )
        yield dict(zip(commands, done, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_cannot_be_met_is_named_with_the_reason(
    outcomes: dict[str, Done], name: str
) -> None:
    line = outcomes[name].error
    assert all(word in line for word in NAMES[name]), line
    assert outcomes[name].out == ""


def test_a_peer_of_another_version_is_refused_with_both_versions(
    network: dict[str, Peer], state: Path
) -> None:
    newer = limits.PROTOCOL_VERSION + 1
    program = (
        f"import wire.limits; wire.limits.PROTOCOL_VERSION = {newer}\n"
        "from node.__main__ import main\n"
        "main()"
    )
    with (
        pytest.raises(AssertionError) as ended,
        joined(state, network["asker"].address, "--role", "store", program=("-c", program)),
    ):
        pass
    line = str(ended.value)
    assert "error: the network does not take this peer" in line
    assert f"version {newer}, this network {limits.PROTOCOL_VERSION}" in line
    assert "Traceback" not in line


def test_with_half_the_bootstraps_dead_a_peer_joins_all_the_same(
    network: dict[str, Peer], state: Path
) -> None:
    dead = f"/ip4/127.0.0.1/tcp/{CLOSED_PORT}/p2p/{STRANGER}"
    alive = network["asker"].address
    with joined(state, dead, alive, "--role", "store") as peer:
        assert peer.ask("status", "--json").document["connected"] >= 1
        done = peer.stop()
        assert (done.code, done.err) == (0, "")
