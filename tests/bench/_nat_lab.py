"""Homes behind routers, in network namespaces: made and removed, as root on Linux with nftables.

An internet of public machines, and homes whose routers translate addresses: one that keeps ports
(cone), one that draws them (symmetric), one that refuses instead of dropping, one that stands
behind its carrier's router, and one that opens ports for who asks (by miniupnpd, where it is
installed). No namespace is linked to the machine's own.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.bench._link import NotPermittedError

PUBLIC = ("public", "second", "third")
# The places in which a peer asks or serves; of `home` and `cone` the router is the same.
PLACES = ("public", "cone", "symmetric", "carrier", "refusing", "home", "mapped")

_MINIUPNPD = """
ext_ifname=wan
listening_ip=lan
enable_natpmp=yes
enable_upnp=yes
secure_mode=yes
system_uptime=yes
uuid=00000000-0000-0000-0000-000000000000
allow 1024-65535 0.0.0.0/0 1024-65535
"""


def within(place: str) -> tuple[str, ...]:
    """The words before a command that make it run in that place."""
    return ("ip", "netns", "exec", named(place))


def named(place: str) -> str:
    """The network namespace of that place."""
    return f"baton-nat-{os.getpid() % 100_000}-{place}"


@contextmanager
def open_lab() -> Iterator[None]:
    """The lab, for as long as the block runs. NotPermittedError if it cannot be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("nft") is None:
        raise NotPermittedError("a lab of routers needs root, iproute2 and nftables (apt install)")
    lab = _Lab()
    try:
        lab.build()
        yield
    finally:
        lab.end()
        found = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False)
        for line in found.stdout.splitlines():
            if line.startswith(named("")):
                subprocess.run(["ip", "netns", "del", line.split()[0]], check=False)


class _Lab:
    """Builds the lab, step by step."""

    def __init__(self) -> None:
        self._numbers = count()
        # Files with the numbers of the processes that routers run.
        self.daemons: list[Path] = []

    def end(self) -> None:
        """End what runs in the lab."""
        for file in self.daemons:
            if file.exists():
                os.kill(int(file.read_text()), signal.SIGKILL)
            shutil.rmtree(file.parent, ignore_errors=True)

    def build(self) -> None:
        self._place("inet")
        self._bridge("inet", "br0")
        for number, name in enumerate(PUBLIC, 1):
            self._place(name)
            self._plug(name, "eth0", f"45.{number}.0.10/8", "inet", "br0")
        drop, reset = "drop", "reject with tcp reset"
        self._home("cone", 101, "45.101.0.1/8", ("inet", "br0"), "", drop)
        self._home("symmetric", 102, "45.102.0.1/8", ("inet", "br0"), "fully-random", drop)
        self._home("refusing", 103, "45.103.0.1/8", ("inet", "br0"), "", reset)
        self._router("isp", "45.104.0.1/8", ("inet", "br0"), "100.64.0.1/24", "", drop)
        self._home("carrier", 104, "100.64.0.2/24", ("isp", "lan"), "", drop)
        self._route("carrier-router", "100.64.0.1")
        self._home("mapped", 105, "45.105.0.1/8", ("inet", "br0"), "", drop)
        self._opening_ports("mapped-router")
        self._place("home")
        self._plug("home", "eth0", "192.168.101.3/24", "cone-router", "lan")
        self._route("home", "192.168.101.1")

    def _home(
        self, name: str, number: int, wan: str, out: tuple[str, str], flags: str, deny: str
    ) -> None:
        """A router, and one machine behind it."""
        inner = f"192.168.{number}.1"
        self._router(f"{name}-router", wan, out, f"{inner}/24", flags, deny)
        self._place(name)
        self._plug(name, "eth0", f"192.168.{number}.2/24", f"{name}-router", "lan")
        self._route(name, inner)

    def _router(
        self, name: str, wan: str, out: tuple[str, str], lan: str, flags: str, deny: str
    ) -> None:
        self._place(name)
        self._plug(name, "wan", wan, *out)
        self._bridge(name, "lan")
        _run(*_ip(name), "addr", "add", lan, "dev", "lan")
        _run(*within(name), "sysctl", "-qw", "net.ipv4.ip_forward=1")
        rules = f"""
        table ip nat {{
          chain post {{
            type nat hook postrouting priority 100
            oifname "wan" masquerade {flags}
          }}
        }}
        table inet filter {{
          chain input {{
            type filter hook input priority 0
            iifname "wan" ct state established,related accept
            iifname "wan" meta l4proto tcp {deny}
          }}
          chain forward {{
            type filter hook forward priority 0
            ct state established,related accept
            iifname "wan" drop
          }}
        }}
        """
        _run(*within(name), "nft", "-f", "-", text=rules)

    def _opening_ports(self, name: str) -> None:
        """The router does what UPnP, NAT-PMP and PCP ask of it; without the program, nothing."""
        if shutil.which("miniupnpd") is None:
            return
        rules = """
        table inet filter {
          chain miniupnpd { }
          chain prerouting_miniupnpd { }
          chain postrouting_miniupnpd { }
          chain prerouting {
            type nat hook prerouting priority -100
            jump prerouting_miniupnpd
          }
          chain postrouting {
            type nat hook postrouting priority 90
            jump postrouting_miniupnpd
          }
        }
        insert rule inet filter forward jump miniupnpd
        """
        _run(*within(name), "nft", "-f", "-", text=rules)
        folder = Path(tempfile.mkdtemp(prefix="baton-router-"))
        (folder / "conf").write_text(_MINIUPNPD)
        _run(*within(name), "miniupnpd", "-f", str(folder / "conf"), "-P", str(folder / "pid"))
        self.daemons.append(folder / "pid")

    def _place(self, name: str) -> None:
        _run("ip", "netns", "add", named(name))
        _run(*_ip(name), "link", "set", "lo", "up")

    def _bridge(self, name: str, device: str) -> None:
        _run(*_ip(name), "link", "add", device, "type", "bridge")
        _run(*_ip(name), "link", "set", device, "up")

    def _plug(self, name: str, device: str, address: str, other: str, bridge: str) -> None:
        """A cable from a device of one place to the bridge of another."""
        one = f"bn{os.getpid() % 100_000}-{next(self._numbers)}"
        far = f"{one}b"
        _run("ip", "link", "add", one, "type", "veth", "peer", "name", far)
        _run("ip", "link", "set", one, "netns", named(name), "name", device)
        _run("ip", "link", "set", far, "netns", named(other))
        _run(*_ip(name), "addr", "add", address, "dev", device)
        _run(*_ip(name), "link", "set", device, "up")
        _run(*_ip(other), "link", "set", far, "master", bridge, "up")

    def _route(self, name: str, router: str) -> None:
        _run(*_ip(name), "route", "add", "default", "via", router)


def _ip(name: str) -> tuple[str, ...]:
    return ("ip", "-n", named(name))


def _run(*words: str, text: str | None = None) -> None:
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotPermittedError(f"{' '.join(words)}: {done.stderr.strip()}")
