"""One weight changed by one step in a layer drawn at random: is the liar named, and its layer?

Of functions, and of answers in words.

For each seed the liar is the prover, or the challenger, in turns; the model is one of the kept
integer models, in turns, and the call has some rows of the digits. What is said is counted in
bytes of messages; the record of each dispute is judged anew from its bytes and the model's file.

`python -m tests.bench disputes [SEEDS]`, 100 if it is not said.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import trio

from node.engines.exact.model import ExactModel
from node.engines.exact.reference import run_layers
from node.engines.exact.text_states import text_states
from node.engines.worker.exact_claims import ExactClaims
from node.evidence.disputes import judge
from node.evidence.text_disputes import judge_words
from tests.checking.exact_peers import answer_of, one_step_off
from tests.checking.exact_text_peers import generated
from tests.checking.exact_text_peers import one_step_off as step_in_text
from tests.checking.played_disputes import CHALLENGER, PROVER, Stage
from tests.checking.played_words import PlayedAnswer
from tests.engines.exact.samples import made
from tests.engines.exact.text_models import exact_manifest, made_at
from tests.engines.onnx_models import golden
from wire.dispute import Dispute
from wire.generation import Generation
from wire.signed import open_signed

PROMPT, TOKENS = 12, 12
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
    functions, text = run_functions(seeds), run_text(seeds)
    return {**functions, "text": text, "held": functions["held"] and text["held"]}


def run_text(seeds: int) -> dict[str, Any]:
    """The same for answers in words of a random exact transformer of two layers."""
    named, same, harmless = 0, 0, 0
    said_bytes, record_bytes, hear_s = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        path = made_at(Path(folder))
        model = exact_manifest(path)[0].id
        for seed in range(seeds):
            chance = Random(seed)
            honest = ExactClaims.of(path, model)
            tokens = tuple(chance.randrange(500) for _ in range(PROMPT))
            question = Generation(
                prompt="", messages="", tools="", schema="", stop=(), prompt_tokens=tokens
            ).to_bytes()
            liar, layer, tries = wrong_text(path, honest, tokens, chance)
            harmless += tries
            side = seed % 2
            parameters = {"tokens": TOKENS, "ignore_eos": 1, "temperature": 1.0, "seed": seed}
            output = generated((liar, honest)[side], question, parameters)
            token = honest.first_difference(question, parameters, output)[1]
            same += side == 0 and token is None
            played = PlayedAnswer(path, question, output, side)
            began_at_s = time.perf_counter()
            signed, size_bytes = trio.run(
                played.play, honest, liar, TOKENS - 1 if token is None else token
            )
            hear_s.append(time.perf_counter() - began_at_s)
            found = judge_words(open_signed(signed.raw, Dispute), honest, question, output)
            named += found.lost == {(PROVER, CHALLENGER)[side].peer} and found.layer == layer
            said_bytes.append(size_bytes)
            record_bytes.append(len(signed.raw))
    return {
        "disputes": seeds,
        "liar_and_layer_named": named,
        # Of these the answer shows nothing, and nobody would have disputed it.
        "answers_that_are_right_all_the_same": same,
        "steps_that_no_state_showed": harmless,
        "bytes_said": figures(said_bytes),
        "bytes_of_record": figures(record_bytes),
        "seconds_to_hear": figures(hear_s),
        "held": named == seeds,
    }


def wrong_text(
    path: Path, honest: ExactClaims, tokens: Sequence[int], chance: Random
) -> tuple[ExactClaims, int | None, int]:
    """As `wrong`; it differs in what some layer gives for these tokens."""
    right = text_states(honest.layers, tokens).root
    for harmless in range(TRIES_MAX):
        liar = ExactClaims.of(path, exact_manifest(path)[0].id)
        _, layer = step_in_text(liar, chance)
        if text_states(liar.layers, tokens).root != right:
            return liar, layer, harmless
    raise AssertionError("no step of any weight changes a state")


def run_functions(seeds: int) -> dict[str, Any]:
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
