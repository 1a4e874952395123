"""Every error Baton raises on purpose, sorted by who is at fault.

    BatonError
    +-- InputError              what the person at the keyboard gave us; they can mend it
    +-- WireError               bytes we refuse; always the sender's fault
    |   +-- Malformed, Oversize, BadSignature
    +-- ProtocolError           legal bytes at an illegal moment
    |   +-- LocalProtocolError  our bug: never caught, ends the service
    |   +-- RemoteProtocolError theirs: scored and disconnected
    +-- TransportError          the network did not do what was asked
    |   +-- Unreachable         nobody answers at that address or under that key
    |   +-- Disconnected        the peer was there and is gone
    |   +-- TooSlow             the deadline passed first
    +-- StoreError
    |   +-- Missing             no such content here
    |   +-- Corrupt             what the disk gave back does not hash to its key
    |   +-- StoreFull           no room; nothing was written, nothing was lost
    |   +-- StoreUnusable       the state folder cannot be used at all, and why
    +-- EngineError             a model could not be run
    |   +-- ModelRefused        the model itself is at fault
    |   +-- EngineFailed        the worker crashed, hung or ran out of memory
    |   +-- EngineMissing       this machine lacks what the engine needs
    +-- Refused                 a peer said no, aloud, with its reason
    +-- TaskFailed              a task could not be answered, after all that may be tried was tried

Foreign exceptions become ours in one file for each library, with `from error`.
"""


class BatonError(Exception):
    """An error with a cause in words and, where there is one, the next step.

    `str(error)` is one line: what and why, then what to do.
    """

    def __init__(self, message: str, *, todo: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.todo = todo

    def __str__(self) -> str:
        line = f"{self.message}: {self.todo}" if self.todo else self.message
        return " ".join(line.split())


class InputError(BatonError):
    """A person asked for something that cannot be done as asked."""


class WireError(BatonError):
    """Bytes we refuse. Whoever sent them is at fault."""


class Malformed(WireError):
    """Not a canonical encoding of a legal value."""


class Oversize(WireError):
    """Legal in form, beyond a limit of `wire.limits`."""


class BadSignature(WireError):
    """The signature does not belong to these bytes and that key."""


class ProtocolError(BatonError):
    """A legal message at an illegal moment."""


class LocalProtocolError(ProtocolError):
    """We were about to break the protocol: a bug of ours."""


class RemoteProtocolError(ProtocolError):
    """They broke the protocol."""


class TransportError(BatonError):
    """The network did not do what was asked of it."""


class Unreachable(TransportError):
    """Nobody answers there."""


class Disconnected(TransportError):
    """The other side is gone, or the stream is."""


class TooSlow(TransportError):
    """A deadline passed before the answer came."""


class StoreError(BatonError):
    """The store could not do what was asked."""


class Missing(StoreError):
    """No such content here. Somebody else may have it."""


class Corrupt(StoreError):
    """Content that no longer hashes to its key. It is never served."""


class StoreFull(StoreError):
    """No room on the disk or within the quota. Nothing was written."""


class StoreUnusable(StoreError):
    """The state folder cannot be opened: locked, of another version, or not ours."""


class EngineError(BatonError):
    """A model could not be run."""


class ModelRefused(EngineError):
    """The model is at fault: truncated, altered, of a kind we do not run."""


class EngineFailed(EngineError):
    """The worker crashed, hung or ran out of memory. Another peer may do better."""


class EngineMissing(EngineError):
    """This machine lacks what the engine needs."""


class Refused(BatonError):
    """A peer said no. `retry_after_s` is its advice, None for never."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, todo: str = "") -> None:
        super().__init__(message, todo=todo)
        self.retry_after_s = retry_after_s


class TaskFailed(BatonError):
    """Every way of answering a task within its deadline was tried."""
