"""Admitting to a private network: invites given, claimed and revoked, memberships renewed.

The owner gives invites and revokes ids; whoever an invite names admits by it. A newcomer signs a
nonce with the invite's claim key, whose secret never travels, and a use is counted durably before
the membership is sent. A peer that asks again is answered again, and counted once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import trio

from p2p.credentials import DAY_S, MEMBERSHIP_S, REMOVED, Credentials
from p2p.member_rows import KeptInvite, KeptMember, MemberRows
from p2p.peer_rpc import PeerRpc
from p2p.timeouts import stretched
from p2p.token_bucket import TokenBucket
from p2p.typed_call import TypedCall, refusal_of
from wire import limits
from wire.content import PeerId
from wire.errors import InputError, Refused, StoreError, TooSlow, WireError
from wire.kinds import RefusalCode
from wire.membership import (
    Admitted,
    Admitter,
    ClaimInvite,
    ClaimNonce,
    ClaimSigned,
    ClaimStatement,
    Invite,
    Membership,
    Renew,
    Revoked,
)
from wire.message import Message
from wire.signed import Signed, open_signed, sign
from wire.signing import SigningKey

INVITES_KEPT = 1024
CLAIM_DEADLINE_S = 10.0
CLAIMS_AT_ONCE = 16
# Keys cost nothing, and each claim costs a few signatures.
CLAIMS_BURST, CLAIMS_PER_S = 64.0, 4.0
# An invite that has ended is still told of for so long.
TOLD_S = 7 * DAY_S


@dataclass(frozen=True, slots=True)
class _OnlyListed:
    """What a list revokes beyond the owner's rows; of `unknown` invites nothing else is kept."""

    invites: tuple[KeptInvite, ...]
    members: tuple[KeptMember, ...]
    unknown: list[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteTerms:
    """What the owner wants an invite to be; roles as bits, `for_s` in seconds."""

    uses_max: int
    for_s: int
    roles: int
    label: str
    admitters: tuple[Admitter, ...]


@dataclass(slots=True)
class NetworkAdmission:
    """One peer's part in admitting others; the owner's, or that of a peer an invite names."""

    rpc: PeerRpc
    credentials: Credentials
    rows: MemberRows
    admitted: int = 0
    refused: int = 0
    _at_once: int = 0
    _claims: TokenBucket = field(default_factory=lambda: TokenBucket(CLAIMS_BURST, CLAIMS_PER_S))
    _lock: trio.Lock = field(default_factory=trio.Lock)

    # As the owner

    async def invite(self, terms: InviteTerms) -> tuple[Signed[Invite], bytes]:
        """A new invite and the seed of its claim key, which is kept nowhere here."""
        self._check_owner()
        if terms.uses_max < len(terms.admitters):
            raise InputError(
                f"{len(terms.admitters)} peers cannot share {terms.uses_max} uses of an invite:"
                " each counts its own",
                todo=f"give --uses {len(terms.admitters)} or more, or name fewer with --admitter",
            )
        environment = self.rpc.environment
        wall_s = int(environment.wall_s())
        async with self._lock:
            await self._forget_ended(wall_s)
            seed = environment.entropy(32)
            try:
                invite = Invite(
                    id=environment.entropy(16),
                    name=self.credentials.name,
                    claim_key=SigningKey(seed).peer,
                    issued_at_s=wall_s,
                    not_after_s=wall_s + terms.for_s,
                    uses_max=terms.uses_max,
                    roles=terms.roles,
                    label=terms.label,
                    admitters=terms.admitters,
                )
                signed = sign(invite, self.rpc.key)
            except WireError as error:
                raise InputError(f"there is no such invite: {error.message}") from error
            await self.rows.keep_invite(KeptInvite(signed))
        return signed, seed

    async def _forget_ended(self, wall_s: int) -> None:
        kept = self.rows.invites()
        ended = [
            it.invite.record.id for it in kept if it.invite.record.not_after_s + TOLD_S < wall_s
        ]
        if ended:
            await self.rows.forget_invites(ended)
        if len(kept) - len(ended) >= INVITES_KEPT:
            raise InputError(
                f"{INVITES_KEPT} invites are kept, and that is all there is room for",
                todo="wait until some have ended, or give one with more --uses",
            )

    async def revoke_invite(self, invite_id: bytes) -> bytes:
        """Have an invite admit nobody any more; the new list. Who came by it stays a member."""
        self._check_owner()
        async with self._lock:
            kept = self.rows.invite(invite_id)
            if kept is None:
                raise InputError(
                    "there is no invite with this id", todo="see: python -m node invite list"
                )
            return await self._revoke(invites=(replace(kept, revoked=True),))

    async def remove(self, peer: PeerId) -> tuple[bytes, list[KeptInvite]]:
        """Have `peer` be no member any more, nor whom it admitted; the new list.

        Also the invites that are revoked with it: it has their secret, and could come again by
        what is left of them, under another key.
        """
        self._check_owner()
        if peer == self.credentials.network:
            raise InputError("the owner of a private network cannot be removed from it")
        async with self._lock:
            until = self._removed_until_wall_s()
            member = replace(self.rows.member(peer), removed_until_wall_s=until)
            invites = [replace(it, revoked=True) for it in self._invites_of(peer)]
            return await self._revoke(invites=tuple(invites), member=member), invites

    def _invites_of(self, peer: PeerId) -> list[KeptInvite]:
        """The invites that still admit and by which `peer` came, here or at another admitter."""
        held, kept = self.credentials.proven.get(peer), self.rows.member(peer).membership
        ids = {b"" if held is None else held.invite_id, b"" if kept is None else kept.record.invite}
        wall_s = self.rpc.environment.wall_s()
        return [
            it
            for it in self.rows.invites()
            if (peer in it.claimed or it.invite.record.id in ids)
            and not it.revoked
            and it.invite.record.uses_max > 1
            and it.invite.record.not_after_s >= wall_s
        ]

    async def _revoke(
        self, *, invites: tuple[KeptInvite, ...] = (), member: KeptMember | None = None
    ) -> bytes:
        """Sign all that is revoked now, as a newer list than any before, and keep it.

        With these beside; InputError, and nothing is kept, if there is no room for them.
        """
        wall_s = int(self.rpc.environment.wall_s())
        kept = {it.invite.record.id: it for it in self.rows.invites()}
        members = {it.peer: it for it in self.rows.members()}
        listed = self._only_listed(kept, members)
        changed = {it.invite.record.id: it for it in (*listed.invites, *invites)}
        gone = {it.peer: it for it in (*listed.members, *((member,) if member else ()))}
        kept |= changed
        members |= gone
        ids = [
            it.invite.record.id
            for it in kept.values()
            if it.revoked and it.invite.record.not_after_s + DAY_S > wall_s
        ]
        peers = [it.peer for it in members.values() if it.removed_until_wall_s > wall_s]
        if len(ids) > limits.REVOKED_INVITES_MAX or len(peers) > limits.REVOKED_PEERS_MAX:
            raise InputError(
                f"{limits.REVOKED_PEERS_MAX} peers and as many invites are all that can be revoked",
                todo="wait: an id is dropped a month after it was removed, or when an invite ends",
            )
        # When they end is not known here, so they stay as long as there is room.
        ids += listed.unknown[: limits.REVOKED_INVITES_MAX - len(ids)]
        version = max(self.credentials.revoked_version + 1, wall_s)
        record = Revoked(version=version, invites=tuple(sorted(ids)), peers=tuple(sorted(peers)))
        raw = sign(record, self.rpc.key).raw
        await self.rows.keep_all(tuple(changed.values()), tuple(gone.values()))
        await self.rows.keep_revoked(raw)
        return raw

    def _only_listed(
        self, kept: Mapping[bytes, KeptInvite], members: Mapping[PeerId, KeptMember]
    ) -> _OnlyListed:
        """What the known list revokes and these rows do not: an older copy of the folder is used.

        The list has come back from a member, and the next one takes its place.
        """
        if (known := self.credentials.revoked) is None:
            return _OnlyListed((), (), [])
        rows = [kept[it] for it in known.record.invites if it in kept]
        unknown = [it for it in known.record.invites if it not in kept]
        peers = [members.get(it, KeptMember(it)) for it in known.record.peers]
        until = self._removed_until_wall_s()
        return _OnlyListed(
            tuple(replace(it, revoked=True) for it in rows if not it.revoked),
            # Of one that was removed here it is known when that ends.
            tuple(
                replace(it, removed_until_wall_s=until)
                for it in peers
                if not it.removed_until_wall_s
            ),
            unknown,
        )

    def _removed_until_wall_s(self) -> int:
        """When no membership of a peer that is removed now can hold any more."""
        return int(self.rpc.environment.wall_s()) + MEMBERSHIP_S + 2 * DAY_S

    def _check_owner(self) -> None:
        if self.rpc.me != self.credentials.network:
            raise InputError(
                "only the owner of a private network invites and removes peers",
                todo=f"type it on the machine of its owner, {self.credentials.network}",
            )

    # As an admitter

    async def on_claim(self, call: TypedCall, message: Message) -> None:
        """Admit whoever proves that it has an invite's secret, or refuse it with the reason."""
        assert isinstance(message, ClaimInvite)
        try:
            if self._at_once >= CLAIMS_AT_ONCE or not self._claims.take(trio.current_time()):
                raise Refused("too many ask to be admitted", retry_after_s=CLAIM_DEADLINE_S)
            self._at_once += 1
            try:
                admitted = await self._claimed(call, message)
            finally:
                self._at_once -= 1
        except (Refused, StoreError) as error:
            self.refused += 1
            await call.send(refusal_of(error))
            return
        self.admitted += 1
        await call.send(admitted)

    async def _claimed(self, call: TypedCall, message: ClaimInvite) -> Admitted:
        wall_s = self.rpc.environment.wall_s()
        try:
            invite = open_signed(message.invite, Invite)
        except WireError as error:
            raise _refused(f"this is no invite: {error.message}") from error
        self.credentials.check_invite(invite, wall_s)
        self._check_not_removed(call.peer)
        self._check_left(invite, call.peer)
        nonce = self.rpc.environment.entropy(32)
        await call.send(ClaimNonce(nonce=nonce))
        with trio.move_on_after(stretched(CLAIM_DEADLINE_S)) as waiting:
            answer = await call.receive()
        if waiting.cancelled_caught:
            raise TooSlow(f"{call.peer.short} did not sign its claim in time")
        assert isinstance(answer, ClaimSigned), "the conversation's table allows nothing else"
        said = ClaimStatement(
            network=self.credentials.network,
            invite=invite.record.id,
            nonce=nonce,
            newcomer=call.peer,
            admitter=self.rpc.me,
        )
        try:
            statement = open_signed(answer.statement, ClaimStatement)
        except WireError as error:
            raise _refused(f"the claim does not hold: {error.message}") from error
        if statement.signer != invite.record.claim_key or statement.record != said:
            raise _refused("the claim is not signed with this invite's secret, for here and now")
        return await self._admit(invite, call.peer)

    async def _admit(self, invite: Signed[Invite], peer: PeerId) -> Admitted:
        """Count the use, durably, and only then give the membership."""
        async with self._lock:
            # It may have been used, or revoked, since we looked.
            self.credentials.check_invite(invite, self.rpc.environment.wall_s())
            self._check_not_removed(peer)
            kept = self._check_left(invite, peer)
            membership = self._membership(
                peer, invite.record.roles, invite.record.label, invite.record.id
            )
            claimed = kept.claimed if peer in kept.claimed else (*kept.claimed, peer)
            await self.rows.keep_admitted(
                replace(kept, claimed=claimed), KeptMember(peer, membership)
            )
        by = b"" if self.rpc.me == self.credentials.network else invite.raw
        return Admitted(membership=membership.raw, invite=by)

    def _check_not_removed(self, peer: PeerId) -> None:
        """Refused if it was removed, also a moment ago: the list of it may not have come yet."""
        wall_s = self.rpc.environment.wall_s()
        kept = self.rows.member(peer)
        if self.credentials.is_removed(peer) or kept.removed_until_wall_s > wall_s:
            raise _refused(REMOVED)

    def _check_left(self, invite: Signed[Invite], peer: PeerId) -> KeptInvite:
        """What is kept of the invite; Refused if it was used as often as it may be here."""
        kept = self.rows.invite(invite.record.id) or KeptInvite(invite)
        if kept.revoked:
            raise _refused("this invite was revoked: ask for a new one")
        if peer not in kept.claimed and len(kept.claimed) >= invite.record.share_of(self.rpc.me):
            raise _refused("this invite was used already: ask for a new one")
        return kept

    def _membership(
        self, peer: PeerId, roles: int, label: str, invite_id: bytes
    ) -> Signed[Membership]:
        wall_s = int(self.rpc.environment.wall_s())
        record = Membership(
            network=self.credentials.network,
            peer=peer,
            roles=roles,
            label=label,
            issued_at_s=wall_s,
            not_after_s=wall_s + MEMBERSHIP_S,
            serial=wall_s,
            invite=invite_id,
        )
        return sign(record, self.rpc.key)

    async def on_renew(self, call: TypedCall, message: Message) -> None:
        """Give a member that has shown its membership one that lasts longer."""
        assert isinstance(message, Renew)
        try:
            admitted = await self._renewed(call.peer)
        except (Refused, StoreError) as error:
            await call.send(refusal_of(error))
            return
        await call.send(admitted)

    async def _renewed(self, peer: PeerId) -> Admitted:
        held = self.credentials.proven.get(peer)
        if held is None or peer == self.credentials.network:
            raise _refused("you have shown no membership that could be renewed")
        by = b""
        if self.rpc.me != self.credentials.network:
            if not held.invite:
                raise _refused("only the owner of this network renews your membership")
            invite = open_signed(held.invite, Invite)
            if invite.record.share_of(self.rpc.me) == 0:
                raise _refused("the invite by which you joined does not name this peer")
            by = held.invite
        if not held.is_half_over(self.rpc.environment.wall_s()):
            # As good as new: what it has is given again, and nothing is written.
            return Admitted(membership=held.membership, invite=held.invite)
        membership = self._membership(peer, held.roles, held.label, held.invite_id)
        async with self._lock:
            self._check_not_removed(peer)
            await self.rows.keep_member(replace(self.rows.member(peer), membership=membership))
        return Admitted(membership=membership.raw, invite=by)


async def refuse_claim(call: TypedCall, _: Message) -> None:
    """What a peer of an open network says to whoever wants to be admitted."""
    await call.send(refusal_of(_refused("this peer is in an open network, and admits nobody")))


def _refused(words: str) -> Refused:
    return Refused(words, code=RefusalCode.STRANGER)
