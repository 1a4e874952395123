"""Keys of apps at a gateway that knows 100,000 of them: what a look costs, and a new list.

Half of the looks are of keys that are known, the others of keys that are not. Then an owner's list
of 10,000 revoked keys is taken in place of the one before: nobody sees a part of it.

`python -m tests.bench apps [KEYS] [REVOKED]`
"""

import hashlib
import statistics
import time
from dataclasses import dataclass
from typing import Any
from unittest.mock import Mock

from node.apps.app_keys import AppKeys
from node.apps.known_keys import KnownKey, KnownOwner
from wire.app import (
    AppKey,
    AppMode,
    AppPolicy,
    RevokedKeys,
    RevokedKeysTold,
    joined,
    list_digest,
)
from wire.errors import Refused
from wire.signed import sign
from wire.signing import SigningKey

OWNER, GATEWAY = SigningKey(bytes((1,)) * 32), SigningKey(bytes((2,)) * 32)
LOOKS, ROUNDS = 200_000, 5
LOOK_US_MAX = 20.0


@dataclass
class _Environment:
    def wall_s(self) -> float:
        return 1_000_000.0


def run(arguments: list[str]) -> dict[str, Any]:
    """Microseconds of a look, in the middle and at worst; milliseconds of taking a list."""
    keys = int(arguments[0]) if arguments else 100_000
    revoked = int(arguments[1]) if len(arguments) > 1 else 10_000
    digests = [hashlib.sha256(at.to_bytes(8, "big")).digest() for at in range(keys)]
    known, owner = _filled(digests)
    looks = [_looked(known, digests) for _ in range(ROUNDS)]
    told = _list_of(digests[:revoked])
    began_s = time.perf_counter()
    known._take_list(owner, told)
    list_ms = (time.perf_counter() - began_s) * 1000
    out = sum(_is_out(known, it) for it in digests[:revoked])
    after = _looked(known, digests[revoked:])
    return {
        "keys": keys,
        "look_us": round(statistics.median(looks), 2),
        "look_us_worst": round(max(looks), 2),
        "revoked": revoked,
        "list_ms": round(list_ms, 2),
        "refused": out,
        "look_us_after": round(after, 2),
        "held": max(*looks, after) <= LOOK_US_MAX and out == revoked,
    }


def _filled(digests: list[bytes]) -> tuple[AppKeys, KnownOwner]:
    peers = Mock(environment=_Environment())
    peers.config.network = "baton"
    known = AppKeys(peers)
    policy = AppPolicy(network="baton", app="reader", mode=AppMode.OPEN, price=0, hold=0)
    for digest in digests:
        key = AppKey(
            network="baton",
            app="reader",
            key=digest,
            gateway=GATEWAY.peer,
            until_wall_s=2_000_000,
            per_minute=60,
            budget=0,
            share=0,
            account=None,
        )
        known._known[digest] = KnownKey(digest, OWNER.peer, policy, key, 0.0)
    owner = known._owner(OWNER.peer)
    owner.asked_at_s = 0.0
    return known, owner


def _looked(known: AppKeys, digests: list[bytes]) -> float:
    others = [hashlib.sha256(it).digest() for it in digests[: LOOKS // 2]]
    pairs = list(zip(digests, others, strict=False))[: LOOKS // 2]
    began_s = time.perf_counter()
    for digest, other in pairs:
        known.at_hand(digest, 1.0)
        known.at_hand(other, 1.0)
    return (time.perf_counter() - began_s) / (2 * len(pairs)) * 1e6


def _list_of(digests: list[bytes]) -> RevokedKeysTold:
    hashes = joined(digests)
    head = RevokedKeys(network="baton", sequence=1, told_at_ms=0, digest=list_digest(hashes))
    return RevokedKeysTold(head=sign(head, OWNER).raw, hashes=hashes)


def _is_out(known: AppKeys, digest: bytes) -> bool:
    try:
        known.at_hand(digest, 1.0)
    except Refused:
        return True
    return False
