"""What an endpoint needs of a request besides what its body says."""

from dataclasses import dataclass
from typing import Any, Protocol, overload


class ClientHeaders(Protocol):
    """Headers by their names in lower case. Of one that comes twice the first counts."""

    @overload
    def get(self, key: str, /) -> str | None: ...
    @overload
    def get(self, key: str, default: str, /) -> str: ...


class ClientRequest(Protocol):
    """A request of the framework, or one that never was there."""

    @property
    def headers(self) -> ClientHeaders: ...

    @property
    def state(self) -> Any:
        """`owner`: whose request it is."""

    async def body(self) -> bytes:
        """All of the body."""


@dataclass(frozen=True, slots=True)
class RequestState:
    """What the door found out."""

    owner: bytes


@dataclass(frozen=True, slots=True)
class RawHeaders:
    """Headers as they came, with names in lower case."""

    raw: list[tuple[bytes, bytes]]

    @overload
    def get(self, key: str, /) -> str | None: ...
    @overload
    def get(self, key: str, default: str, /) -> str: ...

    def get(self, key: str, default: str | None = None, /) -> str | None:
        """See `ClientHeaders`."""
        wanted = key.encode("latin-1")
        for name, value in self.raw:
            if name == wanted:
                return value.decode("latin-1")
        return default


@dataclass(frozen=True, slots=True)
class DirectRequest:
    """A request that the framework never sees."""

    headers: RawHeaders
    state: RequestState
    data: bytes

    async def body(self) -> bytes:
        """See `ClientRequest`."""
        return self.data
