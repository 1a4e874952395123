"""Networks that cannot be met: nobody there, somebody else there, or a network that says no."""

import socket
import threading
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.live.command_line import LOOPBACK, Done, Peer, at_once, baton, joined
from wire import limits

STRANGER = "12D3KooWHesAVqSWPi4ohCdc3VcvppH54inVL3GSMg6QscGsf6aN"
CLOSED_PORT = 1
# Baton, but that it gives no call up that nobody answers.
PATIENT = """
import p2p.handshake, p2p.over_libp2p.host
p2p.handshake.stretched = lambda seconds: 3600.0
p2p.over_libp2p.host.HANDSHAKE_DEADLINE_S = 3600.0
from node.__main__ import main
main()
"""


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


# Called again and again by who joins, who says so at once.
CALLED_AGAIN = {
    "a closed port": ("no bootstrap answers", "refused", "firewall"),
    "packets swallowed": ("no bootstrap answers", "did not answer within", "firewall"),
    "a server that says nothing": ("no bootstrap answers", "did not answer within"),
    "a server of another kind": ("no bootstrap answers", "is not a Baton peer"),
    "another peer's id": ("another peer answers", "is the one it printed"),
    "a name without an address": ("nosuch.invalid", "firewall"),
}
# Errors at once: nothing that happens elsewhere would change them.
NAMES = {
    "no multiaddr": ("'example.org:4747' is not an address", "/ip4/"),
    "a multiaddr of nothing": ("'/foo/bar' is not an address", "/ip4/"),
    "no peer in the address": ("does not name the peer", "/p2p/"),
    "a peer id that is none": ("is not an address", "/p2p/"),
    "a way of calling that is not ours": ("of a kind this peer does not dial", "/ip4/"),
    "a network of another name": ("'baton'", "'other'", "--network"),
}


