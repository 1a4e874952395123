"""`receipts` in the running peer: answers listed, told, written to files and taken from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from node.local.arguments import read_number, read_path, read_text
from node.local.bundles import export_receipt, import_receipt
from node.local.control import Command, Emit
from node.local.receipts import LISTED_MAX, list_receipts, read_answer
from node.local.track_records import audit_of
from node.peer import Node
from p2p.timeouts import stretched
from wire.content import ContentId, PeerId
from wire.errors import InputError, Malformed

# How long content that a receipt names may take to come from who made it.
FETCH_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class ReceiptCommands:
    """The commands, by name, for one running peer."""

    node: Node

    def commands(self) -> dict[str, Command]:
        """What the control socket serves, by name."""
        return {
            "receipts": self.receipts,
            "receipt": self.receipt,
            "receipts-export": self.export,
            "receipts-import": self.take,
            "audit": self.audit,
        }

    async def receipts(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """The `count` answers kept last, latest first, then what was imported."""
        count = min(LISTED_MAX, max(0, read_number(arguments, "count", LISTED_MAX)))
        return await list_receipts(self.node.tasks.answers, self.node.models.manifest_of, count)

    async def receipt(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """One kept answer as it was signed, with its input and its output."""
        return dict(await read_answer(self.node.dependencies.store, _answer_id(arguments)))

    async def export(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Write the answer `id` to the file `path`, with what it names where that ends in .car.

        What is not kept here is asked of the peer that read it or made it, then of others.
        """
        store, path = self.node.dependencies.store, read_path(arguments)
        places_of, learn = self.node.log_watch.places_of, self.node.models.learn
        return await export_receipt(
            store, _answer_id(arguments), path, self._fetch, places_of, learn
        )

    async def take(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Keep the receipt in the file `path`, and what comes with it."""
        now_ms = int(self.node.dependencies.environment.wall_s() * 1000)
        return await import_receipt(self.node.dependencies.store, read_path(arguments), now_ms)

    async def audit(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """What kept answers show of the peer or the model `whose`."""
        whose = read_text(arguments, "whose")
        return await audit_of(self.node.tasks.answers, whose, self.node.log_watch)

    async def _fetch(self, content_id: ContentId, sources: Sequence[PeerId]) -> None:
        deadline_s = stretched(FETCH_DEADLINE_S)
        await self.node.blobs.fetch(content_id, sources, deadline_s=deadline_s)


def _answer_id(arguments: Mapping[str, Any]) -> ContentId:
    try:
        return ContentId.parse(str(arguments.get("id")))
    except Malformed as error:
        raise InputError("the id of a receipt is a content id", todo="see receipts") from error
