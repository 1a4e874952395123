"""The processes of ezkl: each answers one message, within bounds, and is not used again."""

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from node.engines.host.worker_process import Launch, open_worker
from wire.codec import Value
from wire.errors import BatonError

LIBRARY = "ezkl"
WORKER = "node.engines.proving.worker"
# Seconds of the processor, memory and the size of a file: of who makes something, and who checks.
KEY_S_MAX, CHECK_S_MAX = 1200, 60
MEMORY_BYTES_MAX, CHECK_MEMORY_BYTES_MAX = 6 << 30, 2 << 30
FILE_BYTES_MAX, CHECK_FILE_BYTES_MAX = 2 << 30, 4 << 20
NICENESS = 10


def library_version() -> str | None:
    """The version of ezkl that is installed here; None if there is none."""
    try:
        return version(LIBRARY)
    except PackageNotFoundError:
        return None


async def asked_of_worker(
    message: dict[str, Value], folder: Path, *, timeout_s: float, checks: bool = False
) -> dict[str, Any]:
    """What a new process answers to one message; EngineError as `WorkerProcess.ask`.

    `folder` is where it runs, and where it may leave what is not needed.
    """
    bounds = (
        (CHECK_S_MAX, CHECK_MEMORY_BYTES_MAX, CHECK_FILE_BYTES_MAX)
        if checks
        else (KEY_S_MAX, MEMORY_BYTES_MAX, FILE_BYTES_MAX)
    )
    launch = Launch(
        arguments=(WORKER, *map(str, bounds)),
        environment={
            "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parents[3]), *filter(None, sys.path)]
            ),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1",
            # ezkl keeps a folder at home.
            "HOME": str(folder),
            "EZKL_REPO_PATH": str(folder),
        },
        folder=folder,
    )
    failed: BatonError | None = None
    async with open_worker(launch) as worker:
        worker.stand_back(NICENESS)
        # Within the block: what leaves it comes in a group.
        try:
            return await worker.ask(message, timeout_s=timeout_s)
        except BatonError as error:
            failed = error
    assert failed is not None, "it answered or failed"
    raise failed
