"""Being a member of a private network: admitted once, renewed, and told who is none any more.

The shell around `p2p.credentials`. In such a network a peer asks whom it calls to admit it, until
it is a member; whoever shows no membership soon is hung up on; and the list of revoked ids travels
with swaps, and at once to everybody when it is new.
"""

from dataclasses import dataclass, field

import trio

from p2p.admission import NetworkAdmission
from p2p.connect import TROUBLES
from p2p.credentials import Credential, Credentials
from p2p.member_rows import MemberRows, OwnMembership, keep_own
from p2p.neighbours import Neighbours
from p2p.peer_rpc import PeerRpc
from p2p.timeouts import stretched
from p2p.typed_call import TypedCall
from store import Store
from wire.content import PeerId
from wire.errors import Refused, RemoteProtocolError, StoreError, WireError
from wire.latest import Latest
from wire.membership import (
    Admitted,
    Admitter,
    ClaimInvite,
    ClaimNonce,
    ClaimSigned,
    ClaimStatement,
    Invite,
    Renew,
    RevokedNews,
)
from wire.message import Message
from wire.signed import Signed, open_signed, sign
from wire.signing import SigningKey

LOOK_S = 1.0
NEWS_DEADLINE_S = 5.0
RENEW_DEADLINE_S = 10.0
# A renewal that failed is tried again after so long, and later after more.
RENEW_AGAIN_S, RENEW_AGAIN_S_MAX = 60.0, 3600.0
# Whoever is connected for so long and has shown no membership is hung up on.
UNPROVEN_S = 20.0
UNPROVEN_KEPT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateNetwork:
    """Which private network a peer takes part in, and by what.

    `own` is what it kept of an earlier start; `invite` with `claim_key` is what it was given to
    become a member by. `network` is the owner's key.
    """

    network: PeerId
    store: Store
    name: str = ""
    own: OwnMembership | None = None
    invite: Signed[Invite] | None = None
    claim_key: SigningKey | None = None


def addresses_of(admitter: Admitter) -> tuple[str, ...]:
    """The whole multiaddrs of an admitter."""
    return tuple(f"{it}/p2p/{admitter.peer}" for it in admitter.addresses)


