"""Turns libp2p's exceptions into ours; no other module does.

It also holds the only catch-all of the project. libp2p lets hostile bytes surface as any exception
at all (KeyError, ValueError, protobuf's and cryptography's own), and one that escapes a task of its
services takes every connection of the process down. `contained` surrounds those places.
"""

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey

from p2p.transport import WrongPeer
from wire.content import PeerId
from wire.errors import Disconnected, Malformed, TooSlow, Unreachable

_log = logging.getLogger(__name__)

_FOREIGN = (
    BaseLibp2pError,
    OSError,
    EOFError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)
_REASON_CHARS_MAX = 200
_FOUND = re.compile(r"(?:from_pubkey=|mismatch: )(12D3Koo[1-9A-HJ-NP-Za-km-z]{40,60})")


class WrongPeerThere(BaseLibp2pError):  # type: ignore[misc]
    """The memory transport's error for what noise calls PeerIDMismatchesPubkey."""


@dataclass(slots=True)
class Contained:
    """What a block raised, if anything."""

    error: Exception | None = None


@contextmanager
def contained(what: str) -> Iterator[Contained]:
    """Keep a peer's bytes from ending a libp2p service; for calls into libp2p only.

    Cancellation is no `Exception` and passes through, alone or in a group.
    """
    found = Contained()
    try:
        yield found
    except Exception as error:  # noqa: BLE001 - see the head of this file
        _log.debug("%s: %r", what, error)
        found.error = error


@contextmanager
def shaking_hands() -> Iterator[None]:
    """Around a handshake that libp2p does not wrap: whatever it raises becomes libp2p's error."""
    with contained("a handshake of ours") as tried:
        yield
    if tried.error is not None:
        raise BaseLibp2pError("the handshake failed") from tried.error


@contextmanager
def unwrapped() -> Iterator[None]:
    """Around nested nurseries: a single exception leaves as itself, not inside four groups."""
    try:
        yield
    except BaseExceptionGroup as group:
        leaf: BaseException = group
        while isinstance(leaf, BaseExceptionGroup) and len(leaf.exceptions) == 1:
            leaf = leaf.exceptions[0]
        if isinstance(leaf, BaseExceptionGroup):
            raise
        raise leaf from leaf.__cause__


@contextmanager
def dialing(address: str, deadline_s: float) -> Iterator[None]:
    """Around an attempt to connect: Unreachable, saying why, or TooSlow."""
    try:
        yield
    except trio.TooSlowError as error:
        raise TooSlow(
            f"{address} did not answer within {deadline_s:.2g} s",
            todo="check that the peer runs and that no firewall is in the way",
        ) from error
    except (*_FOREIGN, ValueError, TypeError) as error:
        if _is_mismatch(error):
            raise WrongPeer(
                f"another peer answers at {address}: its key is not the one in the address",
                todo="ask for the peer's present address; a new key gives a new peer id",
                found=_found(error),
            ) from error
        if any(isinstance(one, MultiselectClientError) for one in _chain(error)):
            raise Unreachable(
                f"the program that answers at {address} is not a Baton peer",
                todo="check the port: another program has it",
            ) from error
        raise Unreachable(
            f"no peer answers at {address}: {_reason(error)}",
            todo="check the address, that the peer runs, and that its port is open",
        ) from error


@contextmanager
def opening(peer: PeerId, deadline_s: float) -> Iterator[None]:
    """Around a new stream: Disconnected, Unreachable or TooSlow."""
    try:
        yield
    except trio.TooSlowError as error:
        raise TooSlow(f"{peer.short} opened no stream within {deadline_s:.2g} s") from error
    except (*_FOREIGN, KeyError) as error:
        raise Disconnected(f"no stream to {peer.short}: {_reason(error)}") from error


@contextmanager
def streaming(peer: PeerId) -> Iterator[None]:
    """Around reading and writing: Disconnected."""
    try:
        yield
    except (*_FOREIGN, KeyError) as error:
        raise Disconnected(f"the stream to {peer.short} broke: {_reason(error)}") from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        # libp2p gathers several failures in a MultiError, which is not an exception group.
        several = getattr(one, "errors", ()) or getattr(one, "exceptions", ())
        waiting.extend((one.__cause__, one.__context__, *several))


def _is_mismatch(error: BaseException) -> bool:
    kinds = (PeerIDMismatchesPubkey, WrongPeerThere)
    return any(isinstance(one, kinds) or "ID mismatch" in str(one) for one in _chain(error))


def _found(error: BaseException) -> PeerId | None:
    """Who answers there; noise proved it, and says it only in words."""
    for one in _chain(error):
        if (words := _FOUND.search(str(one))) is not None:
            try:
                return PeerId.parse(words[1])
            except Malformed:
                return None
    return None


def _reason(error: BaseException) -> str:
    # What the operating system says is told in its own words, without trio's and Python's.
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno is not None and one.errno in errno.errorcode:
            return os.strerror(one.errno).lower()
    # The innermost message is the handshake's, and is the most exact.
    words = [str(one) for one in _chain(error) if str(one)]
    return (words[-1] if words else type(error).__name__)[:_REASON_CHARS_MAX]
