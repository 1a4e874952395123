"""What the owner of a data peer keeps in its state folder: sources, host rules, credentials.

    sources/NAME.toml     a source, as `sources add` keeps it
    fetching.toml         allow, deny and strangers: lists of hosts (`node.ingest.location`)
    credentials/NAME      one line, which only the owner may read (0600)

A running peer looks at these files when it needs them, so a change counts at once.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node.ingest.database import read_database
from node.ingest.location import HostRules, Location, read_url
from node.ingest.source_file import FILE_BYTES_MAX, credentials_of, read_source
from store.private_file import OTHERS_MAY_READ, OTHERS_MAY_WRITE, read_private
from wire.content import ContentId
from wire.errors import InputError, StoreUnusable
from wire.fetch import SourceRecord

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
SOURCES_MAX = 1000
CREDENTIAL_BYTES_MAX = 4096
# Names that mean other sources.
_TAKEN = ("pydoc", "files")


@dataclass(frozen=True, slots=True)
class OwnedSources:
    """The files of one owner. Its methods read the disk: they belong into a thread."""

    state: Path

    @property
    def folder(self) -> Path:
        return self.state / "sources"

    def names(self) -> list[str]:
        """The names of all sources, in order."""
        try:
            found = sorted(it.stem for it in self.folder.iterdir() if it.suffix == ".toml")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreUnusable(f"{self.folder} cannot be read: {error.strerror}") from error
        return [it for it in found if NAME.fullmatch(it)][:SOURCES_MAX]

    def has(self, name: str) -> bool:
        """Whether there is a source of this name."""
        return is_free(name) and (self.folder / f"{name}.toml").is_file()

    def get(self, name: str) -> SourceRecord:
        """A source by its name; InputError if there is none, or its file is damaged."""
        return read_source(self.written(name))

    def written(self, name: str) -> str:
        """A source as its owner wrote it; InputError if there is none."""
        check_name(name)
        try:
            return _read(self.folder / f"{name}.toml", "a source", OTHERS_MAY_WRITE)
        except FileNotFoundError as error:
            known = ", ".join(self.names()[:20]) or "none"
            raise InputError(
                f"there is no source {name!r} here (known: {known})",
                todo="add it: python -m node sources add NAME FILE.toml",
            ) from error

    def by_id(self, source: ContentId) -> SourceRecord | None:
        """The owner's source with this content id, if it is one of the owner's."""
        for name in self.names():
            try:
                record = self.get(name)
            except (InputError, StoreUnusable):
                # A damaged file is named by `sources list`; the others are still there.
                continue
            if record.id == source:
                return record
        return None

    def add(self, name: str, text: str) -> SourceRecord:
        """Keep a source under a name that is free, or its own; InputError if it is not sound."""
        check_name(name)
        record = read_source(text)
        for credential in (*credentials_of(record).values(), record.credential):
            if credential:
                self.credential(credential)
        path = self.folder / f"{name}.toml"
        if path.exists():
            if self.written(name) == text:
                return record
            raise InputError(
                f"there is another source {name!r} already",
                todo=f"python -m node sources rm {name}",
            )
        if len(self.names()) >= SOURCES_MAX:
            raise InputError(f"there are {SOURCES_MAX} sources already")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path, text)
        return record

    def remove(self, name: str) -> None:
        """Forget a source; InputError if there is none."""
        self.written(name)
        (self.folder / f"{name}.toml").unlink()

    def rules(self) -> HostRules:
        """The owner's lists of hosts; all are empty where there is no file. InputError."""
        file = self.state / "fetching.toml"
        try:
            keys = tomllib.loads(_read(file, "the rules for fetching", OTHERS_MAY_WRITE))
        except FileNotFoundError:
            return HostRules()
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise InputError(f"{file} is not TOML: {error}") from error
        lists = {name: keys.pop(name, []) for name in ("allow", "deny", "strangers")}
        for name, found in lists.items():
            if not isinstance(found, list) or not all(isinstance(it, str) for it in found):
                raise InputError(f"{name} in {file} is a list of hosts")
        if keys:
            raise InputError(
                f"{file} says {next(iter(keys))!r}", todo="it may have allow, deny, strangers"
            )
        return HostRules(**{name: tuple(found) for name, found in lists.items()})

    def allow(self, source: SourceRecord) -> str:
        """Name the host of a source in `fetching.toml`; returns it as it stands there."""
        location = _location_of(source)
        if location is None:
            raise InputError("this source has no host to allow", todo="leave out --allow-host")
        place, rules = location.place, self.rules()
        if place not in rules.allow:
            lists = {
                "allow": (*rules.allow, place),
                "deny": rules.deny,
                "strangers": rules.strangers,
            }
            lines = [f"{name} = [{_quoted(hosts)}]\n" for name, hosts in lists.items() if hosts]
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(self.state / "fetching.toml", "".join(lines))
        return place

    def credential(self, name: str) -> str:
        """A credential by its name; InputError, which never says what is in the file."""
        file = self.state / "credentials" / name
        if NAME.fullmatch(name) is None:
            raise InputError(f"{name[:40]!r} is no name of a credential")
        try:
            text = _read(file, "a credential", OTHERS_MAY_READ).strip()
        except FileNotFoundError as error:
            raise InputError(
                f"there is no credential {name!r}", todo=f"write it to {file}, with chmod 600"
            ) from error
        if not text or not text.isascii() or not text.isprintable():
            raise InputError(f"the credential {name!r} is not one line of printable ASCII")
        return text

    def secrets_of(self, source: SourceRecord) -> Mapping[str, str]:
        """The headers of a source that are credentials, with what they stand for."""
        return {header: self.credential(name) for header, name in credentials_of(source).items()}


def _location_of(source: SourceRecord) -> Location | None:
    if source.kind == "sql":
        return read_database(source.place).location
    return read_url(source.place) if source.kind == "http" else None


def is_free(name: str) -> bool:
    """Whether a source may be called so."""
    return NAME.fullmatch(name) is not None and name not in _TAKEN


def check_name(name: str) -> None:
    """InputError unless a source may be called so."""
    if not is_free(name):
        raise InputError(
            f"{name[:40]!r} cannot be the name of a source",
            todo="take up to 32 of a-z, 0-9, - and _; not pydoc, not files",
        )


def _read(file: Path, what: str, barred: int) -> str:
    try:
        data = read_private(file, what, size_bytes_max=FILE_BYTES_MAX + 1, barred=barred)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    if len(data) > FILE_BYTES_MAX:
        raise InputError(f"{file} has more than {FILE_BYTES_MAX} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text") from error


def _write(file: Path, text: str) -> None:
    """Replace a file at once: whoever reads it meanwhile reads the old one or the new one."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(text)
        fresh.replace(file)
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)


def _quoted(hosts: tuple[str, ...]) -> str:
    # Hosts have neither quotes nor backslashes: the rules were read and checked before.
    return ", ".join(f'"{it}"' for it in hosts)
