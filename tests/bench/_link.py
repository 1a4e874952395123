"""Two network namespaces with a bad line between them, as root on Linux.

If the kernel has netem, the line is a veth pair with netem at both ends. If not, each namespace has
a TUN device, and this process carries every IP packet from one to the other: late and, by chance,
not at all. Both sides use the kernel's own TCP, which detects losses and sends again, as on a real
line.
"""

import fcntl
import os
import shutil
import struct
import subprocess
from collections import deque
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import trio

TUN_DEVICE = Path("/dev/net/tun")
TUNSETIFF = 0x400454CA
IFF_TUN_WITHOUT_HEADER = 0x0001 | 0x1000
PACKET_BYTES_MAX = 65_536
# How many packets netem queues by default.
PACKETS_HELD_MAX = 1000


class NotPermittedError(Exception):
    """This machine has no network namespaces, or does not allow us to make any."""


@dataclass(frozen=True, slots=True)
class Side:
    """One end: a namespace and the address it has on the line."""

    namespace: str
    address: str
    device: str

    @property
    def within(self) -> tuple[str, ...]:
        """The words before a command that make it run on this side."""
        return ("ip", "netns", "exec", self.namespace)


@dataclass(slots=True, kw_only=True)
class Link:
    """The line, with its delay and loss in each direction."""

    sides: tuple[Side, Side]
    delay_s: float
    loss: float
    how: str = ""
    carried: list[int] = field(default_factory=lambda: [0, 0])
    dropped: list[int] = field(default_factory=lambda: [0, 0])
    # Packets dropped because the line was full, not by chance.
    overflowed: list[int] = field(default_factory=lambda: [0, 0])


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotPermittedError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@asynccontextmanager
async def open_link(delay_s: float, loss: float, random: Random) -> AsyncIterator[Link]:
    """Two namespaces for as long as the block runs. NotPermittedError if none can be made."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        raise NotPermittedError("network namespaces need root and iproute2 (apt install iproute2)")
    number = os.getpid() % 100_000
    sides = (
        Side(f"baton-a-{number}", "10.77.0.1", f"bata{number}"),
        Side(f"baton-b-{number}", "10.77.0.2", f"batb{number}"),
    )
    link = Link(sides=sides, delay_s=delay_s, loss=loss)
    with ExitStack() as stack:
        for side in sides:
            stack.enter_context(_namespace(side.namespace))
        if _netem(link):
            link.how = "veth with netem"
            for side in sides:
                _up(side)
            yield link
            return
        link.how = (
            "TUN devices, packets delayed and dropped by this process: no netem in the kernel"
        )
        lines = [stack.enter_context(_tun(side)) for side in sides]
        async with trio.open_nursery() as nursery:
            for way, (here, there) in enumerate((lines, lines[::-1])):
                nursery.start_soon(_carry, link, way, here, there, Random(random.random()))
            yield link
            nursery.cancel_scope.cancel()


@contextmanager
def _namespace(name: str):  # type: ignore[no-untyped-def]
    _ip("netns", "add", name)
    try:
        yield
    finally:
        _ip("netns", "delete", name)


def _netem(link: Link) -> bool:
    """Join the two by a veth pair with netem at both ends, if the kernel can."""
    one, two = link.sides
    end = ("peer", "name", two.device, "netns", two.namespace)
    _ip("link", "add", one.device, "netns", one.namespace, "type", "veth", *end)
    for side in link.sides:
        shape = ["tc", "qdisc", "add", "dev", side.device, "root", "netem"]
        shape += ["delay", f"{link.delay_s * 1000:.0f}ms", "loss", f"{link.loss:.2%}"]
        done = subprocess.run([*side.within, *shape], capture_output=True, check=False)
        if done.returncode:
            _ip("-n", one.namespace, "link", "delete", one.device)
            return False
    return True


@contextmanager
def _tun(side: Side):  # type: ignore[no-untyped-def]
    try:
        line = os.open(TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        raise NotPermittedError(f"neither netem nor {TUN_DEVICE}: {error}") from error
    try:
        request = struct.pack("16sH22x", side.device.encode(), IFF_TUN_WITHOUT_HEADER)
        fcntl.ioctl(line, TUNSETIFF, request)
        # The device moves to the namespace; our file descriptor stays valid.
        _ip("link", "set", side.device, "netns", side.namespace)
        _up(side)
        yield line
    finally:
        os.close(line)


def _up(side: Side) -> None:
    where = ("-n", side.namespace)
    _ip(*where, "link", "set", "lo", "up")
    _ip(*where, "address", "add", f"{side.address}/24", "dev", side.device)
    _ip(*where, "link", "set", side.device, "up")


async def _carry(link: Link, way: int, here: int, there: int, random: Random) -> None:
    """Read packets at one end; write each at the other end when it is due, or drop it."""
    held: deque[tuple[float, bytes]] = deque()
    come = trio.Event()

    async def deliver() -> None:
        nonlocal come
        while True:
            while held:
                due_at_s, packet = held.popleft()
                await trio.sleep_until(due_at_s)
                os.write(there, packet)
                link.carried[way] += 1
            come = trio.Event()
            await come.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver)
        while True:
            await trio.lowlevel.wait_readable(here)
            packet = os.read(here, PACKET_BYTES_MAX)
            if random.random() < link.loss:
                link.dropped[way] += 1
            elif len(held) >= PACKETS_HELD_MAX:
                link.overflowed[way] += 1
            else:
                held.append((trio.current_time() + link.delay_s, packet))
                come.set()
