"""A table of which side may send which message in which state. Any other message is an error.

A conversation belongs to one stream, and its first message decides how it may go on. This file does
not know which side it is on: the shell says who spoke.
"""

from enum import Enum, auto

from wire.app import AppKeyTold, AskAppKey, AskRevokedKeys, RevokedKeysTold
from wire.checks import Checks, OpenChecks, Verdicts
from wire.commitment import Commitments, TellVerdict, TellVerdicts, VerdictCommitted
from wire.contribution import AskContribution, Contributed
from wire.dispute import Children, Committed, Contest, Descend, Reveal, Revealed, Settled
from wire.errors import LocalProtocolError, RemoteProtocolError
from wire.feed import AskFeed, FeedPage
from wire.ledger_message import (
    AccountState,
    Acknowledged,
    AskAccount,
    AskBucket,
    AskCertificates,
    AskCheckpoint,
    AskCredits,
    BucketOrders,
    Certificates,
    CheckpointReply,
    Confirm,
    CreditsGiven,
    EpochNews,
    SubmitOrder,
    Voted,
)
from wire.log import AskHeads, AskPlace, LogNews, LogPlace
from wire.membership import Admitted, ClaimInvite, ClaimNonce, ClaimSigned, Renew, RevokedNews
from wire.message import (
    Accept,
    BlockReply,
    BlocksComing,
    BlocksSent,
    Check,
    Goodbye,
    Hello,
    Keep,
    Keeping,
    Message,
    Newer,
    Offer,
    Piece,
    Ping,
    Pong,
    Quote,
    Quoted,
    Refuse,
    Result,
    Seek,
    Swap,
    VerdictReply,
    Want,
    WantBlocks,
    Welcome,
)
from wire.order import Bundle, Close, Open, Opened, Outcomes, Places, Taken, Withdraw
from wire.payment_message import Paid, Pay
from wire.reach import DialBack, DialedBack, Reserve, Reserved
from wire.stage import (
    StageClose,
    StageOpen,
    StageOpened,
    StagePass,
    StagePassed,
    StageSign,
    StageSigned,
)
from wire.stake import AskStakes, StakeRows


class Speaker(Enum):
    """The asker opened the conversation; the answerer did not."""

    ASKER = auto()
    ANSWERER = auto()


class CallState(Enum):
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
    HOLDING = auto()
    TELLING = auto()
    CONTRIBUTING = auto()
    WANTED = auto()
    MANY_WANTED = auto()
    BLOCKS_COMING = auto()
    KEEPING = auto()
    OPENING = auto()
    STANDING = auto()
    CHECKS_OPENING = auto()
    CHECKS_STANDING = auto()
    STAGE_OPENING = auto()
    STAGED = auto()
    VOTING = auto()
    CONFIRMING = auto()
    ACCOUNTING = auto()
    ENDING = auto()
    LISTING = auto()
    CERTIFYING = auto()
    LOOKING_BACK = auto()
    TELLING_STAKES = auto()
    SPONSORING = auto()
    PAYING = auto()
    DIALING_BACK = auto()
    RESERVING = auto()
    CONTESTED = auto()
    COMMITTED = auto()
    DESCENDING = auto()
    REVEALING = auto()
    PLACING = auto()
    HEADS_ASKED = auto()
    NEWS = auto()
    FEED_ASKED = auto()
    CLAIMING = auto()
    CLAIM_ASKED = auto()
    ADMITTING = auto()
    REVOKED_TOLD = auto()
    APP_KEY_ASKED = auto()
    REVOKED_KEYS_ASKED = auto()
    DONE = auto()


