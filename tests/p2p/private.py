"""Peers of a private network in one process: an owner, members, and those who are neither."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import trio

from p2p.admission import InviteTerms
from p2p.adverts import Capacity, Environment
from p2p.member_rows import OwnMembership, own_membership
from p2p.members import Members, PrivateNetwork
from p2p.over_libp2p import MemoryNetwork, MemoryTransport
from p2p.peers import Peers, PeersConfig, open_peers
from p2p.typed_call import TypedCall
from store import Store, open_memory_store
from tests.p2p.keepers import START_S
from tests.p2p.transports import key_of
from wire.kinds import Role
from wire.membership import ALL_ROLES, Admitter, Invite
from wire.message import BlockReply, Message, Want
from wire.signed import Signed
from wire.signing import SigningKey

OWNER = "owner"
Given = tuple[Signed[Invite], SigningKey]


async def reply(call: TypedCall, _message: Message) -> None:
    await call.send(BlockReply(data=b"here"))


@dataclass(slots=True)
class Club:
    """Opens peers; members meet the owner first. All have one wall clock, which may jump."""

    nursery: trio.Nursery
    memory: MemoryNetwork = field(default_factory=MemoryNetwork)
    peers: dict[str, Peers] = field(default_factory=dict)
    stores: dict[str, Store] = field(default_factory=dict)
    scopes: dict[str, trio.CancelScope] = field(default_factory=dict)
    ahead_s: float = field(default_factory=lambda: START_S - trio.current_time())
    # By name: roles that a peer says it plays.
    roles: dict[str, int] = field(default_factory=dict)

    @property
    def network(self) -> Any:
        return key_of(OWNER).peer

    def members(self, name: str) -> Members:
        members = self.peers[name].members
        assert members is not None
        return members

    async def invite(self, *admitters: str, by: str = OWNER, **terms: Any) -> Given:
        """An invite of the owner."""
        named = tuple(
            Admitter(peer=self.peers[it].me, addresses=()) for it in (admitters or (OWNER,))
        )
        wanted: dict[str, Any] = {
            "uses_max": 1,
            "for_s": 86_400,
            "roles": ALL_ROLES,
            "label": "bob",
            "admitters": named,
        }
        signed, seed = await self.members(by).admission.invite(InviteTerms(**(wanted | terms)))
        return signed, SigningKey(seed)

    async def add(
        self, name: str, given: Given | None = None, *, at: str = OWNER, **options: Any
    ) -> Peers:
        """A peer that has joined at `at`, until the test ends or it is ended."""
        peers: Peers = await self.nursery.start(self._live, name, given, at, options)
        return peers

    async def joined(self, name: str, **terms: Any) -> Peers:
        """A member, by an invite of its own."""
        return await self.add(name, await self.invite(**terms))

    def end(self, name: str) -> None:
        """End a peer; its store stays."""
        self.scopes.pop(name).cancel()
        self.peers.pop(name)

    async def _live(
        self,
        name: str,
        given: Given | None,
        at: str,
        options: dict[str, Any],
        task_status: trio.TaskStatus[Peers] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        key, random = key_of(name), Random(name)
        if name not in self.stores:
            opened = await self.nursery.start(_hold_store)
            self.stores[name] = opened
        store = self.stores[name]
        environment = Environment(
            wall_s=lambda: self.ahead_s + trio.current_time(),
            random=random,
            entropy=random.randbytes,
        )
        own = own_membership(store)
        if name == OWNER:
            own = OwnMembership(key.peer, "club")
        private = None
        if not options.pop("open", False):
            private = PrivateNetwork(
                network=options.pop("network", self.network),
                name="club",
                store=store,
                own=own,
                invite=given[0] if given else None,
                claim_key=given[1] if given else None,
            )
        first = self.peers.get(at)
        config = PeersConfig(
            network=str(self.network),
            bootstraps=first.endpoint.addresses[:1] if first else (),
            listen=("/memory/0",),
            **options,
        )
        transport = MemoryTransport(self.memory, wall_ns=lambda: 1)
        with trio.CancelScope() as self.scopes[name]:
            async with open_peers(
                transport,
                key,
                config,
                environment,
                lambda: Capacity(roles=self.roles.get(name, 1 << Role.STORE)),
                private,
            ) as peers:
                peers.handlers[Want] = reply
                await peers.join()
                self.peers[name] = peers
                task_status.started(peers)
                await trio.sleep_forever()


async def _hold_store(task_status: trio.TaskStatus[Store] = trio.TASK_STATUS_IGNORED) -> None:
    async with open_memory_store(quota_bytes=1 << 26) as store:
        task_status.started(store)
        await trio.sleep_forever()


@asynccontextmanager
async def open_club() -> AsyncIterator[Club]:
    """A private network with its owner alone; all who were added end with it."""
    async with trio.open_nursery() as nursery:
        club = Club(nursery)
        await club.add(OWNER)
        yield club
        nursery.cancel_scope.cancel()
