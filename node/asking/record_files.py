"""Records that prove something about others, as files beside the receipts: forks, disputes,
evidence."""

from dataclasses import dataclass
from pathlib import Path

import trio

from store.files import appearing
from wire.errors import BatonError

# One more lets the oldest go: whoever wants one for ever copies it.
FILES_MAX = 256
SUFFIXES = (".fork", ".dispute", ".evidence")


@dataclass(slots=True)
class RecordFiles:
    """Writes records into one folder, which is made when there is one to write."""

    folder: Path

    async def write(self, name: str, raw: bytes) -> None:
        """Keep `raw` as the file `name`; a disk that does not take it is not complained about,
        because the record is in the store too.
        """
        await trio.to_thread.run_sync(self._write, name, raw)

    def _write(self, name: str, raw: bytes) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with appearing(self.folder / name) as file:
                file.write(raw)
            kept = [it for it in self.folder.iterdir() if it.suffix in SUFFIXES]
            kept.sort(key=lambda it: it.stat().st_mtime)
            for old in kept[:-FILES_MAX]:
                old.unlink(missing_ok=True)
        except (OSError, BatonError):
            return
