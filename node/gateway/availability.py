"""When a gateway is of use: not in its first moments, and not once it is being stopped.

Whoever restarts gateways one after the other, and has clients that try again, loses no request: one
that is asked before it knows anybody holds the request until it does, and one that is being stopped
finishes what it has and sends everybody else away, for a while instead of cutting them off.
"""

import json
from dataclasses import dataclass, field

import trio

from node.gateway.catalogue import Catalogue
from node.gateway.errors import ErrorDetail, body_of
from node.gateway.http_exchange import Exchange
from node.gateway.request_parser import RequestHead
from node.gateway_config import GatewayConfig
from node.peer import Node
from p2p.timeouts import stretched

# After so long a gateway answers by what it knows, and says what it lacks.
STARTING_S = 10.0
LOOK_S = 0.05
# As long as a peer takes to start again with a new version. OpenAI's clients wait as they are told.
LEAVING_RETRY_S = 10.0
# Besides tasks, a list of models would be short, and nobody would ask again.
_LISTS = (b"/v1/models", b"/api/tags")


@dataclass(slots=True)
class Availability:
    """Whether one gateway could do what it is asked."""

    node: Node
    config: GatewayConfig
    catalogue: Catalogue
    _has_begun: bool = False
    _since_at_s: float = field(default_factory=trio.current_time)
    _look_again_at_s: float = 0.0

    def lacking(self) -> str:
        """Why nothing can be served, in words; "" if something can."""
        if not any(it.holders and it.loaded_share is None for it in self.catalogue.rows()):
            return "no peer known here runs a model"
        known, needed = len(self.node.tasks.checking.verifiers(None)), self.config.needed
        if known < needed:
            return f"{known} peers are known that check answers, and {needed} have to agree"
        return ""

    async def until_begun(self, asked: RequestHead) -> None:
        """Hold a request of the first moments, until this peer has met its network."""
        if self._has_begun or not (asked.method == "POST" or asked.target.startswith(_LISTS)):
            return
        while not (self._has_begun or self._begins()):
            await trio.sleep(LOOK_S)
        self._has_begun = True

    def _begins(self) -> bool:
        now_at_s = trio.current_time()
        if now_at_s - self._since_at_s >= stretched(STARTING_S):
            return True
        # One looks for all: a look goes through all peers, and hundreds may be held.
        if now_at_s < self._look_again_at_s:
            return False
        self._look_again_at_s = now_at_s + LOOK_S
        peers = self.node.peers
        if not peers.neighbours.bootstraps and not peers.dialing.known():
            # It is the first of its network, and calls nobody.
            return True
        return bool(peers.neighbours.swaps) and not self.lacking()


async def refuse(exchange: Exchange, fault: ErrorDetail) -> None:
    """Answer a request with a fault, in the shape that the clients of its endpoint know."""
    path = exchange.request.head.target.partition(b"?")[0].decode("latin-1")
    headers = {"content-type": "application/json", **fault.all_headers}
    if fault.status == 401:
        headers["www-authenticate"] = "Bearer"
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await exchange.respond(fault.status, raw, json.dumps(body_of(fault, path)).encode())


async def say_leaving(exchange: Exchange) -> None:
    """What every request is told that comes while the gateway finishes those before it."""
    fault = ErrorDetail(
        status=503,
        message="this gateway is being stopped: ask another one, or this one again in a while",
        code="leaving",
        retry_after_s=LEAVING_RETRY_S,
    )
    await refuse(exchange, fault)
