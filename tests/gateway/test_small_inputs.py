"""Bodies that once were answered as nobody meant them: each has the right value now.

`cases/` holds the bodies as they were sent, but for the model's name.
"""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.conftest import Served
from wire.generation import Generation, TokenBias

CASES = Path(__file__).parent / "cases"


def ask(http: httpx.Client, name: str, **more: Any) -> httpx.Response:
    body = json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))
    path = "chat/completions" if "messages" in body else "completions"
    return http.post(f"/v1/{path}", json={**body, "model": "hash", **more})


def job_of(served: Served) -> tuple[dict[str, Any], Generation]:
    """What the model was asked last."""
    assert served.engine.asked is not None
    return dict(served.engine.asked.parameters), Generation.from_bytes(served.engine.asked.input)


@pytest.mark.parametrize(
    ("name", "field", "words"),
    [
        ("ignored_suffix", "suffix", "suffix is not done"),
        ("ignored_best_of", "best_of", "best_of is not done"),
        ("ignored_response_format_completions", "response_format", "only chats"),
        ("ignored_typo_temperture", "temperture", "did you mean temperature?"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    http: httpx.Client, name: str, field: str, words: str
) -> None:
    found = ask(http, name)
    assert found.status_code == 400
    assert found.json()["error"]["param"] == field
    assert words in found.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        ("ignored_min_tokens", "min_tokens", 50),
        ("ignored_repetition_penalty", "repetition_penalty", 1.8),
        ("ignored_top_k-1", "top_k", 0),
        ("top_p0", "top_p", 0.0),
        ("completion_emoji_logprobs", "logprobs", 5),
    ],
)
def test_what_can_be_done_reaches_the_model(
    http: httpx.Client, served: Served, name: str, parameter: str, value: float
) -> None:
    assert ask(http, name).status_code == 200
    assert job_of(served)[0][parameter] == value


def test_a_bias_and_what_the_template_is_given_reach_the_model(
    http: httpx.Client, served: Served
) -> None:
    assert ask(http, "logit_bias").status_code == 200
    assert job_of(served)[1].bias == (TokenBias(token=5, millionths=-100_000_000),)
    assert ask(http, "ignored_chat_template_kwargs").status_code == 200
    assert json.loads(job_of(served)[1].template) == {"enable_thinking": False}


def test_token_ids_are_a_prompt(http: httpx.Client, served: Served) -> None:
    found = ask(http, "ignored_token_prompt")
    assert found.status_code == 200
    assert found.json()["usage"]["prompt_tokens"] == 3
    assert job_of(served)[1].prompt_tokens == (504, 4280, 282)


def test_five_alternatives_are_told_of_each_token(http: httpx.Client) -> None:
    told = ask(http, "completion_emoji_logprobs", prompt="SAY:😀😃😄", max_tokens=64).json()
    logprobs = told["choices"][0]["logprobs"]
    assert [len(it) for it in logprobs["top_logprobs"]] == [5] * 6
    assert all(name.startswith("bytes:") for name in logprobs["tokens"])
    assert told["choices"][0]["text"] == "😀😃😄"


def test_a_prompt_is_told_with_its_logprobs_and_nothing_is_made(http: httpx.Client) -> None:
    told = ask(http, "ignored_echo_max0").json()
    choice = told["choices"][0]
    assert choice["text"] == "The capital of France"
    assert choice["logprobs"]["token_logprobs"][0] is None
    # The hash model knows none; those of a real one: tests/engines/host/test_prompt_tokens.py.
    assert len(choice["logprobs"]["token_logprobs"]) == len(choice["logprobs"]["tokens"])
    assert choice["logprobs"]["tokens"] == choice["text"].split()
    assert told["usage"]["completion_tokens"] == 0


def test_a_call_and_its_result_reach_the_template_whole(http: httpx.Client, served: Served) -> None:
    # What templates make of it: tests/engines/worker/test_conversations.py.
    assert ask(http, "tool_text_args").status_code == 200
    _, asked = job_of(served)
    _, call, result = json.loads(asked.messages)
    assert call["tool_calls"][0]["function"] == {"name": "get_code", "arguments": {"n": 1}}
    assert (call["content"], result["content"]) == ("", "42")
    assert result["tool_call_id"] == call["tool_calls"][0]["id"] == "c1"
    assert json.loads(asked.tools)[0]["function"]["name"] == "get_code"


def test_every_case_has_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{path.stem}"' in source for path in CASES.glob("*.json"))
