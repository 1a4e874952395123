"""`export` and `import`: CAR archives out of the running peer, and into it."""

from pathlib import Path

from node.commands.content import DEADLINE_S, moved
from node.commands.output import console, safe, show_json, size
from wire.plural import plural


async def export(
    state: Path, content: str, file: Path, *, deadline_s: float, as_json: bool
) -> None:
    """Write content to an archive; BatonError if nobody has all of it in time."""
    arguments = {"id": content, "path": str(file.absolute()), "deadline_s": deadline_s}
    found = await moved(state, "export-content", "exporting", arguments, deadline_s + 30)
    if as_json:
        show_json({**found, "path": str(file)})
        return
    console.print(
        f"{size(found['size_bytes'])} in {safe(str(file))}, an archive of"
        f" {size(found['archive_bytes'])}"
    )


async def take(state: Path, file: Path, *, as_json: bool) -> None:
    """Keep what an archive has; InputError for one that is not whole or not one."""
    arguments = {"path": str(file.absolute())}
    found = await moved(state, "import-content", "keeping", arguments, DEADLINE_S)
    if as_json:
        show_json(found)
        return
    files = plural(found["files"], "file")
    console.print(f"kept {files}, {size(found['size_bytes'])}, as")
    console.print(found["id"])
    if found["id"] != found["root"]:
        console.print(f"(cut into pieces of 256 KiB; in the archive it was {found['root']})")
