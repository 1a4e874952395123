"""Every bound on what a peer may send, in one place, related by asserts."""

# Version of the messages between peers, in adverts and handshakes; two versions do not connect.
PROTOCOL_VERSION = 2
# The version from which on refusals have a code.
CODES_VERSION = 2
# A peer whose Welcome says this version, or a later one, takes standing orders. Hellos and adverts
# say PROTOCOL_VERSION, because older peers refuse every other.
ORDERS_VERSION = 3
# From this version on a peer may be asked to keep content for others.
KEEPS_VERSION = 4
# From this version on the records of a bundle may travel under one signature, and have lanes.
BUNDLES_VERSION = 5
# From this version on a verifier is told which part of the rows is its own, and which rows somebody
# disputes.
PARTS_VERSION = 6
# From this version on a peer may be asked to call back.
REACH_VERSION = 7
# From this version on a verifier is asked what it measured of a language model's answer.
REPLAY_VERSION = 8
# From this version on a peer answers for its receipts and verdicts in disputes.
DISPUTES_VERSION = 9
# From this version on a verifier takes standing orders of checks.
CHECKS_VERSION = 10
# From this version on a peer answers for the log of its receipts.
LOG_VERSION = 11
# From this version on a standing order takes tasks of several legs, and of legs of every role.
LEGS_VERSION = 12
# From this version on a peer signs which rows went through the layers that it runs for another, and
# a receipt may hold what was signed so.
STAGE_LEGS_VERSION = 13
# From this version on a verifier commits to its verdict before it tells it.
COMMITMENTS_VERSION = 14
# From this version on a peer shows the feeds of its workflows.
FEEDS_VERSION = 15
# From this version on a peer can be a member of a private network.
MEMBERS_VERSION = 16
# From this version on a peer gives many blocks for one request.
MANY_BLOCKS_VERSION = 17
# From this version on a verifier contributes to the draw of others' verifiers.
CONTRIBUTIONS_VERSION = 18
# From this version on a peer signs what it makes of a stream while it makes it, and a receipt may
# name what others had made of it before.
SEGMENTS_VERSION = 19
# From this version on a peer makes proofs, and reads outputs that come with one.
PROOFS_VERSION = 19
# From this version on a peer shows, in disputes, what the layers of an exact transformer gave.
TEXT_DISPUTES_VERSION = 20
# From this version on a peer keeps published folders and large files for others.
UNIXFS_KEEPS_VERSION = 20
# From this version on a voucher may say which part of it is for which model.
SHARES_VERSION = 21
# From this version on a member of a ledger is asked for a list of orders by its digest.
LISTS_VERSION = 21
# From this version on an app's owner may pay for calls at gateways of other peers.
OWNER_PAYS_VERSION = 21
# From this version on a peer calls others back through a relay of theirs.
RELAY_CHECKS_VERSION = 21
# The version that a Welcome says.
SPOKEN_VERSION = 21
# Version of tasks and receipts. It changes less often than the messages: they are kept for years.
TASK_VERSION = 1

# A message is parsed only when it fits one frame; larger content travels as blocks.
FRAME_BYTES_MAX = 1 << 20
# Depth is bounded far below what memory would allow, as HTTP servers bound what clients send.
DEPTH_MAX = 16
ITEMS_MAX = 16_384

# Blocks: content above one block becomes a tree of blocks.
BLOCK_BYTES_MAX = 256 << 10
# Blocks of one request.
WANTED_BLOCKS_MAX = 64
TREE_CHILDREN_MAX = 4096
TREE_DEPTH_MAX = 3
BLOB_BYTES_MAX = 1 << 40
# A folder that is published: the links of a file's node, as IPFS tools have them, the bytes of one
# name, the folders inside each other, and the files and folders in all.
FILE_LINKS_MAX = 174
FILE_NAME_BYTES_MAX = 255
FOLDER_DEPTH_MAX = 32
FOLDER_ENTRIES_MAX = 200_000
# The bytes of all its nodes, which a reader has in memory, and the pieces of all its files.
FOLDER_NODE_BYTES_MAX = 64 << 20
FOLDER_LEAVES_MAX = 1 << 22
# The blocks of a published file or folder that is kept for another.
KEPT_BLOCKS_MAX = 1 << 18
# How long a peer may be asked to keep content for another; it is asked again for more.
KEEP_S_MAX = 7 * 24 * 3600

