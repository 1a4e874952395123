"""The DNS by this machine's own name servers: the only place where dnspython is imported.

It is asked in a thread, since an answer of 64 KiB takes a while to read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import trio
from dns.exception import DNSException
from dns.rdatatype import TXT
from dns.resolver import NXDOMAIN, LifetimeTimeout, NoAnswer, NoNameservers, Resolver

from p2p.seed_records import RECORDS_MAX
from wire.errors import TransportError

_PORT = 53


@dataclass(frozen=True, slots=True)
class DnsSeeds:
    """As `p2p.seeds.SeedService`; `servers` in place of those that the system names."""

    servers: Sequence[str] = ()
    port: int = _PORT

    async def texts(self, name: str, deadline_s: float) -> tuple[bytes, ...]:
        """The text records of a name; more than can count are left out."""
        return await trio.to_thread.run_sync(
            self._texts,
            name,
            deadline_s,
            # It ends by itself soon, and nobody who leaves waits for it.
            abandon_on_cancel=True,  # type: ignore[call-arg, unused-ignore]
        )

    def _texts(self, name: str, deadline_s: float) -> tuple[bytes, ...]:
        try:
            # Read each time: another network has other name servers.
            resolver = Resolver(configure=not self.servers)
            if self.servers:
                resolver.nameservers, resolver.port = list(self.servers), self.port
            answer = resolver.resolve(f"{name}.", TXT, lifetime=deadline_s)
            return tuple(b"".join(it.strings) for it in islice(answer, RECORDS_MAX + 1))
        except NXDOMAIN as error:
            raise TransportError("the name does not exist") from error
        except NoAnswer as error:
            raise TransportError("the name has no text records") from error
        except LifetimeTimeout as error:
            raise TransportError(f"no name server answered within {deadline_s:g} s") from error
        except NoNameservers as error:
            raise TransportError("every name server refused or failed") from error
        except (DNSException, OSError, ValueError) as error:
            raise TransportError(f"the name servers gave no answer: {error}") from error
