"""The responses that clients come back to, and what led to them, in memory. A pure core."""

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

PER_OWNER_MAX = 64
OWNERS_MAX = 64
OWNER_BYTES_MAX = 1 << 20
CONVERSATION_BYTES_MAX = 512 << 10


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """The messages up to and with a response, the response as told, and what it was asked."""

    messages: list[dict[str, Any]]
    response: dict[str, Any] = field(default_factory=dict)
    items: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class ResponseMemory:
    """Of each owner of a key the last conversations, and of owners the last ones; no more.

    A conversation that is too large is not kept: whoever goes on from it is told to send it.
    """

    _kept: OrderedDict[str, OrderedDict[str, bytes]] = field(default_factory=OrderedDict)

    def keep(self, owner: str, response: str, messages: list[dict[str, Any]]) -> None:
        """As `keep_whole`, of the messages alone."""
        self.keep_whole(owner, response, KeptResponse(messages))

    def keep_whole(self, owner: str, response: str, kept: KeptResponse) -> None:
        """Keep a response and what led to it; the oldest go where there are too many."""
        data = json.dumps([kept.messages, kept.response, kept.items]).encode()
        if len(data) > CONVERSATION_BYTES_MAX:
            return
        mine = self._kept.setdefault(owner, OrderedDict())
        self._kept.move_to_end(owner)
        mine[response] = data
        while len(mine) > PER_OWNER_MAX or sum(map(len, mine.values())) > OWNER_BYTES_MAX:
            mine.popitem(last=False)
        if len(self._kept) > OWNERS_MAX:
            self._kept.popitem(last=False)

    def kept(self, owner: str, response: str) -> KeptResponse | None:
        """A response with what led to it; None if it is not here."""
        data = self._kept.get(owner, OrderedDict()).get(response)
        return None if data is None else KeptResponse(*json.loads(data))

    def find(self, owner: str, response: str) -> list[dict[str, Any]] | None:
        """The messages up to and with a response; None if they are not here."""
        found = self.kept(owner, response)
        return None if found is None else found.messages

    def forget(self, owner: str, response: str) -> bool:
        """Forget a response; whether it was here."""
        return self._kept.get(owner, OrderedDict()).pop(response, None) is not None
