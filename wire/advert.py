"""Adverts: what a peer says of itself, signed, short-lived; the newest wins."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.amount import Balance
from wire.content import ContentId
from wire.errors import Malformed
from wire.kinds import Kind, Role
from wire.ownership import own_addresses
from wire.schema import Between, Int, Name, Omitted, Record
from wire.signed import Signed, SignedRecord

Address = Annotated[str, Between(1, limits.ADDRESS_BYTES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOffer(Record):
    """A model a peer can run now: its id, what people call it, how fast it was measured here."""

    model: ContentId
    name: Name
    units_per_s: Annotated[float, Between(0, 1e9)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advert(SignedRecord):
    """Newest wins: a higher `seq` from the same key replaces this record.

    `seq` starts from the wall clock in milliseconds, so that the adverts of a peer that lost its
    disk still replace its earlier ones. `instance` is drawn at each start: if two instances are
    alive under one key, two machines use that key. With `leaving`, others forget the peer at once.
    The last of the `addresses` may be its owner's word (`wire.ownership`): `reached_at` is without.
    `tariffs` names what the peer asks for its work (`wire.tariff`), and `price` is the most of its
    models for UNITS units given and made; nothing and 0 where all of it is free.
    """

    KIND: ClassVar[Kind] = Kind.ADVERT
    SIZE_BYTES_MAX: ClassVar[int] = limits.ADVERT_BYTES_MAX

    version: Annotated[int, Between(1, 2**16)]
    seq: Int
    instance: Annotated[bytes, Between(8, 8)]
    issued_at_s: Int
    ttl_s: Annotated[int, Between(1, limits.ADVERT_TTL_S_MAX)]
    addresses: Annotated[tuple[Address, ...], Between(0, limits.ADVERT_ADDRESSES_MAX)]
    roles: Annotated[int, Between(0, 2 ** len(Role) - 1)]
    models: Annotated[tuple[ModelOffer, ...], Between(0, limits.ADVERT_MODELS_MAX)]
    free_slots: Annotated[int, Between(0, 2**16)]
    queue_s: Annotated[float, Between(0, 1e6)]
    price: Int
    leaving: bool
    # One, or none.
    tariffs: Annotated[tuple[ContentId, ...], Between(0, 1), Omitted(())] = ()
    # What it says that it has staked: others know better, by the last checkpoint.
    stake: Annotated[Balance, Omitted(0)] = 0

    def check(self) -> None:
        """Malformed if a model is named twice."""
        if len({offer.model for offer in self.models}) != len(self.models):
            raise Malformed("an advert names a model twice")

    @property
    def reached_at(self) -> tuple[str, ...]:
        """The addresses at which the peer says that it is reached."""
        return own_addresses(self.addresses)

    @property
    def tariff(self) -> ContentId | None:
        """What it asks for its work; None where all of it is free."""
        return self.tariffs[0] if self.tariffs else None

    def plays(self, role: Role) -> bool:
        """Whether the peer says that it plays this role."""
        return bool(self.roles >> role & 1)

    def offer_of(self, model: ContentId) -> ModelOffer | None:
        """What the advert offers of a model; None if it does not offer it."""
        return next((offer for offer in self.models if offer.model == model), None)

    def expired(self, wall_s: float) -> bool:
        """Whether the peer leaves, or the advert is too old at `wall_s` (seconds of Unix time)."""
        return self.leaving or wall_s >= self.issued_at_s + self.ttl_s


def supersedes(new: Signed[Advert], old: Signed[Advert]) -> bool:
    """Whether `new` replaces `old`: same key, higher sequence."""
    return new.signer == old.signer and new.record.seq > old.record.seq
