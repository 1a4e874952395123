"""The apps of this peer and their keys: one file of the state folder that nobody else reads.

Of a key only the hash is kept. Commands write the file, the running peer reads it again when it has
changed. What was revoked stays until the key would have ended anyway.
"""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from wire import limits
from wire.amount import AMOUNT_MAX
from wire.app import PER_MINUTE_MAX, AppMode
from wire.content import PeerId
from wire.errors import BatonError, InputError, StoreUnusable

PREFIX = "sk-baton-app-"
APPS_MAX = 256
KEYS_MAX = 100_000
LABEL_CHARACTERS_MAX = 64
FILE_BYTES_MAX = 64 << 20
PER_MINUTE_DEFAULT = 60
UNTIL_DAYS_DEFAULT = 90
DAY_S = 24 * 3600
# A key that has ended is refused by itself, also where a clock is a day behind.
CLOCK_OFF_S = 2 * DAY_S
UNTIL_MAX_S = 2**40
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnApp:
    """One app and what it asks: `price` of a call, or of a period; `hold` of an account.

    Amounts are in millionths; a subscription is for `period_s`. The owner pays gateways of other
    peers at most `pays` for a call; 0: nothing. `users_pay`: who uses it pays, with each request.
    """

    name: str
    mode: str
    price: int = 0
    hold: int = 0
    period_s: int = 0
    pays: int = 0
    users_pay: bool = False

    @property
    def kind(self) -> AppMode:
        """The mode as it is signed."""
        return AppMode[self.mode.upper()]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnKey:
    """One key: the hash of its secret, what may be spent with it in millionths, and its end.

    `account` is the text of the peer id whose credits open the door of an app that asks to hold, or
    that pays for a subscription.
    """

    app: str
    label: str
    sha256: str
    budget: int
    until_wall_s: int
    per_minute: int
    account: str | None = None
    revoked: bool = False

    @property
    def digest(self) -> bytes:
        """What the key is called between peers."""
        return bytes.fromhex(self.sha256)


@dataclass(frozen=True, slots=True)
class OwnApps:
    """All apps and keys of one owner.

    `sequence` numbers the list of revoked keys. It only grows, also where the file was lost and
    begun anew, as long as the clock is right: it is never below the time in milliseconds.
    """

    sequence: int = 0
    apps: tuple[OwnApp, ...] = ()
    keys: tuple[OwnKey, ...] = ()
    by_digest: dict[bytes, OwnKey] = field(default_factory=dict, compare=False)

    def app(self, name: str) -> OwnApp:
        """The app called so; InputError if there is none."""
        found = next((it for it in self.apps if it.name == name), None)
        if found is None:
            raise InputError(
                f"there is no app {name[:40]!r}",
                todo="make one: python -m node app new NAME --mode open",
            )
        return found

    def revoked(self, wall_s: float) -> list[bytes]:
        """The hashes of revoked keys that have not ended long ago."""
        return [
            it.digest for it in self.keys if it.revoked and it.until_wall_s + CLOCK_OFF_S > wall_s
        ]


def apps_file(state: Path) -> Path:
    """Where the apps of the peer with this state folder are kept."""
    return state / "apps.json"


def read_apps(file: Path) -> OwnApps:
    """What the file holds, nothing where there is none; StoreUnusable if it is damaged."""
    # Imported here: the store would delay every command.
    from store.private_file import OTHERS_MAY_WRITE, read_private

    try:
        data = read_private(
            file, "the apps", size_bytes_max=FILE_BYTES_MAX, barred=OTHERS_MAY_WRITE
        )
        return _of_document(json.loads(data))
    except FileNotFoundError:
        return OwnApps()
    except (OSError, ValueError, TypeError, KeyError, RecursionError, BatonError) as error:
        raise StoreUnusable(
            f"the apps in {file} cannot be read: {error}",
            todo="move the file away, and make them anew: python -m node app new NAME",
        ) from error


