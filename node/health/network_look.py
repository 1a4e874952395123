"""Looks at the ways out: routes, firewalls, what the router says, and who answers a call."""

import json
import socket
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

import trio

from node.guest.sensors import LOOK_DEADLINE_S, said_by
from node.health.facts import CallEnd, CallFacts, NetworkFacts, RouterFacts
from p2p.ip_address import host_of, is_name
from p2p.router_messages import PMP_ADDRESS_REQUEST, ROUTER_PORT, read_pmp_address
from p2p.routes import default_router, outgoing_hosts
from p2p.transport import ByteStream, Endpoint, Transport, WrongPeer
from wire.content import PeerId
from wire.errors import InputError, Malformed, Refused, TransportError
from wire.signing import SigningKey

_ASKED_TIMES = 2
CALLS_MAX = 16
# What is sent to see whether packets of full size arrive: a dozen of them, as one who would talk
# and then talks nonsense.
LARGE_BYTES = 16384
LARGE_BEGINNING = b"\x13/multistream/1.0.0\n"
LARGE_DEADLINE_S = 4.0
LARGE_LOOK_S = 0.05
_RTF_GATEWAY = 0x2


@dataclass(frozen=True, slots=True)
class NetworkLook:
    """One machine's network, as its files and programs tell."""

    root: Path = Path("/")
    output_of: Callable[[Sequence[str]], str | None] = said_by
    outgoing: Callable[[], tuple[str, ...]] = outgoing_hosts

    def network(self, port: int) -> NetworkFacts:
        """Routes, addresses, and whether a firewall bars `port`."""
        return NetworkFacts(
            default_interfaces=self._ways(),
            addresses=self._addresses(),
            outgoing=self.outgoing(),
            barred_by=self._barred_by(port),
        )

    def _ways(self) -> tuple[str, ...] | None:
        try:
            rows = self._rows("proc/net/route")[1:]
            found = [it[0] for it in rows if it[1] == it[7] == "00000000"]
        except (OSError, IndexError):
            return None
        try:
            for fields in self._rows("proc/net/ipv6_route"):
                nowhere = fields[0] == "0" * 32 and fields[1] == "00"
                if nowhere and fields[9] != "lo" and int(fields[8], 16) & _RTF_GATEWAY:
                    found.append(fields[9])
        except (OSError, IndexError, ValueError):
            # A machine without IPv6.
            pass
        return tuple(dict.fromkeys(found))

    def gateway(self) -> str | None:
        """The router's IPv4 address by the default route; None without one."""
        return default_router(self.root)

    def _rows(self, name: str) -> list[list[str]]:
        text = (self.root / name).read_text(encoding="ascii", errors="replace")
        return [it.split() for it in text.splitlines()]

    def _addresses(self) -> dict[str, tuple[str, ...]]:
        try:
            rows = json.loads(self.output_of(["ip", "-j", "address"]) or "[]")
            return {
                str(row["ifname"]): tuple(str(it["local"]) for it in row["addr_info"])
                for row in rows
            }
        except (ValueError, KeyError, TypeError):
            return {}

    def _barred_by(self, port: int) -> str | None:
        """The firewall that bars the port, "" for none; None where its rules are not to be read."""
        if (said := self.output_of(["ufw", "status"])) is not None and "Status: active" in said:
            allowed = (it.split() for it in said.splitlines() if "ALLOW" in it)
            return "" if any(it[0] in (str(port), f"{port}/tcp") for it in allowed) else "ufw"
        if (said := self.output_of(["firewall-cmd", "--list-ports"])) is not None:
            return "" if f"{port}/tcp" in said.split() else "firewalld"
        if (said := self.output_of(["nft", "list", "ruleset"])) is not None:
            return "nftables" if _drops(said, port) else ""
        return None


def _drops(rules: str, port: int) -> bool:
    """Whether an input chain of nftables drops what no rule lets in, and none lets `port` in."""
    inside, drops, accepts = False, False, False
    for line in map(str.strip, rules.splitlines()):
        if line.startswith("type filter hook input"):
            inside, drops = True, drops or "policy drop" in line
        elif line.startswith("chain ") or line == "}":
            inside = False
        elif inside and line.endswith("accept") and _names(line, port):
            accepts = True
    return drops and not accepts


def _names(rule: str, port: int) -> bool:
    _, dport, after = rule.partition("dport ")
    if not dport:
        # A rule for everything, such as a bare `accept`.
        return rule == "accept"
    return str(port) in after.replace("{", " ").replace("}", " ").replace(",", " ").split()


async def ask_router(router: str, port: int = ROUTER_PORT) -> RouterFacts:
    """What the router says by NAT-PMP; it answers nothing if that is not on."""
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            await asking.connect((router, port))
            for _ in range(_ASKED_TIMES):
                await asking.send(PMP_ADDRESS_REQUEST)
                with trio.move_on_after(LOOK_DEADLINE_S / _ASKED_TIMES / 2):
                    answer = await asking.recv(64)
                    return _read_router(router, answer)
        except OSError:
            # A router that refuses the port says so by ICMP.
            pass
    return RouterFacts(asked=router, answers=False)


