"""Other makers' clients: what they send is a chat, and what they are told is its answer."""

import json
from typing import Any

import httpx
import openai
import pytest

from node.gateway.dialects import JSON_LINES
from node.gateway.response_memory import (
    CONVERSATION_BYTES_MAX,
    OWNERS_MAX,
    PER_OWNER_MAX,
    ResponseMemory,
)
from tests.gateway.conftest import Served
from wire.generation import Generation

CALL = 'Wait. <tool_call>{"name": "weather", "arguments": {"city": "Bonn"}}</tool_call>'
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def sent(served: Served) -> list[dict[str, Any]]:
    """The messages that the model was given last."""
    assert served.engine.asked is not None
    asked = Generation.from_bytes(served.engine.asked.input)
    found: list[dict[str, Any]] = json.loads(asked.messages)
    return found


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    lines = answer.text.splitlines()
    names = [it.removeprefix("event: ") for it in lines if it.startswith("event: ")]
    data = [json.loads(it.removeprefix("data: ")) for it in lines if it.startswith("data: ")]
    assert [it["type"] for it in data] == names
    return data


# Anthropic

ANTHROPIC: dict[str, Any] = {
    "model": "hash",
    "max_tokens": 200,
    "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": "and?"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Bonn"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "rain"},
                {"type": "text", "text": f"SAY:{CALL}"},
            ],
        },
    ],
    "tools": [{"name": "weather", "input_schema": SCHEMA}],
}


def test_a_message_is_answered_with_text_and_calls(http: httpx.Client, served: Served) -> None:
    told = http.post("/v1/messages", json=ANTHROPIC).json()
    assert told["type"] == "message"
    assert told["stop_reason"] == "tool_use"
    text, call = told["content"]
    assert text["text"].strip() == "Wait."
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "weather", {"city": "Bonn"})
    assert told["usage"]["output_tokens"] > 0
    assert [it["role"] for it in sent(served)] == ["system", "user", "assistant", "tool", "user"]
    assert sent(served)[2]["tool_calls"][0]["function"]["arguments"] == {"city": "Bonn"}


def test_a_message_is_streamed_as_events(http: httpx.Client) -> None:
    events = events_of(http.post("/v1/messages", json={**ANTHROPIC, "stream": True}))
    kinds = [it["type"] for it in events]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    starts = [it for it in events if it["type"] == "content_block_start"]
    assert [it["content_block"]["type"] for it in starts] == ["text", "tool_use"]
    assert [it["index"] for it in starts] == [0, 1]
    assert kinds.count("content_block_stop") == 2
    deltas = [it["delta"] for it in events if it["type"] == "content_block_delta"]
    assert "".join(it.get("text", "") for it in deltas).strip() == "Wait."
    assert json.loads("".join(it.get("partial_json", "") for it in deltas)) == {"city": "Bonn"}
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert events[-2]["usage"]["output_tokens"] > 0


def test_a_stop_sequence_and_a_limit_are_named(http: httpx.Client) -> None:
    body = {"model": "hash", "messages": [{"role": "user", "content": "SAY:one two three"}]}
    told = http.post("/v1/messages", json={**body, "max_tokens": 99, "stop_sequences": ["two"]})
    assert told.json()["content"] == [{"type": "text", "text": "one "}]
    assert (told.json()["stop_reason"], told.json()["stop_sequence"]) == ("stop_sequence", "two")
    cut = http.post("/v1/messages", json={**body, "max_tokens": 2}).json()
    assert (cut["stop_reason"], cut["stop_sequence"]) == ("max_tokens", None)


def test_tokens_of_messages_are_counted(http: httpx.Client, served: Served) -> None:
    body = {name: ANTHROPIC[name] for name in ("model", "messages")}
    begun = served.engine.begun
    told = http.post("/v1/messages/count_tokens", json=body)
    assert told.json() == {"input_tokens": len(json.dumps(sent(served)).split())}
    assert served.engine.begun == begun + 1
    assert served.engine.asked is not None
    assert served.engine.asked.parameters["tokens"] == 0


