"""The configuration of a gateway: frozen, and checked when it is made."""

import ipaddress
import re
from dataclasses import dataclass

from wire import limits
from wire.errors import InputError

HTTP_DEFAULT = "127.0.0.1:8000"
# What OpenAI's own clients wait for an answer.
DEADLINE_S_DEFAULT = 600
# How many verdicts are needed, of how many verifiers: the text of options and headers.
VERDICTS_PATTERN = r"(\d{1,2})/(\d{1,2})"
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?")
_PLACE = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]/\s]+)):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """Where HTTP is served, under which names, and how tasks that come that way are checked.

    Nobody checks them by default: a streamed answer is read long before a verdict could come, and
    a check of a generation costs as much as the generation. A client asks for more in a header.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    # Names besides `localhost` and addresses that a request's Host header may have.
    names: tuple[str, ...] = ()
    # Of the sites whose pages may use this gateway, as browsers write them.
    origins: frozenset[str] = frozenset()
    needed: int = 0
    verifiers: int = 0
    deadline_s: int = DEADLINE_S_DEFAULT
    # All requests that are worked on, and all connections, with those that are idle.
    requests_max: int = 192
    connections_max: int = 512
    # How long a client may take to send its first byte; a request's head, or be idle; a body; to
    # read a piece.
    first_byte_s: float = 10.0
    idle_s: float = 20.0
    body_s: float = 20.0
    send_s: float = 30.0

    def __post_init__(self) -> None:
        check_verdicts(self.needed, self.verifiers)
        if not 0 < self.requests_max < self.connections_max:
            raise InputError(
                f"{self.requests_max} requests at once need more than"
                f" {self.connections_max} connections"
            )
        if not 0 <= self.port <= 65535:
            raise InputError(f"{self.port} is not a TCP port", todo=f"for example {HTTP_DEFAULT}")
        try:
            ipaddress.ip_address(self.host)
        except ValueError as error:
            raise InputError(
                f"{self.host!r} is not an address of this machine",
                todo="give --http ADDRESS:PORT, and names that clients use with --http-name",
            ) from error

    @property
    def loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback


def place_of(text: str, option: str = "--http", example: str = HTTP_DEFAULT) -> tuple[str, int]:
    """`127.0.0.1:8000` or `[::1]:8000` as (host, port); InputError for anything else."""
    match = _PLACE.fullmatch(text.strip())
    if match is None:
        raise InputError(
            f"{text!r} is not an address and a port", todo=f"for example {option} {example}"
        )
    host = match["six"] or match["host"]
    return ("127.0.0.1" if host == "localhost" else host), int(match["port"])


def verdicts_of(text: str) -> tuple[int, int]:
    """`2/3` as (needed, verifiers); InputError for anything else, or what no task can have."""
    match = re.fullmatch(VERDICTS_PATTERN, text.strip())
    if match is None:
        raise InputError(
            f"{text[:40]!r} is not a number of verdicts",
            todo="2/3 asks for two that agree of three; 0/0 for an answer nobody checks",
        )
    needed, verifiers = int(match[1]), int(match[2])
    check_verdicts(needed, verifiers)
    return needed, verifiers


def origin_of(text: str) -> str:
    """`--http-origin` as browsers write it; InputError for what can be no origin of one site."""
    found = text.strip().lower().removesuffix("/")
    if _ORIGIN.fullmatch(found) is None:
        raise InputError(
            f"{text!r} is not the origin of one site",
            todo="give a scheme and a host, with a port if it has one: https://app.example:8443",
        )
    return found


def check_verdicts(needed: int, verifiers: int) -> None:
    """InputError for a number of verdicts that no task can have."""
    if not 0 <= needed <= verifiers <= limits.VERIFIERS_MAX or (verifiers and not needed):
        raise InputError(
            f"{needed} of {verifiers} verdicts cannot be asked for",
            todo="for example 2/3, or 0/0 for an answer without a check",
        )
