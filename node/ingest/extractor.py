"""Has each body parsed in a process of its own: a parser's crash is that fetch's error.

A process is used once, so that no document can have a word in how the next one is read.
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import trio

from node.engines.host.worker_process import Launch, open_worker
from node.ingest.parse_worker import MEMORY_BYTES_MAX
from wire.codec import Value
from wire.errors import EngineError, Malformed
from wire.fetch import Extraction

WORKER = "node.ingest.parse_worker"
PARSE_S_MAX = 10
# Processes at once.
PARSERS_MAX = 2


@dataclass(slots=True)
class Extractor:
    """Makes outputs of bodies. `folder` is where the processes run; they write nothing there."""

    folder: Path = Path("/")
    _places: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(PARSERS_MAX))

    async def extract(self, extraction: Extraction, body: bytes) -> bytes:
        """What `extraction` makes of a body; Malformed says what is wrong with the body."""
        launch = Launch(
            arguments=(WORKER, str(PARSE_S_MAX)),
            environment={
                "PYTHONPATH": os.pathsep.join(
                    [str(Path(__file__).parents[2]), *filter(None, sys.path)]
                ),
                "OPENBLAS_NUM_THREADS": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            folder=self.folder,
        )
        message: dict[str, Value] = {
            "do": "parse",
            "extraction": extraction.to_bytes(),
            "body": body,
        }
        async with self._places, open_worker(launch) as worker:
            # Within the block: what leaves it comes in a group.
            try:
                reply = await worker.ask(message, timeout_s=PARSE_S_MAX)
            except EngineError as error:
                reply = {
                    "refused": f"its parser gave up, within {PARSE_S_MAX} s and"
                    f" {MEMORY_BYTES_MAX >> 20} MiB: {error.message}"
                }
        if "refused" in reply:
            raise Malformed(str(reply["refused"]))
        output = reply.get("output")
        if not isinstance(output, bytes):
            raise Malformed("its parser gave no output")
        return output
