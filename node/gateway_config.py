"""The configuration of a gateway: frozen, and checked when it is made."""

import ipaddress
import re
from dataclasses import dataclass

from node.paying_config import TypedPrice, read_price
from wire import limits
from wire.errors import InputError

HTTP_DEFAULT = "127.0.0.1:8000"
# What OpenAI's own clients wait for an answer.
DEADLINE_S_DEFAULT = 600
# How many verdicts are needed, of how many verifiers: the text of options and headers.
VERDICTS_PATTERN = r"(\d{1,2})/(\d{1,2})"
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?")
_PLACE = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]/\s]+)):(?P<port>\d{1,5})")


EVM_NETWORK_DEFAULT = "eip155:8453"
# Of each network the token that is taken: its address, and the name and version that are signed.
TOKENS = {
    "eip155:8453": ("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin", "2"),
    "eip155:84532": ("0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC", "2"),
}
_ACCOUNT = re.compile(r"0x[0-9a-fA-F]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvmPay:
    """Where dollars are paid to, and who settles; a credit counts as one dollar there."""

    facilitator: str
    pay_to: str
    network: str = EVM_NETWORK_DEFAULT

    def __post_init__(self) -> None:
        if _ACCOUNT.fullmatch(self.pay_to) is None:
            raise InputError(
                f"{self.pay_to[:80]!r} is no account of {self.network}",
                todo="give the address that is to be paid: --pay-to 0x…",
            )
        if self.network not in TOKENS:
            raise InputError(
                f"{self.network[:80]!r} is no network whose dollars are known here",
                todo=f"give one of {', '.join(TOKENS)}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPay:
    """What clients without a key pay for their requests, and how they may."""

    price: TypedPrice
    credits: bool = False
    evm: EvmPay | None = None


def pay_of(
    means: str | None,
    price: str | None,
    facilitator: str | None,
    pay_to: str | None,
    evm_network: str,
) -> HttpPay | None:
    """What `--http-pay` and its companions say; InputError if they make no sense together."""
    if means is None:
        for name, given in (("--facilitator", facilitator), ("--pay-to", pay_to)):
            if given is not None:
                raise InputError(f"{name} is of payments", todo="add --http-pay evm")
        return None
    named = {it.strip() for it in means.split(",")}
    if not named <= {"credits", "evm"}:
        raise InputError(
            f"{means[:80]!r} is no way to pay", todo="give credits, evm, or credits,evm"
        )
    if price is None:
        raise InputError(
            "a request that is paid for has a price",
            todo="give it in credits, for example --http-price 0.3/1k:0.6/1k+0.001",
        )
    evm = None
    if "evm" in named:
        if facilitator is None or pay_to is None:
            raise InputError(
                "payments in dollars need who settles them, and who gets them",
                todo="give --facilitator https://… and --pay-to 0x…",
            )
        evm = EvmPay(facilitator=facilitator, pay_to=pay_to, network=evm_network)
    return HttpPay(price=read_price(price), credits="credits" in named, evm=evm)


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
    # What is asked of those with a key that has a budget, besides what peers ask; None: nothing.
    price: TypedPrice | None = None
    # How clients without a key may pay; None: they may not.
    pay: HttpPay | None = None
    # Whether keys of other peers' apps are taken, also where a key is needed.
    apps: bool = False
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
