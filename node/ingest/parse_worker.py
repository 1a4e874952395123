"""The process that parses one body, or asks one database: no store, no keys, little memory.

Started by `node.ingest.extractor`. What is wrong with the body is answered in words; whatever kills
this process is the end of that one fetch.
"""

import os
import resource
import sys
from typing import Any

from node.engines.frames import read_frame, to_frame
from node.ingest.database import SQLITE
from node.ingest.parsing import after_page, extract
from wire.codec import Value
from wire.errors import WireError
from wire.fetch import Extraction

MEMORY_BYTES_MAX = 768 << 20


def answer(message: dict[str, Any]) -> dict[str, Value]:
    """The output that one message asks for, or what is wrong with what it has."""
    try:
        match message["do"]:
            case "parse":
                extraction = Extraction.from_bytes(message["extraction"])
                return {"output": extract(extraction, message["body"], message["tables"])}
            case "after":
                extraction = Extraction.from_bytes(message["extraction"])
                found, rows = after_page(extraction, message["select"], message["body"])
                return {"found": found, "rows": rows}
            case _:
                return {"output": _asked(message)}
    except WireError as error:
        return {"refused": error.message}


def _asked(message: dict[str, Any]) -> bytes:
    """What a database answers. Each library is loaded only where its database is asked."""
    place = message["place"]
    if message["engine"] == SQLITE:
        from node.ingest.sqlite_query import query_sqlite

        return query_sqlite(place["path"], message["query"])
    from node.ingest.postgres_query import query_postgres

    return query_postgres(place, message["password"], message["query"])


def main(seconds: int) -> None:
    """Answer one message, within so many seconds of the processor's time."""
    # Whatever a library prints goes to standard error, never into the answer.
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES_MAX),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    message = read_frame(sys.stdin.buffer)
    if message is not None:
        target.write(to_frame(answer(message)))
        target.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
