"""What the text records of a name in the DNS say of peers to begin with, and what of it counts.

Pure. Whoever answers for the name, or stands on the way to who does, can say anything, unsigned. So
a record is no more than a hint where to call, and whoever answers there has to prove the key that
the record names, and to say Hello like everybody. A record is one multiaddr of one peer:

    dnsaddr=/ip4/192.0.2.7/tcp/4747/p2p/12D3KooW…

A name in it is not looked up, and addresses of private networks and of this machine count only
where the user said so: else a stranger would aim this peer's calls at what stands beside it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from p2p.ip_address import Scope, host_of, scope_of
from wire import limits
from wire.content import PeerId
from wire.errors import InputError, Malformed

# Of one answer so many records are looked at, and so many peers taken.
RECORDS_MAX, SEEDS_MAX = 256, 16
_RECORD_BYTES_MAX = 255
_PREFIX = b"dnsaddr="
_SHAPE = re.compile(r"/(ip4|ip6)/([0-9A-Fa-f.:]{2,45})/tcp/([1-9][0-9]{0,4})/p2p/([0-9A-Za-z]+)")

_NAME_MAX, _NAMES_MAX = 253, 4
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Seeds:
    """Peers and where each may be; and of the records that are no hint, how many for what."""

    found: Mapping[PeerId, tuple[str, ...]]
    refused: Mapping[str, int]


def checked_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names in the DNS as a person typed them, in small letters; InputError if one cannot be."""
    found = tuple(dict.fromkeys(it.rstrip(".").lower() for it in names))
    for name in found:
        labels = name.split(".")
        if len(name) > _NAME_MAX or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
            raise InputError(
                f"{name[:80]!r} is no name in the DNS",
                todo="give one like seeds.example.org (--seed-dns)",
            )
    if len(found) > _NAMES_MAX:
        raise InputError(
            f"{len(found)} names for --seed-dns are too many", todo=f"give at most {_NAMES_MAX}"
        )
    return found


def seeds_of(texts: Iterable[bytes], me: PeerId, *, private: bool) -> Seeds:
    """The peers that the text records of a name tell of, each at a few addresses at most.

    `private` is whether addresses of private networks and of this machine count. What is no record
    of this kind is passed over: a name has others beside.
    """
    found: dict[PeerId, tuple[str, ...]] = {}
    refused = Counter[str]()
    for number, text in enumerate(texts):
        if number >= RECORDS_MAX:
            refused["too many records"] += 1
            break
        if not text.startswith(_PREFIX):
            continue
        seed = _seed_of(text.removeprefix(_PREFIX), private=private)
        if isinstance(seed, str):
            refused[seed] += 1
            continue
        peer, address = seed
        if peer == me:
            continue
        known = found.get(peer, ())
        room = len(known) < limits.ADVERT_ADDRESSES_MAX if known else len(found) < SEEDS_MAX
        if not room:
            refused["too many"] += 1
        elif address not in known:
            found[peer] = (*known, address)
    return Seeds(found, refused)


def _seed_of(value: bytes, *, private: bool) -> tuple[PeerId, str] | str:
    """The peer and its multiaddr; or why the record is no hint."""
    if len(value) > _RECORD_BYTES_MAX or not value.isascii():
        return "malformed"
    shape = _SHAPE.fullmatch(value.decode("ascii"))
    if shape is None:
        return "malformed"
    kind, host, port, key = shape.groups()
    try:
        peer, address = PeerId.parse(key), ip_address(host)
    except (Malformed, ValueError):
        return "malformed"
    if kind != f"ip{address.version}" or int(port) >= 1 << 16:
        return "malformed"
    multiaddr = f"/{kind}/{address}/tcp/{port}/p2p/{peer}"
    if scope_of(host_of(multiaddr)) is not Scope.GLOBAL and not private:
        return "private address"
    return peer, multiaddr
