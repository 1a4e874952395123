"""A worker on OpenCL whose driver fails once, when a test says so; all else about it is real.

The file ARMED, in the folder of its cache, has the name of a failure, and how many kernels run
before it comes. The file is gone then.
"""

import sys
from pathlib import Path
from typing import Any

from node.engines.worker.main import main

ARMED = "armed"
# What the driver of a GPU says that is gone: the driver here runs on the processor, and stays.
LOST = "OpenCL Error -36: CL_INVALID_COMMAND_QUEUE"
TOO_MUCH_BYTES = 1 << 50


def arm_driver(folder: Path) -> None:
    """Have the next kernel fail as the file in the folder says."""
    from tinygrad import Device
    from tinygrad.runtime.ops_cl import CLProgram

    run, armed = CLProgram.__call__, folder / ARMED

    def failing(program: Any, *arguments: Any, **options: Any) -> Any:
        if armed.exists():
            failure, left = armed.read_text().split()
            armed.write_text(f"{failure} {int(left) - 1}")
            if left == "0":
                armed.unlink()
                if failure == "lost":
                    raise RuntimeError(LOST)
                Device["CL"].allocator.alloc(TOO_MUCH_BYTES)
        return run(program, *arguments, **options)

    CLProgram.__call__ = failing


if __name__ == "__main__":
    arm_driver(Path(sys.argv[1]).parent)
    main(sys.argv[1], sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