@dataclass(slots=True)
class Members:
    """One peer's membership, and its part in keeping others out."""

    rpc: PeerRpc
    neighbours: Neighbours
    credentials: Credentials
    private: PrivateNetwork
    rows: MemberRows
    admission: NetworkAdmission
    _renew_at_s: float = 0.0
    _renew_again_s: float = RENEW_AGAIN_S
    _claiming: trio.Lock = field(default_factory=trio.Lock)
    _news: trio.Event = field(default_factory=trio.Event)
    # Since when each is connected that has shown nothing.
    _unproven: Latest[PeerId, float] = field(default_factory=lambda: Latest(UNPROVEN_KEPT))

    @property
    def is_owner(self) -> bool:
        return self.rpc.me == self.credentials.network

    # Becoming a member

    async def claim(self, peer: PeerId, deadline_s: float) -> None:
        """Ask `peer` to admit us, if we need that and it may; one of TROUBLES says why not."""
        async with self._claiming:
            invite, key = self.private.invite, self.private.claim_key
            if invite is None or key is None or self._is_member():
                return
            if invite.record.share_of(peer) == 0 or self.credentials.is_removed(peer):
                return
            async with self.rpc.call(peer, deadline_s=deadline_s, unproven=True) as call:
                await call.send(ClaimInvite(invite=invite.raw))
                asked = await call.expect(ClaimNonce)
                statement = ClaimStatement(
                    network=self.credentials.network,
                    invite=invite.record.id,
                    nonce=asked.nonce,
                    newcomer=self.rpc.me,
                    admitter=peer,
                )
                await call.send(ClaimSigned(statement=sign(statement, key).raw))
                admitted = await call.expect(Admitted)
                own = self._judged(admitted)
            await self._adopt(own, invite.raw)

    def _is_member(self) -> bool:
        return self._lasts() and not self.credentials.own_end()

    def _lasts(self) -> bool:
        """Whether our membership has not come to its end by its own words."""
        own = self.credentials.own
        return own is not None and self.rpc.environment.wall_s() < own.until_wall_s

    def _judged(self, admitted: Admitted) -> Credential:
        """What we were given, if others will take it for a membership."""
        try:
            return self.credentials.judge(
                self.rpc.me, admitted.membership, admitted.invite, self.rpc.environment.wall_s()
            )
        except Refused as error:
            raise WireError(f"it gave us a membership that is none: {error.message}") from error

    async def _adopt(self, own: Credential, joined_by: bytes) -> None:
        self.credentials.own, self.credentials.problem = own, ""
        kept = OwnMembership(
            self.credentials.network,
            self.credentials.name,
            own.membership,
            own.invite,
            joined_by,
        )
        try:
            await keep_own(self.private.store, kept)
        except StoreError as error:
            self.rpc.note_problem("membership", f"it could not be stored: {error.message}")
        self.neighbours.advertiser.changed()

    # Keeping up

    async def keep_up_forever(self) -> None:
        """Renew our membership, tell of new lists, hang up on strangers, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._spread_forever, nursery)
            while True:
                now_at_s = trio.current_time()
                if now_at_s >= self._renew_at_s:
                    await self._renew_if_due(now_at_s)
                await self._hang_up(now_at_s)
                await trio.sleep(LOOK_S)

    async def _hang_up(self, now_at_s: float) -> None:
        wall_s = self.rpc.environment.wall_s()
        for peer in self.rpc.connected():
            if self.credentials.admits(peer, wall_s):
                self._unproven.pop(peer, None)
            elif now_at_s > self._unproven.setdefault(peer, now_at_s) + UNPROVEN_S:
                self._unproven.pop(peer, None)
                await self.rpc.endpoint.disconnect(peer)

    async def _renew_if_due(self, now_at_s: float) -> None:
        own = self.credentials.own
        if own is None or self.is_owner or not own.is_half_over(self.rpc.environment.wall_s()):
            self._renew_at_s = now_at_s + RENEW_AGAIN_S
            return
        if await self._renew(own):
            self._renew_again_s = RENEW_AGAIN_S
        else:
            self._renew_again_s = min(2 * self._renew_again_s, RENEW_AGAIN_S_MAX)
        self._renew_at_s = trio.current_time() + self._renew_again_s

    async def _renew(self, own: Credential) -> bool:
        """Get a later membership of somebody who may give it, and show it to the connected."""
        joined_by = b"" if self.private.own is None else self.private.own.joined_by
        if self.private.invite is not None:
            joined_by = self.private.invite.raw
        named = open_signed(joined_by, Invite).record.admitters if joined_by else ()
        for admitter in named:
            self.rpc.dialing.learn(admitter.peer, addresses_of(admitter))
        for peer in dict.fromkeys(
            (own.admitter, self.credentials.network, *[it.peer for it in named])
        ):
            try:
                deadline_s = stretched(RENEW_DEADLINE_S)
                async with self.rpc.call(peer, deadline_s=deadline_s) as call:
                    await call.send(Renew(serial=own.serial))
                    admitted = await call.expect(Admitted)
                    found = self._judged(admitted)
            except TROUBLES as error:
                self.rpc.note_problem("membership", f"{peer.short} did not renew it: {error}")
                continue
            if found.serial > own.serial:
                await self._adopt(found, joined_by)
                await self._show()
                return True
        return False

    async def _show(self) -> None:
        """Show our membership anew to everybody who knows an older one."""
        async with trio.open_nursery() as nursery:
            for peer in list(self.credentials.proven):
                nursery.start_soon(self._greet_quietly, peer)

    async def _greet_quietly(self, peer: PeerId) -> None:
        try:
            await self.neighbours.greeted(peer, stretched(RENEW_DEADLINE_S))
        except TROUBLES as error:
            self.rpc.note_problem(str(peer), str(error))

    # Whoever is a member no more

    async def take_revoked(self, raw: bytes) -> bool:
        """Take a list if it is newer, and close the connections of whom it ends.

        WireError if it is not the owner's. It is kept, and told to everybody, soon after.
        """
        if not self.credentials.take_revoked(raw):
            return False
        if ended := self.credentials.own_end():
            self.credentials.problem = ended
        for peer in self.credentials.fallen():
            self.rpc.view.forget(peer)
            self.rpc.dialing.left(peer)
            await self.rpc.endpoint.disconnect(peer)
        self._news.set()
        return True

    async def on_revoked_news(self, call: TypedCall, message: Message) -> None:
        """Tell the version that is known here, with the list if the other's is older."""
        assert isinstance(message, RevokedNews)
        taken = bool(message.revoked) and await self.take_revoked(message.revoked)
        known = self.credentials.revoked
        newer = known is not None and not taken and known.record.version > message.version
        raw = known.raw if newer and known is not None else b""
        await call.send(RevokedNews(version=self.credentials.revoked_version, revoked=raw))

    async def compare(self, peer: PeerId) -> None:
        """Both know the newer list afterwards; one of TROUBLES says why not."""
        told = await self._tell(peer, b"")
        known = self.credentials.revoked
        if told.version < self.credentials.revoked_version and known is not None:
            await self._tell(peer, known.raw)

    async def ask_why(self, peer: PeerId) -> None:
        """It takes us for no member: by a list that we do not know yet, it may be."""
        if self.credentials.own is None or self.is_owner:
            return
        try:
            await self._tell(peer, b"", unproven=True)
        except TROUBLES as error:
            self.rpc.note_problem(str(peer), str(error))

    async def _tell(self, peer: PeerId, raw: bytes, *, unproven: bool = False) -> RevokedNews:
        version = self.credentials.revoked_version
        deadline_s = stretched(NEWS_DEADLINE_S)
        async with self.rpc.call(peer, deadline_s=deadline_s, unproven=unproven) as call:
            await call.send(RevokedNews(version=version, revoked=raw))
            told = await call.expect(RevokedNews)
            if told.version > version and not told.revoked:
                raise RemoteProtocolError("it knows a newer list of revoked ids and keeps it back")
        if told.revoked:
            await self.take_revoked(told.revoked)
        return told

    async def _spread_forever(self, nursery: trio.Nursery) -> None:
        """Keep each new list, and tell it to all members that are connected."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            known = self.credentials.revoked
            if known is None:
                continue
            try:
                await self.rows.keep_revoked(known.raw)
            except StoreError as error:
                self.rpc.note_problem("revoked", f"the list is not stored: {error.message}")
            for peer in list(self.credentials.proven):
                nursery.start_soon(self._tell_quietly, peer, known.raw)

    async def _tell_quietly(self, peer: PeerId, raw: bytes) -> None:
        try:
            await self._tell(peer, raw)
        except TROUBLES as error:
            self.rpc.note_problem(str(peer), str(error))

    # Telling

    def as_map(self) -> dict[str, object]:
        """How this peer stands in its private network, for `status`."""
        own = self.credentials.own
        removed = self.credentials.is_removed(self.rpc.me)
        kept = self.private.own is not None and bool(self.private.own.membership)
        ended = (own is not None or kept) and not self._lasts()
        # All that it called lately took it for none; whoever takes it clears that.
        refused = bool(self.credentials.problem) and not self.credentials.proven
        return {
            "network": str(self.credentials.network),
            "name": self.credentials.name,
            "owner": self.is_owner,
            "member": self._is_member() and not refused,
            "removed": removed,
            "expired": ended,
            "label": "" if own is None else own.label,
            "roles": 0 if own is None else own.roles,
            "not_after_wall_s": None if own is None or self.is_owner else own.until_wall_s,
            "problem": self.credentials.problem,
            "revoked_version": self.credentials.revoked_version,
            "members_connected": len(self.credentials.proven),
            "invite_not_after_wall_s": None
            if self.private.invite is None
            else self.private.invite.record.not_after_s,
            "admitted": self.admission.admitted,
            "claims_refused": self.admission.refused,
        }


def open_members(rpc: PeerRpc, neighbours: Neighbours, private: PrivateNetwork) -> Members:
    """Have a peer take only members for its own from now on; before it is connected to anybody."""
    credentials = Credentials(private.network, rpc.me, private.name)
    rows = MemberRows(private.store)
    if (raw := rows.revoked()) is not None:
        credentials.take_revoked(raw)
    own = private.own
    if own is not None and own.membership:
        try:
            wall_s = rpc.environment.wall_s()
            credentials.own = credentials.judge(rpc.me, own.membership, own.invite, wall_s)
        except Refused as error:
            # An invite may be at hand by which it becomes a member again.
            credentials.problem = error.message
    members = Members(
        rpc, neighbours, credentials, private, rows, NetworkAdmission(rpc, credentials, rows)
    )
    rpc.credentials, rpc.greet = credentials, neighbours.greeted
    neighbours.claim, neighbours.swapped = members.claim, members.compare
    neighbours.ask_why = members.ask_why
    advertiser = neighbours.advertiser
    advertiser.publishes, advertiser.allows = False, credentials.allows
    advertiser.own_roles = lambda: credentials.own.roles if credentials.own else -1
    rpc.handlers |= {
        ClaimInvite: members.admission.on_claim,
        Renew: members.admission.on_renew,
        RevokedNews: members.on_revoked_news,
    }
    return members
