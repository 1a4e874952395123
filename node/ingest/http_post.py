"""One document sent over HTTP, under the guard of what is fetched: no redirects, no cookies."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import httpcore
import trio

from node.ingest.guard import Guard, Network
from node.ingest.http_fetch import CONNECT_S_MAX, FETCH_S_MAX, USER_AGENT
from node.ingest.location import HostRules, Location
from wire.errors import Malformed, TooSlow, Unreachable


@dataclass(frozen=True, slots=True)
class HttpPoster:
    """Sends under the owner's rules. One connection for each document, closed after it."""

    network: Network
    tls: ssl.SSLContext

    async def post(
        self, location: Location, headers: Mapping[str, str], body: bytes, rules: HostRules
    ) -> int:
        """Send a document; the status of the answer, whose body nobody reads.

        InputError if the owner's rules or the guard forbid where it goes, Unreachable, TooSlow,
        Malformed for an answer that is no HTTP.
        """
        rules.check(location, strange=False)
        sent = {"User-Agent": USER_AGENT, "Content-Length": str(len(body)), **headers}
        timeout = {"connect": CONNECT_S_MAX, "read": FETCH_S_MAX, "write": FETCH_S_MAX}
        try:
            with trio.fail_after(FETCH_S_MAX):
                async with (
                    httpcore.AsyncConnectionPool(
                        ssl_context=self.tls,
                        max_connections=1,
                        network_backend=Guard(location, rules, self.network),
                    ) as pool,
                    pool.stream(
                        "POST",
                        location.url,
                        headers=[(name.encode(), value.encode()) for name, value in sent.items()],
                        content=body,
                        extensions={"timeout": timeout},
                    ) as response,
                ):
                    return response.status
        except (trio.TooSlowError, httpcore.TimeoutException) as error:
            raise TooSlow(f"{location.place} does not answer") from error
        except (httpcore.NetworkError, httpcore.UnsupportedProtocol, ssl.SSLError) as error:
            raise Unreachable(f"{location.place} is not reached: {str(error)[:200]}") from error
        except httpcore.ProtocolError as error:
            raise Malformed(f"{location.place} sends no sound HTTP: {str(error)[:200]}") from error
