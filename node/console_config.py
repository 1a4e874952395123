"""Where the console is served: frozen, and checked when it is made."""

import ipaddress
from dataclasses import dataclass

from wire.errors import InputError

CONSOLE_DEFAULT = "127.0.0.1:4750"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleConfig:
    """An address of this machine in digits, and a port; port 0 is any that is free."""

    host: str = "127.0.0.1"
    port: int = 4750

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(
                f"{self.port} is not a TCP port", todo=f"for example {CONSOLE_DEFAULT}"
            )
        try:
            ipaddress.ip_address(self.host)
        except ValueError as error:
            raise InputError(
                f"{self.host!r} is not an address of this machine",
                todo=f"give --console-at ADDRESS:PORT, for example {CONSOLE_DEFAULT}",
            ) from error

    @property
    def loopback(self) -> bool:
        """Whether only programs on this machine reach it."""
        return ipaddress.ip_address(self.host).is_loopback
