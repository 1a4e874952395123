"""The conversations that `previous_response_id` names, kept in memory. A pure core."""

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

PER_OWNER_MAX = 64
OWNERS_MAX = 64
OWNER_BYTES_MAX = 1 << 20
CONVERSATION_BYTES_MAX = 256 << 10


@dataclass(slots=True)
class ResponseMemory:
    """Of each owner of a key the last conversations, and of owners the last ones; no more.

    A conversation that is too large is not kept: whoever goes on from it is told to send it.
    """

    _kept: OrderedDict[str, OrderedDict[str, bytes]] = field(default_factory=OrderedDict)

    def keep(self, owner: str, response: str, messages: list[dict[str, Any]]) -> None:
        """Keep the messages up to and with a response; the oldest go where there are too many."""
        data = json.dumps(messages).encode()
        if len(data) > CONVERSATION_BYTES_MAX:
            return
        mine = self._kept.setdefault(owner, OrderedDict())
        self._kept.move_to_end(owner)
        mine[response] = data
        while len(mine) > PER_OWNER_MAX or sum(map(len, mine.values())) > OWNER_BYTES_MAX:
            mine.popitem(last=False)
        if len(self._kept) > OWNERS_MAX:
            self._kept.popitem(last=False)

    def find(self, owner: str, response: str) -> list[dict[str, Any]] | None:
        """The messages up to and with a response; None if they are not here."""
        data = self._kept.get(owner, OrderedDict()).get(response)
        found: list[dict[str, Any]] | None = None if data is None else json.loads(data)
        return found
