"""Claimed answers of an exact transformer, judged by the reference: right ones hold, others not."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from node.engines.exact.text_layers import TextPast, as_floats
from node.engines.worker.exact_claims import ExactClaims
from tests.engines.exact.text_models import exact_manifest, made_at
from wire.content import ContentId
from wire.errors import ModelRefused, WireError
from wire.generation import Ending, Generation, Token, read_frames, to_frame

PROMPT = tuple(int(it) for it in np.random.default_rng(5).integers(0, 500, 20))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_at(tmp_path_factory.mktemp("exact"))


@pytest.fixture(scope="module")
def claims(path: Path) -> ExactClaims:
    return ExactClaims.of(path, exact_manifest(path)[0].id)


def question(prompt: tuple[int, ...] = PROMPT) -> bytes:
    return Generation(
        prompt="", messages="", tools="", schema="", stop=(), prompt_tokens=prompt
    ).to_bytes()


def answered(claims: ExactClaims, parameters: Mapping[str, float]) -> bytes:
    """What an honest peer answers, token by token."""
    answer = claims.asked.begun(Generation.from_bytes(question()), parameters)
    past, output = TextPast(claims.layers), b""
    rows = past.read(answer.prompt)
    while not answer.reason:
        line = as_floats(claims.layers.logits(rows[-1:]))[0]
        output += answer.take(line)
        rows = past.read(answer.made[-1:])
    return output


@pytest.mark.parametrize(
    "parameters",
    [
        {"tokens": 9, "ignore_eos": 1},
        {"tokens": 9, "ignore_eos": 1, "temperature": 8.0, "seed": 7},
        {"tokens": 9, "ignore_eos": 1, "temperature": 0.8, "seed": 7, "top_p": 0.9, "logprobs": 2},
    ],
)
def test_an_honest_answer_holds_and_each_altered_token_is_found(
    claims: ExactClaims, parameters: Mapping[str, float]
) -> None:
    output = answered(claims, parameters)
    assert claims.difference(question(), parameters, output) == ""
    frames = list(read_frames(output))
    for at in (0, 4, 8):
        token = frames[at]
        assert isinstance(token, Token)
        other = (token.id + 1) % 500
        texts = claims.asked.table.texts
        altered = [
            Token(
                id=other,
                text=texts[other],
                logprob_millionths=token.logprob_millionths,
                top=token.top,
            )
            if number == at
            else it
            for number, it in enumerate(frames)
        ]
        found = claims.difference(question(), parameters, b"".join(map(to_frame, altered)))
        assert found == f"token {at} of the answer is another one"


def test_another_seed_question_or_ending_does_not_hold(claims: ExactClaims) -> None:
    parameters = {"tokens": 9, "ignore_eos": 1, "temperature": 8.0, "seed": 7}
    output = answered(claims, parameters)
    assert claims.difference(question(), {**parameters, "seed": 8}, output)
    assert claims.difference(question(PROMPT[:-1]), parameters, output)
    *tokens, ending = read_frames(output)
    assert isinstance(ending, Ending)
    shorter = Ending(
        reason="stop",
        prompt_tokens=ending.prompt_tokens,
        tokens=8,
        text_bytes=ending.text_bytes,
    )
    cut = b"".join(map(to_frame, [*tokens[:-1], shorter]))
    assert (
        claims.difference(question(), parameters, cut) == "the answer does not end there, or not so"
    )


def test_what_is_no_question_or_no_answer_is_refused_in_words(claims: ExactClaims) -> None:
    with pytest.raises(WireError):
        claims.difference(b"nothing", {}, b"")
    with pytest.raises(WireError):
        claims.difference(question(), {"tokens": 2}, b"nothing")
    with pytest.raises(ModelRefused, match="is not a parameter"):
        claims.difference(question(), {"speed": 2}, b"")
    with pytest.raises(ModelRefused, match="the model has 512 tokens"):
        claims.difference(question((9999,)), {"tokens": 2}, b"")


def test_how_tokens_are_drawn_depends_on_the_models_id(path: Path, claims: ExactClaims) -> None:
    parameters = {"tokens": 9, "ignore_eos": 1, "temperature": 8.0, "seed": 7}
    output = answered(claims, parameters)
    other = ExactClaims.of(path, ContentId.of(b"another model"))
    assert other.difference(question(), parameters, output)
