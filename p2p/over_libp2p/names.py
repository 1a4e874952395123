"""Names in addresses that a person gave: looked up at each call, for what they mean may change.

No name in an advert is ever called (`p2p.ip_address.may_call`). The lookup is a seam, so tests need
no name server.
"""

import ipaddress
from collections.abc import Awaitable, Callable, Sequence

import trio

from p2p.ip_address import host_of, is_name
from p2p.name_lookup import OF_OWNER
from wire.errors import Unreachable

# The IP addresses of a host name, in the order in which they are to be tried; OSError says why
# there are none.
LookUp = Callable[[str], Awaitable[Sequence[str]]]

# More than so many of one name are not tried.
ADDRESSES_PER_NAME_MAX = 8
# Which version of IP each kind of name may lead to.
_VERSIONS = {"dns": (4, 6), "dns4": (4,), "dns6": (6,)}


async def look_up(host: str) -> Sequence[str]:
    """Ask this machine's resolver; OSError if it knows nothing."""
    return await OF_OWNER.look_up(host)


async def resolved(address: str, look_up: LookUp, deadline_s: float) -> tuple[str, ...]:
    """The multiaddrs that `address` stands for: itself, unless its host is a name.

    Unreachable, naming the host and the reason, if the name leads nowhere or nobody says in time.
    """
    if not is_name(address):
        return (address,)
    kind, host = address.split("/")[1], host_of(address)
    todo = "check the name and this machine's network, or give an address with /ip4/"
    try:
        with trio.fail_after(deadline_s):
            found = await look_up(host)
    except trio.TooSlowError as error:
        raise Unreachable(
            f"nobody said within {deadline_s:.2g} s where {host} is", todo=todo
        ) from error
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"the name {host} was not found: {error}", todo=todo) from error
    places = dict.fromkeys(_as_ip(it, _VERSIONS[kind]) for it in found)
    rest = address.split("/", 3)[3]
    hosts = [it for it in places if it is not None][:ADDRESSES_PER_NAME_MAX]
    if not hosts:
        raise Unreachable(f"the name {host} has no address for /{kind}/", todo=todo)
    return tuple(f"/{it}/{rest}" for it in hosts)


def _as_ip(text: str, versions: tuple[int, ...]) -> str | None:
    """The head of a multiaddr; None for what is no address of these versions."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        # Of a scope, such as fe80::1%eth0: nothing that a multiaddr of ours can say.
        return None
    scoped = address.version == 6 and "%" in text
    return None if scoped or address.version not in versions else f"ip{address.version}/{address}"
