"""The numbers of every record and message. They are the protocol: append only."""

from enum import IntEnum


class Kind(IntEnum):
    """Append only: a number once used is never used for anything else."""

    # Records that are signed, hashed or kept.
    ADVERT = 1
    TASK = 2
    RECEIPT = 3
    VERDICT = 4
    ANSWER = 5
    MANIFEST = 6
    # Two peers meet.
    HELLO = 10
    WELCOME = 11
    PING = 12
    PONG = 13
    # Neighbours tell each other what is newer; a rare model is looked for.
    SWAP = 14
    NEWER = 15
    SEEK = 16
    PART = 17
    # A leg of a task.
    OFFER = 20
    ACCEPT = 21
    REFUSE = 22
    PIECE = 23
    RESULT = 24
    # A check of a leg.
    CHECK = 25
    FINDING = 26
    # Before a leg: what it would take.
    QUOTE = 27
    QUOTED = 28
    # Content.
    WANT = 30
    BLOCK = 31


class Role(IntEnum):
    """What a peer does for others; the bit of it in an advert is 1 << role."""

    DATA = 0
    INFER = 1
    VERIFY = 2
    STORE = 3
    GATEWAY = 4


class RefusalCode(IntEnum):
    """Why a peer said no, for programs; the words beside it are for people. Append only.

    A code that is not known here, of a newer peer, is read as OTHER (`read`).
    """

    OTHER = 0
    # No room now; the refusal says when to ask again.
    BUSY = 1
    # It would not be done by its deadline here.
    TOO_LONG = 2
    # This peer does not run the model that is named.
    NO_SUCH_MODEL = 3
    # The model could not be run here: its worker died, or it is set aside for such failures.
    MODEL_FAILED = 4
    # The model is on its way into memory.
    LOADING = 5
    # This peer does not do that for others, or not for this one.
    NOT_WILLING = 6
    # The request cannot be read, or asks a model for what no peer could do.
    MALFORMED = 7
    # The deadline has passed.
    LATE = 8
    # The owner of the machine wants it.
    PAUSED = 9
    # It costs more than is offered for it.
    NOT_PAID = 10
    # Whoever asks is banned here for what it did.
    BANNED = 11
    # This peer is about to end.
    LEAVING = 12
    # The clocks of the two differ by too much.
    CLOCK = 13
    # There is no such operation, or the model does not do it.
    UNSUPPORTED = 14
    # The content, source or index that is named is not to be had here.
    NOT_FOUND = 15
    # The two have not met, or belong to different networks.
    STRANGER = 16
    # Whoever was to do the rest failed, or something here did that is no fault of the request.
    FAILED = 17

    @classmethod
    def read(cls, number: int) -> "RefusalCode":
        """The code that a peer sent; OTHER for one that is not known here."""
        return cls(number) if number in cls._value2member_map_ else cls.OTHER


class Level(IntEnum):
    """The ladder of checking: each rung proves more, and costs more."""

    SIGNED = 0
    SPOT_CHECKED = 1
    REPLAYED = 2
    EXACT = 3
    ZERO_KNOWLEDGE = 4
