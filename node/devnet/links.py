"""The links between the peers of a process: they delay, lose, hold back and cut.

A stream sees here what it would see over TCP. A lost packet is sent again after 200 ms, 400 ms and
so on, and later packets wait for it; a duplicate costs bytes and nothing else; a packet that was
overtaken is waited for. So streams stay in order, as `MemoryNetwork.carry` demands. Only the
simulation in `tests/sim` delivers single messages twice or out of order.
"""

import heapq
import math
from collections.abc import Callable
from random import Random

import trio

from p2p.over_libp2p import ListenerKey, MemoryNetwork

# One way: from the next room to another continent.
LATENCY_S_MIN = 0.005
LATENCY_S_MAX = 0.080
# Packets that are due within one tick arrive together: a thousand peers need no finer clock.
TICK_S = 0.005
RETRANSMIT_S = 0.2
# A packet that was lost this often is given up, as a kernel gives up a connection.
RETRANSMITS_MAX = 7
DELAY_S_MAX = 0.5
SLOW_S = 0.4
# Packets that wait for frozen peers: beyond this the newest is lost, and keep-alive disconnects.
HELD_MAX = 200_000

Deliver = Callable[[], None]


class FaultyNetwork(MemoryNetwork):
    """A `MemoryNetwork` with distances and faults. `run` must run for anything to arrive.

    Hosts are named by libp2p's peer ids in text.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.carried_bytes = 0
        self.packets = 0
        self.lost = 0
        # Shares of all packets, by the name of the fault.
        self.shares: dict[str, float] = {}
        self._seed = seed
        self._random = Random(f"{seed}:links")
        self._places: dict[str, tuple[float, float]] = {}
        # When the last packet of a pair of hosts is due: no later packet overtakes it.
        self._due_tick: dict[tuple[str, str], int] = {}
        self._ticks: list[int] = []
        self._by_tick: dict[int, list[tuple[str, str, Deliver]]] = {}
        self._earlier = trio.Event()
        self._frozen: set[str] = set()
        self._vanished: set[str] = set()
        self._deaf: set[str] = set()
        self._slow: set[str] = set()
        self._islands: dict[str, int] = {}
        self._held: list[tuple[str, str, Deliver]] = []

    def carry(self, source: str, target: str, size_bytes: int, deliver: Deliver) -> None:
        """See `MemoryNetwork.carry`."""
        self.packets += 1
        self.carried_bytes += size_bytes
        late_s = self._latency_s(source, target)
        if self.shares:
            late_s += self._trouble_s(late_s, size_bytes)
            if late_s == math.inf:
                return
        tick = math.ceil((trio.current_time() + late_s) / TICK_S)
        pair = (source, target)
        tick = max(tick, self._due_tick.get(pair, 0))
        self._due_tick[pair] = tick
        packets = self._by_tick.get(tick)
        if packets is not None:
            packets.append((source, target, deliver))
            return
        self._by_tick[tick] = [(source, target, deliver)]
        heapq.heappush(self._ticks, tick)
        if self._ticks[0] == tick:
            self._earlier.set()

    def release(self, key: ListenerKey) -> None:
        listener = self._listeners.get(key)
        # A machine that is gone answers nothing; for a dead process the kernel refuses.
        if listener is None or str(listener.me) not in self._vanished:
            super().release(key)

    async def run(self) -> None:
        """Deliver packets when they are due, until cancelled."""
        while True:
            self._earlier = trio.Event()
            until_at_s = self._ticks[0] * TICK_S if self._ticks else math.inf
            with trio.move_on_at(until_at_s):
                await self._earlier.wait()
            now_tick = math.floor(trio.current_time() / TICK_S + 1e-6)
            while self._ticks and self._ticks[0] <= now_tick:
                for source, target, deliver in self._by_tick.pop(heapq.heappop(self._ticks)):
                    self._arrive(source, target, deliver)
            if len(self._due_tick) > 500_000:
                self._due_tick = {
                    pair: tick for pair, tick in self._due_tick.items() if tick > now_tick
                }

    def _arrive(self, source: str, target: str, deliver: Deliver) -> None:
        if source in self._vanished or target in self._vanished:
            return
        if not self._blocked(source, target):
            deliver()
        elif len(self._held) < HELD_MAX:
            self._held.append((source, target, deliver))

    def _blocked(self, source: str, target: str) -> bool:
        if self._frozen and (source in self._frozen or target in self._frozen):
            return True
        if target in self._deaf:
            return True
        return self._islands.get(source, 0) != self._islands.get(target, 0)

    # What happens to hosts

    def freeze(self, host: str, *, frozen: bool) -> None:
        """Hold back all that a host sends and receives, or deliver it again."""
        (self._frozen.add if frozen else self._frozen.discard)(host)
        self._let_go()

    def deafen(self, host: str, *, deaf: bool) -> None:
        """One-way: what the host sends arrives, what is sent to the host does not."""
        (self._deaf.add if deaf else self._deaf.discard)(host)
        self._let_go()

    def slow(self, host: str, *, slow: bool) -> None:
        (self._slow.add if slow else self._slow.discard)(host)

    def set_island(self, host: str, island: int) -> None:
        """Hosts of different islands do not reach each other; island 0 is the main network."""
        if island:
            self._islands[host] = island
        else:
            self._islands.pop(host, None)
        self._let_go()

    def vanish(self, host: str) -> None:
        """Nothing comes from the host and nothing reaches it, and no connection is closed."""
        self._vanished.add(host)

    def _let_go(self) -> None:
        """Deliver packets that are no longer held back: packets still on their way are newer."""
        held, self._held = self._held, []
        for source, target, deliver in held:
            self._arrive(source, target, deliver)

    # How long a packet takes

    def _latency_s(self, source: str, target: str) -> float:
        (x, y), (u, v) = self._place(source), self._place(target)
        # The two places furthest apart are at opposite corners.
        share = math.hypot(x - u, y - v) / math.sqrt(2)
        latency_s = LATENCY_S_MIN + share * (LATENCY_S_MAX - LATENCY_S_MIN)
        if self._slow and (source in self._slow or target in self._slow):
            latency_s += SLOW_S
        return latency_s

    def _place(self, host: str) -> tuple[float, float]:
        place = self._places.get(host)
        if place is None:
            site = self.routers.sites.get(host)
            # All that stand behind one router are at one place.
            behind = None if site is None or site.router is None else site.seen()
            random = Random(f"{self._seed}:place:{behind or host}")
            place = self._places[host] = (random.random(), random.random())
        return place

    def _trouble_s(self, latency_s: float, size_bytes: int) -> float:
        shares, random = self.shares, self._random
        extra_s = 0.0
        for times in range(RETRANSMITS_MAX):
            if random.random() >= shares.get("loss", 0.0):
                break
            self.lost += 1
            self.carried_bytes += size_bytes
            extra_s += RETRANSMIT_S * 2**times
        else:
            return math.inf
        if random.random() < shares.get("delay", 0.0):
            extra_s += random.random() * DELAY_S_MAX
        if random.random() < shares.get("reorder", 0.0):
            extra_s += latency_s
        if random.random() < shares.get("duplicate", 0.0):
            self.carried_bytes += size_bytes
        return extra_s
