"""Every error Baton raises on purpose, sorted by who is at fault.

    BatonError
    +-- InputError              what the person at the keyboard gave us; they can correct it
    +-- WireError               bytes we refuse; always the sender's fault
    |   +-- Malformed, Oversize, BadSignature
    +-- ProtocolError           legal bytes at an illegal moment
    |   +-- LocalProtocolError  our bug: never caught, ends the service
    |   +-- RemoteProtocolError theirs: scored and disconnected
    +-- TransportError          the network did not do what was asked
    |   +-- Unreachable         nobody answers at that address or under that key
    |   +-- Disconnected        the connection to the peer ended
    |   +-- TooSlow             the deadline passed first
    +-- StoreError
    |   +-- Missing             no such content here
    |   +-- Corrupt             what the disk gave back does not hash to its key
    |   +-- StoreFull           no room; nothing was written, nothing was lost
    |   +-- StoreUnusable       the state folder cannot be used at all, and why
    +-- EngineError             a model could not be run
    |   +-- ModelRefused        the model itself is at fault, or does not take what it is given
    |   |   +-- ModelNotLoaded    it is not in memory here, and nobody is loading it
    |   |   +-- ModelQuarantined  it failed too often here, and is tried again later
    |   +-- EngineFailed        the worker crashed, hung or ran out of memory
    |   +-- EngineMissing       this machine lacks what the engine needs
    +-- Refused                 a peer refused, with a code and a reason
    +-- TaskFailed              a task could not be answered, after every permitted attempt
    |   +-- NotAgreed           answers came, and too few verifiers agree with any of them

Foreign exceptions become ours in one file for each library, with `from error`.
"""

from typing import ClassVar

from wire.kinds import RefusalCode


class BatonError(Exception):
    """An error with a cause in words and, where there is one, the next step.

    `str(error)` is one line: what and why, then what to do. `code` is the refusal code that is sent
    if this error is the answer to another peer: CODE of its class, unless another is given.
    RETRY_AFTER_S says when that peer may ask again, None for never.
    """

    CODE: ClassVar[RefusalCode] = RefusalCode.FAILED
    RETRY_AFTER_S: ClassVar[float | None] = None

    def __init__(self, message: str, *, todo: str = "", code: RefusalCode | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.todo = todo
        self.code = self.CODE if code is None else code

    def __str__(self) -> str:
        line = f"{self.message}: {self.todo}" if self.todo else self.message
        return " ".join(line.split())


class InputError(BatonError):
    """A person asked for something that cannot be done as asked."""

    CODE = RefusalCode.MALFORMED


class WireError(BatonError):
    """Bytes we refuse. Whoever sent them is at fault."""

    CODE = RefusalCode.MALFORMED


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

    CODE = RefusalCode.LATE


class StoreError(BatonError):
    """The store could not do what was asked."""


class Missing(StoreError):
    """No such content here. Somebody else may have it."""

    CODE = RefusalCode.NOT_FOUND


class Corrupt(StoreError):
    """Content that no longer hashes to its key. It is never served."""


class StoreFull(StoreError):
    """No room on the disk or within the quota. Nothing was written."""

    # Room comes back by itself, as what is not pinned makes way. Were it a refusal for good, a task
    # would be lost whose few able peers happen to be full at one moment.
    RETRY_AFTER_S = 2.0


class StoreUnusable(StoreError):
    """The state folder cannot be opened: locked, of another version, or not ours."""


class EngineError(BatonError):
    """A model could not be run."""


class ModelRefused(EngineError):
    """The model is at fault (truncated, altered, of a kind we do not run), or its input is."""

    CODE = RefusalCode.MALFORMED


class ModelNotLoaded(ModelRefused):
    """The model is not loaded here: it never was, or it was unloaded."""

    CODE = RefusalCode.NO_SUCH_MODEL


class ModelQuarantined(ModelRefused):
    """The model failed too often here; it is tried again after a while."""

    CODE = RefusalCode.MODEL_FAILED


class EngineFailed(EngineError):
    """The worker crashed, hung or ran out of memory. Another peer may do better."""

    CODE = RefusalCode.MODEL_FAILED


class EngineMissing(EngineError):
    """This machine lacks what the engine needs."""

    CODE = RefusalCode.MODEL_FAILED


class Refused(BatonError):
    """A peer refused. `retry_after_s` is when it may be asked again, None for never.

    Without a `code` the code is BUSY if `retry_after_s` is given, else OTHER.
    """

    CODE = RefusalCode.OTHER

    def __init__(
        self,
        message: str,
        *,
        code: RefusalCode | None = None,
        retry_after_s: float | None = None,
        todo: str = "",
    ) -> None:
        if code is None and retry_after_s is not None:
            code = RefusalCode.BUSY
        super().__init__(message, todo=todo, code=code)
        self.retry_after_s = retry_after_s


class TaskFailed(BatonError):
    """Every way of answering a task within its deadline was tried."""


class NotAgreed(TaskFailed):
    """Answers came, and too few verifiers agree with any of them: none is given out."""
