"""Whether a request comes from this console's own page, or from a page of some site. A pure core.

A site can make its name point at this machine, so Host has to be an address or `localhost`. A
browser says where a request was made in Origin and Sec-Fetch-Site: what they name has to be this
console. What changes something needs Origin in any case, so that a request without one is none of
a page's.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence

_HOST = re.compile(
    r"(?:\[(?P<six>[0-9a-fA-F:.]{2,45})\]|(?P<name>[A-Za-z0-9.-]{1,253}))(?::\d{1,5})?"
)
# None came by a link that a person typed, or a bookmark.
_OWN_SITES = frozenset({"same-origin", "none"})
# No script, style or picture of elsewhere, none within the page, and no page around this one.
ALWAYS: list[tuple[bytes, bytes]] = [
    (
        b"content-security-policy",
        b"default-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


def headers_of(rows: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """By name in lower case; of one that comes twice nothing is believed."""
    found: dict[str, str] = {}
    for raw, value in rows:
        name = raw.decode("latin-1")
        found[name] = "" if name in found else value.decode("latin-1")
    return found


def stranger(method: str, headers: Mapping[str, str]) -> str:
    """Why a request is not this console's own, in words for whoever sent it; "" if it may be."""
    host = headers.get("host", "")
    if not is_host(host):
        return "the Host header names no address of this machine: use the link that `open` printed"
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        return "a page of another site may not use the console"
    if headers.get("sec-fetch-site", "none") not in _OWN_SITES:
        return "a page of another site may not use the console"
    if method == "POST" and origin is None:
        return "what changes something has to come from the console's own page (no Origin header)"
    return ""


def is_host(text: str) -> bool:
    """Whether a Host header is an address, or `localhost`: no site can make these point here."""
    match = _HOST.fullmatch(text)
    if match is None:
        return False
    name = match["six"] or match["name"].lower().rstrip(".")
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