def _of_document(document: Any) -> OwnApps:
    apps = tuple(OwnApp(**it) for it in document["apps"])
    keys = tuple(OwnKey(**it) for it in document["keys"])
    names = {it.name for it in apps}
    sequence = document["sequence"]
    sound = (
        _is_number(sequence, 2**60)
        and all(_is_sound_app(it) for it in apps)
        and all(it.app in names and _is_sound_key(it) for it in keys)
    )
    if not sound:
        raise ValueError("a value in it is none that was written there")
    return OwnApps(sequence, apps, keys, {it.digest: it for it in keys})


def _is_number(value: object, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _is_sound_app(app: OwnApp) -> bool:
    return (
        type(app.name) is str
        and _NAME.fullmatch(app.name) is not None
        and app.mode in {it.name.lower() for it in AppMode}
        and _is_number(app.price, AMOUNT_MAX)
        and _is_number(app.hold, AMOUNT_MAX)
        and _is_number(app.period_s, UNTIL_MAX_S)
        and _is_number(app.pays, AMOUNT_MAX)
        and type(app.users_pay) is bool
    )


def _is_sound_key(key: OwnKey) -> bool:
    return (
        type(key.label) is str
        and type(key.sha256) is str
        and _DIGEST.fullmatch(key.sha256) is not None
        and _is_number(key.budget, AMOUNT_MAX)
        and _is_number(key.until_wall_s, UNTIL_MAX_S)
        and _is_number(key.per_minute, PER_MINUTE_MAX)
        and key.per_minute > 0
        and type(key.revoked) is bool
        and (key.account is None or bool(PeerId.parse(key.account)))
    )


def add_app(file: Path, app: OwnApp, wall_s: float) -> None:
    """Keep a new app; InputError if there is one of this name, or it cannot be."""
    if _NAME.fullmatch(app.name) is None:
        raise InputError(
            f"{app.name[:40]!r} is no name for an app",
            todo="use 1 to 32 of a-z, 0-9, dots, dashes and underscores",
        )
    check_mode(app)
    with _changing(file) as changed:
        before = read_apps(file)
        if any(it.name == app.name for it in before.apps):
            raise InputError(f"there is an app {app.name!r} already", todo="choose another name")
        if len(before.apps) >= APPS_MAX:
            raise InputError(f"there are {APPS_MAX} apps already, as many as one peer may have")
        sequence = _next(before.sequence, wall_s)
        changed(replace(before, sequence=sequence, apps=(*before.apps, app)))


def check_mode(app: OwnApp) -> None:
    """InputError if what an app asks does not go with its mode."""
    mode = app.kind
    if (mode is AppMode.SUBSCRIPTION) is not bool(app.period_s):
        raise InputError(
            "a period is for the mode subscription, which needs one",
            todo="python -m node app new NAME --mode subscription --price 2 --period 30d",
        )
    if (mode in (AppMode.CALL, AppMode.SUBSCRIPTION)) is not bool(app.price):
        raise InputError(
            "a price is for the modes call and subscription, which need one",
            todo="python -m node app new NAME --mode call --price 0.001",
        )
    if app.pays and mode is not AppMode.CALL:
        raise InputError(
            "an owner pays within the budgets of keys, which are of the mode call",
            todo="python -m node app new NAME --mode call --price 0.001 --owner-pays 0.01",
        )
    if app.pays and app.users_pay:
        raise InputError(
            "a call is paid for by the app's owner or by its user, not by both",
            todo="leave --owner-pays or --users-pay out",
        )
    if (mode is AppMode.HOLD) is not bool(app.hold):
        raise InputError(
            "what is to be held is for the mode hold, which needs it",
            todo="python -m node app new NAME --mode hold --hold 100",
        )


def add_app_key(
    file: Path, key: OwnKey, owner: PeerId, entropy: Callable[[int], bytes], wall_s: float
) -> str:
    """Keep a new key, of which `sha256` is still to be set; the secret, shown this once."""
    if not 1 <= len(key.label) <= LABEL_CHARACTERS_MAX or not key.label.isprintable():
        raise InputError(f"a label has 1 to {LABEL_CHARACTERS_MAX} printable characters")
    if key.until_wall_s <= wall_s:
        raise InputError("this key would have ended already", todo="give a later --until")
    if not 1 <= key.per_minute <= PER_MINUTE_MAX:
        raise InputError(f"a key may ask 1 to {PER_MINUTE_MAX} times a minute")
    with _changing(file) as changed:
        before = read_apps(file)
        _check_key(before.app(key.app), key)
        if any((it.app, it.label) == (key.app, key.label) for it in before.keys):
            raise InputError(
                f"the app {key.app!r} has a key {key.label!r} already", todo="choose another label"
            )
        # Those that ended long ago make room.
        kept = tuple(it for it in before.keys if it.until_wall_s + CLOCK_OFF_S > wall_s)
        if len(kept) >= KEYS_MAX:
            raise InputError(f"there are {KEYS_MAX} keys already, as many as one peer may have")
        secret = f"{PREFIX}{owner}-{entropy(32).hex()}"
        digest = hashlib.sha256(secret.encode()).hexdigest()
        changed(replace(before, keys=(*kept, replace(key, sha256=digest))))
    return secret


def _check_key(app: OwnApp, key: OwnKey) -> None:
    if (app.kind is AppMode.CALL) is not bool(key.budget):
        raise InputError(
            f"a budget is for an app of the mode call; {app.name!r} is {app.mode}"
            if key.budget
            else f"each call of {app.name!r} takes its price from the key's budget",
            todo="leave --budget out" if key.budget else "give --budget, for example 5",
        )
    if (app.kind in (AppMode.HOLD, AppMode.SUBSCRIPTION)) is not (key.account is not None):
        raise InputError(
            f"an account is for an app of the mode hold or subscription; {app.name!r} is {app.mode}"
            if key.account
            else f"{app.name!r} opens to an account: to whose key is not said",
            todo="leave --account out" if key.account else "give --account 12D3Koo…",
        )


def revoke_key(file: Path, app: str, label: str, wall_s: float) -> OwnApps:
    """Revoke a key for good; InputError if there is none such, or the list is full."""
    with _changing(file) as changed:
        before = read_apps(file)
        found = next((it for it in before.keys if (it.app, it.label) == (app, label)), None)
        if found is None or found.revoked:
            raise InputError(
                f"the app {app[:40]!r} has no key {label[:64]!r} that is not revoked",
                todo="see python -m node app key list",
            )
        if len(before.revoked(wall_s)) >= limits.REVOKED_KEYS_MAX:
            raise InputError(
                f"{limits.REVOKED_KEYS_MAX} keys are revoked that have not ended: the list is full",
                todo="wait for the end of one; give keys an earlier --until",
            )
        gone = replace(found, revoked=True)
        keys = tuple(gone if it is found else it for it in before.keys)
        after = replace(before, sequence=_next(before.sequence, wall_s), keys=keys)
        changed(after)
    return after


def _next(sequence: int, wall_s: float) -> int:
    return max(sequence + 1, int(wall_s * 1000))


@contextmanager
def _changing(file: Path) -> Iterator[Callable[[OwnApps], None]]:
    """One command at a time; what is written is there all at once, and nobody else reads it."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(file.with_suffix(".lock"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lambda apps: _write(file, apps)
    finally:
        os.close(lock)


def _write(file: Path, apps: OwnApps) -> None:
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    document = {
        "sequence": apps.sequence,
        "apps": [asdict(it) for it in apps.apps],
        "keys": [asdict(it) for it in apps.keys],
    }
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as sink:
        json.dump(document, sink)
        sink.flush()
        os.fsync(sink.fileno())
    fresh.replace(file)
