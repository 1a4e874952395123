"""Carries the faults out: what each of them does to a swarm, and when that ends."""

import math
from random import Random

from tests.sim.faults import Fault, Faults
from tests.sim.peer import Peer
from tests.sim.swarm import Swarm

_SKEW_S_MAX = 240.0


def strike(swarm: Swarm, faults: Faults, seconds: float) -> None:
    """Schedule all faults on the swarm's own clock."""
    for place, fault in enumerate(faults.all):
        if not fault.kind.strikes:
            continue
        peers = [swarm.peers[it] for it in faults.struck(fault, len(swarm.peers))]
        if fault.name == "clock_skew":
            random = Random(f"{faults.seed}:{place}:skew")
            for peer in peers:
                peer.skew_s = random.uniform(-_SKEW_S_MAX, _SKEW_S_MAX)
            continue
        if fault.name == "sybil":
            honest = len(swarm.peers) - len(peers)
            for peer in peers:
                peer.flooding, peer.made_up = True, 10 * honest // len(peers)
            continue
        begins_s, ends_s = fault.begins_s(seconds), fault.ends_s(seconds)
        swarm.loop.after(begins_s, _begin, swarm, fault, place + 1, peers)
        if math.isfinite(ends_s):
            swarm.loop.after(ends_s, _end, swarm, fault, peers)


def _begin(swarm: Swarm, fault: Fault, part: int, peers: list[Peer]) -> None:
    for peer in peers:
        match fault.name:
            case "kill" | "restart":
                swarm.kill(peer)
            case "leave":
                swarm.leave(peer)
            case "freeze":
                swarm.freeze(peer)
            case "oneway":
                swarm.links.deaf[peer.number] = None
            case "partition":
                swarm.links.part[peer.number] = part
            case "flooder":
                peer.flooding = True
            case other:
                raise AssertionError(other)
    if fault.name in ("oneway", "partition"):
        for peer in peers:
            swarm.fall_silent(peer)


def _end(swarm: Swarm, fault: Fault, peers: list[Peer]) -> None:
    for peer in peers:
        match fault.name:
            case "restart" if not peer.up:
                swarm.join(peer)
            case "freeze":
                swarm.thaw(peer, peer.life)
            case "oneway":
                swarm.links.deaf.pop(peer.number, None)
            case "partition":
                swarm.links.part.pop(peer.number, None)
            case "flooder":
                peer.flooding = False
            case _:
                pass
