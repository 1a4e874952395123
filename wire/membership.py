"""Private networks: who is invited, who is a member, and who is neither any more.

The id of a private network is its owner's public key. The owner signs invites; an invite names the
peers that may admit whoever holds its claim key; and a peer that was admitted shows its membership
when it meets another. So a membership holds if the owner signed it, or if somebody signed it whom
an invite of the owner, shown beside it, names.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.annotations import Between, Digest, Int, Omitted
from wire.content import PeerId
from wire.kinds import Kind
from wire.message_base import Message
from wire.schema import Record
from wire.signed import SignedRecord

InviteId = Annotated[bytes, Between(16, 16)]
Label = Annotated[str, Between(0, limits.LABEL_BYTES_MAX)]
# The bit of a role is 1 << role, as in adverts.
RoleBits = Annotated[int, Between(0, 2**16 - 1)]
ALL_ROLES = 2**16 - 1
AdmitterAddress = Annotated[str, Between(1, limits.ADDRESS_BYTES_MAX)]
InviteBytes = Annotated[bytes, Between(0, limits.INVITE_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)]
MembershipBytes = Annotated[
    bytes, Between(0, limits.MEMBERSHIP_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)
]
RevokedBytes = Annotated[bytes, Between(0, limits.REVOKED_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)]
StatementBytes = Annotated[
    bytes, Between(1, limits.MEMBERSHIP_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitter(Record):
    """A peer that may admit by an invite, and multiaddrs without its id at which it was reached."""

    peer: PeerId
    addresses: Annotated[tuple[AdmitterAddress, ...], Between(0, limits.ADMITTER_ADDRESSES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite(SignedRecord):
    """The owner's word that `uses_max` peers may become members, of the network that its key names.

    Who knows the secret of `claim_key` is one of them. Each admitter counts its own share of the
    uses, which `share_of` says, so that all together never admit more. Times are in wall-clock
    seconds.
    """

    KIND: ClassVar[Kind] = Kind.INVITE
    SIZE_BYTES_MAX: ClassVar[int] = limits.INVITE_BYTES_MAX

    id: InviteId
    name: Label
    claim_key: PeerId
    issued_at_s: Int
    not_after_s: Int
    uses_max: Annotated[int, Between(1, limits.INVITE_USES_MAX)]
    roles: RoleBits
    label: Label
    admitters: Annotated[tuple[Admitter, ...], Between(1, limits.ADMITTERS_MAX)]

    def share_of(self, admitter: PeerId) -> int:
        """How many peers `admitter` may admit by it; 0 if it is not named."""
        whole, more = divmod(self.uses_max, len(self.admitters))
        for place, one in enumerate(self.admitters):
            if one.peer == admitter:
                return whole + (place < more)
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership(SignedRecord):
    """An admitter's word that `peer` is a member of the network of the owner `network`.

    Of one peer's memberships the one with the higher `serial` is the later.
    """

    KIND: ClassVar[Kind] = Kind.MEMBERSHIP
    SIZE_BYTES_MAX: ClassVar[int] = limits.MEMBERSHIP_BYTES_MAX

    network: PeerId
    peer: PeerId
    roles: RoleBits
    label: Label
    issued_at_s: Int
    not_after_s: Int
    serial: Int
    invite: InviteId


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked(SignedRecord):
    """The owner's list of invites that admit nobody, and of peers that are no members.

    Of two lists the one with the higher `version` counts, and nothing of the other.
    """

    KIND: ClassVar[Kind] = Kind.REVOKED
    SIZE_BYTES_MAX: ClassVar[int] = limits.REVOKED_BYTES_MAX

    version: Int
    invites: Annotated[tuple[InviteId, ...], Between(0, limits.REVOKED_INVITES_MAX)]
    peers: Annotated[tuple[PeerId, ...], Between(0, limits.REVOKED_PEERS_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimStatement(SignedRecord):
    """What a newcomer signs with the claim key: that it, and nobody else, is to be admitted now.

    It holds for one admitter and one nonce, so a copy of it is worth nothing.
    """

    KIND: ClassVar[Kind] = Kind.CLAIM_STATEMENT
    SIZE_BYTES_MAX: ClassVar[int] = limits.MEMBERSHIP_BYTES_MAX

    network: PeerId
    invite: InviteId
    nonce: Digest
    newcomer: PeerId
    admitter: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimInvite(Message):
    """A newcomer shows an invite; the answer is a nonce, or a Refuse."""

    KIND: ClassVar[Kind] = Kind.CLAIM
    invite: Annotated[bytes, Between(1, limits.INVITE_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimNonce(Message):
    """What the newcomer has to sign besides; never the same twice."""

    KIND: ClassVar[Kind] = Kind.CLAIM_NONCE
    nonce: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSigned(Message):
    """The newcomer's signed ClaimStatement. The secret itself stays where it is."""

    KIND: ClassVar[Kind] = Kind.CLAIM_SIGNED
    statement: StatementBytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted(Message):
    """The membership, and the invite by which its signer may give it; b"" if that is the owner."""

    KIND: ClassVar[Kind] = Kind.ADMITTED
    membership: Annotated[
        bytes, Between(1, limits.MEMBERSHIP_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)
    ]
    invite: Annotated[InviteBytes, Omitted(b"")] = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew(Message):
    """A member asks for a membership that lasts longer; the answer is Admitted, or a Refuse.

    `serial` is that of the membership that it has.
    """

    KIND: ClassVar[Kind] = Kind.RENEW
    serial: Int


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedNews(Message):
    """The version of the list of revoked ids that is known; 0 for none.

    With it comes the list itself, where the other side has an older one or may have.
    """

    KIND: ClassVar[Kind] = Kind.REVOKED_NEWS
    version: Int
    revoked: RevokedBytes


MESSAGES = (ClaimInvite, ClaimNonce, ClaimSigned, Admitted, Renew, RevokedNews)
