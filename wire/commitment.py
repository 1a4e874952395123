"""Verdicts that are committed to before any of them is told.

Each verifier of a leg first gives a hash of its verdict, a salt and its own key. The asker asks for
the verdicts only when all of them have done so, and each verdict is signed with a hash of the
commitments that were there by then. So none can be made to fit another, and an auditor sees it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from wire import limits
from wire.content import PeerId
from wire.kinds import Kind
from wire.message_base import Message
from wire.order import Tag, each_once
from wire.receipt import Verdict, VerdictOpening
from wire.schema import Between, Digest, Record

_COMMITMENT = b"baton/1/verdict-commitment\0"
_SHOWN = b"baton/1/commitments-shown\0"


def commitment_to(verdict: Verdict, salt: bytes, signer: PeerId) -> bytes:
    """The hash of what a verdict says, whoever reads it later; its opening is no part of it."""
    said = replace(verdict, opening=()).to_bytes() if verdict.opening else verdict.to_bytes()
    return hashlib.sha256(_COMMITMENT + hashlib.sha256(said).digest() + salt + signer).digest()


def shown_hash(commitments: Sequence[bytes]) -> bytes:
    """The hash of commitments in the order in which the asker had them."""
    return hashlib.sha256(_SHOWN + b"".join(commitments)).digest()


def opened(verdict: Verdict, salt: bytes, shown: bytes, count: int) -> Verdict:
    """The verdict as it is signed: with its salt, and with what its signer was shown."""
    return replace(verdict, opening=(VerdictOpening(salt=salt, shown=shown, count=count),))


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictCommitted(Message):
    """The verifier has its verdict, and says its hash."""

    KIND: ClassVar[Kind] = Kind.VERDICT_COMMITTED
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class TellVerdict(Message):
    """The verifier may tell its verdict: `count` commitments are there, with the hash `shown`."""

    KIND: ClassVar[Kind] = Kind.TELL_VERDICT
    shown: Digest
    count: Annotated[int, Between(1, limits.COMMITMENTS_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedCommitment(Record):
    """As a VerdictCommitted, of one check on an order."""

    tag: Tag
    commitment: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitments(Message):
    """Commitments to verdicts on checks of an order, which go on."""

    KIND: ClassVar[Kind] = Kind.COMMITMENTS
    items: Annotated[tuple[OrderedCommitment, ...], Between(1, limits.BUNDLE_ITEMS_MAX)]

    def check(self) -> None:
        """Malformed if a check is committed to twice."""
        each_once([it.tag for it in self.items])


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedTelling(Record):
    """As a TellVerdict, of one check on an order."""

    tag: Tag
    shown: Digest
    count: Annotated[int, Between(1, limits.COMMITMENTS_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TellVerdicts(Message):
    """Verdicts on checks of an order may be told."""

    KIND: ClassVar[Kind] = Kind.TELL_VERDICTS
    items: Annotated[tuple[OrderedTelling, ...], Between(1, limits.BUNDLE_ITEMS_MAX)]

    def check(self) -> None:
        """Malformed if a verdict is asked for twice."""
        each_once([it.tag for it in self.items])
