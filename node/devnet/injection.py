"""What each fault does to a running network, and how the fault ends."""

import trio

from node.devnet.faults import MISBEHAVING, Fault, FaultScope
from node.devnet.peer import DevPeer
from node.devnet.population import Population

# Baton allows clocks to differ by more than this; it is large enough to be noticed.
SKEW_S_MAX = 240.0


async def inject(population: Population, fault: Fault) -> None:
    """Start a fault."""
    if fault.scope is FaultScope.LINK:
        population.around.network.shares[fault.name] = fault.amount
        return
    victims = [population.peers[it] for it in fault.peers]
    if fault.scope in MISBEHAVING:
        for place, victim in enumerate(victims):
            _take_on(fault, place, victim)
        return
    async with trio.open_nursery() as nursery:
        for victim in victims:
            nursery.start_soon(_hit, population, fault, victim)


async def end(population: Population, fault: Fault) -> None:
    """End a fault, as far as its effects can be undone."""
    network = population.around.network
    if fault.scope is FaultScope.LINK:
        network.shares.pop(fault.name, None)
        return
    for victim in (population.peers[it] for it in fault.peers):
        match fault.name:
            case "freeze":
                network.freeze(victim.host, frozen=False)
            case "oneway":
                network.deafen(victim.host, deaf=False)
            case "partition":
                network.set_island(victim.host, 0)
            case "full_disk":
                victim.disk.full = False
            case "clock_skew":
                victim.skew_s = 0.0
            case _ if fault.scope in MISBEHAVING:
                victim.put_off(fault.name)
        if fault.name in ("freeze", "oneway", "partition"):
            victim.inject(struck=False)


def _take_on(fault: Fault, place: int, victim: DevPeer) -> None:
    if fault.name == "clock_skew":
        # Half of the clocks are ahead, half behind, each by another amount.
        share = (place + 1) / len(fault.peers)
        victim.skew_s = SKEW_S_MAX * share * (1 if place % 2 else -1)
    else:
        victim.take_on(fault.name)


async def _hit(population: Population, fault: Fault, victim: DevPeer) -> None:
    network = population.around.network
    if victim.node is None and fault.name != "churn":
        return
    match fault.name:
        case "kill" | "relay_kill":
            await victim.kill()
        case "vanish":
            await victim.vanish()
        case "leave":
            await victim.leave()
        case "restart" | "restart_asker":
            await victim.kill()
            await trio.sleep(fault.for_s)
            await population.start_one(victim)
        case "churn":
            if victim.node is not None:
                await victim.kill()
            await population.add_like(victim)
        case "freeze":
            network.freeze(victim.host, frozen=True)
            victim.inject(struck=True)
        case "oneway":
            network.deafen(victim.host, deaf=True)
            victim.inject(struck=True)
        case "partition":
            network.set_island(victim.host, 1)
            victim.inject(struck=True)
        case "full_disk":
            victim.disk.full = True
