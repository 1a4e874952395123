"""Signed records: the bytes that were signed are the bytes that are kept and passed on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from wire import limits
from wire.codec import NotPlain, pack_plain, unpack, unpack_plain
from wire.content import ContentId, PeerId
from wire.errors import Malformed, Oversize
from wire.kinds import Kind
from wire.proof import check_proof, place_of, prove
from wire.schema import Record
from wire.signing import SigningKey

# Kind, body, key and signature.
_ENVELOPE_LENGTH = 4
_ENVELOPE_HEAD = b"\x94"
# As many again, so that bytes with a part too many are told so.
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
    return sign_many([record], key)[0]


def sign_many(
    records: Sequence[R], key: SigningKey, bodies: Sequence[bytes] | None = None
) -> tuple[Signed[R], ...]:
    """Sign 1 to BATCH_RECORDS_MAX records, of any kinds, with one signature.

    `bodies` are their bytes, if the caller has them already. WireError if a record has none.
    """
    bodies = tuple([it.to_bytes() for it in records] if bodies is None else bodies)
    proofs = prove([(domain_of(it), body) for it, body in zip(records, bodies, strict=True)], key)
    return tuple(
        sealed(record, key.peer, body, proof)
        for record, body, proof in zip(records, bodies, proofs, strict=True)
    )


def domain_of(record: SignedRecord | type[SignedRecord]) -> str:
    """The domain in which records of this kind are signed."""
    return record.KIND.name.lower()


def sealed(record: R, signer: PeerId, body: bytes, proof: bytes) -> Signed[R]:
    """A record with its envelope; the caller knows that `proof` holds for `body`."""
    raw = pack_plain([int(record.KIND), body, signer, proof])
    return Signed(record, signer, raw, ContentId.of(raw))


@dataclass(frozen=True, slots=True)
class Envelope(Generic[R]):
    """A signed record whose proof is not checked yet; `checked` checks it."""

    kind: type[R]
    signer: PeerId
    body: bytes
    proof: bytes
    raw: bytes

    @classmethod
    def read(cls, raw: bytes, kind: type[R]) -> "Envelope[R]":
        """Read an envelope that says it holds a `kind`; WireError for any other bytes."""
        if len(raw) > kind.SIZE_BYTES_MAX + limits.ENVELOPE_BYTES_MAX:
            raise Oversize(f"a signed {kind.__name__} of {len(raw)} bytes")
        match _unpacked(raw):
            case [int() as number, bytes() as body, bytes() as key, bytes() as proof]:
                signer = PeerId(key)
            case _:
                raise Malformed("not a signed record: a list of kind, body, key and signature")
        # True equals 1: it would be a second encoding of an advert's envelope, under a second id.
        if isinstance(number, bool) or number != kind.KIND:
            raise Malformed(f"kind {number} where a {kind.__name__} ({int(kind.KIND)}) is due")
        return cls(kind, signer, body, proof, bytes(raw))

    def claimed(self) -> R:
        """The unchecked record, to skip useless ones cheaply; WireError if the body is none."""
        return self.kind.from_bytes(self.body)

    def checked(self, claimed: R | None = None) -> Signed[R]:
        """The record, with its signature checked; `claimed` is the record if it was read before."""
        check_proof(self.signer, domain_of(self.kind), self.body, self.proof)
        record = self.claimed() if claimed is None else claimed
        return Signed(record, self.signer, self.raw, ContentId.of(self.raw))


def _unpacked(raw: bytes) -> Any:
    try:
        if raw[:1] != _ENVELOPE_HEAD:
            raise NotPlain
        value = unpack_plain(raw, _ENVELOPE_LENGTH, _ENVELOPE_ITEMS)
        # Only what has neither maps nor floats is sure to be the one encoding when it packs alike.
        plain = [type(part) for part in value] == [int, bytes, bytes, bytes]
        if plain and pack_plain(value) == raw:
            return value
    except (NotPlain, TypeError):
        pass
    return unpack(raw, size_bytes_max=limits.FRAME_BYTES_MAX, items_max=_ENVELOPE_ITEMS)


def is_of_many(record: Signed[Any]) -> bool:
    """Whether a record was signed together with others: who reads it has to know such proofs."""
    _, _, _, proof = unpack_plain(record.raw, _ENVELOPE_LENGTH, _ENVELOPE_ITEMS)
    return place_of(proof) is not None


def open_signed(raw: bytes, kind: type[R]) -> Signed[R]:
    """Read and check an envelope; WireError unless it is a `kind` that its signer signed."""
    return Envelope.read(raw, kind).checked()
