"""What changes an answer is done or refused by name; what changes nothing is let go."""

import json
from typing import Any

import httpx
import openai
import pytest

from node.gateway.completions import _alternatives, token_name
from node.gateway.fields import TABLE, fault_of_field
from node.gateway.requests import ChatRequest, CompletionRequest, EmbeddingsRequest
from tests.gateway.conftest import Served
from wire.generation import Alternative, Generation, Token, TokenBias

CHAT = {"model": "hash", "messages": [{"role": "user", "content": "SAY:hello there"}]}
PROMPT = {"model": "hash", "prompt": "SAY:The capital"}


def chat(http: httpx.Client, **more: Any) -> httpx.Response:
    return http.post("/v1/chat/completions", json={**CHAT, **more})


def complete(http: httpx.Client, **more: Any) -> httpx.Response:
    return http.post("/v1/completions", json={**PROMPT, **more})


@pytest.mark.parametrize(
    ("path", "more", "param", "words"),
    [
        ("completions", {"suffix": " is the end"}, "suffix", "suffix is not done"),
        ("completions", {"best_of": 4}, "best_of", "best_of is not done"),
        (
            "completions",
            {"response_format": {"type": "json_object"}},
            "response_format",
            "chat/completions",
        ),
        ("chat/completions", {"temperture": 0.5}, "temperture", "did you mean temperature?"),
        ("chat/completions", {"guided_json": {}}, "guided_json", "response_format"),
        ("chat/completions", {"modalities": ["text", "audio"]}, "modalities", "text"),
        ("chat/completions", {"zzz": 1}, "zzz", "no field 'zzz'"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "x", "contant": "y"}]},
            "messages.0.contant",
            "did you mean content?",
        ),
        ("embeddings", {"input": "x", "input_type": "query"}, "input_type", "before the text"),
        ("chat/completions", {"stop": 5}, "stop", "stop: has to be text, or has to be a list"),
    ],
    ids=str,
)
def test_what_would_change_the_answer_is_refused_by_name(
    http: httpx.Client, path: str, more: dict[str, Any], param: str, words: str
) -> None:
    base = {"chat/completions": CHAT, "completions": PROMPT}.get(path, {"model": "hash"})
    found = http.post(f"/v1/{path}", json={**base, **more})
    assert found.status_code == 400, found.text
    error = found.json()["error"]
    assert error["param"] == param
    assert words in error["message"]
    assert "input" not in error["message"].lower().replace("input_type", "")


@pytest.mark.parametrize(
    "more",
    [
        {"user": "me", "store": True, "metadata": {"a": "b"}, "service_tier": "auto"},
        {"best_of": 1, "use_beam_search": False, "modalities": ["text"], "audio": None},
        {"messages": [{**CHAT["messages"][0], "refusal": None, "annotations": []}]},
        {"suffix": "", "echo": False, "top_k": -1, "top_p": 0},
    ],
    ids=str,
)
def test_what_changes_nothing_is_let_go(http: httpx.Client, more: dict[str, Any]) -> None:
    found = chat(http, **more)
    assert found.status_code == 200, found.text
    assert found.json()["choices"][0]["message"]["content"] == "hello there"


def test_the_table_names_only_what_is_not_done() -> None:
    for kind in (ChatRequest, CompletionRequest, EmbeddingsRequest):
        table = TABLE[kind.__name__]
        done = kind.model_fields.keys()
        assert not done & table.ignored
        assert not done & table.refused.keys()
        assert not table.ignored & table.refused.keys()
        for name, refusal in table.refused.items():
            assert fault_of_field(kind.__name__, done, name, object())
            for value in (None, *refusal.harmless):
                assert fault_of_field(kind.__name__, done, name, value) is None


def test_what_is_done_reaches_the_model(http: httpx.Client, served: Served) -> None:
    found = chat(
        http,
        logit_bias={"9": 1.5, "5": -100},
        repetition_penalty=1.8,
        min_tokens=50,
        ignore_eos=True,
        top_k=-1,
        top_p=0,
        chat_template_kwargs={"enable_thinking": False},
        temperature=0,
    )
    assert found.status_code == 200, found.text
    job = served.engine.asked
    assert job is not None
    told = dict(job.parameters)
    assert {name: told[name] for name in ("top_k", "top_p", "ignore_eos", "min_tokens")} == {
        "top_k": 0,
        "top_p": 0.0,
        "ignore_eos": 1,
        "min_tokens": 50,
    }
    assert told["repetition_penalty"] == 1.8
    asked = Generation.from_bytes(job.input)
    assert asked.template == '{"enable_thinking": false}'
    assert asked.bias == (
        TokenBias(token=5, millionths=-100_000_000),
        TokenBias(token=9, millionths=1_500_000),
    )


