"""What a page in a browser may do here: nothing, unless its origin was named with `--http-origin`.

A pure core. A browser sends `Origin` with every request of one site to another that could change
something, and `Sec-Fetch-Site` with all of them. What comes from a site that was not named is
refused, also where the browser would not ask first: a form, an image, a POST of text.
"""

import ipaddress
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

METHODS = b"GET, POST, DELETE"
# What a page of a named origin may send, beside what every page may. Names of headers guard
# nothing that the origin does not: clients of OpenAI, Anthropic and x402 send names of their own,
# and x402's sends one of an answer. `*` is all but `authorization`; old browsers know names alone.
HEADERS = (
    b"authorization, content-type, x-api-key, payment-signature, x-payment,"
    b" access-control-expose-headers, x-baton-verdicts, x-baton-level, x-baton-deadline,"
    b" x-request-id, anthropic-version, anthropic-beta,"
    b" anthropic-dangerous-direct-browser-access, *"
)
# What it may read of an answer: the task, how to pay and what was paid, and when to ask again.
EXPOSED = (
    b"x-baton-task, x-baton-receipt, x-request-id, retry-after,"
    b" payment-required, payment-response, x-payment-response"
)
# How long a browser may remember the answer to its question, in seconds.
REMEMBERED_S = b"600"
# No answer is taken for another type than it says, nor shown inside pages of others.
ALWAYS: list[tuple[bytes, bytes]] = [
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_HOST = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::\d{1,5})?")


@dataclass(frozen=True, slots=True)
class PageAccess:
    """Whether a page may ask, and which headers each answer to it has."""

    allowed: bool
    headers: list[tuple[bytes, bytes]]
    # Whether this is the browser's own question before the request.
    is_preflight: bool = False


_NOT_A_PAGE = PageAccess(allowed=True, headers=ALWAYS)
_REFUSED = PageAccess(allowed=False, headers=ALWAYS)


def page_access(method: str, headers: Mapping[str, str], origins: Collection[str]) -> PageAccess:
    """What becomes of a request with these headers (lower-case names), by where it comes from."""
    origin = headers.get("origin")
    if origin is None:
        # A link that a person follows, or a request of no page at all.
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        return _REFUSED if foreign else _NOT_A_PAGE
    preflight = method == "OPTIONS" and "access-control-request-method" in headers
    # A page that this gateway itself served would be nobody else's; there is none.
    if origin.lower() not in origins:
        return _REFUSED
    found = [
        (b"x-content-type-options", b"nosniff"),
        (b"vary", b"origin"),
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", EXPOSED),
    ]
    if preflight:
        found += [
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", HEADERS),
            (b"access-control-max-age", REMEMBERED_S),
        ]
        if "access-control-request-private-network" in headers:
            found.append((b"access-control-allow-private-network", b"true"))
    return PageAccess(allowed=True, headers=found, is_preflight=preflight)


def is_host(text: str, names: Collection[str]) -> bool:
    """Whether a Host header is an address, which no site can make point elsewhere, or our name."""
    match = _HOST.fullmatch(text)
    if match is None:
        return False
    name = match["six"] or match["name"].lower().rstrip(".")
    if name == "localhost" or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
