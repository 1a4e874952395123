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


class Level(IntEnum):
    """The ladder of checking: each rung proves more, and costs more."""

    SIGNED = 0
    SPOT_CHECKED = 1
    REPLAYED = 2
    EXACT = 3
    ZERO_KNOWLEDGE = 4