def _read_router(router: str, answer: bytes) -> RouterFacts:
    try:
        return RouterFacts(asked=router, answers=True, external=read_pmp_address(answer))
    except (Malformed, Refused):
        return RouterFacts(asked=router, answers=False)


async def call_all(
    transport: Transport, key: SigningKey, addresses: Sequence[str]
) -> tuple[CallFacts, ...]:
    """Call each address, at most `CALLS_MAX`, as a peer with a key of its own that nobody knows."""
    addresses = addresses[:CALLS_MAX]
    found: dict[str, CallFacts] = {}

    async def accept(_peer: PeerId, stream: ByteStream) -> None:
        await stream.reset()

    async def one(address: str) -> None:
        called = await _called(address)
        if isinstance(called, CallFacts):
            found[address] = called
            return
        async with called.stream as stream:
            # By a connection of its own: one that is open to this peer would hide who is there.
            ended, words = await _greeted(endpoint, called.address)
            arrive = await large_arrive(stream) if ended is CallEnd.ANSWERED else None
        found[address] = CallFacts(address=address, ended=ended, words=words, large_arrive=arrive)

    async with (
        transport.open(key, ("/ip4/127.0.0.1/tcp/0",), accept=accept) as endpoint,
        trio.open_nursery() as nursery,
    ):
        for address in addresses:
            nursery.start_soon(one, address)
    return tuple(found[it] for it in addresses)


@dataclass(frozen=True, slots=True)
class _Called:
    """A connection to who listens there, and the address without a name."""

    stream: trio.SocketStream
    address: str


async def _called(address: str) -> _Called | CallFacts:
    """How a call ended at which nobody listens, and why; else the connection, on which nothing
    was said yet.

    A name may lead to several places, of which the first that answers counts.
    """

    def nobody(ended: CallEnd, words: str) -> CallFacts:
        return CallFacts(address=address, ended=ended, words=words)

    parts = address.split("/")
    host, port = host_of(address), parts[4] if len(parts) > 4 else ""
    if not host or not port.isdecimal():
        return nobody(CallEnd.MALFORMED, "an address is /ip4/HOST/tcp/PORT/p2p/PEER")
    try:
        with trio.fail_after(LOOK_DEADLINE_S):
            if is_name(address):
                await trio.socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, trio.TooSlowError) as error:
        return nobody(CallEnd.NO_NAME, str(error))
    try:
        with trio.fail_after(LOOK_DEADLINE_S):
            stream = await trio.open_tcp_stream(host, int(port))
    except trio.TooSlowError:
        return nobody(CallEnd.SILENT, f"nothing came back within {LOOK_DEADLINE_S:.0f} s")
    except OSError as error:
        refused = any(isinstance(it, ConnectionRefusedError) for it in _chain(error))
        return nobody(CallEnd.REFUSED if refused else CallEnd.SILENT, str(error))
    try:
        there = str(stream.socket.getpeername()[0])
    except OSError as error:
        await trio.aclose_forcefully(stream)
        return nobody(CallEnd.SILENT, str(error))
    family = "ip6" if ":" in there else "ip4"
    return _Called(stream, "/".join(("", family, there, *parts[3:])))


async def _greeted(endpoint: Endpoint, address: str) -> tuple[CallEnd, str]:
    """Whether who listens there is the peer that the address names."""
    try:
        await endpoint.knock(address, deadline_s=LOOK_DEADLINE_S)
    except InputError as error:
        return CallEnd.MALFORMED, error.message
    except WrongPeer as error:
        return CallEnd.WRONG_PEER, error.message
    except TransportError as error:
        return CallEnd.NO_PEER, error.message
    return CallEnd.ANSWERED, ""


async def large_arrive(stream: trio.SocketStream) -> bool | None:
    """Whether what fills packets is acknowledged by the machine at the other end.

    Nothing was said on the stream yet. Somewhere on the way larger packets may be dropped, and the
    word of it too: calls are answered then, and nothing of size ever arrives. None where this
    system does not tell.
    """
    began = LARGE_BEGINNING + bytes(LARGE_BYTES - len(LARGE_BEGINNING))
    try:
        with trio.move_on_after(LARGE_DEADLINE_S):
            await stream.send_all(began)
            while (waiting := _unacknowledged_bytes(stream.socket)) == LARGE_BYTES:
                await trio.sleep(LARGE_LOOK_S)
            return None if waiting is None else True
        return None if _unacknowledged_bytes(stream.socket) is None else False
    except trio.BrokenResourceError:
        # Whoever is there read it, and hung up on what is no conversation.
        return True
    except (OSError, trio.ClosedResourceError):
        return None


def _unacknowledged_bytes(sock: trio.socket.SocketType) -> int | None:
    """What was sent and not acknowledged yet; 0 of a connection that is gone, None if not told."""
    try:
        told = ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return None
    return int.from_bytes(told, sys.byteorder)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that led to it: trio gathers one for each address of a host."""
    waiting: list[BaseException | None] = [error]
    for _ in range(32):
        one = waiting.pop() if waiting else None
        if one is None:
            return
        yield one
        waiting.extend(it for it in (one.__cause__, *getattr(one, "exceptions", ())) if it)
