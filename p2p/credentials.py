"""Whose membership of a private network holds, and which ids its owner revoked. Pure.

A membership holds if the owner signed it, or somebody whom an invite of the owner, shown beside it,
names as an admitter. It holds for the peer that it names, until its end, and as long as neither
that peer nor its admitter is revoked. The owner needs none.
"""

import math
from dataclasses import dataclass, field
from typing import Self

from wire import limits
from wire.content import PeerId
from wire.errors import Refused, WireError
from wire.kinds import RefusalCode, Role
from wire.latest import Latest
from wire.membership import ALL_ROLES, Invite, Membership, Revoked
from wire.signed import Signed, open_signed

REMOVED = "the owner of this network has removed you"
EXPIRED = "your membership has expired: ask for a new invite"
BEGINS_LATER = "your membership begins in the future: one of our clocks is wrong"
ADMITTER_REMOVED = "you were admitted by a peer that was removed: ask for a new invite"
OWN_ADMITTER_REMOVED = "the peer that admitted this one was removed: ask for a new invite"
# How long a membership lasts; it is renewed when half of that has passed.
MEMBERSHIP_S = 30 * 86_400
DAY_S = 86_400
CUT_OFF_KEPT = 1024


class NotAMember(Refused):
    """Somebody else is no member, by what it showed us: nothing is wrong with us."""

    @classmethod
    def named(cls, peer: PeerId, why: Refused) -> Self:
        """`why` is what that peer would be told."""
        words = f"{peer.short} is no member here, and is told: {why.message}"
        return cls(words, code=RefusalCode.STRANGER)


@dataclass(frozen=True, slots=True)
class Credential:
    """A membership that holds: whose, what its peer may do, until when, and who gave it.

    `membership` and `invite` are what is shown to others; both are empty for the owner.
    """

    peer: PeerId
    admitter: PeerId
    roles: int = ALL_ROLES
    label: str = ""
    issued_wall_s: float = 0.0
    until_wall_s: float = math.inf
    serial: int = 0
    invite_id: bytes = b""
    membership: bytes = b""
    invite: bytes = b""

    def is_half_over(self, wall_s: float) -> bool:
        """Whether it is time for a new one."""
        return wall_s >= (self.issued_wall_s + self.until_wall_s) / 2


