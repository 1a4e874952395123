"""Who may say what, when, and what follows: as a table. Everything else is an error.

A conversation belongs to one stream, and its first message decides how it may go on. This file does
not know which side it is on: the shell says who spoke.
"""

from enum import Enum, auto

from wire.errors import LocalProtocolError, RemoteProtocolError
from wire.message import (
    Accept,
    Block,
    Check,
    Finding,
    Hello,
    Message,
    Newer,
    Offer,
    Part,
    Piece,
    Ping,
    Pong,
    Quote,
    Quoted,
    Refuse,
    Result,
    Seek,
    Swap,
    Want,
    Welcome,
)


class Speaker(Enum):
    """The asker opened the conversation; the answerer did not."""

    ASKER = auto()
    ANSWERER = auto()


class State(Enum):
    """DONE is final: nothing may follow."""

    IDLE = auto()
    GREETED = auto()
    PINGED = auto()
    SWAPPED = auto()
    SWAPPING = auto()
    SOUGHT = auto()
    QUOTING = auto()
    OFFERED = auto()
    WORKING = auto()
    CHECKING = auto()
    WANTED = auto()
    DONE = auto()


TRANSITIONS: dict[tuple[State, Speaker, type[Message]], State] = {
    (State.IDLE, Speaker.ASKER, Hello): State.GREETED,
    (State.GREETED, Speaker.ANSWERER, Welcome): State.DONE,
    (State.GREETED, Speaker.ANSWERER, Refuse): State.DONE,
    #
    (State.IDLE, Speaker.ASKER, Ping): State.PINGED,
    (State.PINGED, Speaker.ANSWERER, Pong): State.DONE,
    (State.PINGED, Speaker.ANSWERER, Refuse): State.DONE,
    #
    (State.IDLE, Speaker.ASKER, Swap): State.SWAPPED,
    (State.SWAPPED, Speaker.ANSWERER, Newer): State.SWAPPING,
    (State.SWAPPED, Speaker.ANSWERER, Refuse): State.DONE,
    (State.SWAPPING, Speaker.ASKER, Newer): State.DONE,
    #
    (State.IDLE, Speaker.ASKER, Seek): State.SOUGHT,
    (State.SOUGHT, Speaker.ANSWERER, Newer): State.DONE,
    (State.SOUGHT, Speaker.ANSWERER, Refuse): State.DONE,
    #
    # Answered, so that whoever parts knows that it was heard before it hangs up.
    (State.IDLE, Speaker.ASKER, Part): State.PINGED,
    #
    (State.IDLE, Speaker.ASKER, Quote): State.QUOTING,
    (State.QUOTING, Speaker.ANSWERER, Quoted): State.DONE,
    (State.QUOTING, Speaker.ANSWERER, Refuse): State.DONE,
    #
    (State.IDLE, Speaker.ASKER, Offer): State.OFFERED,
    (State.OFFERED, Speaker.ANSWERER, Accept): State.WORKING,
    (State.OFFERED, Speaker.ANSWERER, Refuse): State.DONE,
    (State.WORKING, Speaker.ANSWERER, Piece): State.WORKING,
    (State.WORKING, Speaker.ANSWERER, Result): State.DONE,
    (State.WORKING, Speaker.ANSWERER, Refuse): State.DONE,
    #
    (State.IDLE, Speaker.ASKER, Check): State.CHECKING,
    (State.CHECKING, Speaker.ANSWERER, Finding): State.DONE,
    (State.CHECKING, Speaker.ANSWERER, Refuse): State.DONE,
    #
    (State.IDLE, Speaker.ASKER, Want): State.WANTED,
    (State.WANTED, Speaker.ANSWERER, Block): State.DONE,
    (State.WANTED, Speaker.ANSWERER, Refuse): State.DONE,
}


class Conversation:
    """One conversation's state; an illegal message leaves it untouched."""

    __slots__ = ("side", "state")

    def __init__(self, side: Speaker) -> None:
        self.side = side
        self.state = State.IDLE

    @property
    def done(self) -> bool:
        return self.state is State.DONE

    def said(self, speaker: Speaker, message: Message) -> None:
        """Move on; LocalProtocolError if we were out of turn, RemoteProtocolError if they were."""
        key = (self.state, speaker, type(message))
        if key not in TRANSITIONS:
            words = f"{type(message).__name__} from the {speaker.name.lower()} in {self.state.name}"
            raise (LocalProtocolError if speaker is self.side else RemoteProtocolError)(words)
        self.state = TRANSITIONS[key]

    def sent(self, message: Message) -> None:
        self.said(self.side, message)

    def received(self, message: Message) -> None:
        self.said(_OTHER[self.side], message)


_OTHER = {Speaker.ASKER: Speaker.ANSWERER, Speaker.ANSWERER: Speaker.ASKER}
