"""Which layer of an exact transformer a peer computes otherwise, by what it committed to.

A peer that is wrong about an answer in words commits to what its layers gave for the tokens before
the one in question. Whoever has the model computes the same, and goes down both trees to the first
state that differs. That names the layer; that the peer is wrong is known before.
"""

from collections.abc import Callable
from dataclasses import dataclass

from node.engines.exact.states import RowStates
from node.engines.exact.text_states import place_of, text_states
from node.engines.worker.exact_claims import ExactClaims
from node.evidence.disputes import Descending, Judgement, UnfitError, pairs_of
from wire.content import PeerId
from wire.dispute import CHALLENGER, PROVER, Commitment, Dispute
from wire.errors import BadSignature, Malformed
from wire.operations import GENERATE
from wire.receipt import Receipt, Verdict
from wire.signed import Signed, open_signed
from wire.tree import name_of


@dataclass(frozen=True, slots=True)
class OwnStates:
    """What the model gives for the tokens before one of an answer, computed here."""

    states: RowStates
    tokens: int
    layers: int

    @property
    def count(self) -> int:
        """How many states there are."""
        return len(self.states.levels[0])


def own_states(
    claims: ExactClaims,
    question: bytes,
    output: bytes,
    token: int,
    before_pass: Callable[[], None] = lambda: None,
) -> OwnStates:
    """The states of the question's tokens and of those of the answer before one.

    WireError, ModelRefused; Malformed if the answer has no such token.
    """
    claimed = claims.claimed(question, {"tokens": claims.text.context}, output)
    if not 0 <= token <= len(claimed.tokens):
        raise Malformed(f"the answer has {len(claimed.tokens)} tokens")
    tokens = [*claimed.prompt, *claimed.tokens[:token]]
    found = text_states(claims.layers, tokens, before_pass)
    return OwnStates(found, len(tokens), claims.text.shape.layers)


def open_committed(
    raw: bytes, peer: PeerId, receipt: Signed[Receipt], own: OwnStates
) -> Signed[Commitment]:
    """A peer's commitment to as many states of this leg; UnfitError unless it is one."""
    side = PROVER if peer == receipt.signer else CHALLENGER
    try:
        found = open_signed(raw, Commitment)
    except (Malformed, BadSignature) as error:
        raise UnfitError(side, f"its commitment cannot be read ({error.message})") from error
    said = found.record
    if (found.signer, said.receipt, said.layers) != (peer, receipt.id, own.count):
        raise UnfitError(side, "its commitment is another's, or to other states")
    return found


def judge_words(
    dispute: Signed[Dispute], claims: ExactClaims, source: bytes, output: bytes
) -> Judgement:
    """Which layer the side that was heard computes otherwise; WireError names what does not hold.

    Whether `claims` is of the model that the record names is for the caller to see.
    """
    record = dispute.record
    receipt, verdict = open_signed(record.receipt, Receipt), open_signed(record.verdict, Verdict)
    if receipt.record.operation != GENERATE or verdict.record.receipt != receipt.id:
        raise Malformed("the record is not about an answer in words, or the verdict on another")
    if name_of(source) != receipt.record.input or name_of(output) != receipt.record.output:
        raise Malformed("the input or the output is not the one that the receipt names")
    heard = [it for it in (record.prover, record.challenger) if it is not None]
    if len(heard) != 1 or record.outputs or record.sources:
        raise Malformed("of an answer in words one side is heard, and shows no state")
    side = PROVER if record.prover is not None else CHALLENGER
    sides = receipt.signer, verdict.signer
    row = open_signed(heard[0], Commitment).record.row
    own = own_states(claims, source, output, row)
    root = open_committed(heard[0], sides[side], receipt, own).record.root
    if root == own.states.root:
        raise Malformed("it committed to what the model gives")
    place = Descending.begin(own.count, (root, own.states.root))
    for step in record.steps:
        if place.layer is not None:
            raise Malformed("the record goes on below the leaves")
        prover, challenger = pairs_of(step)
        place.go_down(*((prover, challenger) if side == PROVER else (challenger, prover)))
    return judgement_at(place, own, sides, side, row)


def judgement_at(
    place: Descending, own: OwnStates, sides: tuple[PeerId, PeerId], side: int, row: int
) -> Judgement:
    """The judgement once the first state is known that differs; Malformed before."""
    if place.layer is None:
        raise Malformed("the record ends before it is known which layer differs")
    at = place_of(place.layer, own.layers, own.tokens)
    theirs, ours = place.nodes
    return Judgement(
        prover=sides[PROVER],
        challenger=sides[CHALLENGER],
        lost=frozenset((sides[side],)),
        why=f"it committed to another state than the model gives: {at}",
        proven=True,
        row=row,
        layer=at.layer,
        operator=at.step,
        # Who was not heard says what the model gives.
        hashes=(theirs, ours, ours) if side == PROVER else (ours, theirs, ours),
    )
