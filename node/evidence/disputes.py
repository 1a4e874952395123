"""Who is wrong in a dispute about one row of an integer model. Pure.

The same functions settle a dispute while it goes on and judge its record years later: nothing in
the record is believed that is not signed by the one whom it speaks against, or computed here.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from node.engines.exact.file import read_bytes
from node.engines.exact.model import FILE, FORMAT, ExactModel
from node.engines.exact.states import answered_by, inputs_of, output_row, run_one_layer
from node.engines.formats.onnx_protobuf import Array
from wire import merkle
from wire.content import ContentId, PeerId
from wire.dispute import (
    CHALLENGER,
    PROVER,
    Commitment,
    Descent,
    Dispute,
    StateOpening,
    state_leaf,
)
from wire.errors import BadSignature, Malformed
from wire.model import Manifest
from wire.operations import CALL
from wire.receipt import Receipt, Verdict
from wire.signed import Signed, open_signed
from wire.tree import name_of

SIDES = ("prover", "challenger")


class UnfitError(Malformed):
    """What one side said fits nothing that it said before; `side` is PROVER or CHALLENGER."""

    def __init__(self, side: int, why: str) -> None:
        super().__init__(f"the {SIDES[side]}: {why}")
        self.side = side


@dataclass(slots=True)
class Descending:
    """A place in two trees of one shape, at which they differ and left of which they do not."""

    widths: list[int]
    level: int
    index: int
    nodes: tuple[bytes, bytes]

    @classmethod
    def begin(cls, layers: int, roots: tuple[bytes, bytes]) -> "Descending":
        """At the roots of two trees over so many layers, which differ."""
        widths = [layers]
        while widths[-1] > 1:
            widths.append((widths[-1] + 1) >> 1)
        found = cls(widths, len(widths) - 1, 0, roots)
        found._pass_single()
        return found

    @property
    def layer(self) -> int | None:
        """The first layer at which both differ; None while that is not known."""
        return None if self.level else self.index

    def go_down(self, prover: tuple[bytes, bytes], challenger: tuple[bytes, bytes]) -> None:
        """Go down to the first of two nodes that differs; UnfitError for wrong nodes."""
        for side, (left, right) in enumerate((prover, challenger)):
            if hashlib.sha256(b"\1" + left + right).digest() != self.nodes[side]:
                raise UnfitError(side, "its nodes do not give the node above them")
        side = 0 if prover[0] != challenger[0] else 1
        self.nodes = prover[side], challenger[side]
        self.level, self.index = self.level - 1, 2 * self.index + side
        self._pass_single()

    def _pass_single(self) -> None:
        """A node without a sibling goes up as it is: there is nothing to ask."""
        while self.level and 2 * self.index + 1 >= self.widths[self.level - 1]:
            self.level, self.index = self.level - 1, 2 * self.index


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Who lost a dispute, and why.

    `layer` is the first at which both differ, None where it did not come to that; `hashes` are what
    the prover, the challenger and the referee say of it. `proven`: anybody with the model finds the
    same; else somebody did not answer, and that is the asker's word.
    """

    prover: PeerId
    challenger: PeerId
    lost: frozenset[PeerId]
    why: str
    proven: bool
    row: int | None = None
    layer: int | None = None
    operator: str = ""
    hashes: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """What a dispute is about, each part checked: by whom, on which leg, of which model."""

    receipt: Signed[Receipt]
    verdict: Signed[Verdict]
    model: ExactModel
    inputs: Sequence[Array] = field(repr=False)
    output: bytes = field(repr=False)


def check_grounds(
    manifest: bytes, receipt: bytes, verdict: bytes, model_data: bytes, source: bytes, output: bytes
) -> Grounds:
    """WireError, or ModelRefused, unless all of this belongs together."""
    leg, against = open_signed(receipt, Receipt), open_signed(verdict, Verdict)
    named = Manifest.from_bytes(manifest)
    if named.id != leg.record.model or named.format != FORMAT or leg.record.operation != CALL:
        raise Malformed("the receipt is not of a call of this integer model")
    if named.file(FILE).content != name_of(model_data):
        raise Malformed("the model's file is not the one that the manifest names")
    if against.record.receipt != leg.id or against.record.agrees:
        raise Malformed("the verdict is not one against this receipt")
    if not against.record.could_check or against.signer == leg.signer:
        raise Malformed("the verdict is of a peer that could not check, or of the prover itself")
    if name_of(source) != leg.record.input or name_of(output) != leg.record.output:
        raise Malformed("the input or the output is not the one that the receipt names")
    model = read_bytes(model_data)
    return Grounds(
        receipt=leg,
        verdict=against,
        model=model,
        inputs=inputs_of(model, source),
        output=output,
    )


