"""A disagreement about one row of an integer model: what is said to settle it, and its record.

Both peers commit to a Merkle tree over what each layer gave for the row. The asker goes down both
trees to the first leaf that differs: everything before it, both agree on. It has that layer's
inputs shown, computes the one layer, and so knows who is wrong. The record of all this is enough
for anybody who has the model to find the same.
"""

import struct
from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits, merkle
from wire.content import ContentId
from wire.kinds import Kind
from wire.message_base import Message
from wire.order import TaskBytes
from wire.receipt import Envelope
from wire.schema import Between, Digest, Inline, Int, Record
from wire.signed import SignedRecord

Layer = Annotated[int, Between(0, limits.EXACT_LAYERS_MAX - 1)]
RowNumber = Annotated[int, Between(0, limits.CALL_ROWS_MAX - 1)]
# Of a model that makes words each state of each token is a leaf.
LeafNumber = Annotated[int, Between(0, limits.TEXT_STATES_MAX - 1)]
# Levels of a tree over so many leaves, the leaves not counted.
LEVELS_MAX = (limits.TEXT_STATES_MAX - 1).bit_length()
State = Annotated[bytes, Between(1, limits.STATE_BYTES_MAX)]
Path = Annotated[bytes, Between(0, merkle.HASH_BYTES * LEVELS_MAX)]
Envelopes = Annotated[tuple[Envelope, ...], Between(1, limits.STAGES_MAX)]
PROVER, CHALLENGER = 0, 1


def state_leaf(layer: int, state: bytes) -> bytes:
    """The leaf of a layer's state: its integers in C order, little-endian."""
    return merkle.leaf(struct.pack("<I", layer) + state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment(SignedRecord):
    """What a peer says each layer gives for one row of a receipt's leg: the root of all states.

    Of an answer in words the row is a token, and the states are those of all tokens before it.
    """

    KIND: ClassVar[Kind] = Kind.COMMITMENT

    receipt: ContentId
    row: RowNumber
    layers: Annotated[int, Between(2, limits.TEXT_STATES_MAX)]
    root: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class StateOpening(Record):
    """A layer's state, and the path from its leaf to a root."""

    layer: Layer
    state: State
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Descent(Record):
    """One level down: the nodes that both peers have below the node at which they differ."""

    prover_left: Digest
    prover_right: Digest
    challenger_left: Digest
    challenger_right: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute(SignedRecord):
    """The whole of a dispute, signed by the asker, who was its referee.

    Nothing in it is a conclusion: who is wrong follows from it. `manifest` names the model's file;
    the prover signed `receipt`, the challenger the `verdict` against it. `input` and `output` are
    the leg's, where they are small. `outputs` are opened from the prover's tree, `sources` are the
    inputs of the layer at which both differ. Who is silent did not answer by the deadline, or with
    what fits nothing: that is the asker's word.

    Of an answer in words one side is heard, and the other nodes of each step are the asker's own:
    whoever judges has to have the whole model, and computes them.
    """

    KIND: ClassVar[Kind] = Kind.DISPUTE
    SIZE_BYTES_MAX: ClassVar[int] = 8 << 20

    manifest: Annotated[bytes, Between(1, limits.MANIFEST_BYTES_MAX)]
    receipt: Envelope
    verdict: Envelope
    input: Inline | None
    output: Inline | None
    prover: Envelope | None
    challenger: Envelope | None
    outputs: Annotated[tuple[StateOpening, ...], Between(0, 8)]
    steps: Annotated[tuple[Descent, ...], Between(0, LEVELS_MAX)]
    sources: Annotated[tuple[StateOpening, ...], Between(0, 2)]
    prover_silent: bool
    challenger_silent: bool
    settled_at_ms: Int


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest(Message):
    """The asker of a task: commit to the states of one row of this leg, and show me some.

    `row` is None where the other side is to name the first row that it finds wrong.
    """

    KIND: ClassVar[Kind] = Kind.CONTEST
    task: TaskBytes
    receipts: Envelopes
    input: Inline | None
    output: Inline | None
    row: RowNumber | None
    deadline_ms: Annotated[int, Between(1, limits.DEADLINE_S_MAX * 1000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed(Message):
    """The signed commitment."""

    KIND: ClassVar[Kind] = Kind.COMMITTED
    commitment: Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Descend(Message):
    """What are the two nodes below this one? The leaves are level 0."""

    KIND: ClassVar[Kind] = Kind.DESCEND
    level: Annotated[int, Between(1, LEVELS_MAX)]
    index: LeafNumber


@dataclass(frozen=True, slots=True, kw_only=True)
class Children(Message):
    """The two nodes below."""

    KIND: ClassVar[Kind] = Kind.CHILDREN
    left: Digest
    right: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Reveal(Message):
    """What did this layer give?"""

    KIND: ClassVar[Kind] = Kind.REVEAL
    layer: Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Revealed(Message):
    """The layer's state, and its path to the root."""

    KIND: ClassVar[Kind] = Kind.REVEALED
    state: State
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled(Message):
    """The asker knows enough. `lost`: this side is wrong, for all that was said."""

    KIND: ClassVar[Kind] = Kind.SETTLED
    lost: bool
