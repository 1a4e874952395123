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
    told = http.post("/api/embed", json={"model": "hash", "input": ["one two", "three"]}).json()
    assert len(told["embeddings"]) == 2
    assert told["prompt_eval_count"] == 3
    refused = http.post("/api/chat", json={**OLLAMA, "options": {"mirostat": 2}})
    assert refused.status_code == 400
    assert "mirostat" in refused.json()["error"]
    assert http.post("/api/show", json={"model": "nothing"}).status_code == 404


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
    assert httpx.get(f"{served.url}//v1/models").status_code == 200
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
