"""What a peer of a private network keeps on its disk: its membership, invites, whom it admitted."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from store import Row, Store, Table, Write
from wire.codec import Value, pack, unpack
from wire.content import PeerId
from wire.membership import Invite, Membership
from wire.signed import Signed, open_signed

_OWN, _REVOKED = b"own", b"revoked"
_INVITE, _MEMBER = b"invite/", b"member/"
# So many are read at once.
ROWS_MAX = 1000


@dataclass(frozen=True, slots=True)
class OwnMembership:
    """To which private network a state folder belongs, and what shows it; b"" for its owner's.

    `invite` goes with the membership; `joined_by` is the invite by which this peer joined, which
    says where admitters were.
    """

    network: PeerId
    name: str = ""
    membership: bytes = b""
    invite: bytes = b""
    joined_by: bytes = b""


@dataclass(frozen=True, slots=True)
class KeptInvite:
    """An invite and who was admitted by it here."""

    invite: Signed[Invite]
    claimed: tuple[PeerId, ...] = ()
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class KeptMember:
    """A peer that was admitted here; `removed_until_wall_s` is 0 unless it was removed.

    After that time no membership of it can hold any more, so its key need not be revoked longer.
    """

    peer: PeerId
    membership: Signed[Membership] | None = None
    removed_until_wall_s: int = 0


def own_membership(store: Store) -> OwnMembership | None:
    """The private network that this state folder belongs to, if it belongs to one."""
    raw = store.read(Table.MEMBERS, _OWN)
    if raw is None:
        return None
    network, name, membership, invite, joined_by = unpack(raw)
    return OwnMembership(PeerId(network), name, membership, invite, joined_by)


async def keep_own(store: Store, own: OwnMembership) -> None:
    """Keep for good which private network this peer belongs to."""
    fields: list[Value] = [bytes(own.network), own.name, own.membership, own.invite, own.joined_by]
    await store.write(Table.MEMBERS, _OWN, pack(fields))


@dataclass(frozen=True, slots=True)
class MemberRows:
    """The rows of one peer. What is awaited is durable when it returns."""

    store: Store

    def revoked(self) -> bytes | None:
        """The latest list of revoked ids, as its owner signed it."""
        return self.store.read(Table.MEMBERS, _REVOKED)

    async def keep_revoked(self, raw: bytes) -> None:
        """Keep the latest list; StoreError if that fails, as of each that is awaited here."""
        await self.store.write(Table.MEMBERS, _REVOKED, raw)

    def invites(self) -> list[KeptInvite]:
        """All invites of which something is kept."""
        return [_invite_of(unpack(value)) for _, value in self._rows(_INVITE)]

    def invite(self, invite_id: bytes) -> KeptInvite | None:
        """What is kept of one invite; None if nothing is."""
        raw = self.store.read(Table.MEMBERS, _INVITE + invite_id)
        return None if raw is None else _invite_of(unpack(raw))

    async def keep_invite(self, kept: KeptInvite) -> None:
        await self.store.commit(Write(rows=(_invite_row(kept),)))

    async def forget_invites(self, ids: list[bytes]) -> None:
        rows = tuple(Row(Table.MEMBERS, _INVITE + it, None) for it in ids)
        await self.store.commit(Write(rows=rows))

    async def keep_admitted(self, kept: KeptInvite, member: KeptMember) -> None:
        """Keep that an invite was used, and by whom, in one step."""
        await self.store.commit(Write(rows=(_invite_row(kept), _member_row(member))))

    async def keep_member(self, member: KeptMember) -> None:
        await self.store.commit(Write(rows=(_member_row(member),)))

    async def keep_all(
        self, invites: tuple[KeptInvite, ...], members: tuple[KeptMember, ...] = ()
    ) -> None:
        """Keep what is revoked together, in one step."""
        rows = (*map(_invite_row, invites), *map(_member_row, members))
        await self.store.commit(Write(rows=rows))

    def members(self) -> list[KeptMember]:
        """Who was admitted or removed here."""
        rows = self._rows(_MEMBER)
        return [_member_of(PeerId(key[len(_MEMBER) :]), unpack(value)) for key, value in rows]

    def _rows(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All of them, however many: whoever is left out here is not on the list of revoked ids."""
        start = b""
        while rows := self.store.scan(Table.MEMBERS, start=start, prefix=prefix, limit=ROWS_MAX):
            yield from rows
            start = rows[-1][0] + b"\0"

    def member(self, peer: PeerId) -> KeptMember:
        """What is kept of this peer; nothing of one that was neither admitted nor removed here."""
        raw = self.store.read(Table.MEMBERS, _MEMBER + peer)
        return KeptMember(peer) if raw is None else _member_of(peer, unpack(raw))


def _invite_row(kept: KeptInvite) -> Row:
    fields: list[Value] = [kept.invite.raw, [bytes(it) for it in kept.claimed], kept.revoked]
    return Row(Table.MEMBERS, _INVITE + kept.invite.record.id, pack(fields))


def _invite_of(fields: list[Any]) -> KeptInvite:
    raw, claimed, revoked = fields
    return KeptInvite(open_signed(raw, Invite), tuple(map(PeerId, claimed)), revoked)


def _member_row(member: KeptMember) -> Row:
    raw = b"" if member.membership is None else member.membership.raw
    fields: list[Value] = [raw, member.removed_until_wall_s]
    return Row(Table.MEMBERS, _MEMBER + member.peer, pack(fields))


def _member_of(peer: PeerId, fields: list[Any]) -> KeptMember:
    raw, removed_until_wall_s = fields
    found = KeptMember(peer, removed_until_wall_s=removed_until_wall_s)
    return replace(found, membership=open_signed(raw, Membership)) if raw else found
