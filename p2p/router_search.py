"""How a home router is found by UPnP, and what of the answers counts. Pure.

Anybody of the local network may answer a search, and names a URL that is then fetched. Only an
answer that comes from the default router, and names the default router, is followed.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

SEARCH_HOST, SEARCH_PORT = "239.255.255.250", 1900
SEARCH_BYTES_MAX = 2048
LOCATION_CHARACTERS_MAX = 512
# A device of the older version answers the search for it alone.
_KINDS = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
)


def searches() -> tuple[bytes, ...]:
    """What is asked of the local network, one datagram for each."""
    return tuple(
        (
            "M-SEARCH * HTTP/1.1\r\n"
            f"HOST: {SEARCH_HOST}:{SEARCH_PORT}\r\n"
            'MAN: "ssdp:discover"\r\n'
            "MX: 1\r\n"
            f"ST: {kind}\r\n\r\n"
        ).encode()
        for kind in _KINDS
    )


def location_of(answer: bytes, sender: str, router: str) -> str | None:
    """The URL of the router's description; None if this is no answer of that router's."""
    if sender != router or len(answer) > SEARCH_BYTES_MAX or not answer.startswith(b"HTTP/1.1 200"):
        return None
    for line in answer.decode("latin-1").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon and name.strip().lower() == "location":
            return _bounded(value.strip(), router)
    return None


def _bounded(url: str, router: str) -> str | None:
    if not (url.isascii() and url.isprintable()) or len(url) > LOCATION_CHARACTERS_MAX:
        return None
    try:
        parts = urlsplit(url)
        same = ip_address(parts.hostname or "") == ip_address(router)
        # Reading it is what finds a port that is none.
        port = parts.port
    except ValueError:
        return None
    plain = parts.scheme == "http" and parts.username is None and parts.password is None
    return url if plain and same and port != 0 else None
