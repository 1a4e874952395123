"""What peers say to each other on a stream: one message a frame, numbered by `wire.kinds`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.app import MESSAGES as APP_MESSAGES
from wire.check_message import Check as Check
from wire.check_message import Envelopes
from wire.check_message import VerdictReply as VerdictReply
from wire.checks import Checks, OpenChecks, Verdicts
from wire.codec import NotPlain, pack, pack_plain, unpack, unpack_plain
from wire.commitment import Commitments, TellVerdict, TellVerdicts, VerdictCommitted
from wire.compiled import compiled
from wire.content import ContentId, PeerId
from wire.content_message import BlockReply as BlockReply
from wire.content_message import BlocksComing as BlocksComing
from wire.content_message import BlocksSent as BlocksSent
from wire.content_message import Keep as Keep
from wire.content_message import Keeping as Keeping
from wire.content_message import Want as Want
from wire.content_message import WantBlocks as WantBlocks
from wire.contribution import AskContribution, Contributed
from wire.dispute import Children, Committed, Contest, Descend, Reveal, Revealed, Settled
from wire.errors import Malformed, WireError
from wire.feed import AskFeed, FeedPage
from wire.kinds import Kind, RefusalCode, Role
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
from wire.membership import MESSAGES as MEMBERSHIP_MESSAGES
from wire.membership import InviteBytes, MembershipBytes
from wire.message_base import Message as Message
from wire.order import Bundle, Close, Open, Opened, Outcomes, Places, Taken, TaskBytes, Withdraw
from wire.payment_message import Paid, Pay
from wire.reach import DialBack, DialedBack, Reserve, Reserved
from wire.schema import Between, Inline, Int, Name, Omitted, Reason, items_max
from wire.segment import OptionalSegment
from wire.segment import Progress as Progress
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

Instance = Annotated[bytes, Between(8, 8)]
AdvertBytes = Annotated[bytes, Between(1, limits.ADVERT_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)]
AdvertBatch = Annotated[tuple[AdvertBytes, ...], Between(0, limits.ADVERTS_PER_MESSAGE_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Message):
    """A peer that connected says its protocol version, its network and which instance it is.

    `wanted` is how many adverts of others it would like to have at once: many when it is new. In a
    private network it shows its membership, with the invite by which its signer may give it.
    """

    KIND: ClassVar[Kind] = Kind.HELLO
    version: Annotated[int, Between(1, 2**16)]
    network: Name
    instance: Instance
    wall_ms: Int
    wanted: Annotated[int, Between(0, limits.ADVERTS_PER_MESSAGE_MAX)]
    advert: AdvertBytes
    membership: Annotated[MembershipBytes, Omitted(b"")] = b""
    invite: Annotated[InviteBytes, Omitted(b"")] = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome(Message):
    """The peer connected to answers with the same about itself, and with adverts that it knows.

    `peers` is its estimate of how many peers the network has.

    `same_key` is the advert of another instance under the caller's own key, if one is known here.
    If that advert was signed after the caller started, one key runs on two machines.
    """

    KIND: ClassVar[Kind] = Kind.WELCOME
    version: Annotated[int, Between(1, 2**16)]
    instance: Instance
    wall_ms: Int
    same_key: AdvertBytes | None
    peers: Int
    adverts: AdvertBatch
    membership: Annotated[MembershipBytes, Omitted(b"")] = b""
    invite: Annotated[InviteBytes, Omitted(b"")] = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping(Message):
    """Sent to every connected peer in turn: is it alive, and is my key used elsewhere?"""

    KIND: ClassVar[Kind] = Kind.PING
    instance: Instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong(Message):
    """The answer to a ping; `same_key` as in Welcome."""

    KIND: ClassVar[Kind] = Kind.PONG
    same_key: AdvertBytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap(Message):
    """A neighbour says which adverts it has, so that each side sends only newer ones.

    `digest` is one entry for each advert: the first DIGEST_KEY_BYTES of the peer's key and its
    sequence number as a 64-bit big-endian number.
    """

    KIND: ClassVar[Kind] = Kind.SWAP
    instance: Instance
    digest: Annotated[bytes, Between(0, limits.DIGEST_BYTES_MAX)]

    def check(self) -> None:
        """Malformed if the digest is not a whole number of entries."""
        if len(self.digest) % limits.DIGEST_ENTRY_BYTES:
            raise Malformed(f"a digest has entries of {limits.DIGEST_ENTRY_BYTES} bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Newer(Message):
    """Adverts that the other side does not have, or has only older versions of.

    `wanted` are the keys, as in a digest, of adverts that the other side is to send back;
    `same_key` is as in Welcome. A swap ends with a Newer from the asker, even an empty one.
    """

    KIND: ClassVar[Kind] = Kind.NEWER
    adverts: AdvertBatch
    wanted: Annotated[bytes, Between(0, limits.ADVERTS_PER_MESSAGE_MAX * limits.DIGEST_KEY_BYTES)]
    same_key: AdvertBytes | None

    def check(self) -> None:
        """Malformed if `wanted` is not a whole number of keys."""
        if len(self.wanted) % limits.DIGEST_KEY_BYTES:
            raise Malformed(f"`wanted` is a list of keys of {limits.DIGEST_KEY_BYTES} bytes each")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seek(Message):
    """Who plays `role`, with `model` if one is named? Answered with adverts, in a Newer.

    If no such peer is known, the adverts are of peers that may know one.
    """

    KIND: ClassVar[Kind] = Kind.SEEK
    role: Role
    model: ContentId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodbye(Message):
    """A peer closes its connection to another: it is not used, or the peer leaves the network.

    Its advert says which. A connection that ends without a Goodbye means that the peer died.
    """

    KIND: ClassVar[Kind] = Kind.PART
    advert: AdvertBytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote(Message):
    """How long would this leg take, if it were offered now? The answer binds neither side.

    `units` is the holder's guess of the work; the answer is Quoted, or a Refuse as for an Offer.
    """

    KIND: ClassVar[Kind] = Kind.QUOTE
    role: Role
    operation: Name
    model: ContentId | None
    units: Int
    deadline_ms: Annotated[int, Between(1, limits.DEADLINE_S_MAX * 1000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted(Message):
    """The leg would be done after `expected_ms` milliseconds."""

    KIND: ClassVar[Kind] = Kind.QUOTED
    expected_ms: Int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer(Message):
    """A holder offers a handoff: the task, the receipts so far, the input of this leg.

    `input` is inline when small, else fetched by the id that the task or the last receipt names.
    `avoid` are peers that were tried; the remaining time is relative, for clocks differ. `units`
    is the holder's guess of the work. `resume` is what a peer that failed had streamed of the last
    leg. A peer that continues from it checks it first, and signs for what nobody has signed for.
    """

    KIND: ClassVar[Kind] = Kind.OFFER
    task: TaskBytes
    stage: Annotated[int, Between(0, limits.STAGES_MAX - 1)]
    receipts: Envelopes
    input: Inline | None
    deadline_ms: Annotated[int, Between(1, limits.DEADLINE_S_MAX * 1000)]
    units: Int
    resume: Progress | None
    avoid: Annotated[tuple[PeerId, ...], Between(0, limits.AVOID_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept(Message):
    """The peer will do the leg and expects to be done after `expected_ms` milliseconds."""

    KIND: ClassVar[Kind] = Kind.ACCEPT
    expected_ms: Int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse(Message):
    """A refusal: why, and when to ask again (None: never).

    `code` is a `RefusalCode`, or a number of a newer peer that is not known here: see `cause`.
    Programs decide by `code` alone; `reason` is for people.
    """

    KIND: ClassVar[Kind] = Kind.REFUSE
    code: Annotated[int, Between(0, 2**16 - 1)] = RefusalCode.OTHER
    reason: Reason
    retry_after_ms: Int | None

    @property
    def cause(self) -> RefusalCode:
        """The code if it is known here, else OTHER."""
        return RefusalCode.read(self.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece(Message):
    """A part of the output, in order. It is provisional until the receipt is signed.

    It is the `units` of output after the first `position`, so that a stream which goes on from
    another peer gives each of them once. `segment`, now and then, is what its signer has made so
    far (`wire.segment`), to the end of this piece; holders before SEGMENTS_VERSION get none.
    """

    KIND: ClassVar[Kind] = Kind.PIECE
    position: Int
    units: Annotated[int, Between(1, 2**31)]
    data: Inline
    segment: OptionalSegment = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Message):
    """The receipts of every leg so far; the output inline when small.

    `source` is the input of the last leg, if small: the asker passes it to the verifiers, so that
    they need not fetch it.
    """

    KIND: ClassVar[Kind] = Kind.RESULT
    receipts: Envelopes
    output: Inline | None
    source: Inline | None


MESSAGES: dict[Kind, type[Message]] = {
    kind.KIND: kind
    for kind in (
        *(Hello, Welcome, Ping, Pong, Swap, Newer, Seek, Goodbye, Quote, Quoted),
        *(Offer, Accept, Refuse, Piece, Result),
        *(Check, VerdictReply, OpenChecks, Checks, Verdicts),
        *(VerdictCommitted, TellVerdict, Commitments, TellVerdicts, AskContribution, Contributed),
        *(Want, WantBlocks, BlocksComing, BlockReply, BlocksSent, Keep, Keeping),
        *(Open, Opened, Bundle, Outcomes, Places, Taken, Withdraw, Close),
        *(StageOpen, StageOpened, StagePass, StagePassed, StageClose),
        *(StageSign, StageSigned),
        *(SubmitOrder, Voted, Confirm, Acknowledged, AskAccount, AccountState, EpochNews),
        *(AskBucket, BucketOrders, AskCertificates, Certificates, AskCheckpoint, CheckpointReply),
        *(AskStakes, StakeRows),
        *(AskCredits, CreditsGiven),
        *(Pay, Paid),
        *(DialBack, DialedBack, Reserve, Reserved),
        *(Contest, Committed, Descend, Children, Reveal, Revealed, Settled),
        *(AskPlace, LogPlace, AskHeads, LogNews),
        *(AskFeed, FeedPage),
        *MEMBERSHIP_MESSAGES,
        *APP_MESSAGES,
    )
}

# Enough to say what is wrong with what is no message.
_OF_NO_MESSAGE = 16
# The head of a list of two: a kind, which is one byte, and its fields.
_PAIR = b"\x92"


def encode(message: Message) -> bytes:
    """The bytes of one message, its kind and its fields; Malformed if a value has no encoding."""
    try:
        return pack_plain([int(message.KIND), compiled(type(message)).write(message)])
    except NotPlain:
        return pack([int(message.KIND), message.to_fields()])


def encode_uncoded(refusal: Refuse) -> bytes:
    """The bytes of a refusal as peers of version 1 read it: theirs have no code."""
    fields = refusal.to_fields()
    del fields["code"]
    return pack([int(refusal.KIND), fields])


def _items_max(data: bytes) -> int:
    """How many encoded values the message has at most, by the kind that its first bytes name."""
    kind = MESSAGES.get(data[1]) if len(data) > 1 else None  # type: ignore[call-overload]
    return _OF_NO_MESSAGE if kind is None else 2 + items_max(kind)


def decode(data: bytes) -> Message:
    """The message these bytes encode; WireError for any other bytes."""
    kind = MESSAGES.get(data[1]) if data[:1] == _PAIR and len(data) > 2 else None  # type: ignore[call-overload]
    if kind is not None and len(data) <= limits.FRAME_BYTES_MAX:
        fast = compiled(kind)
        if data[2:3] in fast.heads:
            try:
                pair = unpack_plain(data, max(2, fast.length_max), 2 + items_max(kind))
                message: Message = fast.read(pair[1])
                if pack_plain(pair) == data:
                    return message
            except (NotPlain, WireError):
                pass
    return decode_slowly(data)


def decode_slowly(data: bytes) -> Message:
    """What `decode` does with bytes that the fast way does not take."""
    match unpack(data, items_max=_items_max(data)):
        case [int() as number, fields] if number in MESSAGES:
            return MESSAGES[Kind(number)].from_fields(fields)
        case _:
            raise Malformed("not a message: a list of its kind and its fields")
