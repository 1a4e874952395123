"""Ollama's client for Python."""

import json

import ollama
from cells import EMBEDDER, MODEL, PERSON, URL, WEATHER, cell, raises, tell

client = ollama.Client(host=URL, timeout=300)
FEW = {"temperature": 0, "num_predict": 12}
HELLO = [{"role": "user", "content": "Say hello."}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]


@cell("models")
def _() -> None:
    assert {MODEL, EMBEDDER} <= {it.model for it in client.list().models}
    assert "completion" in client.show(MODEL).capabilities
    client.ps()


@cell("chat")
def _() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Name a colour."},
        {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": "Another one."},
    ]
    told = client.chat(MODEL, messages, options=FEW)
    assert told.message.content
    assert told.done_reason in ("stop", "length")
    assert client.generate(MODEL, "Say hello.", system="Be brief.", options=FEW).response
    assert client.generate(MODEL, "One two", raw=True, options=FEW).response


@cell("stream")
def _() -> None:
    whole = client.chat(MODEL, HELLO, options=FEW).message.content
    parts = list(client.chat(MODEL, HELLO, options=FEW, stream=True))
    assert "".join(it.message.content for it in parts) == whole
    assert [it.done for it in parts][-1] is True
    lines = client.generate(MODEL, "Say hello.", options=FEW, stream=True)
    assert "".join(it.response for it in lines) == whole


@cell("usage")
def _() -> None:
    whole = client.chat(MODEL, HELLO, options=FEW)
    *_, last = client.chat(MODEL, HELLO, options=FEW, stream=True)
    assert last.prompt_eval_count == whole.prompt_eval_count > 0
    assert last.eval_count == whole.eval_count > 0


def weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: the city's name
    """
    return f"rain in {city}"


# Nothing in this interface forces a call, but an answer of this form is one.
CALL = {
    "type": "object",
    "properties": {"name": {"const": "weather"}, "arguments": WEATHER},
    "required": ["name", "arguments"],
}
ASKED = [{"role": "user", "content": "What is the weather in Bonn?"}]


@cell("tools")
def _() -> None:
    options = FEW | {"num_predict": 40}
    told = client.chat(MODEL, ASKED, tools=[weather], format=CALL, options=options).message
    (call,) = told.tool_calls
    assert call.function.name == "weather"
    assert call.function.arguments["city"] in ("Bonn", "Köln")
    result = {"role": "tool", "tool_name": "weather", "content": "rain"}
    after = client.chat(MODEL, [*ASKED, told, result], tools=[weather], options=options)
    assert after.message.content or after.message.tool_calls


@cell("tools streamed")
def _() -> None:
    options = FEW | {"num_predict": 40}
    parts = list(client.chat(MODEL, ASKED, tools=TOOLS, format=CALL, options=options, stream=True))
    (call,) = [call for it in parts for call in it.message.tool_calls or ()]
    assert call.function.arguments["city"]
    assert parts[-1].done


@cell("structured")
def _() -> None:
    options = FEW | {"num_predict": 60}
    told = client.chat(MODEL, HELLO, format=PERSON, options=options)
    assert set(json.loads(told.message.content)) == {"name", "age"}
    told = client.generate(MODEL, "Somebody?", format=PERSON, options=options)
    assert set(json.loads(told.response)) == {"name", "age"}


@cell("structured streamed")
def _() -> None:
    options = FEW | {"num_predict": 60}
    parts = client.chat(MODEL, HELLO, format=PERSON, options=options, stream=True)
    assert set(json.loads("".join(it.message.content for it in parts))) == {"name", "age"}


@cell("logprobs", refused="logprobs")
def _() -> None:
    client.chat(MODEL, HELLO, options=FEW, logprobs=True)


@cell("embeddings")
def _() -> None:
    two = client.embed(EMBEDDER, ["a cat", "a dog"])
    assert [len(it) for it in two.embeddings] == [384, 384]
    one = client.embeddings(EMBEDDER, "a cat")
    assert len(one.embedding) == 384


@cell("errors")
def _() -> None:
    missing = raises(ollama.ResponseError, lambda: client.chat("none-such", HELLO))
    assert missing.status_code == 404
    wrong = raises(ollama.ResponseError, lambda: client.chat(MODEL, HELLO, options={"mirostat": 2}))
    assert wrong.status_code == 400
    assert "mirostat" in str(wrong)


tell("ollama")
