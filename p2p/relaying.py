"""Being called through relays, and being one: leases asked for, given, renewed and lost.

The shell around `p2p.relay_limits`. A peer that strangers could not call back keeps a connection to
up to three open peers, of different networks, and its advert says so. Each gives it a signed lease,
and passes calls on to it as long as that connection stands. Nothing above this package knows: a
peer behind a relay is connected to like any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import trio

from p2p.adverts import Advertiser
from p2p.connect import TROUBLES
from p2p.dial_back import DialingBack
from p2p.free_bytes import FreeBytes
from p2p.handshake import Handshake
from p2p.ip_address import CIRCUIT, host_of, is_public, is_relayed, network_of, prefix_of
from p2p.peer_rpc import PeerRpc
from p2p.reachability import Reach
from p2p.relay_limits import PunchLimits, RelayCounts
from p2p.score import Standing
from p2p.timeouts import stretched
from p2p.transport import ConnectionDown, ConnectionEvent, LineEnd, RelayAnswer
from p2p.typed_call import TypedCall, refusal_of
from wire import limits
from wire.content import PeerId
from wire.errors import Malformed, Refused
from wire.kinds import RefusalCode
from wire.latest import Latest
from wire.message import Message
from wire.reach import Reservation, Reserve, Reserved
from wire.signed import open_signed, sign

RELAYS_WANTED = 3
LOOK_S = 0.5
LEASE_S = 1800
RESERVE_DEADLINE_S = 8.0
# Who refused, or was not reached, is asked again after this; whose connection was lost, after that.
AGAIN_S, LOST_AGAIN_S = 120.0, 5.0
# Who passed nothing on is asked again after this.
LEFT_AGAIN_S = 3600.0
TRIED_KEPT = 256
# Calls that are taken through one relay at once, whatever it lets in.
TAKEN_MAX = 32


@dataclass(slots=True)
class _Lease:
    """A relay of ours: where it is, and until when it passes calls on."""

    address: str
    renew_at_s: float
    until_at_s: float


class LineTill(Protocol):
    """Who is paid for the bytes that a relay passes on."""

    @property
    def paid_bytes(self) -> int: ...

    def charge(self, asker: PeerId, size_bytes: int) -> bool:
        """Charge whoever asked for a line for so many bytes; False while that is not promised."""

    def has_promised(self, asker: PeerId) -> bool:
        """Whether an asker pays, and has promised more than it was charged."""

    def as_map(self) -> Mapping[str, object]:
        """What came of it, for `status`."""


@dataclass(slots=True)
class Relaying:
    """The relays of this peer, and the peers that it is a relay of."""

    rpc: PeerRpc
    handshake: Handshake
    advertiser: Advertiser
    dialing_back: DialingBack
    # Whether this peer is a relay for others once it is open.
    willing: bool = True
    counts: RelayCounts = field(default_factory=RelayCounts)
    punch_limits: PunchLimits = field(default_factory=PunchLimits)
    # None where nothing is asked for what is passed on: what is free all the same, and who is paid
    # for the rest; while a peer starts there is nobody yet.
    free: FreeBytes | None = None
    till: LineTill | None = None
    _relays: dict[PeerId, _Lease] = field(default_factory=dict)
    _taken: dict[PeerId, int] = field(default_factory=dict)
    # Until when each is not asked again.
    _tried: Latest[PeerId, float] = field(default_factory=lambda: Latest(TRIED_KEPT))

    def on_connection(self, event: ConnectionEvent) -> None:
        """A lease ends with its connection."""
        if isinstance(event, ConnectionDown):
            self.counts.end_lease(event.peer)
            if self._relays.pop(event.peer, None) is not None:
                self._changed()

    def addresses(self) -> tuple[str, ...]:
        """Where relays pass calls on to this peer."""
        return tuple([f"{it.address}{CIRCUIT}/p2p/{self.rpc.me}" for it in self._relays.values()])

    def relays(self) -> tuple[PeerId, ...]:
        """Who gave us leases that hold."""
        return tuple(self._relays)

    def leave(self, relay: PeerId) -> None:
        """It does not do what it promised: it is not asked again for a while."""
        if self._relays.pop(relay, None) is not None:
            self._tried[relay] = trio.current_time() + LEFT_AGAIN_S
            self._changed()

    def held(self) -> frozenset[PeerId]:
        """The connections that leases need: nobody parts from these to make room."""
        return self.counts.kept() | self._relays.keys()

    # As one that is kept

    async def keep_up_forever(self) -> None:
        """Have relays while there is need of any, until cancelled."""
        while True:
            await trio.sleep(LOOK_S)
            now_at_s = trio.current_time()
            for peer, lease in list(self._relays.items()):
                if peer not in self._relays:
                    # It went while another gave its lease.
                    continue
                if lease.until_at_s <= now_at_s or not self._needed():
                    del self._relays[peer]
                    self._changed()
                elif lease.renew_at_s <= now_at_s and not await self._renew(peer, lease, now_at_s):
                    self._relays.pop(peer, None)
                    self._changed()
            if self._needed() and len(self._relays) < RELAYS_WANTED:
                found = self._candidate(now_at_s)
                if found is not None and await self._reserve(*found):
                    self._changed()

    def hurry(self) -> None:
        """This machine's network has changed: whoever was not reached may be asked again."""
        self._tried.clear()

    def _needed(self) -> bool:
        return self.dialing_back.reachability.reach in (Reach.ALONE, Reach.KEPT)

    def _changed(self) -> None:
        self.dialing_back.conclude()
        self.advertiser.changed()

    def _candidate(self, now_at_s: float) -> tuple[PeerId, str] | None:
        """Whom to ask next, and where it is: one that is connected already, of another network."""
        rpc = self.rpc
        networks = {network_of(host_of(it.address)) for it in self._relays.values()}
        found: list[tuple[float, bool, float, PeerId, str]] = []
        for heard in rpc.view.living(rpc.environment.wall_s()):
            peer = heard.signer
            direct = [
                it
                for it in heard.record.reached_at
                if is_public(host_of(it)) and not is_relayed(it)
            ]
            if (
                not direct
                or peer in self._relays
                or self._tried.get(peer, 0.0) > now_at_s
                or network_of(host_of(direct[0])) in networks
                or rpc.standing(peer) is not Standing.GOOD
                or rpc.endpoint.is_relayed(peer)
            ):
                continue
            far = not rpc.endpoint.is_connected(peer)
            # Whoever calls this peer pays what its relay asks for.
            cost = rpc.relay_cost(str(peer))
            found.append((cost, far, rpc.environment.random.random(), peer, direct[0]))
        if not found:
            return None
        *_, peer, address = min(found)
        return peer, address

    async def _renew(self, peer: PeerId, lease: _Lease, now_at_s: float) -> bool:
        """Have a longer lease; not where one that asks callers for nothing gives one instead.

        Relays may begin free, and ask for something once they keep many.
        """
        cost, found = self.rpc.relay_cost, self._candidate(now_at_s)
        is_dearer = found is not None and cost(str(found[0])) <= 0.0 < cost(str(peer))
        if found is not None and is_dearer and await self._reserve(*found):
            return False
        return await self._reserve(peer, lease.address)

    async def _reserve(self, peer: PeerId, address: str) -> bool:
        """Ask for a lease, or for a longer one; returns whether it was given."""
        self._tried[peer] = trio.current_time() + AGAIN_S
        deadline_s = stretched(RESERVE_DEADLINE_S)
        rpc = self.rpc
        try:
            await rpc.reach(peer, deadline_s=deadline_s)
            version = await self.handshake.version_of(peer, deadline_s=deadline_s)
            if version < limits.REACH_VERSION:
                return False
            async with rpc.call(peer, deadline_s=deadline_s) as call:
                await call.send(Reserve(lease_s=LEASE_S))
                reserved = await call.expect(Reserved)
                lease = open_signed(reserved.reservation, Reservation)
                if lease.signer != peer or lease.record.kept != rpc.me:
                    raise Malformed("a lease of another, or for another")
        except TROUBLES as error:
            rpc.note_problem(str(peer), str(error))
            return False
        if not rpc.endpoint.is_connected(peer):
            return False
        now_at_s = trio.current_time()
        self._tried[peer] = now_at_s + LOST_AGAIN_S
        self._relays[peer] = _Lease(
            address, now_at_s + lease.record.lease_s / 2, now_at_s + lease.record.lease_s
        )
        return True

    # As a relay

    async def on_reserve(self, call: TypedCall, message: Message) -> None:
        """Give or renew a lease, or refuse it with the reason."""
        assert isinstance(message, Reserve)
        try:
            self._give(call.peer, message.lease_s)
        except Refused as error:
            await call.send(refusal_of(error))
            return
        wall_s = self.rpc.environment.wall_s()
        lease_s = int(min(message.lease_s, self.counts.limits.lease_s))
        reservation = Reservation(
            kept=call.peer,
            issued_at_s=int(wall_s),
            lease_s=lease_s,
            lines_max=self.counts.limits.lines_per_kept,
            bytes_per_s=int(self.counts.limits.bytes_per_s_each),
        )
        await call.send(Reserved(reservation=sign(reservation, self.rpc.key).raw))

    def _give(self, kept: PeerId, lease_s: int) -> None:
        """Count a lease; Refused if there is none."""
        if not self.willing or not self.dialing_back.is_called():
            raise Refused("this peer is no relay", code=RefusalCode.NOT_WILLING)
        if self.rpc.endpoint.is_relayed(kept) or not self.rpc.endpoint.is_connected(kept):
            raise Refused("a relay is called directly", code=RefusalCode.NOT_WILLING)
        if not self.counts.lease(kept, lease_s, trio.current_time()):
            raise Refused(
                f"{self.counts.limits.kept_max} peers are kept here, and that is all there is room"
                " for",
                retry_after_s=self.counts.limits.lease_s,
                code=RefusalCode.BUSY,
            )

    # As `p2p.transport.RelayRules`

    def admit(self, asker: PeerId, kept: PeerId) -> RelayAnswer:
        if self.rpc.standing(asker) is Standing.BANNED:
            return RelayAnswer.FULL
        if not self.rpc.endpoint.is_connected(kept) or self.rpc.endpoint.is_relayed(kept):
            return RelayAnswer.NOT_KEPT
        pays = self.till is not None and self.till.has_promised(asker)
        return self.counts.admit(asker, kept, trio.current_time(), pays=pays)

    def ended(self, asker: PeerId, kept: PeerId, why: LineEnd | None) -> None:
        self.counts.ended(asker, kept, why)

    def wait_s(self, asker: PeerId, kept: PeerId, size_bytes: int) -> float | None:
        return self.counts.wait_s(asker, kept, size_bytes, trio.current_time())

    def charge(self, asker: PeerId, size_bytes: int) -> bool:
        till, free = self.till, self.free
        if free is None or (till is not None and till.charge(asker, size_bytes)):
            return True
        network = prefix_of(host_of(self.rpc.endpoint.remote_address(asker) or ""))
        return free.take(asker, network, size_bytes, trio.current_time())

    def takes(self, relay: PeerId) -> bool:
        taken = self._taken.get(relay, 0)
        if relay not in self._relays or taken >= TAKEN_MAX:
            return False
        self._taken[relay] = taken + 1
        return True

    def left(self, relay: PeerId) -> None:
        self._taken[relay] -= 1
        if not self._taken[relay]:
            del self._taken[relay]

    def may_punch(self, peer: PeerId) -> bool:
        good = self.rpc.standing(peer) is Standing.GOOD
        return good and self.punch_limits.may(peer, trio.current_time())

    def as_map(self) -> dict[str, object]:
        """Who keeps this peer, and whom it keeps, for `status`."""
        counts, endpoint = self.counts, self.rpc.endpoint
        return {
            "keepers": [str(it) for it in self._relays],
            "keeps": len(counts.kept()),
            "keeps_max": counts.limits.kept_max,
            "lines": counts.lines,
            "lines_ended": {it.value: counts.ends[it] for it in LineEnd},
            "relaying_refused": counts.refused,
            "carried_bytes": counts.carried_bytes,
            # Of lines that this peer asked others for.
            "asked_lines": sum(it.dialed for it in endpoint.lines().values()),
            "asked_bytes": endpoint.statistics().relayed_bytes,
            **self._paid_map(),
        }

    def _paid_map(self) -> Mapping[str, object]:
        """Where something is asked for it: what was paid, what was free, and who owes a promise."""
        till, free = self.till, self.free
        if till is None or free is None:
            return {}
        return {
            **till.as_map(),
            "carried_paid_bytes": till.paid_bytes,
            "carried_free_bytes": max(0, self.counts.carried_bytes - till.paid_bytes),
            "owing": free.owing(trio.current_time()),
        }
