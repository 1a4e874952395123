"""The client for scripts without an event loop: each call blocks until its answer is there.

No method is written twice: each one is made from the method of `Net` with the same name.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

from node.client.answers import Pieces
from node.client.net import ADDRESS_DEFAULT, Net, connect
from node.client.reading import AnswerPiece


class _Waiting:
    """An object of the client, and the other thread's event loop in which that object runs."""

    def __init__(self, inner: Any, portal: BlockingPortal) -> None:
        self._inner = inner
        self._portal = portal


class BlockingPieces(_Waiting):
    """An answer that arrives piece by piece: iterate over it."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AnswerPiece:
        piece: AnswerPiece | None = self._portal.call(self._inner.next_piece)
        if piece is None:
            raise StopIteration
        return piece

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._portal.call(self._inner.aclose)


class BlockingNet(_Waiting):
    """What `Net` does, with calls that block."""

    def __getattr__(self, name: str) -> Any:
        # For type checkers: the methods are made below.
        raise AttributeError(f"a client has no method {name!r}")


def _waiting(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: _Waiting, *arguments: Any, **options: Any) -> Any:
        async def in_loop() -> Any:
            found = method(self._inner, *arguments, **options)
            return await found if inspect.isawaitable(found) else found

        found = self._portal.call(in_loop)
        return BlockingPieces(found, self._portal) if isinstance(found, Pieces) else found

    return call


def _derive(kind: type[_Waiting], source: type) -> None:
    for name, method in vars(source).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(kind, name, _waiting(method))


_derive(BlockingNet, Net)
_derive(BlockingPieces, Pieces)


@contextmanager
def connect_blocking(address: str = ADDRESS_DEFAULT, **options: Any) -> Iterator[BlockingNet]:
    """As `connect`, for scripts: `with node.connect_blocking() as net: …`"""
    open_net = partial(connect, address, **options)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(open_net()) as net:
        yield BlockingNet(net, portal)