# Payloads up to this size travel inside a message; larger ones are named by content id.
INLINE_BYTES_MAX = 64 << 10

ADVERT_BYTES_MAX = 2048
ADVERT_TTL_S_MAX = 1800
ADVERT_MODELS_MAX = 12
ADVERT_ADDRESSES_MAX = 4
ADDRESS_BYTES_MAX = 192
HOST_BYTES_MAX = 64
RESERVATION_BYTES_MAX = 256
LEASE_S_MAX = 24 * 3600
# Private networks: what an invite and a membership take, and how many ids are revoked at once.
INVITE_BYTES_MAX = 2048
INVITE_USES_MAX = 1024
ADMITTERS_MAX = 4
ADMITTER_ADDRESSES_MAX = 2
MEMBERSHIP_BYTES_MAX = 512
REVOKED_INVITES_MAX = 512
REVOKED_PEERS_MAX = 512
REVOKED_BYTES_MAX = 40 << 10
LABEL_BYTES_MAX = 32
NAME_BYTES_MAX = 64
REASON_BYTES_MAX = 400

MANIFEST_BYTES_MAX = 16 << 10
MANIFEST_FILES_MAX = 64

TASK_BYTES_MAX = 16 << 10
STAGES_MAX = 4
PARAMETERS_MAX = 16
PARAMETER_BYTES_MAX = 1024
DEADLINE_S_MAX = 24 * 3600
RECEIPT_BYTES_MAX = 7168
# What peers signed of the layers that they ran for one leg: so many at most are in its receipt.
STAGE_LEG_BYTES_MAX = 512
STAGE_LEGS_MAX = 5
# What a peer signed of a stream that another one went on with, and how many of them one leg has.
SEGMENT_BYTES_MAX = 464
SEGMENTS_BEFORE_MAX = 7
# With what was measured, beside as many rows as there may be.
VERDICT_BYTES_MAX = 5632
VERIFIERS_MAX = 16
CANDIDATES_MAX = 512
SAMPLE_MAX = 256
# Verifiers that commit to a verdict on one leg, those included that tell none afterwards.
COMMITMENTS_MAX = 64
# So many candidates contribute to a draw, and of those drawn before them so many may have been
# silent: each lets the asker choose among more draws. With fewer candidates nobody contributes.
CONTRIBUTORS = 5
ABSENT_MAX = 2
CONTRIBUTION_CANDIDATES_MIN = 8
# Owners that an answer names: of who asked, worked and checked.
OWNERSHIPS_MAX = 96
# Receipts that one contribution is for, and the bytes of the path from one to their root.
DRAW_RECEIPTS_MAX = 64
DRAW_PATH_BYTES_MAX = 192
CONTRIBUTION_BYTES = 80
# At the level spot one answer in so many is checked.
SPOT_ONE_IN = 4
# Of the rows that a verdict against an answer names, so many are recomputed by others.
DISPUTED_ROWS_MAX = 8
AVOID_MAX = 64
ATTEMPTS_MAX = 8

# One embedding task: enough to fill an engine's batch, small enough to be retried.
PASSAGES_MAX = 256
PASSAGE_BYTES_MAX = 8192
# Rows of a table that are answered together: no more than one embedding takes.
BUNDLE_ROWS_MAX = 256
TEXT_BYTES_MAX = 32 << 10

# A conversation with a language model, in bytes, and how many alternatives a token has.
PROMPT_BYTES_MAX = 256 << 10
LOGPROBS_MAX = 20
# What one call of a model gives or is given: a picture of 640 x 640 in three colours takes 5 MB.
TENSORS_BYTES_MAX = 8 << 20

