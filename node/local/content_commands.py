"""`put` and `get` in the running peer: content in, with copies at other peers, and out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.asking.copies import COPIES_MAX
from node.local.arguments import read_content_id, read_number, read_path
from node.local.control import Command, Emit
from node.peer import Node
from wire.errors import InputError

GET_DEADLINE_S = 3600


@dataclass(slots=True)
class ContentCommands:
    """The commands, by name, for one running peer."""

    node: Node

    def commands(self) -> dict[str, Command]:
        """What the control socket serves, by name."""
        return {"put": self.put, "get": self.get}

    async def put(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Keep the file `path`, and see to it that there are `copies`, this peer's with them.

        The answer has its content `id`, `size_bytes`, and how many `copies` were found or made.
        Without a number they are only counted.
        """
        path, copies = read_path(arguments), read_number(arguments, "copies", 0)
        if not 0 <= copies <= COPIES_MAX:
            raise InputError(
                f"{copies} copies are not possible", todo=f"give --copies 1 to {COPIES_MAX}"
            )
        size_bytes = 0

        def progress(done_bytes: int) -> None:
            nonlocal size_bytes
            size_bytes = done_bytes
            emit({"event": "progress", "done_bytes": done_bytes})

        content = await self.node.dependencies.store.put_file(path, progress, pin="put")
        emit({"event": "copying"})
        copying = self.node.copying
        if copies:
            found = await copying.make(content, size_bytes, copies)
        else:
            found = await copying.find(content)
        return {
            "id": str(content),
            "size_bytes": size_bytes,
            "copies": found.count,
            "copies_wanted": copies,
            "peers_looked_at": found.asked,
            # Peers other than this one; without a time, a peer did not say how long it keeps it.
            "holders": [
                {"peer": str(peer), "until_wall_s": None if until is None else int(until)}
                for peer, until in found.holders.items()
            ],
            "refusals": [{"peer": str(peer), "why": why} for peer, why in found.refusals.items()],
        }

    async def get(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Bring the content `id` into the file `path`, from the store or from other peers."""
        content = read_content_id(arguments.get("id"))
        path = read_path(arguments)

        def progress(done_bytes: int, size_bytes: int) -> None:
            emit({"event": "progress", "done_bytes": done_bytes, "size_bytes": size_bytes})

        deadline_s = read_number(arguments, "deadline_s", GET_DEADLINE_S)
        await self.node.blobs.fetch(content, deadline_s=deadline_s, progress=progress)
        size_bytes = await self.node.dependencies.store.export(content, path)
        return {"id": str(content), "size_bytes": size_bytes}
