"""Neighbours: met with a Hello, kept up by swaps, left with a Goodbye.

The shell around `dialing` and `anti_entropy`; the Hello is in `handshake`. A swap with one
neighbour every few seconds carries the adverts, and is how each side knows that the other is there
and still sees it; with each in turn, so that nobody is unheard for long. A neighbour that is silent
is no candidate any more.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import islice

import trio

from p2p import timeouts
from p2p.anti_entropy import keys_of
from p2p.connect import TROUBLES, call_all
from p2p.dialing import Dial
from p2p.handshake import Handshake
from p2p.handshake_log import not_met
from p2p.ip_address import host_of
from p2p.score import Standing
from p2p.transport import ConnectionDown, ConnectionEvent, ConnectionUp
from p2p.typed_call import TypedCall, refusal_of
from wire.content import PeerId
from wire.errors import InputError, Refused, TooSlow
from wire.kinds import RefusalCode
from wire.message import Goodbye, Message, Newer, Ping, Pong, Swap

SWAP_DEADLINE_S = 5.0
# A newcomer swaps quickly, so often, until its view is of use.
QUICK_SWAPS = 5
QUICK_SWAP_S = 1.0
EXPIRE_EVERY_S = 5.0
KEEP_UP_S = 1.0
# Calls for the sake of a task leave connections behind: above the one, down to the other.
CONNECTIONS_MAX = 48
CONNECTIONS_KEPT = 32
# So many times as many at a peer that can be called: all who stand behind routers call those few,
# and where four of five do, each has eight times four of theirs.
OPEN_TIMES = 3
RELAYED_IDLE_S = 60.0
OURS_KEPT = 8
PART_DEADLINE_S = 1.0
# Who said that it parts, or was refused, and is still there after this is hung up on.
PARTED_S = 3.0
# Nobody's swaps are answered more often.
SWAP_PAUSE_S = 0.3
REMEMBERED_CALLED = 16


@dataclass(slots=True)
class Neighbours(Handshake):
    """Who is connected, and how they are."""

    bootstraps: tuple[str, ...] = ()
    # Whether whoever meets nobody at first goes on all the same.
    keep_calling: bool = False
    # Connections that are not parted from to make room.
    held: Callable[[], frozenset[PeerId]] = frozenset
    # Whether strangers can call this peer.
    is_called: Callable[[], bool] = bool
    swaps: int = 0
    # In a private network: told of each swap, with which the list of revoked ids travels.
    swapped: Callable[[PeerId], Awaitable[None]] | None = None
    # When each last began a swap with us.
    _swapped_at_s: dict[PeerId, float] = field(default_factory=dict)

    # Swapping

    async def swap(self, peer: PeerId) -> None:
        """Tell each other what is newer; one of TROUBLES says why not."""
        environment, advertiser = self.rpc.environment, self.advertiser
        mine = advertiser.mine(self.endpoint)
        async with self.rpc.call(peer, deadline_s=timeouts.stretched(SWAP_DEADLINE_S)) as call:
            digest = self.anti_entropy.digest(mine, environment.wall_s())
            await call.send(Swap(instance=self.handshake_log.instance, digest=digest))
            newer = await call.expect(Newer)
            wanted = self.anti_entropy.wanted(newer.wanted, mine, environment.wall_s())
            raws = tuple(it.raw for it in wanted)
            await call.send(Newer(adverts=raws, wanted=b"", same_key=None))
            await advertiser.take_in_batch(newer.adverts, peer)
            self._told_same_key(newer.same_key)
        self._answered(peer)
        self.swaps += 1

    async def on_swap(self, call: TypedCall, message: Message) -> None:
        assert isinstance(message, Swap)
        if call.peer in self._strange:
            await call.send(
                refusal_of(
                    Refused(
                        "we have not met", retry_after_s=SWAP_DEADLINE_S, code=RefusalCode.STRANGER
                    )
                )
            )
            return
        now_at_s = trio.current_time()
        if now_at_s < self._swapped_at_s.get(call.peer, -math.inf) + SWAP_PAUSE_S:
            await call.send(refusal_of(Refused("we swapped just now", retry_after_s=SWAP_PAUSE_S)))
            return
        self._swapped_at_s[call.peer] = now_at_s
        mine, wall_s = self.advertiser.mine(self.endpoint), self.rpc.environment.wall_s()
        told = self.anti_entropy.compare(message.digest, mine, call.peer, wall_s)
        same = self._other_start(call.peer, message.instance)
        raws = tuple(it.raw for it in told.adverts)
        await call.send(Newer(adverts=raws, wanted=told.wanted, same_key=same))
        with timeouts.move_on_after(SWAP_DEADLINE_S) as waiting:
            newer = await call.receive()
        if waiting.cancelled_caught:
            raise TooSlow(f"{call.peer.short} did not finish the swap it began")
        assert isinstance(newer, Newer), "the conversation's table allows nothing else"
        await self.advertiser.take_in_batch(newer.adverts, call.peer, keys_of(told.wanted))
        self._answered(call.peer)

    async def swap_forever(self) -> None:
        """One neighbour after the other, whoever was not heard for the longest first."""
        quick = QUICK_SWAPS
        while True:
            every_s = self.advertiser.rate_limit.swap_every_s(self.anti_entropy.peers())
            pause_s = QUICK_SWAP_S if quick else every_s
            # Spread, so that a thousand peers started at once do not speak at once.
            await trio.sleep(pause_s * (0.5 + self.rpc.environment.random.random()))
            # Two that banned each other would keep it up by asking and not answering.
            strange = self._strange & (self._calls.keys() | self._parting.keys())
            connected = sorted(self.view.connected - strange)
            able = [it for it in connected if self.rpc.standing(it) is not Standing.BANNED]
            # What others say reaches us over them: no relay has to carry it.
            direct = [it for it in able if not self.endpoint.is_relayed(it)]
            able = direct or able
            if able:
                quick = max(0, quick - 1)
                peer = self.handshake_log.longest_unheard(able, self.rpc.environment.random)
                self.handshake_log.asked(peer, trio.current_time())
                await self._swap_quietly(peer)
            if self.ended is not None:
                raise self.ended

    async def _swap_quietly(self, peer: PeerId) -> None:
        try:
            if peer in self._strange:
                await self.greeted(peer, timeouts.stretched(SWAP_DEADLINE_S))
            await self.swap(peer)
            if self.swapped is not None:
                await self.swapped(peer)
        except TROUBLES as error:
            self.rpc.note_problem(str(peer), str(error))

    async def ask_around(self, *, deadline_s: float = 2.0, unheard_s: float = 10.0) -> None:
        """Ask every neighbour that was not heard a moment ago whether it sees us."""
        now_at_s = trio.current_time()
        with trio.move_on_after(deadline_s):
            async with trio.open_nursery() as pings:
                for peer in sorted(self.rpc.connected()):
                    heard = self.handshake_log.answered_within((peer,), now_at_s, unheard_s)
                    if not heard and self.rpc.standing(peer) is not Standing.BANNED:
                        pings.start_soon(self.ping, peer)

    async def ping(self, peer: PeerId, deadline_s: float = SWAP_DEADLINE_S) -> bool:
        """Whether a connected peer answers in time; why it does not is noted."""
        try:
            async with self.rpc.call(peer, deadline_s=timeouts.stretched(deadline_s)) as call:
                await call.send(Ping(instance=self.handshake_log.instance))
                self._told_same_key((await call.expect(Pong)).same_key)
        except TROUBLES as error:
            self.rpc.note_problem(str(peer), str(error))
            return False
        self._answered(peer)
        return True

    async def on_ping(self, call: TypedCall, message: Message) -> None:
        assert isinstance(message, Ping)
        await call.send(Pong(same_key=self._other_start(call.peer, message.instance)))

    # Keeping up

    async def join(self) -> None:
        """Meet one bootstrap or known peer; Unreachable, naming each tried, if none answers.

        Who is to keep calling, or met others before this start, goes on alone: all are called until
        one answers, and `unmet` says why none does. A network that refuses us is an error in any
        case, and so is an address that cannot be one (InputError).
        """
        if not self.bootstraps:
            return
        troubles = await call_all(self.call, [Dial(None, (it,)) for it in self.bootstraps])
        if len(troubles) == len(self.bootstraps):
            known = list(self.dialing.known().items())[:REMEMBERED_CALLED]
            calls = [Dial(peer, addresses) for peer, addresses in known]
            if len(await call_all(self.call, calls)) == len(calls):
                error = not_met(troubles, private=self.rpc.credentials is not None)
                refused = all(isinstance(it, Refused) for it in troubles)
                if refused or not (known or self.keep_calling):
                    raise error
                # After a power cut this machine may be up before its router or the others are.
                if not self.view.connected:
                    self.unmet = f"{error.message}; called until one answers: {error.todo}"
        self.handshake_log.check_clock()

    async def keep_up_forever(self) -> None:
        expire_at_s = trio.current_time()
        async with trio.open_nursery() as calls:
            while True:
                now_at_s = trio.current_time()
                if now_at_s >= expire_at_s:
                    self.view.expire(self.rpc.environment.wall_s())
                    expire_at_s = now_at_s + EXPIRE_EVERY_S
                for dial in self.dialing.due(now_at_s):
                    calls.start_soon(self._call_quietly, dial)
                for peer in self._superfluous(now_at_s):
                    calls.start_soon(self.part, peer)
                for peer, at_s in self._parting.items():
                    # It was to hang up.
                    if now_at_s > at_s + PARTED_S and peer in self.view.connected:
                        calls.start_soon(self.endpoint.disconnect, peer)
                await trio.sleep(KEEP_UP_S)

    async def _call_quietly(self, dial: Dial) -> None:
        try:
            await self.call(dial)
        except InputError as error:
            self.ended = error
        except TROUBLES:
            # Kept as a problem; dialing waits and tries again.
            return

    def _superfluous(self, now_at_s: float) -> list[PeerId]:
        """Whom to part from: of too many connections those that were of no use for longest.

        What a relay passes on, and nobody uses, is parted from in any case: the relay is paying.
        """
        rpc, held = self.rpc, self.held()
        connected = [it for it in self.view.connected if it not in held]
        idle = [
            it
            for it in connected
            if now_at_s > rpc.used_at_s.get(it, now_at_s) + RELAYED_IDLE_S
            and not rpc.in_calls[it]
            and it not in self._parting
            and self.endpoint.is_relayed(it)
        ]
        times = OPEN_TIMES if self.is_called() else 1
        if idle or len(connected) <= times * CONNECTIONS_MAX:
            return idle
        # Keys that all call us, and stay in talk, would else have us to themselves.
        kept = [*islice((it for it in self._ours if it in connected), OURS_KEPT)]
        others = [it for it in connected if it not in kept and it not in self._parting]
        others.sort(key=lambda it: (rpc.in_calls[it] > 0, rpc.used_at_s.get(it, 0.0)))
        return others[: len(connected) - times * CONNECTIONS_KEPT]

    async def part(self, peer: PeerId, *, leaving: bool = False) -> None:
        """Close the connection to `peer`, and have it know that we are not dead."""
        advertiser = self.advertiser
        advert = (
            advertiser.advert(self.endpoint, leaving=True)
            if leaving
            else advertiser.mine(self.endpoint)
        )
        self._parting[peer] = trio.current_time()
        try:
            async with self.rpc.call(peer, deadline_s=timeouts.stretched(PART_DEADLINE_S)) as call:
                await call.send(Goodbye(advert=advert.raw))
                await call.expect(Pong)
        except TROUBLES as error:
            self.rpc.note_problem(str(peer), str(error))
        if not leaving:
            await self.endpoint.disconnect(peer)

    async def on_part(self, call: TypedCall, message: Message) -> None:
        assert isinstance(message, Goodbye)
        self.advertiser.take_in(self._own_advert(call, message.advert), call.peer)
        self._parting[call.peer] = trio.current_time()
        await call.send(Pong(same_key=None))

    async def leave(self) -> None:
        """Tell the neighbours that we are leaving for good."""
        with trio.CancelScope(deadline=trio.current_time() + PART_DEADLINE_S, shield=True):
            async with trio.open_nursery() as nursery:
                for peer in sorted(self.rpc.connected()):
                    nursery.start_soon(lambda it=peer: self.part(it, leaving=True))

    def on_connection(self, event: ConnectionEvent) -> None:
        match event:
            case ConnectionUp(peer):
                self._parting.pop(peer, None)
                self.dialing.connected(peer)
                self.view.connected.add(peer)
                host = host_of(self.endpoint.remote_address(peer) or "")
                self.view.origins.came_from(peer, host)
            case ConnectionDown(peer):
                self.view.connected.discard(peer)
                self.view.origins.gone(peer)
                self._strange.discard(peer)
                self._ours.pop(peer, None)
                self.anti_entropy.believed.discard(peer)
                self._swapped_at_s.pop(peer, None)
                self.rpc.used_at_s.pop(peer, None)
                if self.rpc.credentials is not None:
                    self.rpc.credentials.proven.pop(peer, None)
                lost = self._parting.pop(peer, None) is None
                self.dialing.disconnected(peer, trio.current_time(), lost=lost, parted=not lost)
                self.connection_ages.ended(peer, trio.current_time(), broke=lost)
                if lost:
                    # It may be gone for good; if not, it says so when it is called.
                    self.view.forget(peer)
