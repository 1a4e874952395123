"""Receipts as a person names them: a file, a bundle, or the id of an answer that is kept."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from node.checking.audit import begins_as_receipt
from node.commands.command import run
from node.commands.verify_model import manifest_of
from node.gateway_config import HTTP_DEFAULT
from node.local.bundles import BUNDLE_SUFFIX, LOG_SUFFIX, open_bundle
from wire import limits
from wire.car import begins_as_car
from wire.content import ContentId
from wire.errors import InputError, Malformed
from wire.log import LogPlaces
from wire.plural import plural
from wire.tree import name_of

PAYLOAD_BYTES_MAX = 256 << 20
_HEAD_BYTES = 16
# Part of a content id, and not all of it: its beginning, or its end as lists show it.
_PART_OF_ID = re.compile("[a-z2-7]{6,50}")
# What lies beside a receipt; the last four where a source was fetched.
BESIDE = (".input", ".output", ".manifest", ".fetch", ".body", ".extracted", ".table")
_WHERE = "receipt files lie in receipts/ of the state folder; see python -m node receipts"


def begins_with(path: Path, head: bytes) -> bool:
    """Whether a file begins so; False for what cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(head)) == head
    except OSError:
        return False


def _nothing(_: ContentId) -> bytes | None:
    return None


@dataclass(slots=True)
class FoundReceipt:
    """A receipt as it was found, and the content that is at hand for it."""

    answer: bytes
    # Which receipt it is said to be, by whoever asked for it or called a file so.
    wanted: ContentId | None = None
    at_hand: dict[ContentId, bytes] = field(default_factory=dict)
    # Where it is in its signers' logs.
    log: bytes | None = None
    # What files beside it, or given, hold.
    files: dict[str, ContentId] = field(default_factory=dict)
    # Where it lies, and receipts that it names may lie too.
    folder: Path | None = None
    # What came in the same bundle.
    bundled: Callable[[ContentId], bytes | None] = _nothing

    def have(self, content_id: ContentId) -> bytes | None:
        """Content that is at hand; None where it is not."""
        for source in (self.at_hand.get, self.bundled, manifest_of):
            if (data := source(content_id)) is not None:
                return data
        return None

    def add_file(self, path: Path) -> None:
        """Take a file as content; InputError if it cannot be read."""
        data = read_file(path, PAYLOAD_BYTES_MAX)
        content_id = name_of(data)
        self.files[path.name] = content_id
        self.at_hand[content_id] = data

    def bring_receipt(self, named: ContentId) -> None:
        """Take another receipt as content, and all that lies beside it, if it is in the folder."""
        if self.folder is None or not (path := self.folder / f"{named}.receipt").exists():
            return
        for one in (path, *map(path.with_suffix, BESIDE)):
            if one.exists():
                data = read_file(one, PAYLOAD_BYTES_MAX)
                self.at_hand[name_of(data)] = data


def full_id(state: Path, receipt: str) -> str:
    """The id of the kept receipt that begins or ends so; what is no part of an id stays as it is.

    InputError if several fit: the id was cut too short.
    """
    part = receipt.removeprefix("…")
    if not _PART_OF_ID.fullmatch(part) or Path(receipt).exists():
        return receipt
    from node.commands.kept import kept_ids

    files = [it.stem for it in (state / "receipts").glob("*.receipt")]
    known = sorted({*files, *run(partial(kept_ids, state))})
    fitting = [it for it in known if it.startswith(part) or it.endswith(part)]
    if len(fitting) > 1:
        raise InputError(
            f"{plural(len(fitting), 'receipt')} are called {receipt!r}, such as"
            f" …{fitting[0][-12:]} and"
            f" …{fitting[1][-12:]}",
            todo="give more of the id: python -m node receipts",
        )
    return fitting[0] if fitting else receipt


def read_receipt(state: Path, receipt: str) -> FoundReceipt:
    """The receipt, and what is kept with it; InputError if there is none, or it is none.

    `receipt` is a file, or the id of an answer that is kept in the state folder, or a part of it.
    """
    receipt = full_id(state, receipt)
    path = Path(receipt).expanduser()
    wanted = _parsed(receipt)
    if not path.exists() and wanted is not None:
        path = state / "receipts" / f"{wanted}.receipt"
        if not path.exists():
            # Only this needs a store or a running peer: a file is checked at once.
            from node.commands.kept import kept_answer

            kept = run(partial(kept_answer, state, wanted))
            contents = (kept["input"], kept["output"], kept.get("manifest"))
            at_hand = {name_of(it): it for it in contents if it}
            return FoundReceipt(kept["answer"], wanted, at_hand, folder=path.parent)
    wanted = wanted or _parsed(path.stem)
    if path.suffix == BUNDLE_SUFFIX or begins_as_car(_head(path)):
        bundle = open_bundle(path)
        return FoundReceipt(bundle.answer, wanted, log=bundle.log, bundled=bundle.have)
    raw = read_file(path, limits.FRAME_BYTES_MAX)
    if not begins_as_receipt(raw):
        raise _no_receipt(path, raw)
    found = FoundReceipt(raw, wanted, folder=path.parent)
    places = path.with_suffix(LOG_SUFFIX)
    if places.exists():
        found.log = read_file(places, LogPlaces.SIZE_BYTES_MAX)
    for beside in map(path.with_suffix, BESIDE):
        if beside.exists():
            found.add_file(beside)
    return found


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from error


def read_file(path: Path, size_bytes_max: int) -> bytes:
    """A whole file; InputError if it is too large or cannot be read."""
    try:
        if path.stat().st_size > size_bytes_max:
            raise InputError(
                f"{path} is larger than {size_bytes_max} bytes",
                todo="name the .receipt file, and its content with --content",
            )
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be read: {error.strerror}", todo=_WHERE)


def _no_receipt(path: Path, raw: bytes) -> InputError:
    """What to say of a file that is something else altogether."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    # In words as a gateway gives it (`id`), or as `ask --json` does.
    if isinstance(document, dict) and {"route", "verdicts"} <= document.keys():
        name = str(_parsed(document.get("id") or document.get("receipt")) or "ID")
        return InputError(
            f"{path} is not a receipt file: it is the receipt as JSON, which is not signed",
            todo="fetch the file with: curl -H 'accept: application/octet-stream'"
            f" -o {name}.receipt http://{HTTP_DEFAULT}/v1/receipts/{name}",
        )
    return InputError(f"{path} is not a receipt file", todo=_WHERE)


def _parsed(text: object) -> ContentId | None:
    try:
        return ContentId.parse(str(text))
    except Malformed:
        return None