@pytest.fixture(scope="module")
def outcomes(network: dict[str, Peer], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    address = network["asker"].address
    where = address.partition("/p2p/")[0]

    commands: dict[str, tuple[str, ...]] = {
        "no multiaddr": ("example.org:4747",),
        "a multiaddr of nothing": ("/foo/bar",),
        "no peer in the address": (where,),
        "a peer id that is none": (f"{where}/p2p/xyz",),
        "a way of calling that is not ours": (f"/ip4/127.0.0.1/udp/4747/quic-v1/p2p/{STRANGER}",),
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
    return dict(zip(commands, done, strict=True))


def answering_badly(name: str, stack: ExitStack, network: dict[str, Peer]) -> str:
    """The address of a bootstrap that will not be met for now."""
    where = network["asker"].address.partition("/p2p/")[0]
    match name:
        case "a closed port":
            where = f"/ip4/127.0.0.1/tcp/{CLOSED_PORT}"
        case "a name without an address":
            where = "/dns4/nosuch.invalid/tcp/4747"
        case "packets swallowed":
            where = f"/ip4/127.0.0.1/tcp/{port_of(swallowing(stack))}"
        case "a server that says nothing":
            where = f"/ip4/127.0.0.1/tcp/{port_of(listening(stack))}"
        case "a server of another kind":
            where = f"/ip4/127.0.0.1/tcp/{port_of(speaking_http(stack))}"
    return f"{where}/p2p/{STRANGER}"


@pytest.mark.parametrize("name", CALLED_AGAIN)
def test_a_network_that_does_not_answer_is_called_again_and_that_is_said(
    network: dict[str, Peer], state: Path, name: str
) -> None:
    with ExitStack() as stack:
        address = answering_badly(name, stack, network)
        peer = stack.enter_context(joined(state, address, "--role", "store"))
        found = peer.ask("status", "--json").document
        assert all(it in found["unmet"] for it in CALLED_AGAIN[name]), found["unmet"]
        assert "called until one answers" in found["unmet"]
        assert found["connected"] == 0
        assert "until one answers" in " ".join(peer.ask("status").out.split())
        done = peer.stop()
        assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_cannot_be_met_is_named_with_the_reason(
    outcomes: dict[str, Done], name: str
) -> None:
    line = outcomes[name].error
    assert all(word in line for word in NAMES[name]), line
    assert outcomes[name].error_document["kind"] != "bug"


def test_a_peer_of_another_version_is_refused_with_both_versions(
    network: dict[str, Peer], state: Path
) -> None:
    newer = limits.PROTOCOL_VERSION + 1
    program = ("-c", of_version(newer))
    with (
        pytest.raises(AssertionError) as ended,
        joined(state, network["asker"].address, "--role", "store", program=program),
    ):
        pass
    line = str(ended.value)
    assert "error: the network does not take this peer" in line
    assert f"version {newer}, this network {limits.PROTOCOL_VERSION}" in line
    assert "Traceback" not in line
    # Those of this version are served as before.
    done = network["asker"].ask("ask", "hash", "--text", "still served", "--fresh", "--json")
    assert done.document["verified"]


def test_a_peer_does_not_join_a_network_of_a_newer_version(tmp_path: Path) -> None:
    newer = limits.PROTOCOL_VERSION + 1
    with joined(tmp_path / "n", "--role", "store", program=("-c", of_version(newer))) as first:
        done = baton("join", first.address, *LOOPBACK, "--role", "store", "--state", tmp_path / "o")
        assert f"version {limits.PROTOCOL_VERSION}, this network {newer}" in done.error
        assert first.ask("status", "--json").document["connected"] == 0


def of_version(version: int) -> str:
    """A program that is Baton, but for the version that it speaks."""
    return (
        f"import wire.limits; wire.limits.PROTOCOL_VERSION = {version}\n"
        "from node.__main__ import main\n"
        "main()"
    )


def test_with_half_the_bootstraps_dead_a_peer_joins_all_the_same(
    network: dict[str, Peer], state: Path
) -> None:
    dead = f"/ip4/127.0.0.1/tcp/{CLOSED_PORT}/p2p/{STRANGER}"
    alive = network["asker"].address
    with joined(state, dead, alive, "--role", "store") as peer:
        assert peer.ask("status", "--json").document["connected"] >= 1
        done = peer.stop()
        assert (done.code, done.err) == (0, "")


def test_one_good_bootstrap_among_bad_ones_of_every_kind_is_enough(
    network: dict[str, Peer], tmp_path: Path
) -> None:
    with ExitStack() as stack:
        silent = f"/ip4/127.0.0.1/tcp/{port_of(listening(stack))}/p2p/{STRANGER}"
        bad = (*bad_bootstraps(stack), silent)
        other = stack.enter_context(joined(tmp_path / "o", "--role", "store", "--network", "other"))
        where = (*bad, other.address, network["asker"].address)
        # It waits for none of the others: who says nothing would be waited for for ever.
        peer = stack.enter_context(
            joined(tmp_path / "s", *where, "--role", "store", program=("-c", PATIENT))
        )
        found = peer.ask("status", "--json").document
        assert found["connected"] >= 1
        assert found["network"] == "baton"
        assert other.id not in {it["peer"] for it in peer.ask("peers", "--json").document["peers"]}
        done = peer.stop()
        assert (done.code, done.err) == (0, "")
        # And who was called by mistake is none the worse.
        assert other.ask("status", "--json").document["known"] == 0


def test_where_all_are_bad_one_line_names_each(tmp_path: Path) -> None:
    with ExitStack() as stack:
        bad = bad_bootstraps(stack)
        other = stack.enter_context(joined(tmp_path / "o", "--role", "store", "--network", "other"))
        where = (*bad, other.address)
        peer = stack.enter_context(joined(tmp_path / "s", *where, "--role", "store"))
        line = peer.ask("status", "--json").document["unmet"]
    assert all(it.partition("/p2p/")[0] in line for it in where), line
    assert "'other', not 'baton'" in line


def bad_bootstraps(stack: ExitStack) -> tuple[str, ...]:
    """Two that are dead, one that drops every call, and one that speaks something else."""
    ports = (
        CLOSED_PORT,
        CLOSED_PORT + 1,
        port_of(swallowing(stack)),
        port_of(speaking_http(stack)),
    )
    return tuple(f"/ip4/127.0.0.1/tcp/{it}/p2p/{STRANGER}" for it in ports)


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port
