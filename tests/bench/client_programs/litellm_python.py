"""LiteLLM: as a client of OpenAI's, of Anthropic's and of Ollama's interface."""

import json

import litellm
from cells import EMBEDDER, MODEL, PERSON, URL, WEATHER, cell, raises, tell
from pydantic import BaseModel, Field

litellm.suppress_debug_info = True
WHERE = {"api_base": f"{URL}/v1", "api_key": "none", "num_retries": 0, "timeout": 300}
HELLO = [{"role": "user", "content": "Say hello."}]
FEW = {"temperature": 0, "max_tokens": 12, "messages": HELLO}
ASKED = {"model": f"openai/{MODEL}", **FEW, **WHERE}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int


@cell("chat")
def _() -> None:
    assert litellm.completion(**ASKED).choices[0].message.content
    assert (
        litellm.text_completion(
            model=f"text-completion-openai/{MODEL}",
            prompt="One two",
            max_tokens=4,
            **WHERE,
        )
        .choices[0]
        .text
    )


@cell("stream")
def _() -> None:
    whole = litellm.completion(**ASKED).choices[0].message.content
    parts = litellm.completion(**ASKED, stream=True)
    assert "".join(it.choices[0].delta.content or "" for it in parts) == whole


@cell("usage")
def _() -> None:
    whole = litellm.completion(**ASKED).usage.total_tokens
    *_, last = litellm.completion(**ASKED, stream=True, stream_options={"include_usage": True})
    assert last.usage.total_tokens == whole


@cell("tools")
def _() -> None:
    options = ASKED | {"max_tokens": 40, "tools": TOOLS}
    told = litellm.completion(**options, tool_choice="required").choices[0].message
    (call,) = told.tool_calls
    assert json.loads(call.function.arguments)["city"]
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    after = litellm.completion(**options | {"messages": [*HELLO, told, result]})
    assert after.choices[0].message


@cell("tools streamed")
def _() -> None:
    options = ASKED | {"max_tokens": 40, "tools": TOOLS, "tool_choice": "required"}
    parts = list(litellm.completion(**options, stream=True))
    whole = litellm.stream_chunk_builder(parts)
    assert json.loads(whole.choices[0].message.tool_calls[0].function.arguments)["city"]


@cell("structured")
def _() -> None:
    options = ASKED | {"max_tokens": 60}
    told = litellm.completion(**options, response_format=Person).choices[0].message.content
    Person.model_validate_json(told)


@cell("structured streamed")
def _() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}
    parts = litellm.completion(**ASKED | {"max_tokens": 60}, response_format=form, stream=True)
    Person.model_validate_json("".join(it.choices[0].delta.content or "" for it in parts))


@cell("logprobs")
def _() -> None:
    told = litellm.completion(**ASKED, logprobs=True, top_logprobs=2).choices[0]
    assert len(told.logprobs.content[0].top_logprobs) == 2


@cell("embeddings")
def _() -> None:
    found = litellm.embedding(model=f"openai/{EMBEDDER}", input=["a cat", "a dog"], **WHERE)
    assert len(found.data[1]["embedding"]) == 384


@cell("responses")
def _() -> None:
    told = litellm.responses(
        model=f"openai/{MODEL}", input="Say hello.", max_output_tokens=12, **WHERE
    )
    assert told.output


@cell("messages")
def _() -> None:
    said = {**FEW, "api_base": URL, "api_key": "none", "timeout": 300}
    told = litellm.completion(model=f"anthropic/{MODEL}", **said)
    assert told.choices[0].message.content
    parts = litellm.completion(model=f"anthropic/{MODEL}", **said, stream=True)
    text = "".join(it.choices[0].delta.content or "" for it in parts)
    assert text == told.choices[0].message.content


@cell("ollama")
def _() -> None:
    said = {**FEW, "api_base": URL, "timeout": 300}
    told = litellm.completion(model=f"ollama_chat/{MODEL}", **said)
    parts = litellm.completion(model=f"ollama_chat/{MODEL}", **said, stream=True)
    text = "".join(it.choices[0].delta.content or "" for it in parts)
    assert text == told.choices[0].message.content
    assert litellm.completion(model=f"ollama/{MODEL}", **said).choices[0].message.content


@cell("errors")
def _() -> None:
    raises(
        litellm.NotFoundError,
        lambda: litellm.completion(**ASKED | {"model": "openai/none-such"}),
    )
    error = raises(
        litellm.BadRequestError,
        lambda: litellm.completion(**ASKED, extra_body={"temperture": 1}),
    )
    assert "temperture" in str(error)


tell("litellm", "openai")
