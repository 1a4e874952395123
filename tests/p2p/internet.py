"""Peers of a simulated internet: on servers, in homes behind routers, behind a carrier's NAT."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import trio

from p2p.adverts import Capacity, Environment
from p2p.lan import LanService
from p2p.over_libp2p import MemoryNetwork, MemoryTransport, Router, Site
from p2p.peers import Peers, PeersConfig, Surroundings, open_peers
from p2p.reachability import Reach
from p2p.typed_call import TypedCall
from tests.p2p.keepers import START_S
from tests.p2p.transports import key_of, until
from wire.content import ContentId, PeerId
from wire.message import BlockReply, Message, Want

PORT = 4747
WANT = Want(block=ContentId.of(b"any"))


def server(number: int) -> Site:
    """A machine of the open internet; each is of another network."""
    return Site(f"45.{number}.0.10")


def home(number: int, **settings: Any) -> Router:
    """The router of a home."""
    return Router(f"46.{number}.0.1", **settings)


class CuttableNetwork(MemoryNetwork):
    """Loses all that hosts which are cut off send, and all that is sent to them."""

    def __init__(self) -> None:
        super().__init__()
        self.cut_off: set[str] = set()

    def carry(self, source: str, target: str, size_bytes: int, deliver: Callable[[], None]) -> None:
        if not self.cut_off & {source, target}:
            super().carry(source, target, size_bytes, deliver)


@dataclass(slots=True)
class Internet:
    """Opens peers; every one meets the first through its address."""

    nursery: trio.Nursery
    stack: AsyncExitStack
    memory: CuttableNetwork = field(default_factory=CuttableNetwork)
    peers: dict[str, Peers] = field(default_factory=dict)
    scopes: dict[str, trio.CancelScope] = field(default_factory=dict)
    # By how much the wall clock of each was set forward.
    set_forward_s: Counter[str] = field(default_factory=Counter)
    started_at_s: float = field(default_factory=trio.current_time)

    async def add(
        self,
        name: str,
        site: Site,
        *,
        join: bool = True,
        lan: LanService | None = None,
        **config: Any,
    ) -> Peers:
        """A peer that stands there, until the test ends or it is killed."""
        peers: Peers = await self.nursery.start(self._live, name, site, config, lan)
        if join:
            await peers.join()
        return peers

    def kill(self, name: str) -> None:
        """End like SIGKILL: the connections close, and nobody hears a good-bye."""
        self.scopes.pop(name).cancel()
        self.peers.pop(name)

    def cut_off(self, name: str, *, cut: bool = True) -> None:
        """Have nothing reach the peer, and nothing that it sends arrive, until it is over."""
        host = str(self.peers[name].me)
        (self.memory.cut_off.add if cut else self.memory.cut_off.discard)(host)

    async def _live(
        self,
        name: str,
        site: Site,
        config: dict[str, Any],
        lan: LanService | None,
        task_status: trio.TaskStatus[Peers] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        key, random = key_of(name), Random(name)
        self.memory.routers.put(str(key.peer), site)
        ahead_s = START_S - self.started_at_s
        environment = Environment(
            wall_s=lambda: ahead_s + self.set_forward_s[name] + trio.current_time(),
            random=random,
            entropy=random.randbytes,
        )
        first = next(iter(self.peers.values()), None)
        bootstraps = first.endpoint.addresses[:1] if first else ()
        settings = {"bootstraps": bootstraps, "listen": (f"/ip4/{site.host}/tcp/{PORT}",)}
        transport = MemoryTransport(self.memory, wall_ns=lambda: 1)
        around = Surroundings(lan=lan)
        with trio.CancelScope() as self.scopes[name]:
            async with open_peers(
                transport,
                key,
                PeersConfig(**(settings | config)),
                environment,
                Capacity,
                around=around,
            ) as peers:
                self.peers[name] = peers
                task_status.started(peers)
                await trio.sleep_forever()


@asynccontextmanager
async def open_internet() -> AsyncIterator[Internet]:
    """An internet without anybody; all who were added end with it."""
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        yield Internet(nursery, stack)
        nursery.cancel_scope.cancel()


async def reply(call: TypedCall, _message: Message) -> None:
    await call.send(BlockReply(data=b"here"))


def keepers_of(peers: Peers) -> list[PeerId]:
    return [PeerId.parse(str(it)) for it in peers.relaying.as_map()["keepers"]]  # type: ignore[attr-defined]


async def servers(internet: Internet, count: int) -> None:
    """So many servers, which have found out that they are open; one alone is told by others."""
    for number in range(1, count + 1):
        await internet.add(f"server {number}", server(number))
    await until(
        lambda: (
            count == 1
            or all(
                it.dialing_back.reachability.reach is Reach.OPEN for it in internet.peers.values()
            )
        ),
        120,
    )


async def kept(
    internet: Internet, name: str, router: Router, relays: int, lan: LanService | None = None
) -> Peers:
    """A peer of a home, which answers, once it has so many relays."""
    peers = await internet.add(name, Site("192.168.1.2", router), lan=lan)
    peers.handlers[Want] = reply
    await until(lambda: len(keepers_of(peers)) == relays, 120)
    return peers


async def asks(asker: Peers, other: PeerId, *, deadline_s: float = 8.0) -> bytes:
    async with asker.call(other, deadline_s=deadline_s) as call:
        await call.send(WANT)
        return (await call.expect(BlockReply)).data


async def hears(asker: Peers, other: Peers) -> None:
    """Wait until the asker believes an advert of the other that names its relays."""

    def heard() -> bool:
        advert = asker.view.advert_of(other.me)
        return advert is not None and "p2p-circuit" in "".join(advert.record.addresses)

    await until(heard, 120)


async def alone(asker: Peers, other: Peers) -> None:
    """Have no connection with the other."""
    await asker.endpoint.disconnect(other.me)
    await until(lambda: not other.endpoint.is_connected(asker.me), 60)
