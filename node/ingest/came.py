"""What a source gave, before anything is made of it."""

from dataclasses import dataclass

from wire.fetch import FetchedPage, HeaderField


@dataclass(frozen=True, slots=True)
class Came:
    """A body, and where it is from; the fields are those of `AttestedFetch`."""

    urls: tuple[str, ...]
    body: bytes
    status: int = 0
    headers: tuple[HeaderField, ...] = ()
    certificates: bytes | None = None
    pages: tuple[FetchedPage, ...] = ()
    # A list of nodes, as `dataset.unpacked` reads it.
    folders: bytes = b""
    more: bool = False