def test_a_message_begins_with_how_many_tokens_were_read(http: httpx.Client) -> None:
    body = {"model": "hash", "max_tokens": 3, "messages": [{"role": "user", "content": "a b c"}]}
    whole = http.post("/v1/messages", json=body).json()
    events = events_of(http.post("/v1/messages", json={**body, "stream": True}))
    told = events[0]["message"]["usage"]["input_tokens"]
    assert told == whole["usage"]["input_tokens"] > 0
    assert events[-2]["usage"]["input_tokens"] == told


@pytest.mark.parametrize("name", ["output_config", "output_format"])
def test_a_message_has_the_form_that_is_asked_for(
    http: httpx.Client, served: Served, name: str
) -> None:
    form = {"type": "json_schema", "schema": SCHEMA}
    more = {name: {"format": form} if name == "output_config" else form}
    body = {"model": "hash", "max_tokens": 9, "messages": [{"role": "user", "content": "SAY:{}"}]}
    assert http.post("/v1/messages", json={**body, **more}).status_code == 200
    assert served.engine.asked is not None
    assert json.loads(Generation.from_bytes(served.engine.asked.input).schema) == SCHEMA
    refused = http.post("/v1/messages", json={**body, "output_config": {"effort": "low"}})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "output_config.effort"


def test_a_turn_of_the_model_is_not_gone_on_with(http: httpx.Client) -> None:
    said = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "It is ("}]
    found = http.post("/v1/messages", json={"model": "hash", "max_tokens": 3, "messages": said})
    assert found.status_code == 400
    assert found.json()["error"]["param"] == "messages"


def test_models_are_listed_for_anthropics_clients_too(http: httpx.Client) -> None:
    told = http.get("/v1/models").json()
    row = next(it for it in told["data"] if it["id"] == "hash")
    assert (row["type"], row["display_name"]) == ("model", "hash")
    assert row["created_at"].startswith("20")
    assert told["has_more"] is False


def test_errors_are_told_as_anthropic_does(http: httpx.Client) -> None:
    found = http.post("/v1/messages", json={**ANTHROPIC, "thinking": {"type": "enabled"}})
    assert found.status_code == 400
    assert found.json()["type"] == "error"
    assert found.json()["error"]["type"] == "invalid_request_error"
    assert "thinking" in found.json()["error"]["message"]


# Responses

TOOL = {"type": "function", "name": "weather", "parameters": SCHEMA}


def test_a_response_goes_on_from_the_one_before(client: openai.OpenAI, served: Served) -> None:
    first = client.responses.create(model="hash", input="SAY:hello", instructions="be brief")
    assert first.output_text == "hello"
    assert first.status == "completed"
    assert first.usage is not None
    second = client.responses.create(
        model="hash", input="SAY:again", previous_response_id=first.id, instructions="be long"
    )
    assert second.output_text == "again"
    told = [(it["role"], it["content"]) for it in sent(served)]
    assert told == [
        ("system", "be long"),
        ("user", "SAY:hello"),
        ("assistant", "hello"),
        ("user", "SAY:again"),
    ]
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model="hash", input="x", previous_response_id="resp_none")
    assert caught.value.code == "previous_response_not_found"


def test_a_response_calls_a_tool_and_hears_what_came_of_it(
    client: openai.OpenAI, served: Served
) -> None:
    first = client.responses.create(model="hash", input=f"SAY:{CALL}", tools=[TOOL])  # type: ignore[list-item]
    message, call = first.output
    assert message.type == "message"
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "Bonn"}
    client.responses.create(
        model="hash",
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}],
        tools=[TOOL],  # type: ignore[list-item]
        max_output_tokens=2,
    )
    assert [it["role"] for it in sent(served)] == ["user", "assistant", "tool"]
    assert sent(served)[1]["tool_calls"][0]["id"] == call.call_id