def open_commitment(raw: bytes, side: int, grounds: Grounds, row: int | None) -> Signed[Commitment]:
    """A side's commitment to the states of a row; UnfitError unless it is one, to this row."""
    try:
        found = open_signed(raw, Commitment)
    except (Malformed, BadSignature) as error:
        raise UnfitError(side, f"its commitment cannot be read ({error.message})") from error
    signer = (grounds.receipt.signer, grounds.verdict.signer)[side]
    right = found.signer == signer and found.record.receipt == grounds.receipt.id
    if not right or found.record.layers != len(grounds.model.layers):
        raise UnfitError(side, "its commitment is another's, or to another leg or model")
    if found.record.row >= len(grounds.inputs[0]) or row not in (None, found.record.row):
        raise UnfitError(side, "its commitment is to another row, or to none of the call")
    return found


def check_opening(opening: StateOpening, layer: int, root: bytes, layers: int, side: int) -> None:
    """UnfitError unless the layer's state lies under the root that this side committed to."""
    try:
        leaf = state_leaf(opening.layer, opening.state)
        found = merkle.root_of(leaf, opening.layer, layers, opening.path)
    except BadSignature as error:
        raise UnfitError(side, error.message) from error
    if opening.layer != layer or found != root:
        raise UnfitError(side, f"what it shows of layer {layer} is not what it committed to")


def misstated(grounds: Grounds) -> str:
    """What the receipt says falsely of its own leg, whatever the model gives; empty if nothing.

    A verdict against such a receipt is right though every layer gives what was answered.
    """
    leg, size_bytes = grounds.receipt.record, len(grounds.output)
    if leg.output_size_bytes != size_bytes:
        return f"it signed for {leg.output_size_bytes} bytes, and the answer has {size_bytes}"
    return "" if leg.units == 1 else f"it signed for {leg.units} units, and a call is one"


def output_layers(model: ExactModel) -> list[int]:
    """The layers whose states are answers, each once, in order."""
    return sorted({it.layer for it in model.outputs})


def contradicts_itself(grounds: Grounds, outputs: Sequence[StateOpening], row: int) -> bool:
    """Whether the answer that the prover signed is not what its own states give."""
    model = grounds.model
    try:
        return any(
            answered_by(model, it.layer, it.state)
            != output_row(model, it.layer, grounds.output, row, len(grounds.inputs[0]))
            for it in outputs
        )
    except Malformed:
        # An answer that the model cannot give, or a state.
        return True


def rerun(grounds: Grounds, layer: int, row: int, sources: Sequence[StateOpening]) -> bytes:
    """The leaf of what the layer really gives; Malformed if what it reads cannot be."""
    states = [it.state for it in sources]
    found = run_one_layer(grounds.model, layer, grounds.inputs, row, states)
    return state_leaf(layer, found)


def judge(
    dispute: Signed[Dispute], model_data: bytes, source: bytes, output: bytes
) -> tuple[Grounds, Judgement]:
    """Who lost, found anew from the record and the model; WireError names what does not hold."""
    record = dispute.record
    grounds = check_grounds(
        record.manifest, record.receipt, record.verdict, model_data, source, output
    )
    found = _judged(record, grounds)
    if found is not None:
        return grounds, found
    sides = ((record.prover_silent, PROVER), (record.challenger_silent, CHALLENGER))
    silent = [side for is_silent, side in sides if is_silent]
    if not silent:
        raise Malformed("the record ends before it is known who is wrong")
    names = (grounds.receipt.signer, grounds.verdict.signer)
    who = " and the ".join(SIDES[it] for it in silent)
    return grounds, Judgement(
        prover=names[PROVER],
        challenger=names[CHALLENGER],
        lost=frozenset(names[it] for it in silent),
        why=f"the {who} did not answer, or not what fits, by the deadline",
        proven=False,
    )


