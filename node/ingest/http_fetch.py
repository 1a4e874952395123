"""One document over HTTP: bounded in size, time, redirects and compression; judged at every hop.

No cookies, no proxies, nothing of the environment. The door to httpcore's requests: its errors and
those of TLS become ours here.
"""

import hashlib
import ssl
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urljoin

import httpcore
import trio

from node.ingest.guard import Guard, Network
from node.ingest.location import HostRules, Location, read_url
from wire.content import PeerId
from wire.errors import BatonError, InputError, Malformed, Oversize, TooSlow, Unreachable, WireError

BODY_BYTES_MAX = 4 << 20
FETCH_S_MAX = 20.0
CONNECT_S_MAX = 8.0
REDIRECTS_MAX = 5
# Text shrinks to a tenth, a table of zeros to a hundredth; a bomb to a thousandth.
RATIO_MAX = 200
# Below this size nobody is hurt by any ratio.
RATIO_FREE_BYTES = 256 << 10
HEADERS_MAX = 128
USER_AGENT = "Baton/0.1 (data peer)"
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for. `secret` headers go to the origin of `location` alone."""

    location: Location
    headers: Mapping[str, str] = field(default_factory=dict)
    secret: Mapping[str, str] = field(default_factory=dict)
    # Whether it was another peer that named the URL.
    strange: bool = False
    # Which peer that was, if one is known.
    asker: PeerId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What came. `urls` are those asked, first to last; `body` is without its compression.

    `certificates` is the hash of the server's certificate chain in DER, in order; None without TLS.
    Names of headers are in lower case.
    """

    urls: tuple[str, ...]
    status: int
    headers: tuple[tuple[str, str], ...]
    certificates: bytes | None
    body: bytes


@dataclass(slots=True)
class HttpFetcher:
    """Fetches under the owner's rules. One connection for each request, closed after it."""

    network: Network
    tls: ssl.SSLContext
    # From which network a peer is called: who it belongs to says it once it runs.
    place_of: Callable[[PeerId], str] = lambda _: ""

    async def get(self, asked: Request, rules: HostRules) -> Response:
        """The document, as `answer` finds it; Malformed also for a status other than 200."""
        found = await self.answer(asked, rules)
        if found.status != 200:
            place = read_url(found.urls[-1]).place
            raise Malformed(f"{place} answered with status {found.status}")
        return found

    async def answer(self, asked: Request, rules: HostRules) -> Response:
        """What the server says, after redirects, whatever its status.

        InputError if the owner's rules or the guard forbid where it leads, Oversize and Malformed
        for what the server sends, Unreachable, TooSlow.
        """
        location, urls, secret = asked.location, [asked.location.url], dict(asked.secret)
        network = self.network
        if asked.strange:
            place = "" if asked.asker is None else self.place_of(asked.asker)
            network = network.for_stranger(asked.asker, place)
        try:
            with trio.fail_after(FETCH_S_MAX):
                while True:
                    rules.check(location, strange=asked.strange)
                    headers = {**asked.headers, **secret}
                    found = await self._one(Guard(location, rules, network), headers)
                    if found.status not in _REDIRECTS:
                        response = replace(found, urls=tuple(urls))
                        _check_no_leak(response, asked.secret)
                        return response
                    further = _target(location, found)
                    if len(urls) > REDIRECTS_MAX:
                        raise Malformed(f"{asked.location.place} redirects without end")
                    if further.origin != location.origin:
                        secret = {}
                    location = further
                    urls.append(location.url)
        except trio.TooSlowError as error:
            raise TooSlow(f"{location.place} took longer than {FETCH_S_MAX:g} s") from error

    async def _one(self, guard: Guard, headers: Mapping[str, str]) -> Response:
        """One request. The body of a redirect is not read."""
        sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip", **headers}
        location = guard.location
        timeout = {"connect": CONNECT_S_MAX, "read": FETCH_S_MAX, "write": FETCH_S_MAX}
        try:
            async with (
                httpcore.AsyncConnectionPool(
                    ssl_context=self.tls, max_connections=1, network_backend=guard
                ) as pool,
                pool.stream(
                    "GET",
                    location.url,
                    headers=[(name.encode(), value.encode()) for name, value in sent.items()],
                    extensions={"timeout": timeout},
                ) as response,
            ):
                found = tuple(
                    (name.decode("latin-1").lower(), value.decode("latin-1"))
                    for name, value in response.headers[:HEADERS_MAX]
                )
                body = b""
                if response.status not in _REDIRECTS:
                    body = await _body(response, dict(found), location)
                certificates = _chain_hash(response)
        except httpcore.TimeoutException as error:
            raise TooSlow(f"{location.place} does not answer") from error
        except (httpcore.NetworkError, httpcore.UnsupportedProtocol) as error:
            raise Unreachable(f"{location.place}: {_cause(error)}") from error
        except httpcore.ProtocolError as error:
            raise Malformed(f"{location.place} sends no sound HTTP: {_cause(error)}") from error
        return Response(
            urls=(location.url,),
            status=response.status,
            headers=found,
            certificates=certificates,
            body=body,
        )