TRANSITIONS: dict[tuple[CallState, Speaker, type[Message]], CallState] = {
    (CallState.IDLE, Speaker.ASKER, Hello): CallState.GREETED,
    (CallState.GREETED, Speaker.ANSWERER, Welcome): CallState.DONE,
    (CallState.GREETED, Speaker.ANSWERER, Refuse): CallState.DONE,
    #
    (CallState.IDLE, Speaker.ASKER, Ping): CallState.PINGED,
    (CallState.PINGED, Speaker.ANSWERER, Pong): CallState.DONE,
    (CallState.PINGED, Speaker.ANSWERER, Refuse): CallState.DONE,
    #
    (CallState.IDLE, Speaker.ASKER, Swap): CallState.SWAPPED,
    (CallState.SWAPPED, Speaker.ANSWERER, Newer): CallState.SWAPPING,
    (CallState.SWAPPED, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.SWAPPING, Speaker.ASKER, Newer): CallState.DONE,
    #
    (CallState.IDLE, Speaker.ASKER, Seek): CallState.SOUGHT,
    (CallState.SOUGHT, Speaker.ANSWERER, Newer): CallState.DONE,
    (CallState.SOUGHT, Speaker.ANSWERER, Refuse): CallState.DONE,
    #
    # A goodbye is answered, so that its sender knows it was received before it disconnects.
    (CallState.IDLE, Speaker.ASKER, Goodbye): CallState.PINGED,
    #
    (CallState.IDLE, Speaker.ASKER, Quote): CallState.QUOTING,
    (CallState.QUOTING, Speaker.ANSWERER, Quoted): CallState.DONE,
    (CallState.QUOTING, Speaker.ANSWERER, Refuse): CallState.DONE,
    #
    (CallState.IDLE, Speaker.ASKER, Offer): CallState.OFFERED,
    (CallState.OFFERED, Speaker.ANSWERER, Accept): CallState.WORKING,
    (CallState.OFFERED, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.WORKING, Speaker.ANSWERER, Piece): CallState.WORKING,
    (CallState.WORKING, Speaker.ANSWERER, Result): CallState.DONE,
    (CallState.WORKING, Speaker.ANSWERER, Refuse): CallState.DONE,
    #
    (CallState.IDLE, Speaker.ASKER, Check): CallState.CHECKING,
    (CallState.CHECKING, Speaker.ANSWERER, VerdictReply): CallState.DONE,
    (CallState.CHECKING, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.CHECKING, Speaker.ANSWERER, VerdictCommitted): CallState.HOLDING,
    (CallState.HOLDING, Speaker.ASKER, TellVerdict): CallState.TELLING,
    (CallState.HOLDING, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.TELLING, Speaker.ANSWERER, VerdictReply): CallState.DONE,
    (CallState.TELLING, Speaker.ANSWERER, Refuse): CallState.DONE,
    #
    (CallState.IDLE, Speaker.ASKER, AskContribution): CallState.CONTRIBUTING,
    (CallState.CONTRIBUTING, Speaker.ANSWERER, Contributed): CallState.DONE,
    (CallState.CONTRIBUTING, Speaker.ANSWERER, Refuse): CallState.DONE,
    #
    (CallState.IDLE, Speaker.ASKER, Want): CallState.WANTED,
    (CallState.WANTED, Speaker.ANSWERER, BlockReply): CallState.DONE,
    (CallState.WANTED, Speaker.ANSWERER, Refuse): CallState.DONE,
    #
    (CallState.IDLE, Speaker.ASKER, WantBlocks): CallState.MANY_WANTED,
    (CallState.MANY_WANTED, Speaker.ANSWERER, BlocksComing): CallState.BLOCKS_COMING,
    (CallState.MANY_WANTED, Speaker.ANSWERER, Refuse): CallState.DONE,
    # As many as were announced; a Refuse in place of one says that the others are gone meanwhile.
    (CallState.BLOCKS_COMING, Speaker.ANSWERER, BlockReply): CallState.BLOCKS_COMING,
    (CallState.BLOCKS_COMING, Speaker.ANSWERER, BlocksSent): CallState.DONE,
    (CallState.BLOCKS_COMING, Speaker.ANSWERER, Refuse): CallState.DONE,
    #
    # Before it answers, the peer fetches what it is to keep, in conversations that it begins.
    (CallState.IDLE, Speaker.ASKER, Keep): CallState.KEEPING,
    (CallState.KEEPING, Speaker.ANSWERER, Keeping): CallState.DONE,
    (CallState.KEEPING, Speaker.ANSWERER, Refuse): CallState.DONE,
    #
    (CallState.IDLE, Speaker.ASKER, Open): CallState.OPENING,
    (CallState.OPENING, Speaker.ANSWERER, Opened): CallState.STANDING,
    (CallState.OPENING, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.STANDING, Speaker.ASKER, Bundle): CallState.STANDING,
    (CallState.STANDING, Speaker.ASKER, Withdraw): CallState.STANDING,
    (CallState.STANDING, Speaker.ASKER, Close): CallState.DONE,
    (CallState.STANDING, Speaker.ANSWERER, Outcomes): CallState.STANDING,
    (CallState.STANDING, Speaker.ANSWERER, Places): CallState.STANDING,
    (CallState.STANDING, Speaker.ANSWERER, Taken): CallState.STANDING,
    # The peer ends the order; what it has not told is not done.
    (CallState.STANDING, Speaker.ANSWERER, Refuse): CallState.DONE,
    #
    (CallState.IDLE, Speaker.ASKER, OpenChecks): CallState.CHECKS_OPENING,
    (CallState.CHECKS_OPENING, Speaker.ANSWERER, Opened): CallState.CHECKS_STANDING,
    (CallState.CHECKS_OPENING, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.CHECKS_STANDING, Speaker.ASKER, Checks): CallState.CHECKS_STANDING,
    (CallState.CHECKS_STANDING, Speaker.ASKER, Withdraw): CallState.CHECKS_STANDING,
    (CallState.CHECKS_STANDING, Speaker.ASKER, Close): CallState.DONE,
    (CallState.CHECKS_STANDING, Speaker.ASKER, TellVerdicts): CallState.CHECKS_STANDING,
    (CallState.CHECKS_STANDING, Speaker.ANSWERER, Commitments): CallState.CHECKS_STANDING,
    (CallState.CHECKS_STANDING, Speaker.ANSWERER, Verdicts): CallState.CHECKS_STANDING,
    (CallState.CHECKS_STANDING, Speaker.ANSWERER, Places): CallState.CHECKS_STANDING,
    (CallState.CHECKS_STANDING, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.IDLE, Speaker.ASKER, StageOpen): CallState.STAGE_OPENING,
    (CallState.STAGE_OPENING, Speaker.ANSWERER, StageOpened): CallState.STAGED,
    (CallState.STAGE_OPENING, Speaker.ANSWERER, Refuse): CallState.DONE,
    # Passes may be on their way to the peer while it answers earlier ones.
    (CallState.STAGED, Speaker.ASKER, StagePass): CallState.STAGED,
    (CallState.STAGED, Speaker.ASKER, StageClose): CallState.DONE,
    (CallState.STAGED, Speaker.ANSWERER, StagePassed): CallState.STAGED,
    (CallState.STAGED, Speaker.ASKER, StageSign): CallState.STAGED,
    (CallState.STAGED, Speaker.ANSWERER, StageSigned): CallState.STAGED,
    (CallState.STAGED, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.IDLE, Speaker.ASKER, SubmitOrder): CallState.VOTING,
    (CallState.VOTING, Speaker.ANSWERER, Voted): CallState.DONE,
    (CallState.VOTING, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.IDLE, Speaker.ASKER, Confirm): CallState.CONFIRMING,
    (CallState.CONFIRMING, Speaker.ANSWERER, Acknowledged): CallState.DONE,
    (CallState.CONFIRMING, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.IDLE, Speaker.ASKER, AskAccount): CallState.ACCOUNTING,
    (CallState.ACCOUNTING, Speaker.ANSWERER, AccountState): CallState.DONE,
    (CallState.ACCOUNTING, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.IDLE, Speaker.ASKER, EpochNews): CallState.ENDING,
    (CallState.ENDING, Speaker.ANSWERER, EpochNews): CallState.DONE,
    (CallState.ENDING, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.IDLE, Speaker.ASKER, AskBucket): CallState.LISTING,
    (CallState.LISTING, Speaker.ANSWERER, BucketOrders): CallState.DONE,
    (CallState.LISTING, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.IDLE, Speaker.ASKER, AskCertificates): CallState.CERTIFYING,
    (CallState.CERTIFYING, Speaker.ANSWERER, Certificates): CallState.DONE,
    (CallState.CERTIFYING, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.IDLE, Speaker.ASKER, AskCheckpoint): CallState.LOOKING_BACK,
    (CallState.LOOKING_BACK, Speaker.ANSWERER, CheckpointReply): CallState.DONE,
    (CallState.LOOKING_BACK, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.IDLE, Speaker.ASKER, AskStakes): CallState.TELLING_STAKES,
    (CallState.TELLING_STAKES, Speaker.ANSWERER, StakeRows): CallState.DONE,
    (CallState.TELLING_STAKES, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.IDLE, Speaker.ASKER, AskCredits): CallState.SPONSORING,
    (CallState.SPONSORING, Speaker.ANSWERER, CreditsGiven): CallState.DONE,
    (CallState.SPONSORING, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.IDLE, Speaker.ASKER, Pay): CallState.PAYING,
    (CallState.PAYING, Speaker.ANSWERER, Paid): CallState.DONE,
    (CallState.PAYING, Speaker.ANSWERER, Refuse): CallState.DONE,
    #
    (CallState.IDLE, Speaker.ASKER, DialBack): CallState.DIALING_BACK,
    (CallState.DIALING_BACK, Speaker.ANSWERER, DialedBack): CallState.DONE,
    (CallState.DIALING_BACK, Speaker.ANSWERER, Refuse): CallState.DONE,
    #
    (CallState.IDLE, Speaker.ASKER, Reserve): CallState.RESERVING,
    (CallState.RESERVING, Speaker.ANSWERER, Reserved): CallState.DONE,
    (CallState.RESERVING, Speaker.ANSWERER, Refuse): CallState.DONE,
    #
    (CallState.IDLE, Speaker.ASKER, Contest): CallState.CONTESTED,
    (CallState.CONTESTED, Speaker.ANSWERER, Committed): CallState.COMMITTED,
    (CallState.CONTESTED, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.COMMITTED, Speaker.ASKER, Descend): CallState.DESCENDING,
    (CallState.DESCENDING, Speaker.ANSWERER, Children): CallState.COMMITTED,
    (CallState.DESCENDING, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.COMMITTED, Speaker.ASKER, Reveal): CallState.REVEALING,
    (CallState.REVEALING, Speaker.ANSWERER, Revealed): CallState.COMMITTED,
    (CallState.REVEALING, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.COMMITTED, Speaker.ASKER, Settled): CallState.DONE,
    #
    (CallState.IDLE, Speaker.ASKER, AskPlace): CallState.PLACING,
    (CallState.PLACING, Speaker.ANSWERER, LogPlace): CallState.DONE,
    (CallState.PLACING, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.IDLE, Speaker.ASKER, AskHeads): CallState.HEADS_ASKED,
    (CallState.HEADS_ASKED, Speaker.ANSWERER, LogNews): CallState.DONE,
    (CallState.HEADS_ASKED, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.IDLE, Speaker.ASKER, LogNews): CallState.NEWS,
    (CallState.NEWS, Speaker.ANSWERER, LogNews): CallState.DONE,
    (CallState.NEWS, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.IDLE, Speaker.ASKER, AskFeed): CallState.FEED_ASKED,
    (CallState.FEED_ASKED, Speaker.ANSWERER, FeedPage): CallState.DONE,
    (CallState.FEED_ASKED, Speaker.ANSWERER, Refuse): CallState.DONE,
    #
    (CallState.IDLE, Speaker.ASKER, ClaimInvite): CallState.CLAIMING,
    (CallState.CLAIMING, Speaker.ANSWERER, ClaimNonce): CallState.CLAIM_ASKED,
    (CallState.CLAIMING, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.CLAIM_ASKED, Speaker.ASKER, ClaimSigned): CallState.ADMITTING,
    (CallState.IDLE, Speaker.ASKER, Renew): CallState.ADMITTING,
    (CallState.ADMITTING, Speaker.ANSWERER, Admitted): CallState.DONE,
    (CallState.ADMITTING, Speaker.ANSWERER, Refuse): CallState.DONE,
    #
    (CallState.IDLE, Speaker.ASKER, RevokedNews): CallState.REVOKED_TOLD,
    (CallState.REVOKED_TOLD, Speaker.ANSWERER, RevokedNews): CallState.DONE,
    (CallState.REVOKED_TOLD, Speaker.ANSWERER, Refuse): CallState.DONE,
    #
    (CallState.IDLE, Speaker.ASKER, AskAppKey): CallState.APP_KEY_ASKED,
    (CallState.APP_KEY_ASKED, Speaker.ANSWERER, AppKeyTold): CallState.DONE,
    (CallState.APP_KEY_ASKED, Speaker.ANSWERER, Refuse): CallState.DONE,
    (CallState.IDLE, Speaker.ASKER, AskRevokedKeys): CallState.REVOKED_KEYS_ASKED,
    (CallState.REVOKED_KEYS_ASKED, Speaker.ANSWERER, RevokedKeysTold): CallState.DONE,
    (CallState.REVOKED_KEYS_ASKED, Speaker.ANSWERER, Refuse): CallState.DONE,
}


class CallProtocol:
    """One conversation's state; an illegal message leaves it untouched."""

    __slots__ = ("side", "state")

    def __init__(self, side: Speaker) -> None:
        self.side = side
        self.state = CallState.IDLE

    @property
    def done(self) -> bool:
        return self.state is CallState.DONE

    def said(self, speaker: Speaker, message: Message) -> None:
        """Change state; out of turn, LocalProtocolError for us, RemoteProtocolError for them."""
        key = (self.state, speaker, type(message))
        if key not in TRANSITIONS:
            words = f"{type(message).__name__} from the {speaker.name.lower()} in {self.state.name}"
            raise (LocalProtocolError if speaker is self.side else RemoteProtocolError)(words)
        self.state = TRANSITIONS[key]

    def sent(self, message: Message) -> None:
        """Note a message of our own; LocalProtocolError if it may not be sent now."""
        self.said(self.side, message)

    def received(self, message: Message) -> None:
        """Note a message of the other side; RemoteProtocolError if it was not allowed now."""
        self.said(_OTHER[self.side], message)


_OTHER = {Speaker.ASKER: Speaker.ANSWERER, Speaker.ANSWERER: Speaker.ASKER}
