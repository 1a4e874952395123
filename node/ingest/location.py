"""Which URLs may be fetched: read one way only, and judged by the owner's lists of hosts.

Pure. What browsers forgive is refused here: whatever two parsers could read differently, one of
them checks and the other one connects.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from wire.errors import InputError

URL_CHARS_MAX = 2048
PORTS = {"http": 80, "https": 443}
_USUAL_PORTS = {**PORTS, "postgresql": 5432}
# Names that lead into this machine or its own network, wherever they are looked up.
_LOCAL_NAMES = ("localhost", "local", "internal", "lan", "home", "corp", "intranet", "home.arpa")
_NOT_LOOKED_UP = ("onion", "i2p", "invalid", "test", "example", "alt")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
# As systems read numbers: decimal, octal and hexadecimal.
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
_TO_ALLOW = (
    "its owner can allow {}: python -m node sources add NAME FILE --allow-host, or under allow in"
    " fetching.toml"
)
_PATTERN = re.compile(r"\*|(?:\*\.)?[a-z0-9._:\[\]-]+")


@dataclass(frozen=True, slots=True)
class Location:
    """A URL that was read: `host` in lower case, an IP address without brackets."""

    url: str
    scheme: str
    host: str
    port: int

    @property
    def origin(self) -> tuple[str, str, int]:
        """Whom credentials are for."""
        return (self.scheme, self.host, self.port)

    @property
    def place(self) -> str:
        """Host and port, as error messages and the owner's lists have them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRules:
    """The owner's lists. An entry is HOST, HOST:PORT, *.DOMAIN or * (any host).

    `allow` names hosts that may be reached wherever they lie, at a private address too, and on
    a port of their own. `deny` names hosts that are never reached. `strangers` names hosts from
    which sources that other peers send may fetch.
    """

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for entry in (*self.allow, *self.deny, *self.strangers):
            if not _PATTERN.fullmatch(entry) or entry != entry.lower():
                raise InputError(
                    f"{entry!r} names no host",
                    todo="write HOST, HOST:PORT, *.DOMAIN or *, in small letters",
                )
        if wide := [it for it in self.allow if it.startswith("*")]:
            raise InputError(
                f"allow names {wide[0]!r}, and each host in a private network has to be named",
                todo="write HOST or HOST:PORT",
            )

    def names(self, location: Location) -> bool:
        """Whether the owner named this very host, and its port unless that is the usual one."""
        usual = location.port == _USUAL_PORTS[location.scheme]
        return location.place in self.allow or (usual and location.host in self.allow)

    def check_named(self, location: Location) -> None:
        """InputError unless the owner named this host: for servers that are no public ones."""
        if _listed(location, self.deny):
            raise InputError(f"the owner of this peer denies {location.host}")
        if not self.names(location):
            raise InputError(
                f"{location.place} is not asked: the owner of this peer has not named it",
                todo=_TO_ALLOW.format(location.place),
            )

    def check(self, location: Location, *, strange: bool) -> None:
        """InputError if the owner's lists, or its name or port alone, forbid it."""
        if _listed(location, self.deny):
            raise InputError(f"the owner of this peer denies {location.host}")
        if strange and not _listed(location, self.strangers):
            raise InputError(
                f"this peer does not fetch from {location.place} for others",
                todo="its owner can name the host under strangers in fetching.toml",
            )
        if self.names(location):
            return
        if why := _bad_host(location.host):
            raise InputError(
                f"{location.place} is not fetched: {why}",
                todo=_TO_ALLOW.format(location.place),
            )
        if location.port not in PORTS.values():
            raise InputError(
                f"{location.place} is not fetched: its port is neither 80 nor 443",
                todo=_TO_ALLOW.format(location.place),
            )


def read_url(text: str) -> Location:
    """Read a URL; InputError for any that can be read in two ways, or has a login in it."""
    if len(text) > URL_CHARS_MAX:
        raise InputError(f"a URL of {len(text)} characters, at most {URL_CHARS_MAX}")
    if not text.isascii() or not all("!" <= it <= "~" for it in text) or "\\" in text:
        raise InputError(
            "a URL with characters other than visible ASCII",
            todo="write names of hosts as xn--…, and other characters as %XX",
        )
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise InputError(f"not a URL: {error}") from error
    if url.scheme not in PORTS or not text.lower().startswith(f"{url.scheme}://"):
        raise InputError(f"{text[:80]!r} does not begin with http:// or https://")
    if url.userinfo or "@" in text.split("://", 1)[1].split("/", 1)[0]:
        raise InputError(
            "a URL with a login in it", todo="keep it as a credential and name that in a header"
        )
    host = url.host.lower()
    if why := _malformed(host):
        raise InputError(f"{host[:80]!r} is no host: {why}")
    port = PORTS[url.scheme] if url.port is None else url.port
    if not 0 < port < 65_536:
        raise InputError(f"there is no port {port}")
    return Location(str(url), url.scheme, host, port)


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that `host` is, written in the one form that every parser reads alike."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _malformed(host: str) -> str:
    if address_of(host) is not None:
        return "it has a zone" if "%" in host else ""
    labels = host.split(".")
    if not all(map(_LABEL.fullmatch, labels)) or len(host) > 253:
        return "names have letters, digits and hyphens, in parts of 1 to 63"
    if _NUMBER.fullmatch(labels[-1]):
        return "a number that systems read as an address; write it as four numbers"
    return ""


def _bad_host(host: str) -> str:
    if address_of(host) is not None:
        # Its address is judged where it is connected to.
        return ""
    if "." not in host:
        return "a name without a domain is one of the local network"
    if any(host == it or host.endswith(f".{it}") for it in _LOCAL_NAMES):
        return "the name is one of a local network"
    if host.rpartition(".")[2] in _NOT_LOOKED_UP:
        return "the name is no public one"
    return ""


def _listed(location: Location, entries: Sequence[str]) -> bool:
    return any(
        entry in ("*", location.host, location.place)
        or (entry.startswith("*.") and location.host.endswith(entry[1:]))
        for entry in entries
    )
