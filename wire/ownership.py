"""An owner's word that a peer is its own, which the peer may show to everybody.

Peers of one owner do not check each other, and of them one checks an answer at most. So a word that
anybody could make would harm others: a liar would name the owner of those who would find it out,
and a crowd of keys the owner of an honest verifier, to take its turns. Hence both sides say it: the
owner signs the peer's key, and the peer puts that into its advert. It proves nothing about peers
that show none.

Adverts have had a closed form since before there were owners. The word stands last among their
addresses, as a name that no peer calls, so that older peers read the advert and pass it on.
"""

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Self

from wire.content import PeerId
from wire.errors import BadSignature, InputError
from wire.schema import Between, Record
from wire.signing import SIGNATURE_BYTES, SigningKey, check_signature

PREFIX = "batonowner1"
LINE_CHARACTERS_MAX = 256
_DOMAIN = "owner"
_KEY_BYTES = 32
_BEFORE, _AFTER = "/dns/", ".owner"
_KEPT = 4096
_TODO = "give the whole line that `python -m node owner sign PEER` printed, or a file with it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership(Record):
    """The signature of `owner` over the key of `peer`. It holds for good; a peer need not show it.

    Only `check` says whether it is one.
    """

    peer: PeerId
    owner: PeerId
    signature: Annotated[bytes, Between(SIGNATURE_BYTES, SIGNATURE_BYTES)]

    @classmethod
    def signed_by(cls, key: SigningKey, peer: PeerId) -> Self:
        """The word of this key's holder, for one peer."""
        return cls(peer=peer, owner=key.peer, signature=key.sign(_DOMAIN, peer))

    def verify(self) -> None:
        """BadSignature unless the owner signed it for this peer."""
        check_signature(self.owner, _DOMAIN, self.peer, self.signature)

    @property
    def line(self) -> str:
        """One line of text, without the peer's key, for `join --owner`."""
        text = base64.b32encode(self.owner + self.signature).decode().rstrip("=").lower()
        return PREFIX + text

    @property
    def address(self) -> str:
        """What stands for it among the addresses of an advert."""
        return f"{_BEFORE}{self.line}{_AFTER}"


def read_line(text: str, peer: PeerId) -> Ownership:
    """The ownership of `peer` that a line says; InputError if it is another's, or none."""
    found = _parsed("".join(text.split()), peer)
    if found is None:
        raise InputError(f"{text.strip()[:40]!r} is no owner's word", todo=_TODO)
    try:
        found.verify()
    except BadSignature as error:
        raise InputError(
            f"this line is not about this peer, {peer}, or was altered",
            todo=f"have the owner sign this key: python -m node owner sign {peer}",
        ) from error
    return found


def own_addresses(addresses: Iterable[str]) -> tuple[str, ...]:
    """Of the addresses of an advert those that lead to the peer."""
    return tuple(it for it in addresses if not it.endswith(_AFTER))


def shown_in(addresses: tuple[str, ...], peer: PeerId) -> Ownership | None:
    """What `peer` shows in its advert; None if it shows nothing that holds.

    Only the last address counts, so that nobody has many signatures checked.
    """
    return _shown(addresses[-1], peer) if addresses and addresses[-1].endswith(_AFTER) else None


@lru_cache(maxsize=_KEPT)
def _shown(address: str, peer: PeerId) -> Ownership | None:
    found = _parsed(address.removeprefix(_BEFORE).removesuffix(_AFTER), peer)
    try:
        if found is not None:
            found.verify()
    except BadSignature:
        return None
    return found


def _parsed(line: str, peer: PeerId) -> Ownership | None:
    """What a line says of `peer`, not verified yet; None if it is no such line."""
    if not line.startswith(PREFIX) or len(line) > LINE_CHARACTERS_MAX:
        return None
    letters = line.removeprefix(PREFIX).upper()
    try:
        raw = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except (binascii.Error, ValueError):
        return None
    if len(raw) != _KEY_BYTES + SIGNATURE_BYTES:
        return None
    found = Ownership(peer=peer, owner=PeerId(raw[:_KEY_BYTES]), signature=raw[_KEY_BYTES:])
    # One word has one line: another one would be checked anew each time.
    return found if found.line == line else None
