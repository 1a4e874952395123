"""What goes wrong is told in OpenAI's words and classes of errors."""

import gzip

import httpx
import openai
import pytest

from tests.gateway.conftest import Served
from tests.gateway.engine import BROKEN, CRASHED, SLOW, TOO_LONG, UNFIT

HELLO = [{"role": "user", "content": "SAY:hello"}]


def test_an_unknown_model_is_not_found_and_the_nearest_is_named(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="hahs", messages=HELLO)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert "'hash'" in caught.value.message


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 9.0}, "temperature"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"top_p": -0.1}, "top_p"),
        ({"extra_body": {"top_k": -2}}, "top_k"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {"five": 1}}, "logit_bias"),
        ({"stop": [""]}, "stop"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"extra_headers": {"x-baton-verdicts": "5/2"}}, "x-baton-verdicts"),
        ({"extra_headers": {"x-baton-level": "exact"}}, "x-baton-level"),
        ({"extra_headers": {"x-baton-level": "sure"}}, "x-baton-level"),
        (
            {"extra_headers": {"x-baton-level": "signed", "x-baton-verdicts": "2/3"}},
            "x-baton-level",
        ),
        ({"extra_headers": {"x-baton-deadline": "0"}}, "x-baton-deadline"),
    ],
    ids=str,
)
def test_a_wrong_value_is_told_with_its_place(
    client: openai.OpenAI, options: dict[str, object], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "hash", "messages": HELLO, **options})
    assert (caught.value.param or "").startswith(param)


def test_a_model_is_asked_only_for_what_it_does(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="doubling", messages=HELLO)
    assert "only call" in caught.value.message


def test_a_prompt_beyond_all_bounds_says_both_lengths(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="hash", prompt=["x" * 200_000 + "ü" * 50_000])
    assert "300000" in caught.value.message
    assert "262144" in caught.value.message


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_peer_refuses_for_good_is_a_bad_request(
    client: openai.OpenAI, *, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="hash", prompt=TOO_LONG, stream=stream)
    assert "9000 tokens" in caught.value.message
    assert caught.value.response.headers["x-baton-task"].startswith("baf")


def test_a_worker_that_breaks_is_no_fault_of_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.completions.create(model="hash", prompt=BROKEN)
    assert caught.value.status_code == 503
    assert int(caught.value.response.headers["retry-after"]) >= 1


def test_whose_fault_it_is_follows_from_the_code_and_not_from_a_peers_words(
    client: openai.OpenAI,
) -> None:
    with pytest.raises(openai.InternalServerError) as broken:
        client.completions.create(model="hash", prompt=CRASHED)
    assert (broken.value.status_code, broken.value.code) == (503, "worker_failed")
    assert int(broken.value.response.headers["retry-after"]) >= 1
    with pytest.raises(openai.BadRequestError) as unfit:
        client.completions.create(model="hash", prompt=UNFIT)
    assert "too long" in unfit.value.message


def test_an_answer_that_comes_too_late_is_a_timeout(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.completions.create(
            model="hash", prompt=SLOW, max_tokens=9, extra_headers={"x-baton-deadline": "1"}
        )
    assert caught.value.status_code == 408
    assert caught.value.code == "deadline_passed"


def test_a_model_that_nobody_runs_is_unavailable(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.embeddings.create(model="minilm", input="x")
    assert caught.value.status_code == 503
    assert caught.value.code == "model_not_served"


def test_nothing_is_left_under_way_by_what_failed(served: Served) -> None:
    assert served.node.tasks.statistics().under_way == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/infer", "/v1/rerank"])
def test_a_body_in_another_encoding_is_refused_in_words_of_ours(served: Served, path: str) -> None:
    body = gzip.compress(b'{"model": "hash"}')
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    found = httpx.post(served.url + path, content=body, headers=headers, timeout=60)
    assert found.status_code == 400
    fault = found.json()["error"]
    assert fault["param"] == "content-encoding"
    assert "('gzip') is not read here: send it as it is" in fault["message"]
    # Also where the client does not say what it did.
    found = httpx.post(
        served.url + path,
        content=body,
        headers={"content-type": "application/json"},
        timeout=60,
    )
    assert found.status_code == 400
    assert found.json()["error"]["message"].startswith("the body is no JSON")
