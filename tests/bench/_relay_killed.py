"""A relay is killed in the middle of a stream that it carries, in the lab of `nat`.

A home serves a stream of tokens to an asker in another home. Whichever relay carries it gets
SIGKILL; the stream has to go on by the next one, from the same home, with each token once.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import trio

from node.devnet.tasks import Stream
from node.engines.hash_engine import hash_manifest, hash_piece
from node.local.control import call
from node.task.events import Restarted, Streamed
from tests.bench._nat_lab import PUBLIC, within
from tests.bench._processes import PeerProcess, end_all, start_all
from wire.errors import BatonError

LISTEN = "/ip4/0.0.0.0/tcp/0"
KEPT_S, DEADLINE_S = 180.0, 90
TOKENS, TOKEN_S, TOKEN_BYTES = 300, 0.05, 64
# Before it, nothing of the stream was seen to go on.
BEFORE_TOKENS = 40
AGAIN_S = 10.0


async def relay_killed(folder: Path) -> dict[str, Any]:
    """How long the stream stood still, and what became of its tokens."""
    relays = [_peer(folder, place, place) for place in PUBLIC]
    await relays[0].start()
    bootstrap = relays[0].address.replace("127.0.0.1", "45.1.0.10")
    home = _peer(folder, "streaming", "cone", unit_s=TOKEN_S)
    asker = _peer(folder, "watching", "refusing")
    everyone = [*relays, home, asker]
    for it in everyone[1:]:
        it.bootstraps = (bootstrap,)
    try:
        await start_all(everyone[1:])
        with trio.fail_after(KEPT_S):
            while len((await home.ask("status"))["reach"]["keepers"]) < 2:
                await trio.sleep(0.5)
        return await _streamed(asker, home, relays)
    finally:
        await end_all(everyone)


async def _streamed(
    asker: PeerProcess, home: PeerProcess, relays: list[PeerProcess]
) -> dict[str, Any]:
    text, model = "a relay dies", hash_manifest().id
    stream = Stream(tuple(hash_piece(model, text.encode(), it) for it in range(TOKENS)))
    seen_at_s, seen, problem = list[float](), trio.Event(), ""

    def tell(event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "piece":
                data = event["data"]
                stream.see(Streamed(event["position"], len(data) // TOKEN_BYTES, data))
                seen_at_s.append(trio.current_time())
                if event["position"] >= BEFORE_TOKENS:
                    seen.set()
            case "restarted":
                stream.see(Restarted(event["position"]))

    arguments = {
        "model": "hash",
        "text": text,
        "operation": "complete",
        "parameters": {"tokens": TOKENS},
        "deadline_s": DEADLINE_S,
        "needed": 0,
        "verifiers": 0,
        "fresh": True,
    }
    killed, killed_at_s = list[PeerProcess](), 0.0

    async def kill() -> None:
        nonlocal killed_at_s
        await seen.wait()
        for relay in relays:
            if (await relay.ask("status"))["reach"]["lines"]:
                killed.append(relay)
        for relay in killed:
            await relay.kill()
        killed_at_s = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        try:
            await call(asker.socket, "ask", arguments, tell, deadline_s=DEADLINE_S + 10.0)
        except BatonError as error:
            problem = error.message
        nursery.cancel_scope.cancel()
    after = [it for it in seen_at_s if it >= killed_at_s] if killed else []
    again_s = round(after[0] - killed_at_s, 2) if after else None
    keepers = (await home.ask("status"))["reach"]["keepers"]
    return {
        "killed": [it.name for it in killed],
        "tokens": TOKENS,
        "lost": stream.lost if not problem else None,
        "doubled": stream.doubled,
        "again_s": again_s,
        "longest_pause_s": _longest(seen_at_s),
        "keepers_after": len([it for it in keepers if it not in {dead.id for dead in killed}]),
        "problem": problem,
        "held": bool(killed)
        and not problem
        and not stream.lost
        and not stream.doubled
        and _longest(seen_at_s) <= AGAIN_S,
    }


def _longest(at_s: list[float]) -> float:
    pauses = [later - it for it, later in pairwise(at_s)]
    return round(max(pauses, default=0.0), 2)


def _peer(folder: Path, name: str, place: str, *, unit_s: float = 0.0) -> PeerProcess:
    return PeerProcess(
        name=name,
        roles=("infer",) if unit_s else ("store",),
        state=folder / f"killed-{name}",
        listen=LISTEN,
        model="hash" if unit_s else None,
        unit_s=unit_s,
        within=within(place),
    )
