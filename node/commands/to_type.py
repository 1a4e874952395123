"""Commands that a person is told to type, about the state folder that was named here."""

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from node.commands.command import CALLED
from node.commands.options import STATE_DEFAULT
from node.commands.output import safe

_HINT = re.compile(rf"{CALLED}((?: [a-z][a-z-]*)+)")
# What follows `join` if it is told something: options, other options, or an address.
_OPTIONS = re.compile(r" (?:--|…|ADDRESS)")
_CLAUSE = re.compile(r"[.,;(\n]")
# Whoever is to do it does it with a peer of their own.
_OF_OTHERS = re.compile(
    r"\b(?:have|ask) (?:(?:the |its )(?:network's )?owner|it exported|another machine)\b"
    r"|\bon the standby\b|\bthe other machine\b"
)


def hint(markup: str) -> str:
    """What is printed on the console, whose commands name the state folder that was named here."""
    context = click.get_current_context(silent=True)
    return markup if context is None else _filled(markup, context, safe)


def advised(line: str) -> str:
    """The same for a line that goes into a document or on a page."""
    context = click.get_current_context(silent=True)
    return line if context is None else todo_here(line, context)


def todo_here(todo: str, context: click.Context) -> str:
    """The same for what an error says is to be done."""
    return _filled(todo, context, str)


def _filled(text: str, context: click.Context, shown: Callable[[str], str]) -> str:
    state = context.params.get("state")
    if not isinstance(state, Path):
        return text
    service = service_of(state) if _HINT.search(text) else None
    if _is_default(state) and service is None:
        return text
    named = "" if _is_default(state) else shown(f"--state {shlex.quote(str(state))}")
    root = context.find_root().command

    def fill(match: re.Match[str]) -> str:
        words = match[1].split()
        depth = _depth(root, words)
        before = _CLAUSE.split(text[: match.start()])[-1]
        after = _CLAUSE.split(text[match.end() :])[0]
        # A file that lies in it is named by its whole path.
        line = text[match.end() :].partition("\n")[0]
        named_already = "--state" in after or str(state) in line
        if not depth or named_already or _OF_OTHERS.search(before):
            return match[0]
        if service is not None and words == ["join"]:
            return _of_service(service, after)
        return " ".join(filter(None, (CALLED, *words[:depth], named, *words[depth:])))

    return _HINT.sub(fill, text)


def service_of(state: Path) -> str | None:
    """What systemctl is told of the service that keeps the peer of a folder; None if none does.

    "" for one of the machine, "--user" for one of this user.
    """
    from node.commands.service import SYSTEM_STATE, Service

    if state == SYSTEM_STATE:
        return "" if Service(for_user=False).file.exists() else None
    try:
        return "--user" if _is_default(state) and Service(for_user=True).file.exists() else None
    except RuntimeError:
        return None


def _of_service(user: str, options: str) -> str:
    """What starts the peer that a service keeps; with further options it is installed anew."""
    if not _OPTIONS.match(options):
        return " ".join(filter(None, ("systemctl", user, "start baton")))
    dots = "" if options.lstrip().startswith("…") else "…"
    return " ".join(filter(None, (CALLED, "service install", user, dots)))


def _is_default(state: Path) -> bool:
    try:
        return state.expanduser() == STATE_DEFAULT.expanduser()
    except RuntimeError:
        # A service's user has no home.
        return state == STATE_DEFAULT


def _depth(root: click.Command, words: Sequence[str]) -> int:
    """How many of the words are a command that has `--state`; 0 if they are none."""
    command = root
    for depth, word in enumerate(words):
        if not isinstance(command, click.Group) or word not in command.commands:
            return depth if _has_state(command) else 0
        command = command.commands[word]
    return len(words) if _has_state(command) else 0


def _has_state(command: click.Command) -> bool:
    return any(it.name == "state" for it in command.params)