# Layers of an integer model, and the bytes of what one gives for one row: a referee is sent those.
EXACT_LAYERS_MAX = 256
STATE_BYTES_MAX = 512 << 10
# What all layers of an exact transformer gave for all tokens of an answer, in a dispute about it.
TEXT_STATES_MAX = 1 << 18
# Rows of one call.
CALL_ROWS_MAX = 1 << 21
# A proof that a circuit gave an output, and the file of a model of which a circuit is made.
PROOF_BYTES_MAX = 64 << 10
PROOF_MODEL_BYTES_MAX = 1 << 20

# The log of a peer's receipts: how many there may be, and what travels of it.
LOG_RECEIPTS_MAX = 1 << 40
LOG_HEAD_BYTES_MAX = 256
LOG_FORK_BYTES_MAX = 2048
LOG_HEADS_PER_MESSAGE_MAX = 64
LOG_FORKS_PER_MESSAGE_MAX = 8

# Records that one signature may cover, and what an envelope adds to a record at most: the kind, the
# key, and a signature with the longest path to the root of that many records.
BATCH_RECORDS_MAX = 4096
ENVELOPE_BYTES_MAX = 512
# Tasks, outcomes or tags in one message of a standing order, and the places of one order at most.
# A lane of an order: bytes that say nothing but which tasks of an asker belong together.
LANE_BYTES_MAX = 8
# A message of many is cut so that it is never closed to free unread bytes (see UNREAD_FREE_BYTES).
BUNDLE_ITEMS_MAX = 256
BUNDLE_BYTES_MAX = 160 << 10
ORDER_PLACES_MAX = 1024
# A check may name many rows, and a message of many checks is bounded in values as others are.
CHECKS_PER_MESSAGE_MAX = 32

# The ledger: members of a network, actions of one order, and how large its records may be.
LEDGER_MEMBERS_MAX = 32
GRANTS_MAX = 1024
GENESIS_BYTES_MAX = 128 << 10
ACTIONS_MAX = 64
MOTION_BYTES_MAX = 2048
VOUCHER_BYTES_MAX = 1024
# Of so many models a voucher says how much of it was for each.
VOUCHER_MODELS_MAX = 4
# A line of use names those of which most was redeemed.
LINE_MODELS_MAX = 32
TARIFF_BYTES_MAX = 2560
# What an answer was charged for: its legs, verdicts, and parts of streams that broke.
CHARGES_MAX = 32
ACCOUNT_ORDER_BYTES_MAX = 72 << 10
CERTIFICATE_BYTES_MAX = ACCOUNT_ORDER_BYTES_MAX + (LEDGER_MEMBERS_MAX + 2) * ENVELOPE_BYTES_MAX
SETTLEMENT_BYTES_MAX = CERTIFICATE_BYTES_MAX + (LEDGER_MEMBERS_MAX + 1) * ENVELOPE_BYTES_MAX
SEAL_BYTES_MAX = 1280
CHECKPOINT_HEADER_BYTES_MAX = 4096
CHECKPOINT_BYTES_MAX = CHECKPOINT_HEADER_BYTES_MAX + (LEDGER_MEMBERS_MAX + 1) * ENVELOPE_BYTES_MAX
PROPOSAL_BYTES_MAX = CHECKPOINT_BYTES_MAX + (LEDGER_MEMBERS_MAX + 1) * SEAL_BYTES_MAX
# What a member signs about the end of an epoch that travels in one message.
EPOCH_NEWS_MAX = 8
# Orders of one bucket of an epoch; their digests fit a frame.
BUCKET_ORDERS_MAX = 30_000
CERTIFICATES_ASKED_MAX = 256
CERTIFICATES_BYTES_MAX = 512 << 10

# Evidence against somebody: the records, and what they are about; and that which an order carries.
EVIDENCE_BYTES_MAX = 128 << 10
ACCUSATION_BYTES_MAX = 70 << 10
EVIDENCE_PARTS_MAX = 4
# A jury's finding has an order of each juror in it.
EVIDENCE_RECORDS_MAX = 16
# What a jury is shown: it fits into an order and a row, and with its finding into evidence.
CASE_BYTES_MAX = 61 << 10
DRAWN_JURY_BYTES_MAX = 1024

