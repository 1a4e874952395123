"""Has bodies parsed and databases asked in a process of its own: its crash is that fetch's error.

A process is used once, so that no document can have a word in how the next one is read.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from node.engines.host.worker_process import Launch, open_worker
from node.ingest.database import Database
from node.ingest.parse_worker import MEMORY_BYTES_MAX
from wire.codec import Value
from wire.errors import EngineError, Malformed
from wire.fetch import Extraction

WORKER = "node.ingest.parse_worker"
PARSE_S_MAX = 10
# Whoever repeats it may have a slower machine: the data peer is not to be blamed for that.
REPEATING_PATIENCE = 6
# A server may let one wait for the connection, and for the statement.
QUERY_S_MAX = 20
# Processes at once, and how many of them work for other peers: one is left for the owner.
PARSERS_MAX = 3
PARSERS_OF_OTHERS_MAX = 2


@dataclass(slots=True)
class Extractor:
    """Makes outputs of bodies. `folder` is where the processes run; they write nothing there.

    With `patience` each may take so many times as long.
    """

    folder: Path = Path("/")
    patience: int = 1
    _places: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(PARSERS_MAX))
    _others: trio.CapacityLimiter = field(
        default_factory=lambda: trio.CapacityLimiter(PARSERS_OF_OTHERS_MAX)
    )

    def turn(self, *, of_others: bool) -> AbstractAsyncContextManager[None]:
        """A block that has something parsed; what others ask for never takes all the places."""
        return self._others if of_others else nullcontext()

    async def extract(
        self, extraction: Extraction, body: bytes, tables: Mapping[str, bytes] | None = None
    ) -> bytes:
        """What `extraction` makes of a body; Malformed says what is wrong with the body.

        `tables` has the published tables that it names, by their ids.
        """
        message: dict[str, Value] = {
            "do": "parse",
            "extraction": extraction.to_bytes(),
            "body": body,
            "tables": dict(tables or {}),
        }
        return _bytes_of(await self.answer(message, PARSE_S_MAX * self.patience))

    async def after_page(self, extraction: Extraction, select: str, page: bytes) -> tuple[str, int]:
        """What `select` finds in a page, as `parsing.after_page` says; Malformed."""
        message: dict[str, Value] = {
            "do": "after",
            "extraction": extraction.to_bytes(),
            "select": select,
            "body": page,
        }
        reply = await self.answer(message, PARSE_S_MAX * self.patience)
        found, rows = reply.get("found"), reply.get("rows")
        if not isinstance(found, str) or not isinstance(rows, int):
            raise Malformed("its parser gave no output")
        return found, rows

    async def query(self, database: Database, password: str, query: str) -> bytes:
        """What a database answers, as lines of JSON; Malformed says what is wrong."""
        server = database.location
        message: dict[str, Value] = {
            "do": "query",
            "engine": database.engine,
            "place": {"path": str(Path(database.path).expanduser())}
            if server is None
            else {
                "host": server.host,
                "port": str(server.port),
                "dbname": database.name,
                **({"user": database.user} if database.user else {}),
            },
            "password": password,
            "query": query,
        }
        return _bytes_of(await self.answer(message, QUERY_S_MAX))

    async def answer(self, message: dict[str, Value], seconds: int) -> dict[str, Any]:
        """What the process says to one message; Malformed if it refuses, or gives up."""
        launch = Launch(
            arguments=(WORKER, str(PARSE_S_MAX * self.patience)),
            environment={
                "PYTHONPATH": os.pathsep.join(
                    [str(Path(__file__).parents[2]), *filter(None, sys.path)]
                ),
                "OPENBLAS_NUM_THREADS": "1",
                "TOKENIZERS_PARALLELISM": "false",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            folder=self.folder,
        )
        async with self._places, open_worker(launch) as worker:
            # Within the block: what leaves it comes in a group.
            try:
                reply = await worker.ask(message, timeout_s=seconds)
            except EngineError as error:
                reply = {
                    "refused": f"its parser gave up, within {seconds} s and"
                    f" {MEMORY_BYTES_MAX >> 20} MiB: {error.message}"
                }
        if "refused" in reply:
            raise Malformed(str(reply["refused"]))
        return reply


def _bytes_of(reply: dict[str, Any]) -> bytes:
    output = reply.get("output")
    if not isinstance(output, bytes):
        raise Malformed("its parser gave no output")
    return output
