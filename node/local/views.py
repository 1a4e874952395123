"""What the running peer tells of itself besides its status: settings, notes, one kept answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.local.control import Command, Emit
from node.local.receipts import read_answer
from node.local.settings import settings_of
from node.peer import Node
from wire.content import ContentId
from wire.errors import InputError, Malformed


@dataclass(frozen=True, slots=True)
class Views:
    """The commands, by name, for one running peer."""

    node: Node

    def commands(self) -> dict[str, Command]:
        """What the control socket serves, by name."""
        return {"receipt": self.receipt, "config": self.config, "logs": self.logs}

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