# Stakes: what leaves in each of the epochs that it takes, and how many rows of the table travel
# together.
LEAVING_PARTS_MAX = 128
STAKE_ROW_BYTES_MAX = 12 << 10
STAKE_ROWS_BYTES_MAX = 512 << 10

# Records about apps and their keys; the hashes of an owner's revoked keys are 16,384 at most.
APP_RECORD_BYTES_MAX = 1024
REVOKED_KEYS_MAX = 16_384
REVOKED_KEYS_BYTES_MAX = 32 * REVOKED_KEYS_MAX
# Clocks may differ by this much before a peer's times are refused.
CLOCK_SKEW_S_MAX = 300

# Streams: bytes that a sender may send before the receiver says that it has read them.
STREAM_CREDIT_BYTES = 2 << 20
# Unread bytes that one peer holds for all calls that others began. Keys cost nothing, so a credit
# for each peer would not bound memory.
UNREAD_BYTES_MAX = 64 << 20
# A call that holds no more than this is never closed to free unread bytes: the largest offer fits.
UNREAD_FREE_BYTES = 192 << 10
STREAMS_PER_PEER_MAX = 64
STREAMS_IN_PER_PEER_MAX = 96

# Adverts that travel together, when two peers meet or later.
ADVERTS_PER_MESSAGE_MAX = 128
# Adverts that one digest may list: as many as a view may hold.
VIEW_ADVERTS_MAX = 1024
DIGEST_KEY_BYTES = 8
DIGEST_ENTRY_BYTES = DIGEST_KEY_BYTES + 8
DIGEST_BYTES_MAX = VIEW_ADVERTS_MAX * DIGEST_ENTRY_BYTES

