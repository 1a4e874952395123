"""A data peer's fetches in a devnet: from a server that is simulated, by peers that may lie.

The server and the way to it are simulated, and bodies are parsed in this process. The record of a
fetch, its receipt and the agreement of several fetches are a peer's own.
"""

import json
import ssl
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path
from random import Random
from typing import Any

import httpcore
import trio

from node.ingest import parse_worker
from node.ingest.bring import Brought, Ingest
from node.ingest.came import Came
from node.ingest.extractor import Extractor
from node.ingest.guard import Network
from node.ingest.http_fetch import HttpFetcher
from node.ingest.owned import OwnedSources
from node.ingest.source_file import read_source
from wire.codec import Value
from wire.content import PeerId
from wire.errors import Malformed, Unreachable
from wire.fetch import SourceRecord

PLACE = "https://prices.example/now"
SOURCE = read_source(
    f'kind = "http"\nurl = "{PLACE}"\nformat = "json"\ncolumns = {{time = "t", price = "p"}}\n'
)
# What a fetch takes, and what it takes where the source is slow: longer than a quorum waits.
FETCH_S, SLOW_S = 0.2, 40.0
# Those who lie alone say each something else; those who act together say the same.
TOGETHER = 1.5


def price_at(wall_s: float) -> float:
    """The price on the server: in any minute it moves by less than what a quorum allows."""
    swing = wall_s // 10 % 1200
    return round(100 + min(swing, 1200 - swing) / 100, 2)


class _ParsedHere(Extractor):
    """Parses in this process: virtual time knows no other."""

    async def answer(self, message: dict[str, Value], seconds: int) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        reply = parse_worker.answer(message)
        if "refused" in reply:
            raise Malformed(str(reply["refused"]))
        return reply


class _NoNetwork(httpcore.AsyncNetworkBackend):
    """Leads nowhere."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise Unreachable("a devnet has no way out")


async def _resolve(_host: str, _port: int) -> list[str]:
    raise Unreachable("a devnet has no way out")


class SimulatedIngest(Ingest):
    """Brings in the one source that there is, for whoever sends its record."""

    def __init__(
        self, natures: AbstractSet[str], random: Random, wall_s: Callable[[], float]
    ) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        fetcher = HttpFetcher(Network(_resolve, _NoNetwork()), tls)
        super().__init__(OwnedSources(Path("/nowhere")), fetcher, _ParsedHere(), wall_s)
        self._natures = natures
        self._own_lie = random.choice((-1, 1)) * random.uniform(0.1, 0.9)

    async def names(self) -> list[str]:
        return []

    async def has(self, name: str) -> bool:
        return False

    async def given(
        self, source: SourceRecord, asker: PeerId | None, *, max_age_s: float = 0.0
    ) -> Brought:
        return await self._once(source, "", asker, strange=True, max_age_s=0.0)

    async def _bring(
        self, source: SourceRecord, file: str, asker: PeerId | None, *, strange: bool
    ) -> Came:
        if source.place != PLACE:
            raise Unreachable(f"{source.place[:80]} is not there")
        await trio.sleep(SLOW_S if "source_slow" in self._natures else FETCH_S)
        if "source_down" in self._natures:
            raise Unreachable(f"{PLACE} does not answer")
        wall_s = self.wall_s()
        price = price_at(wall_s)
        if "source_lies" in self._natures:
            price *= 1 + self._own_lie
        if "source_colludes" in self._natures:
            price *= TOGETHER
        body = json.dumps([{"t": int(wall_s), "p": round(price, 2)}]).encode()
        return Came((PLACE,), body, 200)