def test_a_response_is_streamed_as_events(client: openai.OpenAI) -> None:
    stream = client.responses.create(model="hash", input=f"SAY:{CALL}", tools=[TOOL], stream=True)  # type: ignore[list-item]
    events = list(stream)
    assert [it.sequence_number for it in events] == list(range(len(events)))
    kinds = [it.type for it in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert (
        kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 2
    )
    text = "".join(it.delta for it in events if it.type == "response.output_text.delta")
    assert text.strip() == "Wait."
    last = events[-1]
    assert last.type == "response.completed"
    assert [it.type for it in last.response.output] == ["message", "function_call"]
    again = client.responses.create(
        model="hash", input="SAY:ok", previous_response_id=last.response.id
    )
    assert again.output_text == "ok"


def test_a_response_has_the_form_that_is_asked_for(client: openai.OpenAI, served: Served) -> None:
    form = {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}}
    client.responses.create(model="hash", input="SAY:{}", text=form)  # type: ignore[arg-type]
    assert served.engine.asked is not None
    assert json.loads(Generation.from_bytes(served.engine.asked.input).schema) == SCHEMA
    cut = client.responses.create(model="hash", input="SAY:a long answer", max_output_tokens=2)
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"


def test_a_response_is_kept_until_it_is_deleted(client: openai.OpenAI, served: Served) -> None:
    made = client.responses.create(
        model="hash", input="SAY:hello", metadata={"a": "b"}, instructions="be brief"
    )
    found = client.responses.retrieve(made.id)
    assert found.output_text == "hello"
    assert found.metadata == {"a": "b"}
    items = client.responses.input_items.list(made.id).data
    assert [it.content[0].text for it in items] == ["SAY:hello"]  # type: ignore[union-attr]
    counted = client.responses.input_tokens.count(model="hash", input="one two")
    # The hash engine counts words of the messages' JSON.
    assert counted.input_tokens == 5
    after = client.responses.create(model="hash", input="SAY:on", previous_response_id=made.id)
    client.responses.delete(made.id)
    for gone in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            gone(made.id)
    # What went on from it has its own copy.
    client.responses.create(model="hash", input="SAY:on", previous_response_id=after.id)
    assert sent(served)[0]["content"] == "SAY:hello"
    once = client.responses.create(model="hash", input="SAY:hello", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(once.id)


def test_a_kept_response_is_not_streamed_again(http: httpx.Client) -> None:
    made = http.post("/v1/responses", json={"model": "hash", "input": "SAY:x", "stream": True})
    last = json.loads(made.text.rpartition("data: ")[2])
    assert http.get(f"/v1/responses/{last['response']['id']}").json() == last["response"]
    found = http.get(f"/v1/responses/{last['response']['id']}?stream=true")
    assert found.status_code == 400
    assert found.json()["error"]["param"] == "stream"


@pytest.mark.parametrize(
    ("path", "more", "param"),
    [
        ("responses", {"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type"),
        (
            "responses",
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input.0.content.0.type",
        ),
        ("responses", {"input": "x", "tools": [{"type": "web_search"}]}, "tools.0.type"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content.0.type",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "x"}], "top_logprobs": 3},
            "top_logprobs",
        ),
        (
            "messages",
            {"max_tokens": 3, "messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "messages.0.content.0",
        ),
    ],
    ids=str,
)
def test_a_kind_of_thing_that_is_not_done_is_named(
    http: httpx.Client, path: str, more: dict[str, Any], param: str
) -> None:
    found = http.post(f"/v1/{path}", json={"model": "hash", **more})
    assert found.status_code == 400
    error = found.json()["error"]
    assert error["param"] == param
    assert "has to be text" not in error["message"]


def test_several_calls_are_streamed_one_at_a_time(client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
    call = CALL.removeprefix("Wait. ")
    chunks = client.chat.completions.create(
        model="hash",
        messages=[{"role": "user", "content": f"SAY:{call}{call}"}],
        tools=[tool],
        stream=True,
    )
    told = [it.choices[0].delta.tool_calls for it in chunks if it.choices]
    assert [[call.index for call in it] for it in told if it] == [[0], [1]]


def test_conversations_are_kept_within_bounds_and_by_owner() -> None:
    memory = ResponseMemory()
    said = [{"role": "user", "content": "x"}]
    memory.keep("me", "r", said)
    assert memory.find("me", "r") == said
    assert memory.find("other", "r") is None
    memory.keep("me", "large", [{"content": "x" * CONVERSATION_BYTES_MAX}])
    assert memory.find("me", "large") is None
    for number in range(PER_OWNER_MAX):
        memory.keep("me", str(number), said)
    assert memory.find("me", "r") is None
    for number in range(OWNERS_MAX):
        memory.keep(f"owner {number}", "r", said)
    assert memory.find("me", "0") is None


# Ollama

OLLAMA: dict[str, Any] = {
    "model": "hash:latest",
    "messages": [{"role": "user", "content": f"SAY:{CALL}"}],
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
    "options": {"temperature": 0, "num_ctx": 2048, "num_predict": -1},
    "keep_alive": "5m",
}


def lines_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == JSON_LINES
    return [json.loads(it) for it in answer.text.splitlines()]


def test_ollama_streams_lines_unless_it_is_told_not_to(http: httpx.Client) -> None:
    lines = lines_of(http.post("/api/chat", json=OLLAMA))
    assert [it["done"] for it in lines] == [*[False] * (len(lines) - 1), True]
    assert "".join(it["message"]["content"] for it in lines).strip() == "Wait."
    calls = [it for line in lines for it in line["message"].get("tool_calls", [])]
    assert calls == [{"function": {"name": "weather", "arguments": {"city": "Bonn"}}}]
    assert lines[-1]["eval_count"] > 0
    whole = http.post("/api/chat", json={**OLLAMA, "stream": False}).json()
    assert whole["message"]["tool_calls"] == calls
    assert (whole["done"], whole["done_reason"]) == (True, "stop")


def test_ollama_completes_a_prompt_by_the_template_or_raw(
    http: httpx.Client, served: Served
) -> None:
    body = {"model": "hash", "prompt": "SAY:hello", "system": "be brief"}
    lines = lines_of(http.post("/api/generate", json=body))
    assert "".join(it["response"] for it in lines) == "hello"
    assert [it["role"] for it in sent(served)] == ["system", "user"]
    raw = {"model": "hash", "prompt": "SAY:hello", "raw": True, "stream": False}
    told = http.post("/api/generate", json={**raw, "options": {"num_predict": 2}}).json()
    assert (told["response"], told["done_reason"]) == ("hell", "length")


def test_ollama_lists_shows_and_embeds(http: httpx.Client) -> None:
    assert "hash" in [it["name"] for it in http.get("/api/tags").json()["models"]]
    shown = http.post("/api/show", json={"model": "hash"}).json()
    assert "completion" in shown["capabilities"]
    assert http.post("/api/show", json={"name": "hash"}).json() == shown
    assert http.post("/api/show", json={}).status_code == 400
    told = http.post("/api/embed", json={"model": "hash", "input": ["one two", "three"]}).json()
    assert len(told["embeddings"]) == 2
    assert told["prompt_eval_count"] == 3
    refused = http.post("/api/chat", json={**OLLAMA, "options": {"mirostat": 2}})
    assert refused.status_code == 400
    assert "mirostat" in refused.json()["error"]
    assert http.post("/api/show", json={"model": "nothing"}).status_code == 404


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain"])
def test_ollamas_clients_need_not_say_that_they_send_json(
    http: httpx.Client, served: Served, kind: str | None
) -> None:
    body = json.dumps({"model": "hash", "prompt": "SAY:hello", "stream": False})
    headers = {} if kind is None else {"content-type": kind}
    told = http.post("/api/generate", content=body, headers=headers)
    assert told.json()["response"] == "hello"
    # A page in a browser says where it is, and has to ask before it sends JSON.
    begun = served.engine.begun
    for name, value in (
        ("origin", "null"),
        ("sec-fetch-site", "same-origin"),
        ("sec-fetch-mode", "no-cors"),
        ("referer", "http://localhost:1/"),
    ):
        refused = http.post("/api/generate", content=body, headers={**headers, name: value})
        assert refused.status_code in (400, 403)
    assert served.engine.begun == begun
    deep = http.post("/api/generate", content="[" * 1000, headers=headers)
    assert deep.status_code == 400


def test_ollama_tells_what_runs_and_embeds_as_it_did_before(http: httpx.Client) -> None:
    rows = http.get("/api/ps").json()["models"]
    assert "hash" in [it["name"] for it in rows]
    assert all(it["expires_at"].endswith("Z") for it in rows)
    assert http.get("/api/version").json()["version"]
    one = http.post("/api/embeddings", json={"model": "hash", "prompt": "one two"}).json()
    many = http.post("/api/embed", json={"model": "hash", "input": ["one two"]}).json()
    assert one["embedding"] == many["embeddings"][0]


# Of texts and tokens


def test_documents_are_ranked_by_how_near_they_are(http: httpx.Client) -> None:
    body = {
        "model": "hash",
        "query": "a",
        "documents": [{"text": "b"}, {"text": "a"}],
        "top_n": 1,
    }
    told = http.post("/v1/rerank", json=body).json()
    assert [it["index"] for it in told["results"]] == [1]
    assert told["results"][0]["relevance_score"] == pytest.approx(1.0)
    assert told["results"][0]["document"] == {"text": "a"}
    for path in ("/v2/rerank", "/rerank"):
        assert http.post(path, json=body).json()["results"] == told["results"]
    score = http.post("/v1/score", json={"model": "hash", "text_1": "a", "text_2": ["a", "b"]})
    first, second = [it["score"] for it in score.json()["data"]]
    assert first == pytest.approx(1.0)
    assert second < 0.9


def test_a_prompt_is_told_as_tokens_and_tokens_as_text(http: httpx.Client) -> None:
    told = http.post("/tokenize", json={"model": "hash", "prompt": "one two three"}).json()
    assert told["count"] == len(told["tokens"]) == 3
    back = http.post("/detokenize", json={"model": "hash", "tokens": [1, 22]}).json()
    assert back == {"prompt": "122"}
    both = {"model": "hash", "prompt": "x", "messages": [{"role": "user", "content": "x"}]}
    assert http.post("/tokenize", json=both).status_code == 400


def test_usage_of_embeddings_is_true_and_tokens_are_inputs(client: openai.OpenAI) -> None:
    found = client.embeddings.create(model="hash", input=["one two", "three"])
    assert found.usage.prompt_tokens == found.usage.total_tokens == 3
    assert len(client.embeddings.create(model="hash", input=[[1, 2], [3]]).data) == 2


# Health


@pytest.mark.parametrize("path", ["/health", "/healthz", "/livez", "/ready", "/readyz", "/version"])
def test_health_is_told_by_get_and_head(http: httpx.Client, path: str) -> None:
    found, head = http.get(path), http.head(path)
    assert found.status_code == head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == str(len(found.content))


def test_a_request_has_an_id(http: httpx.Client) -> None:
    made = http.get("/v1/models").headers["x-request-id"]
    assert made.startswith("req_")
    assert made != http.get("/v1/models").headers["x-request-id"]
    mine = http.get("/v1/models", headers={"x-request-id": "mine-7"})
    assert mine.headers["x-request-id"] == "mine-7"
    bad = http.get("/v1/models", headers={"x-request-id": "x" * 200})
    assert bad.headers["x-request-id"].startswith("req_")


def test_two_slashes_are_one_and_what_is_not_there_is_told(
    http: httpx.Client, served: Served
) -> None:
    assert httpx.get(f"{served.url}//v1/models", timeout=60).status_code == 200
    found = http.get("/v1/chat")
    assert found.status_code == 404
    assert "/v1/chat/completions" in found.json()["error"]["message"]
    assert "GET" in http.post("/v1/models", json={}).json()["error"]["message"]


@pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}], ids=str)
def test_a_body_that_does_not_say_it_is_json_is_explained(
    http: httpx.Client, served: Served, headers: dict[str, str]
) -> None:
    # A page of some site may send such a body without being asked: it must not become a task.
    body = json.dumps({"model": "hash", "messages": [{"role": "user", "content": "SAY:hi"}]})
    begun = served.engine.begun
    found = http.post("/v1/chat/completions", content=body, headers=headers)
    assert found.status_code == 400
    assert "application/json" in found.json()["error"]["message"]
    assert served.engine.begun == begun


def test_times_and_fingerprints_are_true(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "SAY:one two three"}]
    chunks = list(client.chat.completions.create(model="hash", messages=messages, stream=True))
    assert len({it.created for it in chunks}) == 1
    assert {it.system_fingerprint for it in chunks} == {chunks[0].system_fingerprint}
    assert (chunks[0].system_fingerprint or "").endswith("-exact")
    assert client.models.retrieve("hash").created > 1_600_000_000
