"""One weight changed by one step in a layer drawn at random: is the liar named, and its layer?

For each seed the liar is the prover, or the challenger, in turns; the model is one of the kept
integer models, in turns, and the call has some rows of the digits. What is said is counted in
bytes of messages; the record of each dispute is judged anew from its bytes and the model's file.

`python -m tests.bench disputes [SEEDS]`, 100 if it is not said.
"""

import time
from random import Random
from typing import Any

import numpy as np
import trio

from node.engines.exact.model import ExactModel
from node.engines.exact.reference import run_layers
from node.evidence.disputes import judge
from tests.checking.exact_peers import answer_of, one_step_off
from tests.checking.played_disputes import CHALLENGER, PROVER, Stage
from tests.engines.exact.samples import made
from tests.engines.onnx_models import golden
from wire.dispute import Dispute
from wire.signed import open_signed

MODELS = ("sklearn_mlp", "torch_mlp", "torch_cnn", "sklearn_logistic")
ROWS = 16
TRIES_MAX = 1000


def wrong(model: ExactModel, rows: list[np.ndarray], chance: Random) -> tuple[ExactModel, int, int]:
    """A model one step off whose answer differs, the layer that is off, and how many did not.

    A step that no row's answer shows does no harm, and nobody would dispute it.
    """
    right = answer_of(model, rows)
    for harmless in range(TRIES_MAX):
        altered, layer = one_step_off(model, chance)
        if answer_of(altered, rows) != right:
            return altered, layer, harmless
    raise AssertionError("no step of any weight changes an answer")


def first_wrong_layer(
    model: ExactModel, altered: ExactModel, rows: list[np.ndarray], row: int
) -> int:
    """The first layer that gives something else for a row, found by running both models whole."""
    alone = [it[row : row + 1] for it in rows]
    pairs = zip(run_layers(model, alone), run_layers(altered, alone), strict=True)
    return next(at for at, (one, other) in enumerate(pairs) if not np.array_equal(one, other))


def run(arguments: list[str]) -> dict[str, Any]:
    seeds = int(arguments[0]) if arguments else 100
    named, proven, harmless = 0, 0, 0
    said_bytes, record_bytes, hear_s, judge_s = [], [], [], []
    for seed in range(seeds):
        chance = Random(seed)
        name = MODELS[seed % len(MODELS)]
        model, rows = made(name), [next(iter(golden(name)[0].values()))[:ROWS]]
        altered, layer, tries = wrong(model, rows, chance)
        harmless += tries
        lies = seed // len(MODELS) % 2
        stage = Stage(model, *((altered, model) if lies == 0 else (model, altered)), rows)
        began_at_s = time.perf_counter()
        signed = trio.run(stage.play)
        hear_s.append(time.perf_counter() - began_at_s)
        began_at_s = time.perf_counter()
        record = open_signed(signed.raw, Dispute)
        _, found = judge(record, model.to_bytes(), stage.source, stage.output)
        judge_s.append(time.perf_counter() - began_at_s)
        liar = (PROVER, CHALLENGER)[lies].peer
        assert found.row is not None
        wanted = first_wrong_layer(model, altered, rows, found.row)
        named += found.lost == {liar} and found.layer == wanted == layer
        proven += found.proven
        said_bytes.append(sum(it.size_bytes for it in stage.sides))
        record_bytes.append(len(signed.raw))
    return {
        "disputes": seeds,
        "liar_and_layer_named": named,
        "proven": proven,
        "steps_that_no_answer_showed": harmless,
        "bytes_said": figures(said_bytes),
        "bytes_of_record": figures(record_bytes),
        "seconds_to_hear": figures(hear_s),
        "seconds_to_judge": figures(judge_s),
        "held": named == seeds,
    }


def figures(values: list[float]) -> dict[str, float]:
    return {
        "median": round(float(np.median(values)), 5),
        "most": round(float(max(values)), 5),
    }