# A full advert fits a gossip frame, and a batch of them fits a message.
assert (ADVERT_BYTES_MAX + ENVELOPE_BYTES_MAX) * ADVERTS_PER_MESSAGE_MAX < FRAME_BYTES_MAX
# A block and the message around it fit one frame.
assert BLOCK_BYTES_MAX * 2 <= FRAME_BYTES_MAX
assert 32 * (DRAW_RECEIPTS_MAX - 1).bit_length() == DRAW_PATH_BYTES_MAX
assert CONTRIBUTORS + ABSENT_MAX < CONTRIBUTION_CANDIDATES_MIN
# One frame is always within the credit, else a stream could stop for ever.
assert FRAME_BYTES_MAX < STREAM_CREDIT_BYTES
# An offer carries the task, each leg's receipt, the inline input and what was streamed already.
_SEGMENTS_BYTES_MAX = SEGMENTS_BEFORE_MAX * (SEGMENT_BYTES_MAX + 3)
assert (
    TASK_BYTES_MAX + STAGES_MAX * RECEIPT_BYTES_MAX + 2 * INLINE_BYTES_MAX + _SEGMENTS_BYTES_MAX
    < UNREAD_FREE_BYTES
)
# A receipt with all that others signed of its leg; 512 bytes are the rest of it.
assert (
    512 + STAGE_LEGS_MAX * (STAGE_LEG_BYTES_MAX + 3) + _SEGMENTS_BYTES_MAX
    < RECEIPT_BYTES_MAX - ENVELOPE_BYTES_MAX
)
# As many peers answer for one stream as attempts for one task.
assert SEGMENTS_BEFORE_MAX + 1 == ATTEMPTS_MAX
assert UNREAD_FREE_BYTES < FRAME_BYTES_MAX
# Two heads make a fork, and a message of heads and forks fits what is never closed to free bytes.
assert 2 * (LOG_HEAD_BYTES_MAX + ENVELOPE_BYTES_MAX) + 64 < LOG_FORK_BYTES_MAX
assert (
    LOG_HEADS_PER_MESSAGE_MAX * (LOG_HEAD_BYTES_MAX + ENVELOPE_BYTES_MAX)
    + LOG_FORKS_PER_MESSAGE_MAX * (LOG_FORK_BYTES_MAX + ENVELOPE_BYTES_MAX)
    < UNREAD_FREE_BYTES
)
# A layer's state and the path to it fit one frame.
assert STATE_BYTES_MAX + 1024 < FRAME_BYTES_MAX
# Heads of at most 10 bytes, the key, and the signature, its place and its path.
assert 10 + 32 + 64 + 8 + 32 * (BATCH_RECORDS_MAX - 1).bit_length() <= ENVELOPE_BYTES_MAX
# So does one item of a bundle with the receipts before it, and one outcome with those after it and
# the input of the last leg; and a bundle that is cut.
_LATER_BYTES_MAX = (STAGES_MAX - 1) * RECEIPT_BYTES_MAX
assert TASK_BYTES_MAX + _LATER_BYTES_MAX + INLINE_BYTES_MAX + 2048 < BUNDLE_BYTES_MAX
assert RECEIPT_BYTES_MAX + _LATER_BYTES_MAX + 2 * INLINE_BYTES_MAX + 2048 < BUNDLE_BYTES_MAX
assert BUNDLE_BYTES_MAX < UNREAD_FREE_BYTES
# The largest check, which travels alone, is never closed to free unread bytes either.
_CHAIN_BYTES_MAX = STAGES_MAX * (RECEIPT_BYTES_MAX + ENVELOPE_BYTES_MAX)
_SIGNED_BYTES_MAX = TASK_BYTES_MAX + ENVELOPE_BYTES_MAX + _CHAIN_BYTES_MAX
assert _SIGNED_BYTES_MAX + 2 * INLINE_BYTES_MAX + 4096 < UNREAD_FREE_BYTES
# A digest beside a message's adverts fits one frame.
assert DIGEST_BYTES_MAX + ADVERT_BYTES_MAX * ADVERTS_PER_MESSAGE_MAX < FRAME_BYTES_MAX
# A full tree node fits one block.
assert TREE_CHILDREN_MAX * 48 <= BLOCK_BYTES_MAX
# A full tree reaches the largest blob.
assert BLOCK_BYTES_MAX * TREE_CHILDREN_MAX**TREE_DEPTH_MAX > BLOB_BYTES_MAX
assert TEXT_BYTES_MAX <= INLINE_BYTES_MAX
assert BUNDLE_ROWS_MAX <= PASSAGES_MAX
# One verifier may have to recompute every row of a leg.
assert SAMPLE_MAX >= PASSAGES_MAX
# py-libp2p blocks without limit at its 257th stream on one connection.
assert STREAMS_PER_PEER_MAX + STREAMS_IN_PER_PEER_MAX < 256
# Vouchers of all actions, their channels, and the order around them.
assert ACTIONS_MAX * (VOUCHER_BYTES_MAX + 64) + 1024 < ACCOUNT_ORDER_BYTES_MAX
assert ACCUSATION_BYTES_MAX + 1024 < ACCOUNT_ORDER_BYTES_MAX
# Rows of the books are hashed with two bytes of length.
assert CASE_BYTES_MAX + 2048 < 1 << 16
assert CASE_BYTES_MAX + CHECKPOINT_BYTES_MAX + 16 * 2048 < EVIDENCE_BYTES_MAX
# So do the rows of a table of stakes; the length of each takes two bytes.
assert STAKE_ROWS_BYTES_MAX + 1024 < FRAME_BYTES_MAX
assert STAKE_ROW_BYTES_MAX < 1 << 16
# All revoked keys, and the signed record about them, fit one frame.
assert REVOKED_KEYS_BYTES_MAX + APP_RECORD_BYTES_MAX + 1024 < FRAME_BYTES_MAX
# What members tell each other fits a frame: proposals, lists of orders, and certificates.
assert EPOCH_NEWS_MAX * PROPOSAL_BYTES_MAX < FRAME_BYTES_MAX
assert BUCKET_ORDERS_MAX * 32 + 64 < FRAME_BYTES_MAX
assert CERTIFICATES_BYTES_MAX + CERTIFICATE_BYTES_MAX < FRAME_BYTES_MAX
