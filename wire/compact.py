"""Signed records as they travel together: of those under one signature, only what they are made of.

An envelope of a batch has the signature of the root and the path to it (`wire.proof`). Where many
of one batch travel in one message, their bodies are enough, with the signature once and the hashes
that these bodies do not give. Whoever receives them builds the same envelopes, byte for byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, TypeVar

from wire import limits, merkle
from wire.codec import NotPlain, unpack_plain
from wire.content import PeerId
from wire.errors import Malformed, WireError
from wire.proof import place_of, recover_some
from wire.schema import Between, Record
from wire.signed import Signed, SignedRecord, domain_of, open_signed, sealed
from wire.signing import SIGNATURE_BYTES

R = TypeVar("R", bound=SignedRecord)

# Below this many of one batch, envelopes are as small.
WORTH_IT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRoot(Record):
    """One signature for `count` records, of which some travel with it.

    `beside` are the hashes of the tree that the bodies in the message do not give, level by level
    from the leaves up, from left to right.
    """

    signature: Annotated[bytes, Between(SIGNATURE_BYTES, SIGNATURE_BYTES)]
    count: Annotated[int, Between(2, limits.BATCH_RECORDS_MAX)]
    beside: Annotated[bytes, Between(0, limits.BUNDLE_BYTES_MAX)]

    def check(self) -> None:
        """Malformed if `beside` is not a whole number of hashes."""
        if len(self.beside) % merkle.HASH_BYTES:
            raise Malformed(f"hashes have {merkle.HASH_BYTES} bytes each")


class Travelling(NamedTuple):
    """One record in a message: its envelope; or its body, the number of its root, and its leaf.

    Roots are numbered from 1; 0 stands for an envelope.
    """

    data: bytes
    root: int = 0
    leaf: int = 0


def compact(
    records: Sequence[Signed[R]], signer: PeerId | None
) -> tuple[tuple[BatchRoot, ...], list[Travelling]]:
    """What travels of `records`, in their order, in a message from `signer`.

    What others signed, or what was signed alone, travels as it is; without `signer`, all do.
    """
    batches: dict[tuple[bytes, int], dict[int, tuple[int, bytes, bytes]]] = {}
    for at, record in enumerate(records):
        if record.signer != signer or (found := _of_batch(record.raw)) is None:
            continue
        body, signature, leaf, count, path = found
        # One that is there twice travels the second time as an envelope.
        batches.setdefault((signature, count), {}).setdefault(leaf, (at, body, path))
    roots: list[BatchRoot] = []
    travelling = [Travelling(it.raw) for it in records]
    for (signature, count), leaves in batches.items():
        if len(leaves) < WORTH_IT:
            continue
        paths = {leaf: path for leaf, (_, _, path) in leaves.items()}
        beside = merkle.beside(paths, count)
        roots.append(BatchRoot(signature=signature, count=count, beside=beside))
        for leaf, (at, body, _) in leaves.items():
            travelling[at] = Travelling(body, len(roots), leaf)
    return tuple(roots), travelling


def opened(
    roots: Sequence[BatchRoot], travelling: Sequence[Travelling], kind: type[R], signer: PeerId
) -> list[Signed[R] | WireError]:
    """The records of a message, all of one kind; those under `roots` have to be of `signer`.

    What is no `kind` is its own error, in its place. BadSignature or Malformed if a root does not
    hold for the bodies that came with it.
    """
    bodies: list[dict[int, bytes]] = [{} for _ in roots]
    for one in travelling:
        if one.root:
            bodies[one.root - 1][one.leaf] = one.data
    domain = domain_of(kind)
    proofs = [
        recover_some(domain, leaves, root.count, root.beside, signer, root.signature)
        for root, leaves in zip(roots, bodies, strict=True)
    ]
    found: list[Signed[R] | WireError] = []
    for one in travelling:
        try:
            if one.root:
                record = kind.from_bytes(one.data)
                found.append(sealed(record, signer, one.data, proofs[one.root - 1][one.leaf]))
            else:
                found.append(open_signed(one.data, kind))
        except WireError as error:
            found.append(error)
    return found


def check_places(roots: Sequence[BatchRoot], travelling: Sequence[Travelling]) -> None:
    """Malformed unless every root has records here, and each a leaf of its own that a root has."""
    used: set[tuple[int, int]] = set()
    for one in travelling:
        if not one.root:
            if one.leaf:
                raise Malformed("an envelope with a leaf besides")
            continue
        if one.root > len(roots):
            raise Malformed(f"root {one.root} of {len(roots)}")
        if one.leaf >= roots[one.root - 1].count:
            raise Malformed(f"leaf {one.leaf} of {roots[one.root - 1].count}")
        if (one.root, one.leaf) in used:
            raise Malformed(f"leaf {one.leaf} of a root twice")
        used.add((one.root, one.leaf))
    if len({root for root, _ in used}) != len(roots):
        raise Malformed("a root of which nothing is here")


def _of_batch(raw: bytes) -> tuple[bytes, bytes, int, int, bytes] | None:
    """Body, root's signature, leaf, count and path of an envelope; None if it was signed alone."""
    try:
        _, body, _, proof = unpack_plain(raw, 4, 16)
    except (NotPlain, ValueError):
        return None
    place = place_of(proof)
    return None if place is None else (body, *place)