@dataclass(slots=True)
class Credentials:
    """What one peer of a private network knows of the members. `network` is the owner's key."""

    network: PeerId
    me: PeerId
    name: str = ""
    own: Credential | None = None
    revoked: Signed[Revoked] | None = None
    # Why this peer is no member, in words of whoever refused it last; empty while it is one.
    problem: str = ""
    # Connected peers that have shown a membership; each was checked.
    proven: dict[PeerId, Credential] = field(default_factory=dict)
    # Who showed a membership that the list has ended: these are shown the list, and no stranger is.
    _cut_off: Latest[PeerId, None] = field(default_factory=lambda: Latest(CUT_OFF_KEPT))

    def __post_init__(self) -> None:
        if self.me == self.network:
            self.own = Credential(self.me, self.me)

    @property
    def revoked_version(self) -> int:
        return 0 if self.revoked is None else self.revoked.record.version

    def shown(self) -> tuple[bytes, bytes]:
        """The membership that this peer shows, and the invite beside it."""
        return (b"", b"") if self.own is None else (self.own.membership, self.own.invite)

    def admits(self, peer: PeerId, wall_s: float) -> bool:
        """Whether this peer has shown, on a connection that stands, a membership that holds."""
        found = self.proven.get(peer)
        return found is not None and wall_s < found.until_wall_s + limits.CLOCK_SKEW_S_MAX

    def allows(self, peer: PeerId, role_bits: int) -> bool:
        """Whether a peer may say that it plays these roles; who has shown nothing says nothing."""
        found = self.proven.get(peer)
        return found is None or not role_bits & ~found.roles

    def judge(self, peer: PeerId, membership: bytes, invite: bytes, wall_s: float) -> Credential:
        """What `peer` showed, if it makes it a member; Refused says why it does not."""
        if peer == self.network:
            return Credential(peer, peer)
        self._check_not_revoked(peer)
        if not membership:
            raise _refused("this is a private network, and you showed no membership")
        try:
            signed = open_signed(membership, Membership)
            by = open_signed(invite, Invite) if invite else None
        except WireError as error:
            raise _refused(f"your membership does not hold: {error.message}") from error
        self._check_said(signed.record, peer, wall_s)
        self._check_signer(signed, by)
        if self.is_removed(signed.signer):
            self._cut_off[peer] = None
            raise _refused(ADMITTER_REMOVED)
        said = signed.record
        return Credential(
            peer=peer,
            admitter=signed.signer,
            roles=said.roles,
            label=said.label,
            issued_wall_s=said.issued_at_s,
            until_wall_s=said.not_after_s,
            serial=said.serial,
            invite_id=said.invite,
            membership=membership,
            invite=invite,
        )

    def _check_said(self, said: Membership, peer: PeerId, wall_s: float) -> None:
        if said.network != self.network:
            raise _refused("your membership is of another private network")
        if said.peer != peer:
            raise _refused("you show another peer's membership")
        if wall_s > said.not_after_s + limits.CLOCK_SKEW_S_MAX:
            raise _refused(EXPIRED)
        if said.issued_at_s > wall_s + limits.CLOCK_SKEW_S_MAX:
            raise _refused(BEGINS_LATER)
        if said.not_after_s > said.issued_at_s + MEMBERSHIP_S + DAY_S:
            raise _refused("your membership lasts longer than any may")

    def _check_signer(self, signed: Signed[Membership], by: Signed[Invite] | None) -> None:
        if signed.signer == self.network:
            return
        if by is None or by.signer != self.network or by.record.id != signed.record.invite:
            raise _refused("your membership is signed by nobody who may give one")
        if signed.signer not in {it.peer for it in by.record.admitters}:
            raise _refused("your membership is signed by a peer that its invite does not name")
        if signed.record.roles & ~by.record.roles:
            raise _refused("your membership allows more than its invite")

    def check_invite(self, invite: Signed[Invite], wall_s: float) -> None:
        """Refused unless this invite admits somebody here and now, as far as its own words go."""
        said = invite.record
        if self.own_end():
            raise _refused("this peer admits nobody: it is no member itself any more")
        if invite.signer != self.network:
            raise _refused("this invite is to another private network")
        if said.share_of(self.me) == 0:
            named = ", ".join(str(it.peer) for it in said.admitters)
            raise _refused(f"this peer admits nobody by this invite: {named} does")
        if self.revoked is not None and said.id in self.revoked.record.invites:
            raise _refused("this invite was revoked: ask for a new one")
        if wall_s > said.not_after_s + limits.CLOCK_SKEW_S_MAX:
            raise _refused("this invite has expired: ask for a new one")

    def is_removed(self, peer: PeerId) -> bool:
        """Whether the owner has revoked this peer."""
        return self.revoked is not None and peer in self.revoked.record.peers

    def is_cut_off(self, peer: PeerId) -> bool:
        """Whether `peer` was a member, as far as we know, until the owner's list ended that."""
        return self.is_removed(peer) or peer in self._cut_off

    def own_end(self) -> str:
        """Why this peer is a member no more, by the list; "" if the list does not say so."""
        if self.is_removed(self.me):
            return "the owner of this network has removed this peer"
        by = None if self.own is None else self.own.admitter
        return (
            "" if by is None or by == self.me or not self.is_removed(by) else OWN_ADMITTER_REMOVED
        )

    def _check_not_revoked(self, peer: PeerId) -> None:
        if self.is_removed(peer):
            raise _refused(REMOVED)

    def take_revoked(self, raw: bytes) -> bool:
        """Take a list of revoked ids if it is newer; WireError if it is not the owner's."""
        found = open_signed(raw, Revoked)
        if found.signer != self.network:
            raise WireError("a list of revoked ids that is not signed by the network's owner")
        if found.record.version <= self.revoked_version:
            return False
        self.revoked = found
        return True

    def fallen(self) -> list[PeerId]:
        """Of those who had shown a membership the ones to whom it has come to an end by the list.

        They are forgotten: whoever connects again shows its membership again.
        """
        gone = [
            peer
            for peer, it in self.proven.items()
            if peer != self.network
            and (self.is_removed(peer) or (it.admitter != peer and self.is_removed(it.admitter)))
        ]
        for peer in gone:
            del self.proven[peer]
        return gone

    def roles_refused(self, role_bits: int, credential: Credential) -> str:
        """Which roles of these a member may not play, in words; empty if it may play all."""
        over = role_bits & ~credential.roles
        return ", ".join(it.name.lower() for it in Role if over >> it & 1)


def _refused(words: str) -> Refused:
    return Refused(words, code=RefusalCode.STRANGER)
