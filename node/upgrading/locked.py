"""The libraries of a release, each with its version and hashes, and which of them are needed. Pure.

A lock is a file of requirements as uv writes it: below each library stands which others need it.
"""

import re
import tomllib
from collections.abc import Iterable

# Where each wheel of ours has its lock.
LOCK = "node/upgrading/libraries.lock"
_BEGINS = re.compile(r"([a-z0-9][a-z0-9._-]*)==")
_NEEDED_BY = re.compile(r"    # (?:via|  )\s*([a-z0-9][a-z0-9._-]*)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def normal(name: str) -> str:
    """A library's name as all its spellings have it in common."""
    return re.sub(r"[-_.]+", "-", name).lower()


def name_in(requirement: str) -> str:
    """The library that a requirement names; "" if it names none."""
    match = _NAME.match(requirement)
    return "" if match is None else normal(match[0])


def needed(lock: str, roots: Iterable[str]) -> str:
    """The part of a lock with these libraries, and with all that they need."""
    blocks: dict[str, list[str]] = {}
    needs: dict[str, set[str]] = {}
    name = ""
    for line in lock.splitlines():
        if match := _BEGINS.match(line):
            name = match[1]
            blocks[name] = []
        if not name:
            # How it was made stands at its top.
            continue
        if match := _NEEDED_BY.match(line):
            needs.setdefault(match[1], set()).add(name)
        elif not line.startswith("    #"):
            blocks[name].append(line)
    found, todo = set[str](), list(roots)
    while todo:
        if (name := todo.pop()) not in found:
            found.add(name)
            todo += needs.get(name, ())
    return "".join(f"{line}\n" for it in blocks if it in found for line in blocks[it])


def needed_by(project: str, lock: str, also: Iterable[str] = ()) -> str:
    """The same for a project, whose pyproject.toml is given, and for what else is named."""
    dependencies = tomllib.loads(project)["project"]["dependencies"]
    return needed(lock, [*map(name_in, dependencies), *also])


def versions_in(lock: str) -> str:
    """The same without hashes, which some installers cannot take for everything."""
    lines = lock.splitlines()
    return "".join(it.rstrip("\\ ") + "\n" for it in lines if _BEGINS.match(it))
