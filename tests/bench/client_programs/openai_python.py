"""OpenAI's client for Python: chats, completions, responses, vectors."""

import json
from typing import Literal

import openai
from cells import EMBEDDER, MODEL, PERSON, URL, WEATHER, cell, raises, tell
from pydantic import BaseModel, Field

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0, timeout=300)
ASKED = {"model": MODEL, "temperature": 0, "max_tokens": 12}
HELLO = [{"role": "user", "content": "Say hello."}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
FORM = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int
    mood: Literal["good", "bad"] | None


@cell("models")
def _() -> None:
    assert {MODEL, EMBEDDER} <= {it.id for it in client.models.list()}
    assert client.models.retrieve(MODEL).id == MODEL


@cell("chat")
def _() -> None:
    told = client.chat.completions.create(
        **ASKED,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Name a colour."}]},
            {"role": "assistant", "content": "Blue."},
            {"role": "user", "content": "Another one."},
        ],
    )
    assert told.choices[0].message.content
    assert told.choices[0].finish_reason in ("stop", "length")
    assert told.usage.total_tokens == told.usage.prompt_tokens + told.usage.completion_tokens


@cell("stream")
def _() -> None:
    whole = client.chat.completions.create(**ASKED, messages=HELLO)
    chunks = list(client.chat.completions.create(**ASKED, messages=HELLO, stream=True))
    text = "".join(it.choices[0].delta.content or "" for it in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


@cell("usage")
def _() -> None:
    whole = client.chat.completions.create(**ASKED, messages=HELLO)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(**ASKED, messages=HELLO, **options))
    assert chunks[-1].usage == whole.usage
    assert chunks[-1].choices == []
    assert whole.usage.prompt_tokens > 0


@cell("tools")
def _() -> None:
    asked = [{"role": "user", "content": "What is the weather in Bonn?"}]
    told = client.chat.completions.create(
        **ASKED | {"max_tokens": 40}, messages=asked, tools=TOOLS, tool_choice="required"
    )
    said = told.choices[0].message
    assert told.choices[0].finish_reason == "tool_calls"
    assert json.loads(said.tool_calls[0].function.arguments)["city"] in ("Bonn", "Köln")
    result = {"role": "tool", "tool_call_id": said.tool_calls[0].id, "content": "rain"}
    after = client.chat.completions.create(**ASKED, messages=[*asked, said, result], tools=TOOLS)
    assert after.choices[0].message.content or after.choices[0].message.tool_calls
    assert after.usage.prompt_tokens > told.usage.prompt_tokens


@cell("tools streamed")
def _() -> None:
    chosen = {"type": "function", "function": {"name": "weather"}}
    options = {"tools": TOOLS, "tool_choice": chosen, "max_tokens": 40}
    with client.chat.completions.stream(**ASKED | options, messages=HELLO) as stream:
        kinds = {it.type for it in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    assert final.choices[0].finish_reason == "tool_calls"
    assert json.loads(final.choices[0].message.tool_calls[0].function.arguments)["city"]


@cell("structured")
def _() -> None:
    options = ASKED | {"max_tokens": 60}
    told = client.chat.completions.create(**options, messages=HELLO, response_format=FORM)
    found = json.loads(told.choices[0].message.content)
    assert set(found) == {"name", "age"}
    parsed = client.chat.completions.parse(**options, messages=HELLO, response_format=Person)
    assert isinstance(parsed.choices[0].message.parsed, Person)
    loose = {"type": "json_object"}
    told = client.chat.completions.create(
        **ASKED | {"max_tokens": 200}, messages=HELLO, response_format=loose
    )
    if told.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(told.choices[0].message.content), dict)


@cell("structured streamed")
def _() -> None:
    options = ASKED | {"max_tokens": 60}
    with client.chat.completions.stream(
        **options, messages=HELLO, response_format=Person
    ) as stream:
        assert "content.done" in {it.type for it in stream}
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Person)


@cell("logprobs")
def _() -> None:
    told = client.chat.completions.create(
        **ASKED, messages=HELLO, logprobs=True, top_logprobs=3
    ).choices[0]
    assert "".join(it.token for it in told.logprobs.content) == told.message.content
    assert all(len(it.top_logprobs) == 3 for it in told.logprobs.content)
    assert all(it.logprob <= 0 for it in told.logprobs.content)
    lines = client.completions.create(**ASKED, prompt="One two", logprobs=2, echo=True)
    found = lines.choices[0].logprobs
    assert found.token_logprobs[0] is None
    assert "".join(found.tokens) == lines.choices[0].text


@cell("embeddings")
def _() -> None:
    one = client.embeddings.create(model=EMBEDDER, input=["a cat", "a dog"])
    two = client.embeddings.create(model=EMBEDDER, input="a cat", encoding_format="float")
    assert one.data[0].embedding == two.data[0].embedding
    assert len(one.data[1].embedding) == 384
    assert one.usage.prompt_tokens > two.usage.prompt_tokens > 0


@cell("responses")
def _() -> None:
    asked = {"model": MODEL, "temperature": 0, "max_output_tokens": 40}
    first = client.responses.create(**asked, input="Say hello.", instructions="Be brief.")
    assert first.output_text
    assert client.responses.retrieve(first.id).output_text == first.output_text
    events = list(
        client.responses.create(
            **asked, input="And again.", previous_response_id=first.id, stream=True
        )
    )
    assert events[-1].type in ("response.completed", "response.incomplete")
    parsed = client.responses.parse(
        **asked | {"max_output_tokens": 80}, input="Somebody?", text_format=Person
    )
    assert isinstance(parsed.output_parsed, Person)
    tool = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}
    called = client.responses.create(
        **asked, input="Weather in Bonn?", tools=[tool], tool_choice="required"
    )
    (call,) = called.output
    assert call.type == "function_call"
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    assert client.responses.create(
        **asked, input=[result], previous_response_id=called.id, tools=[tool]
    ).output
    client.responses.delete(first.id)
    raises(openai.NotFoundError, lambda: client.responses.retrieve(first.id))


@cell("errors")
def _() -> None:
    missing = raises(
        openai.NotFoundError,
        lambda: client.chat.completions.create(model="none-such", messages=HELLO),
    )
    assert missing.code == "model_not_found"
    wrong = raises(
        openai.BadRequestError,
        lambda: client.chat.completions.create(
            **ASKED, messages=HELLO, extra_body={"temperture": 1}
        ),
    )
    assert wrong.param == "temperture"
    long = raises(
        openai.BadRequestError,
        lambda: client.chat.completions.create(
            **ASKED, messages=[{"role": "user", "content": "word " * 9000}]
        ),
    )
    assert long.code == "context_length_exceeded"


tell("openai")
