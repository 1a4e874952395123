"""What the running peer tells of itself besides its status: settings, notes, one kept answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.asking import as_maps
from node.asking.answers import Answered
from node.local.control import Command, Emit
from node.local.receipts import read_answer
from node.local.settings import settings_of
from node.peer import Node
from wire.content import ContentId
from wire.errors import InputError, Malformed

ANSWERS_LISTED_MAX = 200


@dataclass(frozen=True, slots=True)
class Views:
    """The commands, by name, for one running peer."""

    node: Node

    def commands(self) -> dict[str, Command]:
        """What the control socket serves, by name."""
        return {
            "receipts": self.receipts,
            "receipt": self.receipt,
            "config": self.config,
            "logs": self.logs,
        }

    async def receipts(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        kept = await self.node.tasks.answers.latest(ANSWERS_LISTED_MAX)
        rows = [Answered(answer=it, output=b"", kept_before=True) for it in kept]
        later = [self.node.tasks.answers.later(it) for it in kept]
        told = [
            as_maps.answer_map(row) | {"later": None if it is None else it.value}
            for row, it in zip(rows, later, strict=True)
        ]
        for it in told:
            it["model_name"] = model_name(self.node, it["route"][-1]["model"])
        shown = as_maps.fitting(told)
        return {"receipts": shown, "left_out": len(told) - len(shown)}

    async def receipt(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """One kept answer as it was signed, with its input and its output."""
        try:
            answer_id = ContentId.parse(str(arguments.get("id")))
        except Malformed as error:
            raise InputError("the id of a receipt is a content id", todo="see receipts") from error
        return dict(await read_answer(self.node.dependencies.store, answer_id))

    async def config(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Every setting with its origin."""
        return {"settings": settings_of(self.node.config)}

    async def logs(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """What was noted last, oldest first."""
        return {"lines": [*self.node.peers.problems.values(), *self.node.log]}


def model_name(node: Node, model: str | None) -> str:
    """What a model is called here; its id where it has no name, nothing for no model."""
    manifest = None if model is None else node.models.manifest_of(ContentId.parse(model))
    return manifest.name if manifest is not None else model or ""
