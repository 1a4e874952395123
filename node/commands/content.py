"""`put`, `get` and `rm`: content in and out of the store and the network."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from node.commands.ask import SOCKET
from node.commands.output import console, safe, short, show_json, size
from node.local.control import call
from wire.amount import show_credits
from wire.errors import InputError
from wire.plural import plural

DEADLINE_S = 24 * 3600.0


def bar() -> Progress:
    """A progress bar on standard error, so that content may go to standard output."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    screen = Console(stderr=True)
    # Only for eyes: a script that reads standard error finds one line there, or none.
    hidden = not screen.is_terminal
    rate = (TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, *rate, console=screen, transient=True, disable=hidden)


def counting() -> Progress:
    """The same for what is no content, but counted."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    screen = Console(stderr=True)
    return Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)


async def put(state: Path, path: Path, copies: int, price_max: int = 0, *, as_json: bool) -> bool:
    """Keep a file under its content id; whether there are as many copies as were asked for."""
    size_bytes = (await trio.Path(path).stat()).st_size
    with bar() as progress:
        task = progress.add_task("keeping", total=size_bytes)

        def tell(event: Mapping[str, Any]) -> None:
            if event["event"] == "copying":
                progress.update(task, description="asking other peers")
            else:
                progress.update(task, completed=event["done_bytes"])

        arguments = {"path": str(path.absolute()), "copies": copies, "price_max": price_max}
        found = await call(state / SOCKET, "put", arguments, tell, deadline_s=DEADLINE_S)
    if as_json:
        show_json(found)
    else:
        console.print(f"kept {size(found['size_bytes'])} as\n{found['id']}")
        for line in copies_words(found):
            console.print(line)
    return int(found["copies"]) >= copies


def copies_words(found: Mapping[str, Any]) -> list[str]:
    """How many copies there are and where; why there are no more, if more were wanted."""
    count, wanted = found["copies"], found["copies_wanted"]
    of_wanted = f" of {wanted}" if count < wanted else ""
    ends = "y" if (wanted if of_wanted else count) == 1 else "ies"
    places = ["here", *(_place(it) for it in found["holders"])]
    lines = [f"{count}{of_wanted} cop{ends}: {', '.join(places)}"]
    if count < wanted:
        lines += [f"not at {short(it['peer'])}: {safe(it['why'])}" for it in found["refusals"]]
        if not found["refusals"]:
            lines.append("no further peer is known that keeps content for others")
    elif not wanted and not found["holders"]:
        asked = found["peers_looked_at"]
        nobody = (
            f"none of {plural(asked, 'other peer')} has it" if asked else "no other peer is known"
        )
        lines[0] += f" ({nobody}; --copies 3 asks for more)"
    return lines


def _place(holder: Mapping[str, Any]) -> str:
    until_wall_s, paid = holder["until_wall_s"], holder.get("paid", 0)
    if until_wall_s is None:
        return f"at {short(holder['peer'])} for now"
    day = datetime.fromtimestamp(until_wall_s, UTC).date()
    cost = f" for {show_credits(paid)} credits" if paid else ""
    return f"at {short(holder['peer'])} until {day}{cost}"


async def get(
    state: Path, content: str, output: Path | None, *, deadline_s: float, as_json: bool
) -> None:
    """Fetch content into a file, or to standard output; BatonError if nobody has it in time."""
    if output is None and as_json:
        raise InputError("--json and content cannot share one output", todo="name a file: --output")
    path = output or state / f"out-{content[-16:]}"
    with bar() as progress:
        task = progress.add_task("fetching", total=None)

        def tell(event: Mapping[str, Any]) -> None:
            progress.update(task, completed=event["done_bytes"], total=event["size_bytes"])

        arguments = {"id": content, "path": str(path.absolute()), "deadline_s": deadline_s}
        found = await call(state / SOCKET, "get", arguments, tell, deadline_s=deadline_s + 30)
    if as_json:
        show_json({**found, "path": str(path)})
    elif output is not None:
        console.print(f"{size(found['size_bytes'])} in {path}")
    else:
        await trio.to_thread.run_sync(_pour, path)


async def put_folder(
    state: Path, folder: Path, copies: int, price_max: int = 0, *, as_json: bool
) -> bool:
    """Publish a folder under the id that IPFS tools compute; InputError for what cannot be.

    Whether there are as many copies as were asked for; without a number they are not counted.
    """
    arguments = {"path": str(folder.absolute()), "copies": copies, "price_max": price_max}
    found = await moved(state, "put-folder", "keeping", arguments, DEADLINE_S)
    if as_json:
        show_json(found)
    else:
        new = size(found["stored_bytes"])
        files = plural(found["files"], "file")
        console.print(f"kept {files}, {size(found['size_bytes'])}, {new} new, as")
        console.print(found["id"])
        for line in copies_words(found) if copies else ():
            console.print(line)
    return not copies or int(found["copies"]) >= copies


async def get_folder(
    state: Path, content: str, place: Path | None, *, deadline_s: float, as_json: bool
) -> None:
    """Fetch a folder to `place`; what is there already of it is left and counted.

    A large file goes there too, or without a place to standard output.
    """
    if place is None and as_json:
        raise InputError("--json and content cannot share one output", todo="name a file: --output")
    path = place or state / f"out-{content[-16:]}"
    arguments = {"id": content, "path": str(path.absolute()), "deadline_s": deadline_s}
    arguments["only_file"] = place is None
    found = await moved(state, "get-folder", "fetching", arguments, deadline_s + 30)
    if place is None:
        await trio.to_thread.run_sync(_pour, path)
        return
    if as_json:
        show_json({**found, "path": str(place)})
        return
    if not found["is_folder"]:
        console.print(f"{size(found['size_bytes'])} in {safe(str(place))}")
        return
    before = found["files_there_before"]
    there = f" ({before} were there)" if before else ""
    console.print(
        f"{plural(found['files'], 'file')}{there}, {size(found['size_bytes'])} in"
        f" {safe(str(place))}"
    )


async def remove(state: Path, content: str, *, as_json: bool) -> None:
    """Have the peer keep some content no longer; BatonError if nothing of it is there."""
    found = await call(
        state / SOCKET, "remove", {"id": content}, lambda _: None, deadline_s=DEADLINE_S
    )
    if as_json:
        show_json(found)
    elif found["released_bytes"]:
        console.print(f"{size(found['released_bytes'])} are free for other content now")
    else:
        console.print(
            "nothing was released: it was not put here, or something else needs all of it"
        )


async def moved(
    state: Path, command: str, word: str, arguments: Mapping[str, Any], deadline_s: float
) -> Mapping[str, Any]:
    """Have the peer move content; a bar shows how far it is."""
    with bar() as progress:
        task = progress.add_task(word, total=None)

        def tell(event: Mapping[str, Any]) -> None:
            if event["event"] == "copying":
                progress.update(task, description="asking other peers")
                return
            total = event["size_bytes"] or None
            progress.update(task, completed=event["done_bytes"], total=total)

        return await call(state / SOCKET, command, arguments, tell, deadline_s=deadline_s)


def _pour(path: Path) -> None:
    with path.open("rb") as source:
        while part := source.read(1 << 20):
            sys.stdout.buffer.write(part)
    path.unlink()
