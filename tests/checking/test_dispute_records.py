"""The record of a dispute convicts who is wrong and nobody else; altered, it does not hold."""

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from click.testing import CliRunner

from node.commands.cli import cli
from node.engines.exact.model import ExactModel
from node.engines.exact.states import RowStates, states_of
from node.evidence.disputes import Judgement, judge
from tests.checking.exact_peers import answer_of, one_step_off
from tests.checking.played_disputes import CHALLENGER, PROVER, REFEREE, Stage
from tests.engines.exact.samples import made, random_model, random_rows
from tests.engines.onnx_models import golden
from wire import limits
from wire.codec import pack, unpack
from wire.dispute import Commitment, Dispute
from wire.errors import Malformed, ModelRefused, WireError
from wire.signed import Signed, open_signed, sign

MODEL = made("torch_cnn")
ROWS = [golden("torch_cnn")[0]["image"][:4]]


def wrong(seed: int, model: ExactModel = MODEL, rows=None) -> tuple[ExactModel, int]:
    """A model one step off whose answer is another one, and the layer that is off."""
    chance, rows = Random(seed), rows or ROWS
    while True:
        altered, layer = one_step_off(model, chance)
        if answer_of(altered, rows) != answer_of(model, rows):
            return altered, layer


def judged(stage: Stage, record: Signed[Dispute]) -> Judgement:
    return judge(record, stage.model.to_bytes(), stage.source, stage.output)[1]


@pytest.mark.parametrize("seed", range(6))
async def test_the_liar_and_its_layer_are_named_whichever_side_it_is(seed: int) -> None:
    off, layer = wrong(seed)
    for prover, challenger, liar in ((off, MODEL, PROVER), (MODEL, off, CHALLENGER)):
        stage = Stage(MODEL, prover, challenger, ROWS)
        found = judged(stage, await stage.play())
        assert (found.lost, found.layer) == (frozenset({liar.peer}), layer)
        assert found.proven
        at = 0 if liar is PROVER else 1
        assert found.hashes[at] != found.hashes[2] == found.hashes[1 - at]


async def test_branches_that_meet_are_disputed_too() -> None:
    """A model whose layers read two others, and whose outputs are of four layers."""
    model = random_model(7)
    rows = random_rows(model, 5, 3)
    for seed in range(4):
        off, layer = wrong(seed, model, rows)
        stage = Stage(model, off, model, rows)
        found = judged(stage, await stage.play())
        assert (found.lost, found.layer) == (frozenset({PROVER.peer}), layer)


async def test_both_may_be_wrong() -> None:
    (one, _), (other, _) = wrong(1), wrong(2)
    stage = Stage(MODEL, one, other, ROWS)
    found = judged(stage, await stage.play())
    assert found.lost <= {PROVER.peer, CHALLENGER.peer}
    assert found.lost
    both = Stage(MODEL, *(replace_first(MODEL, it) for it in (1, 2)), ROWS)
    assert judged(both, await both.play()).lost == {PROVER.peer, CHALLENGER.peer}


def replace_first(model: ExactModel, steps: int) -> ExactModel:
    layers = list(model.layers)
    bias = np.frombuffer(layers[1].bias, "<i4") + (steps << 24)
    layers[1] = replace(layers[1], bias=bias.astype("<i4").tobytes())
    return replace(model, layers=tuple(layers))


async def test_a_challenger_that_has_the_same_states_loses() -> None:
    stage = Stage(MODEL, MODEL, MODEL, ROWS)
    found = judged(stage, await stage.play())
    assert found.lost == {CHALLENGER.peer}
    assert "committed to the states that give it" in found.why


@pytest.mark.parametrize("said", [{"units": 2}, {"units": 0}, {"output_size_bytes": 7}])
async def test_who_rejects_a_right_answer_under_a_false_receipt_is_not_blamed(
    said: dict[str, int],
) -> None:
    stage = Stage(MODEL, MODEL, MODEL, ROWS, receipt=said)
    record = await stage.play()
    found = judged(stage, record)
    assert (found.lost, found.proven, found.row) == ({PROVER.peer}, True, None)
    assert "it signed for" in found.why
    assert not any(it.answers for it in stage.sides)
    asked = await stage.sides[1].commit(None)
    more = sign(replace(record.record, challenger=asked), REFEREE)
    with pytest.raises(Malformed, match="the receipt alone"):
        judged(stage, more)


async def test_an_answer_that_its_own_states_do_not_give_convicts_the_prover() -> None:
    off, _ = wrong(3)
    for answered in (answer_of(off, ROWS), b"no tensors at all", answer_of(MODEL, [ROWS[0][:2]])):
        stage = Stage(MODEL, MODEL, MODEL, ROWS, answered=answered)
        found = judged(stage, await stage.play())
        assert found.lost == {PROVER.peer}, answered[:20]
        assert "not what the states give" in found.why


@pytest.mark.parametrize(
    ("side", "after"), [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]
)
async def test_who_falls_silent_loses_wherever_it_is_and_the_record_says_whose_word_that_is(
    side: int, after: int
) -> None:
    off, _ = wrong(4)
    stage = Stage(MODEL, off, MODEL, ROWS, silent_after={side: after})
    record = await stage.play()
    found = judged(stage, record)
    assert found.lost == {(PROVER, CHALLENGER)[side].peer}
    assert not found.proven
    assert "did not answer" in found.why
    # Without the word of the asker nothing is decided.
    mute = replace(record.record, prover_silent=False, challenger_silent=False)
    with pytest.raises(WireError, match="ends before"):
        judged(stage, sign(mute, REFEREE))