def _judged(record: Dispute, grounds: Grounds) -> Judgement | None:
    """What the record proves; None if it ends before that."""
    if why := misstated(grounds):
        heard = (record.challenger, record.prover, *record.outputs, *record.steps, *record.sources)
        if any(heard):
            raise Malformed("the record goes on where the receipt alone decides")
        return _Said(grounds, None).lost({grounds.receipt.signer}, why)
    if record.challenger is None:
        if record.prover is not None or record.outputs or record.steps or record.sources:
            raise Malformed("the record goes on without the challenger's commitment")
        return None
    first = open_commitment(record.challenger, CHALLENGER, grounds, None)
    row = first.record.row
    if record.prover is None:
        if record.outputs or record.steps or record.sources:
            raise Malformed("the record goes on without the prover's commitment")
        return None
    other = open_commitment(record.prover, PROVER, grounds, row)
    layers, wanted = len(grounds.model.layers), output_layers(grounds.model)
    if len(record.outputs) > len(wanted):
        raise Malformed("the record has more outputs than the model")
    for layer, opening in zip(wanted, record.outputs, strict=False):
        check_opening(opening, layer, other.record.root, layers, PROVER)
    said = _Said(grounds, row)
    if contradicts_itself(grounds, record.outputs, row):
        why = "the answer that it signed is not what the states give that it committed to"
        return said.lost({grounds.receipt.signer}, why)
    if len(record.outputs) < len(wanted):
        if record.steps or record.sources:
            raise Malformed("the record goes on without the prover's outputs")
        return None
    roots = other.record.root, first.record.root
    if roots[0] == roots[1]:
        if record.steps or record.sources:
            raise Malformed("both have the same states, and the record goes on")
        why = "it says that the answer is wrong, and committed to the states that give it"
        return said.lost({grounds.verdict.signer}, why)
    return _descended(record, said, Descending.begin(layers, roots), roots[0])


def _descended(record: Dispute, said: "_Said", place: Descending, root: bytes) -> Judgement | None:
    for step in record.steps:
        if place.layer is not None:
            raise Malformed("the record goes on below the leaves")
        place.go_down(*pairs_of(step))
    if place.layer is None:
        if record.sources:
            raise Malformed("the record shows inputs of a layer that is not known yet")
        return None
    made = said.grounds.model.layers[place.layer]
    wanted = () if made.operator == "input" else made.sources
    if len(record.sources) > len(wanted):
        raise Malformed("the record has more inputs than the layer")
    for layer, opening in zip(wanted, record.sources, strict=False):
        check_opening(opening, layer, root, len(said.grounds.model.layers), PROVER)
    if len(record.sources) < len(wanted):
        return None
    return said.at_layer(place, record.sources)


def pairs_of(step: Descent) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """The nodes of one level: the prover's two, the challenger's two."""
    return (step.prover_left, step.prover_right), (step.challenger_left, step.challenger_right)


@dataclass(frozen=True, slots=True)
class _Said:
    """Writes judgements about one row, or about the receipt itself."""

    grounds: Grounds
    row: int | None

    def lost(self, who: set[PeerId], why: str) -> Judgement:
        """A judgement without a layer."""
        return Judgement(
            prover=self.grounds.receipt.signer,
            challenger=self.grounds.verdict.signer,
            lost=frozenset(who),
            why=why,
            proven=True,
            row=self.row,
        )

    def at_layer(self, place: Descending, sources: Sequence[StateOpening]) -> Judgement:
        """The one layer is computed: whoever said something else of it is wrong."""
        assert place.layer is not None, "the descent is over"
        assert self.row is not None, "states are of a row"
        prover, challenger = self.grounds.receipt.signer, self.grounds.verdict.signer
        operator = self.grounds.model.layers[place.layer].operator
        try:
            right = rerun(self.grounds, place.layer, self.row, sources)
        except Malformed:
            # Both agree on a state that the model cannot have.
            right = b""
        pairs = zip((prover, challenger), place.nodes, strict=True)
        return Judgement(
            prover=prover,
            challenger=challenger,
            lost=frozenset(peer for peer, node in pairs if node != right),
            why=f"layer {place.layer} ({operator}) gives something else",
            proven=True,
            row=self.row,
            layer=place.layer,
            operator=operator,
            hashes=(*place.nodes, right),
        )


def model_of(dispute: Signed[Dispute]) -> ContentId:
    """The content id of the model's file that a dispute is about; WireError."""
    return Manifest.from_bytes(dispute.record.manifest).file(FILE).content
