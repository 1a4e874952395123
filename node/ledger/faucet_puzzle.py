"""Work that a newcomer does for credits, where keys cost nothing and addresses little. Pure.

A solution is of one key, one sponsor and one period. The more of a period's credits are given, the
more work the next key needs: so a flood of keys pays for each of them and leaves some for others.
"""

import hashlib
import struct

from wire.content import ContentId, PeerId
from wire.errors import Malformed

# Bits of a hash that have to be 0: for the first keys of a period, and what a newcomer tries.
BITS_FIRST, BITS_TRIED_MAX, BITS_STEP = 16, 28, 2
# A part of a period's keys after which one bit more is needed.
BARS = 32
TRIES_AT_ONCE = 1 << 15
_SOLUTION = struct.Struct(">QQ")


def bits_needed(given: int, keys: int) -> int:
    """What a key needs after `given` of a period's `keys`."""
    return BITS_FIRST + BARS * given // max(1, keys)


def words_of(network: ContentId, sponsor: PeerId, asker: PeerId, period: int) -> bytes:
    """What a solution is about."""
    return b"baton/1/faucet\0" + network + sponsor + asker + period.to_bytes(8, "big")


def bits_of(words: bytes, nonce: int) -> int:
    """How many bits of the hash are 0."""
    found = hashlib.sha256(words + nonce.to_bytes(8, "big")).digest()
    return 256 - int.from_bytes(found).bit_length()


def solve(words: bytes, bits: int, start: int, tries: int = TRIES_AT_ONCE) -> int | None:
    """The first nonce from `start` on with so many bits, among so many; None if there is none."""
    limit, sha256 = 1 << 256 - bits, hashlib.sha256
    for nonce in range(start, start + tries):
        if int.from_bytes(sha256(words + nonce.to_bytes(8, "big")).digest()) < limit:
            return nonce
    return None


def packed(period: int, nonce: int) -> bytes:
    """A solution as it is sent."""
    return _SOLUTION.pack(period, nonce)


def unpacked(solution: bytes) -> tuple[int, int]:
    """The period and the nonce; Malformed if it is no solution."""
    if len(solution) != _SOLUTION.size:
        raise Malformed("a solution has a period and a nonce")
    period, nonce = _SOLUTION.unpack(solution)
    return period, nonce
