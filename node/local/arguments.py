"""Arguments of a command, as they come over the control socket: each is checked when it is read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.asking.run import TaskRequest
from node.task.levels import terms_of, terms_of_numbers
from wire import limits
from wire.amount import AMOUNT_MAX
from wire.content import ContentId, PeerId
from wire.errors import InputError, Malformed
from wire.task import Stage


def read_text(arguments: Mapping[str, Any], name: str) -> str:
    """A text that has to be there; InputError if it is missing or empty."""
    value = arguments.get(name)
    if not isinstance(value, str) or not value:
        raise InputError(f"the {name} is missing or empty", todo=f"give a {name}")
    return value


def read_number(arguments: Mapping[str, Any], name: str, default: int) -> int:
    """A whole number; InputError if it is something else."""
    value = arguments.get(name, default)
    if type(value) is not int:
        raise InputError(f"{name} is not a whole number", todo=f"for example {default}")
    return value


def read_amount(arguments: Mapping[str, Any], name: str) -> int:
    """Millionths of a credit; 0 if none are given, InputError for what is no amount."""
    amount = read_number(arguments, name, 0)
    if not 0 <= amount <= AMOUNT_MAX:
        raise InputError(f"{amount} millionths cannot be paid", todo="give a positive amount")
    return amount


def read_path(arguments: Mapping[str, Any]) -> Path:
    """The absolute path under `path`; InputError if it is none."""
    text = read_text(arguments, "path")
    if "\0" in text or not text.startswith("/"):
        raise InputError(f"{text[:80]!r} is not an absolute path", todo="begin it with /")
    return Path(text)


def read_content_id(text: object) -> ContentId:
    """A content id from its text; InputError if it is none."""
    if text is None:
        raise InputError("no content id was given", todo="to search, name one with --index")
    try:
        return ContentId.parse(str(text))
    except Malformed as error:
        raise InputError(
            f"{str(text)[:80]!r} is not a content id",
            todo="copy the whole of it: it begins with baf and has 59 characters",
        ) from error


def read_key(text: str) -> PeerId:
    """A peer's key from its text; InputError if it is none."""
    try:
        return PeerId.parse(text)
    except Malformed as error:
        raise InputError(
            f"{text[:80]!r} is not a key", todo="keys begin with 12D3Koo: see python -m node status"
        ) from error


def read_request(stages: tuple[Stage, ...], arguments: Mapping[str, Any]) -> TaskRequest:
    """A task of these stages, still without input, on the terms in the arguments; InputError."""
    needed, verifiers = read_number(arguments, "needed", 2), read_number(arguments, "verifiers", 3)
    terms = terms_of_numbers(needed, verifiers)
    if (word := arguments.get("level")) is not None:
        terms = terms_of(str(word), f"{needed}/{verifiers}", terms)
    deadline_s = read_number(arguments, "deadline_s", 120)
    if not 1 <= deadline_s <= limits.DEADLINE_S_MAX:
        raise InputError(
            f"a deadline of {deadline_s} s is not possible",
            todo=f"give --deadline 1 to {limits.DEADLINE_S_MAX} seconds",
        )
    return TaskRequest(
        stages=stages,
        input=None,
        deadline_s=deadline_s,
        level=terms.level,
        verifiers=verifiers,
        needed=needed,
        price_max=read_amount(arguments, "price_max"),
    )
