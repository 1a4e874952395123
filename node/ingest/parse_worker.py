"""The process that parses one body of a stranger: no store, no keys, little memory, no files.

Started by `node.ingest.extractor`. What is wrong with the body is answered in words; whatever kills
this process is the end of that one fetch.
"""

import os
import resource
import sys

from node.engines.frames import read_frame, to_frame
from node.ingest.parsing import extract
from wire.codec import Value
from wire.errors import WireError
from wire.fetch import Extraction

MEMORY_BYTES_MAX = 768 << 20


def answer(message: dict[str, object]) -> dict[str, Value]:
    """The output of one extraction, or what is wrong with the body."""
    extraction, body = message["extraction"], message["body"]
    assert isinstance(extraction, bytes)
    assert isinstance(body, bytes)
    try:
        return {"output": extract(Extraction.from_bytes(extraction), body)}
    except WireError as error:
        return {"refused": error.message}


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
