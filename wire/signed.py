"""Signed records: the bytes that were signed are the bytes that are kept and passed on."""

from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from wire.codec import pack, unpack
from wire.content import ContentId, PeerId
from wire.errors import Malformed, Oversize
from wire.kinds import Kind
from wire.schema import Record
from wire.signing import SigningKey, check_signature

# Kind, body, key, signature and the heads of each.
_ENVELOPE_BYTES = 128
_ENVELOPE_ITEMS = 16


class SignedRecord(Record):
    """A record that means something only under a signature."""

    __slots__ = ()
    KIND: ClassVar[Kind]


R = TypeVar("R", bound=SignedRecord)


@dataclass(frozen=True, slots=True)
class Signed(Generic[R]):
    """A record, who signed it, and the very bytes; `id` is the content id of those bytes."""

    record: R
    signer: PeerId
    raw: bytes
    id: ContentId


def sign(record: R, key: SigningKey) -> Signed[R]:
    """Sign `record` as `key`'s peer."""
    body = record.to_bytes()
    signature = key.sign(record.KIND.name.lower(), body)
    raw = pack([int(record.KIND), body, key.peer, signature])
    return Signed(record, key.peer, raw, ContentId.of(raw))


@dataclass(frozen=True, slots=True)
class Envelope(Generic[R]):
    """A signed record whose signature is not checked yet; `checked` checks it."""

    kind: type[R]
    signer: PeerId
    body: bytes
    signature: bytes
    raw: bytes

    @classmethod
    def read(cls, raw: bytes, kind: type[R]) -> "Envelope[R]":
        """Read an envelope that says it holds a `kind`; WireError for any other bytes."""
        if len(raw) > kind.SIZE_BYTES_MAX + _ENVELOPE_BYTES:
            raise Oversize(f"a signed {kind.__name__} of {len(raw)} bytes")
        match unpack(raw, items_max=_ENVELOPE_ITEMS):
            case [int() as number, bytes() as body, bytes() as key, bytes() as signature]:
                signer = PeerId(key)
            case _:
                raise Malformed("not a signed record: a list of kind, body, key and signature")
        # True equals 1: it would be a second encoding of an advert's envelope, under a second id.
        if isinstance(number, bool) or number != kind.KIND:
            raise Malformed(f"kind {number} where a {kind.__name__} ({int(kind.KIND)}) is due")
        return cls(kind, signer, body, signature, bytes(raw))

    def claimed(self) -> R:
        """The unchecked record, to skip useless ones cheaply; WireError if the body is none."""
        return self.kind.from_bytes(self.body)

    def checked(self, claimed: R | None = None) -> Signed[R]:
        """The record, with its signature checked; `claimed` is the record if it was read before."""
        check_signature(self.signer, self.kind.KIND.name.lower(), self.body, self.signature)
        record = self.claimed() if claimed is None else claimed
        return Signed(record, self.signer, self.raw, ContentId.of(self.raw))


def open_signed(raw: bytes, kind: type[R]) -> Signed[R]:
    """Read and check an envelope; WireError unless it is a `kind` that its signer signed."""
    return Envelope.read(raw, kind).checked()