@pytest.mark.parametrize("name", ["schema", "value"])
def test_an_object_may_have_a_schema_as_other_servers_take_it(
    http: httpx.Client, served: Served, name: str
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    found = chat(http, response_format={"type": "json_object", name: schema})
    assert found.status_code == 200, found.text
    assert served.engine.asked is not None
    assert json.loads(Generation.from_bytes(served.engine.asked.input).schema) == schema


def test_a_prompt_may_be_tokens(http: httpx.Client, served: Served) -> None:
    for prompt in ([504, 4280, 282], [[504, 4280, 282]]):
        found = complete(http, prompt=prompt, max_tokens=4)
        assert found.status_code == 200, found.text
        assert found.json()["usage"]["prompt_tokens"] == 3
    assert served.engine.asked is not None
    assert Generation.from_bytes(served.engine.asked.input).prompt_tokens == (504, 4280, 282)
    assert len(complete(http, prompt=[[1], [2, 3]], max_tokens=1).json()["choices"]) == 2


def test_without_a_limit_a_completion_has_sixteen_tokens(client: openai.OpenAI) -> None:
    found = client.completions.create(model="hash", prompt="go on")
    assert found.usage is not None
    assert found.usage.completion_tokens == 16


def test_sixteen_choices_are_made(client: openai.OpenAI) -> None:
    found = client.completions.create(model="hash", prompt="go on", max_tokens=1, n=16)
    assert [it.index for it in found.choices] == list(range(16))


def test_functions_are_called_as_they_were_before_there_were_tools(client: openai.OpenAI) -> None:
    call = '<tool_call>{"name": "weather", "arguments": {"city": "Bonn"}}</tool_call>'
    options: dict[str, Any] = {
        "model": "hash",
        "functions": [{"name": "weather", "parameters": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": "?"},
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "weather", "arguments": "{}"},
            },
            {"role": "function", "name": "weather", "content": "rain"},
            {"role": "user", "content": f"SAY:{call}"},
        ],
    }
    found = client.chat.completions.create(**options)
    assert found.choices[0].finish_reason == "function_call"
    called = found.choices[0].message.function_call
    assert called is not None
    assert (called.name, called.arguments) == ("weather", '{"city": "Bonn"}')
    chunks = list(client.chat.completions.create(stream=True, **options))
    told = [it.choices[0].delta.function_call for it in chunks if it.choices]
    assert [it.name for it in told if it] == ["weather"]
    assert chunks[-1].choices[0].finish_reason == "function_call"


def test_each_alternative_is_told_also_where_two_have_the_same_text() -> None:
    texts = (b"\xf0\x9f", b"\xf0", b"a", b"a", b"a")
    top = tuple(
        Alternative(text=text, logprob_millionths=-at * 1_000_000) for at, text in enumerate(texts)
    )
    told = _alternatives(Token(id=1, text=b"a", logprob_millionths=-1, top=top))
    assert told is not None
    assert list(told.values()) == [0.0, -1.0, -2.0, -3.0, -4.0]
    assert list(told) == ["bytes:\\xf0\\x9f", "bytes:\\xf0", "a", "bytes:\\x61", "bytes:\\x61#2"]
    assert token_name(b"\xf0\x9f") == "bytes:\\xf0\\x9f"


def test_offsets_count_characters_that_are_several_tokens(client: openai.OpenAI) -> None:
    found = client.completions.create(model="hash", prompt="SAY:a😀b☃!", logprobs=1, max_tokens=64)
    told = found.choices[0].logprobs
    assert told is not None
    text = found.choices[0].text
    assert text == "a😀b☃!"
    # Of two bytes each: a and a quarter of 😀, its middle, its end and b, two thirds of ☃, its end.
    assert told.text_offset == [0, 1, 1, 3, 3]


def test_an_echoed_prompt_is_streamed_with_its_tokens(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "hash", "prompt": "SAY:one", "echo": True, "logprobs": 0}
    whole = client.completions.create(**options).choices[0]
    chunks = [it.choices[0] for it in client.completions.create(stream=True, **options)]
    assert "".join(it.text for it in chunks) == whole.text == "SAY:oneone"
    assert whole.logprobs is not None
    told = [it.logprobs for it in chunks if it.logprobs]
    assert [token for it in told for token in it.tokens] == whole.logprobs.tokens
    assert [at for it in told for at in it.text_offset] == whole.logprobs.text_offset


def test_the_document_says_what_is_not_done(http: httpx.Client) -> None:
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    asked = schemas["ChatRequest"]
    assert asked["additionalProperties"] is False
    assert asked["properties"]["guided_json"]["enum"] == [None]
    assert asked["properties"]["user"]["description"].startswith("Ignored")
