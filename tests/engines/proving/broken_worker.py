"""A process in place of ezkl's that does what hostile input might make a library do."""

import os
import sys
import time
from pathlib import Path

from node.engines.frames import read_frame, to_frame
from node.engines.proving.worker_limits import bound

if __name__ == "__main__":
    answers = bound(*map(int, sys.argv[1:4]))
    message = read_frame(sys.stdin.buffer)
    assert message is not None
    match message["do"]:
        case "abort":
            os.abort()
        case "hang":
            time.sleep(3600)
        case "memory":
            bytearray(1 << 40)
        case "disk":
            with Path(message["file"]).open("wb") as file:
                file.write(bytes(message["size_bytes"]))
        case _:
            answers.write(to_frame({"told": message["do"]}))
