"""The bounds that a process of ezkl sets itself before it reads anything."""

import os
import resource
from typing import BinaryIO


def bound(seconds: int, memory_bytes_max: int, file_bytes_max: int) -> BinaryIO:
    """Take no more than so much of the processor, memory and disk; where answers are written.

    Whatever a library prints goes to standard error, never into the answers.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes_max),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_bytes_max),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    return answers