def _target(location: Location, found: Response) -> Location:
    """Where a redirect leads; InputError, or Malformed if it does not say."""
    to = dict(found.headers).get("location")
    if to is None:
        raise Malformed(f"{location.place} redirects without saying where")
    try:
        # Whatever is odd in it is left for `read_url` to refuse.
        further = read_url(urljoin(location.url, to))
    except (InputError, ValueError) as error:
        raise InputError(f"{location.place} redirects where no fetch goes: {error}") from error
    if location.scheme == "https" and further.scheme != "https":
        raise InputError(f"{location.place} redirects from https to http")
    return further


async def _body(
    response: httpcore.Response, headers: Mapping[str, str], location: Location
) -> bytes:
    unpacking = _Unpacking(location.place, headers.get("content-encoding", ""))
    error: WireError | None = None
    # The library's generators stand one in another, and only what is raised in the innermost ends
    # them all: so what is wrong with a part is raised once the stream has been cancelled.
    with trio.CancelScope() as scope:
        async for part in response.aiter_stream():
            if error is None:
                try:
                    unpacking.add(part)
                except WireError as found:
                    error = found
                    scope.cancel()
    if error is not None:
        raise error
    return unpacking.finished()


class _Unpacking:
    """A body as it comes, without its compression, within the bounds."""

    def __init__(self, place: str, coding: str) -> None:
        coding = coding.strip().lower()
        if coding not in ("", "identity", "gzip", "x-gzip"):
            raise Malformed(
                f"{place} compressed its answer as {coding[:40]!r}, which nobody asked for"
            )
        self._place = place
        self._inflate = zlib.decompressobj(31) if "gzip" in coding else None
        self._body = bytearray()
        self._came_bytes = 0

    def add(self, part: bytes) -> None:
        """Take a part; Oversize or Malformed if it is one too many, or cannot be unpacked."""
        self._came_bytes += len(part)
        if self._came_bytes > BODY_BYTES_MAX:
            raise Oversize(f"{self._place} sends more than {BODY_BYTES_MAX} bytes")
        rest = part
        while rest:
            room = BODY_BYTES_MAX + 1 - len(self._body)
            if self._inflate is None:
                self._body += rest
                rest = b""
            else:
                try:
                    self._body += self._inflate.decompress(rest, room)
                except zlib.error as error:
                    raise Malformed(f"{self._place} sends no sound gzip: {error}") from error
                if self._inflate.unused_data:
                    # The library would gather whatever follows, copying all of it for each part.
                    raise Malformed(f"{self._place} sends more after the end of its gzip")
                rest = self._inflate.unconsumed_tail
            if len(self._body) > BODY_BYTES_MAX:
                raise Oversize(f"{self._place} sends more than {BODY_BYTES_MAX} bytes")
            if len(self._body) > max(RATIO_FREE_BYTES, RATIO_MAX * self._came_bytes):
                raise Oversize(f"{self._place} sends what unpacks to over {RATIO_MAX} times")

    def finished(self) -> bytes:
        """The body; Malformed if it breaks off."""
        if self._inflate is not None and not self._inflate.eof:
            raise Malformed(f"{self._place} sends a compressed answer that breaks off")
        return bytes(self._body)


def _chain_hash(response: httpcore.Response) -> bytes | None:
    """The hash of the certificates that the server sent, in order, each with its length before."""
    stream = response.extensions.get("network_stream")
    tls = None if stream is None else stream.get_extra_info("ssl_object")
    if tls is None:
        return None
    # Python shows the chain in public from 3.13 on; before, under this name.
    inner = getattr(tls, "_sslobj", tls)
    digest = hashlib.sha256()
    for certificate in inner.get_unverified_chain() or ():
        der = ssl.PEM_cert_to_DER_cert(certificate.public_bytes())
        digest.update(len(der).to_bytes(4, "big") + der)
    return digest.digest()


def _check_no_leak(response: Response, secret: Mapping[str, str]) -> None:
    """Malformed if a credential came back: what is fetched is kept, and shown to others."""
    text = " ".join((*response.urls, *(value for _, value in response.headers)))
    for value in secret.values():
        # The scheme before a token (`Bearer`) is no secret.
        word = value.split()[-1] if value.split() else value
        if word and (word in text or word.encode() in response.body):
            raise Malformed("the server's answer repeats the credential it was sent: not kept")


def _cause(error: BaseException) -> str:
    """What a library says; of errors within errors, the innermost that says something."""
    said = str(error)
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
        if not isinstance(error, BatonError) and str(error):
            said = str(error)
    return said[:200] or type(error).__name__
