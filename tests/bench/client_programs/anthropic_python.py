"""Anthropic's client for Python: messages, their streams, and how many tokens they are."""

import json

import anthropic
from cells import MODEL, PERSON, URL, WEATHER, cell, raises, tell

client = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0, timeout=300)
# The client has no argument for it any more.
COLD = {"temperature": 0}
ASKED = {"model": MODEL, "max_tokens": 12, "extra_body": COLD}
HELLO = [{"role": "user", "content": "Say hello."}]
TOOLS = [{"name": "weather", "description": "the weather", "input_schema": WEATHER}]


@cell("models")
def _() -> None:
    assert MODEL in {it.id for it in client.models.list()}
    assert client.models.retrieve(MODEL).id == MODEL


@cell("chat")
def _() -> None:
    told = client.messages.create(
        **ASKED,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "Name a colour."}]},
            {"role": "assistant", "content": "Blue."},
            {"role": "user", "content": "Another one."},
        ],
    )
    assert told.content[0].text
    assert told.stop_reason in ("end_turn", "max_tokens")
    letters = list("etao")
    stopped = client.messages.create(**ASKED, messages=HELLO, stop_sequences=letters)
    assert stopped.stop_reason == "stop_sequence"
    assert stopped.stop_sequence in letters


@cell("stream")
def _() -> None:
    whole = client.messages.create(**ASKED, messages=HELLO)
    with client.messages.stream(**ASKED, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.stop_reason == whole.stop_reason


@cell("usage")
def _() -> None:
    whole = client.messages.create(**ASKED, messages=HELLO)
    counted = client.messages.count_tokens(model=MODEL, messages=HELLO)
    assert counted.input_tokens == whole.usage.input_tokens > 0
    events = list(client.messages.create(**ASKED, messages=HELLO, stream=True))
    assert events[0].type == "message_start"
    assert events[0].message.usage.input_tokens == whole.usage.input_tokens
    assert events[-2].usage.output_tokens == whole.usage.output_tokens


@cell("tools")
def _() -> None:
    options = ASKED | {"max_tokens": 40}
    asked = [{"role": "user", "content": "What is the weather in Bonn?"}]
    told = client.messages.create(
        **options, messages=asked, tools=TOOLS, tool_choice={"type": "any"}
    )
    assert told.stop_reason == "tool_use"
    call = told.content[-1]
    assert call.input["city"] in ("Bonn", "Köln")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    said = {"role": "assistant", "content": told.content}
    messages = [*asked, said, {"role": "user", "content": [result]}]
    assert client.messages.create(**options, messages=messages, tools=TOOLS).content


@cell("tools streamed")
def _() -> None:
    with client.messages.stream(
        **ASKED | {"max_tokens": 40},
        messages=HELLO,
        tools=TOOLS,
        tool_choice={"type": "tool", "name": "weather"},
    ) as stream:
        kinds = {it.type for it in stream}
        final = stream.get_final_message()
    assert "input_json" in kinds
    assert final.stop_reason == "tool_use"
    assert final.content[-1].input["city"]


@cell("structured")
def _() -> None:
    form = {"format": {"type": "json_schema", "schema": PERSON}}
    told = client.messages.create(**ASKED | {"max_tokens": 60}, messages=HELLO, output_config=form)
    assert set(json.loads(told.content[0].text)) == {"name", "age"}


@cell("structured streamed")
def _() -> None:
    form = {"format": {"type": "json_schema", "schema": PERSON}}
    with client.messages.stream(
        **ASKED | {"max_tokens": 60}, messages=HELLO, output_config=form
    ) as stream:
        text = "".join(stream.text_stream)
    assert set(json.loads(text)) == {"name", "age"}


@cell("errors")
def _() -> None:
    raises(
        anthropic.NotFoundError,
        lambda: client.messages.create(model="none-such", max_tokens=5, messages=HELLO),
    )
    wrong = raises(
        anthropic.BadRequestError,
        lambda: client.messages.create(
            **ASKED, messages=HELLO, thinking={"type": "enabled", "budget_tokens": 1024}
        ),
    )
    assert "thinking" in str(wrong)


tell("anthropic")
