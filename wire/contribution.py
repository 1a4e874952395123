"""What candidates contribute to a draw of verifiers, so that nobody knows it before. Pure.

Whoever makes both the task and the receipt could try secrets and receipts at home until its own
verifiers are drawn. So the draw mixes in outputs of the verifiable random functions (`wire.vrf`) of
some candidates, which are drawn by the secret and the receipt. Without their private keys nobody
can try a draw before it has asked them.

Receipts that are to be checked at the same time, from the same candidates, have one draw of
contributors: what these are asked about is the root of a tree over the receipts, each with its
secret and the candidates, which are fixed by that. Who was drawn to contribute and was silent has
to be named, so an asker that leaves somebody out on purpose chooses among few draws, and is seen.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Annotated, ClassVar

from wire import limits, merkle
from wire.content import ContentId, PeerId
from wire.errors import Malformed
from wire.kinds import Kind
from wire.lottery import weighted_order
from wire.message_base import Message
from wire.receipt import ContributionProof, MixedDraw
from wire.schema import Between, Digest
from wire.vrf import output_of

_CANDIDATES = b"baton/1/draw-candidates\0"
_RECEIPT = b"baton/1/draw-receipt\0"
_WORDS = b"baton/1/draw-contribution\0"
_CONTRIBUTOR = b"baton/1/draw-contributor\0"
_MIX = b"baton/1/draw-mix\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskContribution(Message):
    """What does the peer contribute to a draw? `root` is that of `count` receipts to be checked."""

    KIND: ClassVar[Kind] = Kind.ASK_CONTRIBUTION
    root: Digest
    count: Annotated[int, Between(1, limits.DRAW_RECEIPTS_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contributed(Message):
    """The proof of what the peer's key gives for what it was asked about."""

    KIND: ClassVar[Kind] = Kind.CONTRIBUTED
    proof: ContributionProof


def leaf_of(secret: bytes, receipt: ContentId, weights: Mapping[PeerId, int]) -> bytes:
    """What stands in the tree for one receipt: with its secret, and with all who may be drawn."""
    listed = b"".join(it + weights[it].to_bytes(16, "big") for it in sorted(weights))
    candidates = hashlib.sha256(_CANDIDATES + listed).digest()
    return merkle.leaf(_RECEIPT + secret + receipt + candidates)


def words_of(asker: PeerId, root: bytes, count: int) -> bytes:
    """What a contributor's key is applied to."""
    return _WORDS + asker + count.to_bytes(2, "big") + root


def contributors(words: bytes, weights: Mapping[PeerId, int]) -> list[PeerId]:
    """Who contributes, in order: the first CONTRIBUTORS that are not silent."""
    return weighted_order(
        weights, lambda peer: hashlib.sha256(_CONTRIBUTOR + words + peer).digest()
    )


def mix_of(outputs: Sequence[bytes]) -> bytes:
    """What is mixed into the ranks of a draw: 32 bytes, of the outputs in order."""
    return hashlib.sha256(_MIX + b"".join(outputs)).digest()


def mixed_draws(
    leaves: Sequence[bytes], proofs: Sequence[bytes], absent: Iterable[PeerId]
) -> list[MixedDraw]:
    """What each receipt's answer keeps of a draw of contributors, in the order of the leaves."""
    levels = merkle.levels_of(leaves)
    return [
        MixedDraw(
            stage=0,
            index=index,
            count=len(leaves),
            path=merkle.path_of(levels, index),
            proofs=tuple(proofs),
            absent=tuple(sorted(absent)),
        )
        for index in range(len(leaves))
    ]


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root of these leaves, of which there is at least one."""
    return merkle.levels_of(leaves)[-1][0]


def opened_mix(
    asker: PeerId,
    secret: bytes,
    receipt: ContentId,
    weights: Mapping[PeerId, int],
    draw: MixedDraw,
) -> bytes:
    """The mix of a draw that was kept; WireError unless it is what these candidates contributed."""
    if len(weights) < limits.CONTRIBUTION_CANDIDATES_MIN:
        raise Malformed(f"{len(weights)} candidates are too few to contribute")
    own = leaf_of(secret, receipt, weights)
    if draw.count == 1 and draw.path:
        raise Malformed("a receipt that was alone has no path")
    root = own if draw.count == 1 else merkle.root_of(own, draw.index, draw.count, draw.path)
    words = words_of(asker, root, draw.count)
    drawn = contributors(words, weights)[: limits.CONTRIBUTORS + len(draw.absent)]
    gave = [it for it in drawn if it not in draw.absent]
    if len(gave) != limits.CONTRIBUTORS or drawn[-1] in draw.absent:
        raise Malformed("somebody is named as silent that was not drawn to contribute")
    return mix_of(
        [output_of(it, words, proof) for it, proof in zip(gave, draw.proofs, strict=True)]
    )


def draws_to_choose_from(absent: int) -> int:
    """Among how many draws an asker could have chosen that names so many as silent."""
    return sum(comb(limits.CONTRIBUTORS - 1 + it, it) for it in range(absent + 1))
