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
    # Neighbours exchange newer adverts, or search for a rare model.
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
    # Before a leg: how long it would take.
    QUOTE = 27
    QUOTED = 28
    # Content.
    WANT = 30
    BLOCK = 31
    # Content that one peer asks another to keep for it.
    KEEP = 32
    KEEPING = 33
    # Many blocks by one request.
    WANT_BLOCKS = 34
    BLOCKS_COMING = 39
    BLOCKS_SENT = 29
    # A private network: a newcomer is admitted, a membership is renewed, ids are revoked.
    CLAIM = 48
    CLAIM_NONCE = 49
    CLAIM_SIGNED = 58
    ADMITTED = 59
    RENEW = 68
    REVOKED_NEWS = 69
    # A standing order of many tasks.
    OPEN = 40
    OPENED = 41
    BUNDLE = 42
    OUTCOMES = 43
    PLACES = 44
    TAKEN = 45
    WITHDRAW = 46
    CLOSE = 47
    # Layers of a model that another peer runs.
    STAGE_OPEN = 50
    STAGE_OPENED = 51
    STAGE_PASS = 52
    STAGE_PASSED = 53
    STAGE_CLOSE = 54
    STAGE_SIGN = 55
    STAGE_SIGNED = 56
    # A record: which layers somebody ran over which rows.
    STAGE_LEG = 57
    # A record: what somebody made of a stream that others may have to go on with.
    SEGMENT = 121
    # Records of the ledger that are signed.
    ACCOUNT_ORDER = 60
    VOTE = 61
    ACKNOWLEDGEMENT = 62
    SEAL = 63
    PROPOSAL = 64
    AGREEMENT_VOTE = 65
    VOUCHER = 66
    TARIFF = 67
    # A standing order of many checks.
    OPEN_CHECKS = 70
    CHECKS = 71
    VERDICTS = 72
    # Verdicts are committed to, and then told.
    COMMITMENTS = 73
    TELL_VERDICTS = 74
    VERDICT_COMMITTED = 75
    TELL_VERDICT = 76
    # A verifier contributes to the draw of others' verifiers.
    ASK_CONTRIBUTION = 77
    CONTRIBUTED = 109
    # Conversations about the ledger.
    SUBMIT_ORDER = 80
    VOTED = 81
    CONFIRM = 82
    ACKNOWLEDGED = 83
    ASK_ACCOUNT = 84
    ACCOUNT_STATE = 85
    EPOCH_NEWS = 86
    ASK_BUCKET = 87
    BUCKET_ORDERS = 88
    ASK_CERTIFICATES = 89
    CERTIFICATES = 90
    ASK_CHECKPOINT = 91
    CHECKPOINT_REPLY = 92
    # Payments between two peers, out of a channel.
    PAY = 93
    PAID = 94
    # Stakes, as members tell them.
    ASK_STAKES = 96
    STAKE_ROWS = 97
    # A newcomer asks a sponsor for credits.
    ASK_CREDITS = 78
    CREDITS_GIVEN = 79
    # Where a peer can be called.
    DIAL_BACK = 100
    DIALED_BACK = 101
    RESERVE = 102
    RESERVED = 103
    # A record, signed by a relay.
    RESERVATION = 104
    # Its records: what an owner, an admitter, or a newcomer signed.
    INVITE = 105
    MEMBERSHIP = 106
    REVOKED = 107
    CLAIM_STATEMENT = 108
    # A disagreement about one row of an integer model: its record, and what is said to settle it.
    DISPUTE = 110
    COMMITMENT = 111
    CONTEST = 112
    COMMITTED = 113
    DESCEND = 114
    CHILDREN = 115
    REVEAL = 116
    REVEALED = 117
    SETTLED = 118
    # Rows of a table that one task, or several, answered.
    ROW_BUNDLE = 120
    # The log of a peer's receipts: its signed heads, two that contradict, and what is asked of it.
    LOG_HEAD = 122
    LOG_FORK = 123
    ASK_PLACE = 124
    LOG_PLACE = 125
    ASK_HEADS = 126
    LOG_NEWS = 127
    # What became of a slot of a workflow.
    FEED_ENTRY = 35
    # Two entries of one feed that contradict, and what is asked of a feed.
    FEED_FORK = 36
    ASK_FEED = 37
    FEED_PAGE = 38
    # Apps: their records, and what a gateway asks the owner of one.
    APP_POLICY = 8
    APP_KEY = 9
    REVOKED_KEYS = 18
    ASK_APP_KEY = 95
    APP_KEY_TOLD = 98
    ASK_REVOKED_KEYS = 99
    REVOKED_KEYS_TOLD = 119


class Role(IntEnum):
    """What a peer does for others; the bit of it in an advert is 1 << role."""

    DATA = 0
    INFER = 1
    VERIFY = 2
    STORE = 3
    GATEWAY = 4
    # It is a member of the network's ledger.
    LEDGER = 5


class RefusalCode(IntEnum):
    """Why a peer refused, for programs; the sentence beside it is for people. Append only.

    A code of a newer peer that is not known here is read as OTHER (`read`).
    """

    OTHER = 0
    # No room now; the refusal says when to ask again.
    BUSY = 1
    # The leg would not be done here by its deadline.
    TOO_LONG = 2
    # This peer does not run the model that is named.
    NO_SUCH_MODEL = 3
    # The model could not be run here: its worker died, or it is in quarantine for such failures.
    MODEL_FAILED = 4
    # The model is being loaded.
    LOADING = 5
    # This peer does not do this work for others, or not for this peer.
    NOT_WILLING = 6
    # The request cannot be read, or asks a model for what no peer could do.
    MALFORMED = 7
    # The deadline has passed.
    LATE = 8
    # The owner of the machine is using it.
    PAUSED = 9
    # The work costs more than the task offers.
    NOT_PAID = 10
    # The peer that asks is banned here.
    BANNED = 11
    # This peer is about to end.
    LEAVING = 12
    # The clocks of the two differ by too much.
    CLOCK = 13
    # There is no such operation, or the model does not do it.
    UNSUPPORTED = 14
    # The content, source or index that is named is not available here.
    NOT_FOUND = 15
    # The two have not met, or belong to different networks.
    STRANGER = 16
    # A later leg failed at another peer, or something failed here through no fault of the request.
    FAILED = 17
    # The order does not fit the account: funds, sequence, another order before it.
    NOT_COVERED = 18
    # The order is of another epoch, or this one is ending.
    OTHER_EPOCH = 19

    @classmethod
    def read(cls, number: int) -> "RefusalCode":
        """The code that a peer sent; OTHER for one that is not known here."""
        return cls(number) if number in cls._value2member_map_ else cls.OTHER


class Level(IntEnum):
    """How much is checked: each level proves more, and costs more."""

    SIGNED = 0
    SPOT_CHECKED = 1
    REPLAYED = 2
    EXACT = 3
    ZERO_KNOWLEDGE = 4

    @property
    def word(self) -> str:
        """What people call it."""
        return _LEVEL_WORDS[self]

    @classmethod
    def of_word(cls, word: str) -> "Level | None":
        """The level that people call so; None if there is none."""
        return next((level for level, called in _LEVEL_WORDS.items() if called == word), None)


_LEVEL_WORDS = {
    Level.SIGNED: "signed",
    Level.SPOT_CHECKED: "spot",
    Level.REPLAYED: "replayed",
    Level.EXACT: "exact",
    Level.ZERO_KNOWLEDGE: "zk",
}
