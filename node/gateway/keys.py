"""API keys: only their hashes are kept, in one file of the state folder that nobody else reads."""

import hashlib
import hmac
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from wire.amount import AMOUNT_MAX
from wire.errors import InputError, StoreUnusable

PREFIX = "sk-baton-"
PER_MINUTE_DEFAULT = 600
PER_MINUTE_MAX = 1_000_000
KEYS_MAX = 1024
NAME_CHARACTERS_MAX = 64
FILE_BYTES_MAX = KEYS_MAX * 1024
# How often a running gateway looks whether the file changed.
LOOK_S = 1.0
_DIGEST = re.compile(r"[0-9a-f]{64}")
# Compared with where there is no such key: no hash of anything that can be sent.
_NOBODYS = "-" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key's name, the hash of its secret, and how often it may ask.

    `credits` is what may be spent with it, in millionths; None where that is not limited.
    """

    name: str
    sha256: str
    per_minute: int
    added_at_s: int
    credits: int | None = None

    @property
    def owner(self) -> bytes:
        """What its tasks are known by."""
        return bytes.fromhex(self.sha256)


def keys_file(state: Path) -> Path:
    """Where the keys of the peer with this state folder are kept."""
    return state / "keys.json"


def read_keys(file: Path) -> list[ApiKey]:
    """The keys in the file, none where there is none; StoreUnusable if it is damaged."""
    # Imported here: the store would delay every command.
    from store.private_file import OTHERS_MAY_WRITE, read_private

    try:
        data = read_private(
            file, "the API keys", size_bytes_max=FILE_BYTES_MAX, barred=OTHERS_MAY_WRITE
        )
        rows = json.loads(data)["keys"]
        keys = [ApiKey(**row) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreUnusable(
            f"the API keys in {file} cannot be read: {error}",
            todo="delete the file and add them anew: python -m node keys add NAME",
        ) from error
    if not all(_is_sound(it) for it in keys):
        raise StoreUnusable(f"the API keys in {file} are damaged", todo="add them anew")
    return keys


def add_key(
    file: Path,
    name: str,
    per_minute: int,
    entropy: Callable[[int], bytes],
    wall_s: float,
    budget: int | None = None,
) -> str:
    """Keep a new key; the secret, which is shown this once."""
    keys = read_keys(file)
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX or not name.isprintable():
        raise InputError(f"a key's name has 1 to {NAME_CHARACTERS_MAX} printable characters")
    if any(it.name == name for it in keys):
        raise InputError(
            f"there is a key {name!r} already", todo=f"python -m node keys rm {name}, or another"
        )
    if not 1 <= per_minute <= PER_MINUTE_MAX:
        raise InputError(f"a key may ask 1 to {PER_MINUTE_MAX} times a minute")
    if len(keys) >= KEYS_MAX:
        raise InputError(f"there are {KEYS_MAX} keys already", todo="remove one: keys rm NAME")
    secret = PREFIX + entropy(32).hex()
    digest = hashlib.sha256(secret.encode()).hexdigest()
    key = ApiKey(
        name=name, sha256=digest, per_minute=per_minute, added_at_s=int(wall_s), credits=budget
    )
    _write(file, [*keys, key])
    return secret


def allow_more(file: Path, name: str, more: int) -> ApiKey:
    """Let so many more millionths be spent with a key; InputError unless it has a budget."""
    keys = read_keys(file)
    found = next((it for it in keys if it.name == name), None)
    if found is None or found.credits is None:
        raise InputError(
            f"there is no key {name!r} with a budget", todo="see python -m node keys list"
        )
    allowed = replace(found, credits=min(AMOUNT_MAX, found.credits + more))
    _write(file, [allowed if it is found else it for it in keys])
    return allowed


def remove_key(file: Path, name: str) -> None:
    """Delete the key called `name` from the file; InputError if there is none."""
    keys = read_keys(file)
    left = [it for it in keys if it.name != name]
    if len(left) == len(keys):
        raise InputError(f"there is no key {name!r}", todo="see python -m node keys list")
    _write(file, left)


def _write(file: Path, keys: list[ApiKey]) -> None:
    """All at once, and readable by nobody else at any moment."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as sink:
        json.dump({"keys": [asdict(it) for it in keys]}, sink, indent=1)
        sink.flush()
        os.fsync(sink.fileno())
    fresh.replace(file)


def _is_sound(key: ApiKey) -> bool:
    return (
        type(key.name) is str
        and type(key.sha256) is str
        and _DIGEST.fullmatch(key.sha256) is not None
        and type(key.per_minute) is int
        and key.per_minute >= 1
        and (key.credits is None or (type(key.credits) is int and 0 <= key.credits <= AMOUNT_MAX))
    )


@dataclass(slots=True)
class Keyring:
    """The keys of a running gateway, read again when the file changes."""

    file: Path
    _keys: list[ApiKey] = field(default_factory=list)
    _by_digest: dict[str, ApiKey] = field(default_factory=dict)
    _stamp: tuple[int, int] | None = None
    _looked_at_s: float = float("-inf")

    def keys(self, now_at_s: float) -> list[ApiKey]:
        if now_at_s - self._looked_at_s >= LOOK_S:
            self._looked_at_s = now_at_s
            try:
                found = self.file.stat()
                stamp = (found.st_mtime_ns, found.st_ino)
            except FileNotFoundError:
                stamp = None
            if stamp != self._stamp:
                self._keys, self._stamp = read_keys(self.file), stamp
                self._by_digest = {it.sha256: it for it in self._keys}
        return self._keys

    @property
    def kept(self) -> list[ApiKey]:
        """The keys as they were read last."""
        return self._keys

    def of_owner(self, owner: bytes) -> ApiKey | None:
        """The key whose requests these are."""
        return self._by_digest.get(owner.hex())

    def is_for_one(self) -> bool:
        """Whether all who may come in are one caller: there is one key, or none is needed."""
        return len(self._keys) <= 1

    def holder(self, secret: str, now_at_s: float) -> ApiKey | None:
        """Whose key this is; how long that takes says nothing of the keys that there are.

        What is looked up is a hash, which nobody can steer towards that of a key; and the secret
        that was sent is compared once, with the same effort, whether there is such a key or not.
        """
        self.keys(now_at_s)
        digest = hashlib.sha256(secret.encode(errors="replace")).hexdigest()
        found = self._by_digest.get(digest)
        same = hmac.compare_digest(_NOBODYS if found is None else found.sha256, digest)
        return found if same else None