async def test_a_record_altered_in_any_byte_does_not_hold() -> None:
    off, _ = wrong(5)
    stage = Stage(MODEL, off, MODEL, ROWS)
    raw, chance = (await stage.play()).raw, Random(1)
    places = {*range(64), *(chance.randrange(len(raw)) for _ in range(150))}
    for at in places:
        altered = bytearray(raw)
        altered[at] ^= 1 << chance.randrange(8)
        with pytest.raises(WireError):
            open_signed(bytes(altered), Dispute)
    for size in (0, 1, 5, 100, len(raw) - 1):
        with pytest.raises(WireError):
            open_signed(raw[:size], Dispute)


async def test_a_record_altered_and_signed_anew_convicts_nobody_else() -> None:
    """The referee itself lies: whatever it changes, no honest side is proved wrong."""
    off, layer = wrong(6)
    stage = Stage(MODEL, off, MODEL, ROWS)
    record = (await stage.play()).record
    other = Stage(MODEL, MODEL, off, ROWS)
    theirs = (await other.play()).record
    step = record.steps[0]
    opening = record.outputs[0]
    changes = [
        {"prover": record.challenger},
        {"challenger": record.prover},
        {"prover": theirs.prover},
        {"receipt": theirs.receipt},
        {"verdict": theirs.verdict},
        {"verdict": record.receipt},
        {"manifest": b"\x80"},
        {"input": None, "output": None},
        {"steps": record.steps[:-1]},
        {"steps": (*record.steps, step)},
        {"steps": (replace(step, prover_left=step.challenger_left), *record.steps[1:])},
        {"outputs": (replace(opening, state=bytes(len(opening.state))),)},
        {"outputs": (opening, opening)},
        {"outputs": ()},
        {"outputs": (replace(opening, layer=255),)},
        {"sources": ()},
        {"sources": (opening,)},
        {"sources": tuple(replace(it, layer=it.layer + 1) for it in record.sources)},
        {"sources": tuple(replace(it, path=it.path[:-32]) for it in record.sources)},
        {"challenger": None},
        {"prover": None},
    ]
    for change in changes:
        try:
            found = judged(stage, sign(replace(record, **change), REFEREE))
        except (WireError, ModelRefused):
            continue
        assert found.lost == {PROVER.peer}, change
        assert found.layer == layer


async def test_commitments_to_other_rows_models_and_a_million_layers_are_nobodys() -> None:
    off, _ = wrong(2)
    stage = Stage(MODEL, off, MODEL, ROWS)
    record = (await stage.play()).record
    receipt = stage.grounds().receipt.id
    states = RowStates.of(states_of(off, ROWS, 0))
    right = Commitment(receipt=receipt, row=0, layers=len(MODEL.layers), root=states.root)
    for change, key in (
        ({"row": 99}, PROVER),
        ({"layers": len(MODEL.layers) + 1}, PROVER),
        ({"layers": limits.EXACT_LAYERS_MAX + 1}, PROVER),
        ({"receipt": stage.grounds().verdict.id}, PROVER),
        ({}, CHALLENGER),
    ):
        forged = sign(replace(right, **change), key)
        with pytest.raises(WireError, match="the prover: its commitment is"):
            judged(stage, sign(replace(record, prover=forged.raw), REFEREE))
    fields = unpack(right.to_bytes())
    for layers in (0, 1, limits.TEXT_STATES_MAX + 1, 10**6, -1):
        with pytest.raises(WireError):
            Commitment.from_bytes(pack(fields | {"layers": layers}))


async def test_a_record_of_another_model_or_another_call_does_not_hold() -> None:
    off, _ = wrong(1)
    stage = Stage(MODEL, off, MODEL, ROWS)
    record = await stage.play()
    for model, source, output, words in (
        (off.to_bytes(), stage.source, stage.output, "not the one that the manifest names"),
        (b"junk", stage.source, stage.output, "not the one that the manifest names"),
        (MODEL.to_bytes(), stage.source + b"\0", stage.output, "the input or the output"),
        (MODEL.to_bytes(), stage.source, stage.output[:-1], "the input or the output"),
    ):
        with pytest.raises(WireError, match=words):
            judge(record, model, source, output)


async def test_verify_judges_a_record_from_files_alone(tmp_path: Path) -> None:
    off, layer = wrong(2)
    stage = Stage(MODEL, off, MODEL, ROWS)
    record = await stage.play()
    file, model = tmp_path / "layer.dispute", tmp_path / "digits.exact"
    file.write_bytes(record.raw)
    model.write_bytes(MODEL.to_bytes())
    said = CliRunner().invoke(cli, ["verify", str(file), "--model", str(model)])
    assert said.exit_code == 0, said.output
    words = " ".join(said.output.split())
    assert f"the prover …{str(PROVER.peer)[-6:]} is wrong: layer {layer} (" in words
    assert "nobody's word was needed" in words
    told = CliRunner().invoke(cli, ["verify", str(file), "--model", str(model), "--json"])
    assert f'"layer": {layer}' in told.output
    assert str(PROVER.peer) in told.output
    missing = CliRunner().invoke(cli, ["verify", str(file)])
    assert missing.exit_code != 0
    model.write_bytes(off.to_bytes())
    assert CliRunner().invoke(cli, ["verify", str(file), "--model", str(model)]).exit_code != 0
