"""What a running peer says: lines for people, or with `--log json` objects, one a line."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(slots=True)
class RunLog:
    """Writes objects once it is told the time; whoever reads them then meets nothing else."""

    wall_s: Callable[[], float] | None = None

    @property
    def is_json(self) -> bool:
        """Whether all that is said goes through `write`."""
        return self.wall_s is not None

    def write(self, about: str, text: str, more: Mapping[str, Any] | None = None) -> None:
        """One object on a line of its own, in ASCII: when, about what, in words, and what else."""
        assert self.wall_s is not None, "it was not asked for"
        at = datetime.fromtimestamp(self.wall_s(), UTC).isoformat(timespec="milliseconds")
        document = {"at": at, "about": about, "text": text, **(more or {})}
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()


run_log = RunLog()
