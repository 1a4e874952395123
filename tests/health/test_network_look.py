"""What is read of a machine's network, and how calls to bootstraps end."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from node.health.facts import CallEnd
from node.health.network_look import NetworkLook, ask_router, call_all, large_arrive
from p2p.over_libp2p import TcpTransport
from tests.p2p.transports import ignore, key_of
from wire.signing import SigningKey

ROUTES = (
    "Iface Destination Gateway Flags RefCnt Use Metric Mask\n"
    "wg0 00000000 00000000 0001 0 0 0 00000000\n"
    "eth0 00000000 0100000A 0003 0 0 0 00000000\n"
    "eth0 0000000A 00000000 0001 0 0 0 00FFFFFF\n"
)
RULES = """table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        iif "lo" accept
        tcp dport { 22, 4747 } accept
    }
    chain output {
        type filter hook output priority filter; policy accept;
    }
}"""


def look(root: Path, said: dict[str, str] | None = None) -> NetworkLook:
    def say(words: Sequence[str]) -> str | None:
        return (said or {}).get(words[0])

    return NetworkLook(root, say, tuple)


def with_routes(root: Path, text: str) -> Path:
    (root / "proc/net").mkdir(parents=True)
    (root / "proc/net/route").write_text(text)
    return root


def test_the_ways_out_and_the_router_are_read(tmp_path: Path) -> None:
    found = look(with_routes(tmp_path, ROUTES))
    assert found.network(4747).default_interfaces == ("wg0", "eth0")
    assert found.gateway() == "10.0.0.1"


def test_a_machine_without_routes_has_no_way_and_one_that_tells_none_has_none(
    tmp_path: Path,
) -> None:
    assert look(tmp_path).network(1).default_interfaces is None
    with_routes(tmp_path, ROUTES.splitlines()[0])
    assert look(tmp_path).network(1).default_interfaces == ()
    assert look(tmp_path).gateway() is None


@pytest.mark.parametrize(
    ("said", "port", "barred_by"),
    [
        ({}, 4747, None),
        ({"nft": RULES}, 4747, ""),
        ({"nft": RULES}, 4748, "nftables"),
        ({"nft": RULES.replace("drop", "accept")}, 4748, ""),
        ({"nft": ""}, 4748, ""),
        ({"ufw": "Status: active\n4747/tcp ALLOW Anywhere\n"}, 4747, ""),
        ({"ufw": "Status: active\n22/tcp ALLOW Anywhere\n"}, 4747, "ufw"),
        ({"ufw": "Status: inactive\n"}, 4747, None),
        ({"firewall-cmd": "22/tcp 4747/tcp\n"}, 4747, ""),
        ({"firewall-cmd": "\n"}, 4747, "firewalld"),
    ],
)
def test_a_firewall_that_bars_the_port_is_named(
    tmp_path: Path, said: dict[str, str], port: int, barred_by: str | None
) -> None:
    assert look(tmp_path, said).network(port).barred_by == barred_by


@pytest.mark.parametrize("said", ["", "{}", "[1]", '[{"ifname": "a"}]', "no JSON"])
def test_odd_words_of_programs_are_no_trouble(tmp_path: Path, said: str) -> None:
    assert look(tmp_path, {"ip": said}).network(1).addresses == {}


async def answered(answer: bytes) -> tuple[bool, str]:
    """What is read of a router that gives this answer."""
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as router:
        await router.bind(("127.0.0.1", 0))
        port = router.getsockname()[1]

        async def answer_once() -> None:
            asked, asker = await router.recvfrom(64)
            assert asked == b"\x00\x00"
            await router.sendto(answer, asker)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_once)
            found = await ask_router("127.0.0.1", port)
            nursery.cancel_scope.cancel()
    return found.answers, found.external


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        (bytes([0, 128, 0, 0, 0, 0, 0, 9, 45, 0, 0, 7]), (True, "45.0.0.7")),
        # A router of another version, one that refuses, one that says too little, and noise.
        (bytes([2, 128, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0]), (False, "")),
        (bytes([0, 128, 0, 3, 0, 0, 0, 9, 0, 0, 0, 0]), (False, "")),
        (bytes([0, 128, 0]), (False, "")),
        (b"x" * 64, (False, "")),
    ],
)
async def test_a_routers_answer_is_read_or_left(answer: bytes, read: tuple[bool, str]) -> None:
    assert await answered(answer) == read


async def test_each_way_in_which_a_call_ends_is_told_apart() -> None:
    transport, here = TcpTransport(wall_ns=lambda: 0), ("/ip4/127.0.0.1/tcp/0",)
    caller, other, third = (key_of(it) for it in ("caller", "other", "third"))
    with socket.socket() as nobody, socket.socket() as web:
        nobody.bind(("127.0.0.1", 0))
        web.bind(("127.0.0.1", 0))
        web.listen()
        async with (
            transport.open(other, here, accept=ignore) as endpoint,
            trio.open_nursery() as nursery,
        ):
            at = endpoint.addresses[0]
            nursery.start_soon(_speak_http, web)
            ways = {
                at: CallEnd.ANSWERED,
                at.replace(str(other.peer), str(third.peer)): CallEnd.WRONG_PEER,
                _at(nobody, other): CallEnd.REFUSED,
                _at(web, other): CallEnd.NO_PEER,
                f"/dns4/no-such-name.invalid/tcp/1/p2p/{other.peer}": CallEnd.NO_NAME,
                "somewhere": CallEnd.MALFORMED,
                "/ip4/127.0.0.1/tcp/x": CallEnd.MALFORMED,
            }
            calls = await call_all(transport, caller, tuple(ways))
            nursery.cancel_scope.cancel()
    assert {it.address: it.ended for it in calls} == ways
    # What fills packets arrives on this machine, and was sent to the peer alone.
    assert {it.address: it.large_arrive for it in calls} == dict.fromkeys(ways) | {at: True}


async def test_a_peer_is_connected_to_once_to_call_it_and_once_to_know_it() -> None:
    transport, here = TcpTransport(wall_ns=lambda: 0), ("/ip4/127.0.0.1/tcp/0",)
    caller, other = key_of("caller"), key_of("other")
    met = 0
    async with transport.open(other, here, accept=ignore) as endpoint:
        port = int(endpoint.addresses[0].split("/")[4])

        async def pass_on(stream: trio.SocketStream) -> None:
            nonlocal met
            met += 1
            inner = await trio.open_tcp_stream("127.0.0.1", port)
            async with inner, trio.open_nursery() as nursery:
                nursery.start_soon(_copy, stream, inner, nursery.cancel_scope)
                nursery.start_soon(_copy, inner, stream, nursery.cancel_scope)

        async with trio.open_nursery() as nursery:
            (way,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, pass_on, [way])
            at = way.socket.getsockname()[1]
            (call,) = await call_all(
                transport, caller, (endpoint.addresses[0].replace(str(port), str(at)),)
            )
            nursery.cancel_scope.cancel()
    assert (call.ended, call.large_arrive) == (CallEnd.ANSWERED, True)
    assert met == 2


async def _copy(source: trio.SocketStream, to: trio.SocketStream, scope: trio.CancelScope) -> None:
    try:
        async for data in source:
            await to.send_all(data)
    except trio.BrokenResourceError:
        pass
    scope.cancel()


LOSES_LARGE_PACKETS = """
ip link set lo up
nft add table inet t
nft add chain inet t c '{ type filter hook output priority 0; }'
nft add rule inet t c meta length gt 600 tcp sport != 4747 drop
echo made
exec "$0" -m tests.health.test_network_look
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip", "nft"))),
    reason="a network of its own needs root, util-linux, iproute2 and nftables",
)
def test_a_way_on_which_large_packets_get_lost_is_told_from_one_that_is_dead() -> None:
    # In a network of its own, in which small packets arrive and large ones do not.
    command = ["unshare", "--net", "sh", "-ec", LOSES_LARGE_PACKETS, sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if "made" not in done.stdout:
        pytest.skip(f"this machine lets nobody make such a network: {done.stderr.strip()[-200:]}")
    assert done.stdout.split() == ["made", "False"], done.stderr


async def _sent_large() -> None:
    """Whether what is large arrives at a port of this machine, which takes whatever comes."""
    with socket.socket() as taking:
        taking.bind(("127.0.0.1", 4747))
        taking.listen()
        async with await trio.open_tcp_stream("127.0.0.1", 4747) as stream:
            print(await large_arrive(stream))


def _at(listening: socket.socket, key: SigningKey) -> str:
    return f"/ip4/127.0.0.1/tcp/{listening.getsockname()[1]}/p2p/{key.peer}"


async def _speak_http(listening: socket.socket) -> None:
    """A program that is no peer: it answers with a page of the web, as a hotel's network does."""
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some(64)
        await stream.send_all(b"HTTP/1.1 302 Found\r\nLocation: http://log-in/\r\n\r\n")

    await trio.serve_listeners(answer, [listener])


if __name__ == "__main__":
    trio.run(_sent_large)
