"""Files that clients sent and batches over them, in the state folder, each under its key's folder.

    batches/OWNER/file-….json and .data     a file, and its bytes
    batches/OWNER/batch_….json and .job     a batch, and the journal of what it has done

All methods but `stamp` use the disk: they belong into a thread. Ids are made here and checked
before they become names; what one key may keep is bounded.
"""

import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.files import appearing, reading
from wire.errors import StoreFull, StoreUnusable

FILES_MAX = 256
BATCHES_MAX = 256
BYTES_MAX = 512 << 20
# States in which a batch still has work to do.
UNDER_WAY = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
_FILE, _BATCH = "file-", "batch_"
_ID = re.compile(r"(file-|batch_)[0-9a-f]{24}")
_OWNERLESS = "own"
Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stamp:
    """What is new about a file or a batch: the end of its id, and the second of the wall clock."""

    name: str
    wall_s: int


@dataclass(frozen=True, slots=True)
class BatchStore:
    """Everything in one folder. `entropy` gives bytes for ids, `wall_s` the time."""

    folder: Path
    entropy: Callable[[int], bytes]
    wall_s: Callable[[], float]

    def stamp(self) -> Stamp:
        """What is kept next may have this; the one method that does not belong into a thread."""
        return Stamp(self.entropy(12).hex(), int(self.wall_s()))

    def keep_file(
        self, owner: bytes, stamp: Stamp, name: str, purpose: str, parts: Iterable[bytes]
    ) -> Found:
        """Keep a file; StoreFull if this key has too many, or too much, already."""
        kept = self.files(owner)
        used_bytes = _sum_bytes(kept)
        found: Found = {
            "id": _FILE + stamp.name,
            "object": "file",
            "bytes": 0,
            "created_at": stamp.wall_s,
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        path = self.data_of(owner, found["id"])
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with appearing(path) as file:
            for part in parts:
                found["bytes"] += len(part)
                if len(kept) >= FILES_MAX or used_bytes + found["bytes"] > BYTES_MAX:
                    raise StoreFull(
                        f"{len(kept)} files of {used_bytes} bytes are kept for this key, and no"
                        f" more than {FILES_MAX} of {BYTES_MAX} bytes are",
                        todo="delete some",
                    )
                file.write(part)
        self._write(owner, found)
        return found

    def files(self, owner: bytes) -> list[Found]:
        """The files of a key, latest first."""
        return self._all(owner, _FILE)

    def used_bytes(self, owner: bytes) -> int:
        """What the files of a key have together."""
        return _sum_bytes(self.files(owner))

    def file(self, owner: bytes, file: str) -> Found | None:
        """A file of this key; None if there is none of this id."""
        return self._one(owner, file, _FILE)

    def read_file(self, owner: bytes, file: str) -> bytes:
        """The bytes of a file that is there."""
        with reading(self.data_of(owner, file)) as opened:
            return opened.read(BYTES_MAX)

    def delete_file(self, owner: bytes, file: str) -> None:
        """Forget a file that is there."""
        self._path(owner, file).unlink(missing_ok=True)
        self.data_of(owner, file).unlink(missing_ok=True)

    def new_batch(self, owner: bytes, stamp: Stamp, asked: Found) -> Found:
        """Keep a batch that is to be done; the oldest that has ended makes room for it."""
        kept = self.batches(owner)
        ended = [it for it in kept if it["status"] not in UNDER_WAY]
        if len(kept) >= BATCHES_MAX:
            if not ended:
                raise StoreFull(f"{len(kept)} batches of this key are not done yet")
            self._path(owner, ended[-1]["id"]).unlink(missing_ok=True)
            self.journal_of(owner, ended[-1]["id"]).unlink(missing_ok=True)
        found = {
            "id": _BATCH + stamp.name,
            "object": "batch",
            **asked,
            "status": "validating",
            "created_at": stamp.wall_s,
            "expires_at": stamp.wall_s + 24 * 3600,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "errors": None,
            "output_file_id": None,
            "error_file_id": None,
        }
        self._write(owner, found)
        return found

    def keep_batch(self, owner: bytes, batch: Found) -> None:
        """Keep a batch as it is now."""
        self._write(owner, batch)

    def batches(self, owner: bytes) -> list[Found]:
        """The batches of a key, latest first."""
        return self._all(owner, _BATCH)

    def batch(self, owner: bytes, batch: str) -> Found | None:
        """A batch of this key; None if there is none of this id."""
        return self._one(owner, batch, _BATCH)

    def under_way(self) -> list[tuple[bytes, str]]:
        """The batches of all keys that have work to do, oldest first: whose, and their ids."""
        found: list[tuple[int, bytes, str]] = []
        for folder in self.folder.glob("*"):
            owner = _owner_of(folder.name)
            for one in () if owner is None else self.batches(owner):
                if one["status"] in UNDER_WAY:
                    assert owner is not None
                    found.append((one["created_at"], owner, one["id"]))
        return [(owner, batch) for _, owner, batch in sorted(found)]

    def data_of(self, owner: bytes, file: str) -> Path:
        """Where a file's bytes are."""
        return self._path(owner, file).with_suffix(".data")

    def journal_of(self, owner: bytes, batch: str) -> Path:
        """Where a batch's journal is."""
        return self._path(owner, batch).with_suffix(".job")

    def _path(self, owner: bytes, name: str) -> Path:
        assert _ID.fullmatch(name), "ids are checked before"
        return self.folder / (owner.hex() or _OWNERLESS) / f"{name}.json"

    def _write(self, owner: bytes, found: Found) -> None:
        path = self._path(owner, found["id"])
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with appearing(path) as file:
            file.write(json.dumps(found).encode())

    def _one(self, owner: bytes, name: str, kind: str) -> Found | None:
        if _ID.fullmatch(name) is None or not name.startswith(kind):
            return None
        path = self._path(owner, name)
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreUnusable(f"{path} cannot be read: {error}") from error
        return found if isinstance(found, dict) else None

    def _all(self, owner: bytes, kind: str) -> list[Found]:
        folder = self.folder / (owner.hex() or _OWNERLESS)
        if not folder.is_dir():
            return []
        names = [it.stem for it in folder.glob(f"{kind}*.json")]
        rows = []
        for name in names:
            # One that is damaged on the disk is no reason to be without the others.
            with suppress(StoreUnusable):
                if (found := self._one(owner, name, kind)) is not None:
                    rows.append(found)
        return sorted(rows, key=lambda it: (it["created_at"], it["id"]), reverse=True)


def _sum_bytes(files: Iterable[Found]) -> int:
    total: int = sum(it["bytes"] for it in files)
    return total


def _owner_of(name: str) -> bytes | None:
    """Whose folder it is; None for one that is not ours."""
    if name == _OWNERLESS:
        return b""
    return bytes.fromhex(name) if re.fullmatch(r"([0-9a-f]{2})+", name) else None
