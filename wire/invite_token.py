"""An invite as one line of text, which a person can pass on: the invite and the claim key's seed.

`baton1` and, in base32 without padding, the signed invite, the seed of 32 bytes and a checksum of
4. Whoever has the line can use the invite.
"""

import base64
import binascii
import hashlib
import re
import unicodedata
from contextlib import suppress

from wire import limits
from wire.errors import InputError, WireError
from wire.membership import Invite
from wire.signed import Signed, open_signed
from wire.signing import SigningKey

PREFIX = "baton1"
_SEED_BYTES, _CHECKSUM_BYTES = 32, 4
_BYTES_MAX = limits.INVITE_BYTES_MAX + limits.ENVELOPE_BYTES_MAX + _SEED_BYTES + _CHECKSUM_BYTES
TOKEN_CHARACTERS_MAX = len(PREFIX) + -(-_BYTES_MAX * 8 // 5)
# What is looked through for a line: a QR code and its line, or a mail that quotes one.
TEXT_CHARACTERS_MAX = 8 * TOKEN_CHARACTERS_MAX
_BEGINS = re.compile(
    rf"""(["'`])({PREFIX}[^\s"'`]*)\1|<({PREFIX}[^\s<>]*)>|(?:^|(?<=\s))({PREFIX}\S*)""",
    re.IGNORECASE,
)
# How mail marks each line that it quotes.
_QUOTED = re.compile(r"^[>|\s]+", re.MULTILINE)
# Fewer are a word about invites, and no line of one.
_BEGUN_CHARACTERS = len(PREFIX) + 10
_TODO = "copy the whole line that `invite` printed there, or ask for a new one"


def write_token(invite: Signed[Invite], seed: bytes) -> str:
    """The line for this invite; `seed` is that of its claim key."""
    body = invite.raw + seed
    text = base64.b32encode(body + _checksum(body)).decode().rstrip("=").lower()
    return PREFIX + text


def read_token(text: str) -> tuple[Signed[Invite], SigningKey]:
    """The invite and its claim key; InputError for any other text, also if one letter differs.

    The line is found within what people paste with it: a prompt, quotes, a mail that wraps it.
    """
    *others, last = _lines_in(text)
    for line in others:
        with suppress(InputError):
            return _read_line(line)
    return _read_line(last)


def _lines_in(text: str) -> tuple[str, ...]:
    """What may be the line: where it begins, up to the next space, and with all that follows.

    InputError where several lines begin: who hid one among them decides for nobody.
    """
    # Some programs put marks that nobody sees where a long word may be broken.
    plain = "".join(
        it for it in text[:TEXT_CHARACTERS_MAX] if it.isascii() or unicodedata.category(it) != "Cf"
    )
    found = {
        it[place].lower(): it.start(place)
        for it in _BEGINS.finditer(plain)
        if len(it[place := it.lastindex or 0]) >= _BEGUN_CHARACTERS
    }
    if len(found) > 1:
        raise InputError(
            f"this text holds {len(found)} invites, which may be to different networks",
            todo="give only the line of the network that you mean to join",
        )
    for begun, start in found.items():
        whole = "".join(_QUOTED.sub("", plain[start:]).split())
        return plain[start : start + len(begun)], whole
    return ("".join(plain.split()),)


def _read_line(line: str) -> tuple[Signed[Invite], SigningKey]:
    if line.isupper():
        # As a QR code has it.
        line = line.lower()
    if not line.startswith(PREFIX):
        raise InputError(f"this is no invite: it does not begin with {PREFIX}", todo=_TODO)
    if len(line) > TOKEN_CHARACTERS_MAX:
        raise InputError(
            f"this is no invite: it has {len(line)} characters, at most {TOKEN_CHARACTERS_MAX}",
            todo=_TODO,
        )
    letters = line[len(PREFIX) :].upper()
    try:
        raw = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except (binascii.Error, ValueError) as error:
        raise InputError("this invite was cut or altered: it is no base32", todo=_TODO) from error
    body, checksum = raw[:-_CHECKSUM_BYTES], raw[-_CHECKSUM_BYTES:]
    if len(body) <= _SEED_BYTES or checksum != _checksum(body):
        raise InputError("this invite was cut or altered: its checksum is wrong", todo=_TODO)
    try:
        invite = open_signed(body[:-_SEED_BYTES], Invite)
        key = SigningKey(body[-_SEED_BYTES:])
    except WireError as error:
        raise InputError(f"this is no invite: {error.message}", todo=_TODO) from error
    if key.peer != invite.record.claim_key or write_token(invite, key.seed) != line:
        raise InputError("this invite was altered: its parts do not fit", todo=_TODO)
    return invite, key


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(b"baton/1/invite\0" + body).digest()[:_CHECKSUM_BYTES]
