"""What every command shows in the same way: one JSON document, tables, names of peers, errors."""

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape

from node.commands.run_log import run_log
from node.commands.terminal import LineConsole, table_of

BAR_CELLS = 30
console = LineConsole(highlight=False, soft_wrap=True)
if not console.is_terminal:
    # A file or a pipe has no width to keep to.
    console.width = 200


def plain(value: Any) -> Any:
    """A value as JSON has it: bytes become base64 text."""
    match value:
        case Mapping():
            return {key: plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case bytes():
            return base64.b64encode(value).decode()
        case _:
            return value


def show_json(document: Mapping[str, Any]) -> None:
    """The one document of a command with `--json`; in ASCII, so that no word moves the cursor."""
    sys.stdout.write(json.dumps(plain(document), indent=2) + "\n")
    sys.stdout.flush()


def show_aside(line: str) -> None:
    """One line on standard error, for whoever waits while standard output is kept for a result.

    A peer whose log is of objects writes it there.
    """
    if run_log.is_json:
        run_log.write("notice", line)
        return
    sys.stderr.write(line + "\n")


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows under their columns' names; where there are none it says so."""
    if not rows:
        console.print(f"[bold]{title}[/bold]\n  none")
        return
    console.print(table_of(title, columns, rows, console))


def short(peer: str) -> str:
    """A peer as people tell it from others: the end of its id."""
    return "…" + peer[-6:]


# Joiners inside one letter or emoji; by themselves they are nothing to see.
_JOINERS = "\u200c\u200d"


def plain_text(text: object) -> str:
    """Words of others without anything that a terminal obeys; a tab becomes spaces."""
    shown = str(text).replace("\r", "").replace("\t", "    ").replace("\xa0", " ")
    return "".join(
        it if it.isprintable() or it == "\n" or it in _JOINERS else "\N{REPLACEMENT CHARACTER}"
        for it in shown
    )


def state_words(model: Mapping[str, Any]) -> str:
    """The state of a model, as a row of `status` or `models` has it, and how far a load is."""
    share = model.get("loaded_share")
    return str(model["state"]) if share is None else f"{model['state']}, {share * 100:.0f} %"


def safe(text: object) -> str:
    """Words of others as text alone: they may not move the cursor, nor colour the screen."""
    return escape(plain_text(text))


def size(size_bytes: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size_bytes < 1000 or unit == "GB":
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    raise AssertionError


def memory_words(memory: Mapping[str, int]) -> str:
    """What running a model takes, as `ModelMemory.to_plain` has it."""
    weights, besides = memory["weights_bytes"], memory["besides_bytes"]
    words = f"{size(weights)} weights"
    if memory["conversations"]:
        each = memory["keys_and_values_bytes"] / memory["conversations"]
        words += f" + {memory['conversations']} x {size(each)} keys and values"
    return f"{words} + {size(besides)} besides"


def device_words(device: Mapping[str, Any]) -> str:
    """A GPU as its driver calls it, and how kernels for it are compiled, as text alone."""
    there = device["size_bytes"]
    words = f"on {safe(device['name'])} by {safe(device['compiler'])}"
    if there:
        words += f", {size(there)}"
    return f"{words}; {safe(device['note'])}" if device["note"] else words


def clock_words(others_ahead_s: float) -> str:
    """Where this machine's clock is if those of the others are ahead by so much: "9 s behind"."""
    return f"{abs(others_ahead_s):.0f} s {'behind' if others_ahead_s > 0 else 'ahead of'}"


def progress_line(name: str, step: str, done_bytes: int, size_bytes: int) -> str:
    """How far a model is on its way, in one line."""
    if step not in ("fetching", "keeping", "loading") or not size_bytes:
        return f"model {name}: {step}"
    # In steps, so that the log of a large model's download is twenty lines and not a thousand. A
    # load takes seconds, and would push the address to join at off the screen.
    steps = 4 if step == "loading" else 20
    share = done_bytes * steps // size_bytes / steps
    head = f"model {name}: {step} "
    tail = f" {share:4.0%} of {size(size_bytes)}"
    # A line that a narrow terminal would break in two is a shorter bar instead, or none.
    width = max(0, min(BAR_CELLS, console.width - len(head) - len(tail) - 1))
    done = int(share * width)
    return head + "█" * done + "░" * (width - done) + tail
