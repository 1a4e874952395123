"""LangChain over its package for OpenAI."""

from typing import Literal

import openai
from cells import EMBEDDER, MODEL, URL, cell, raises, tell
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

WHERE = {"base_url": f"{URL}/v1", "api_key": "none", "max_retries": 0, "timeout": 300}


def chat(tokens: int = 12, **more: object) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, temperature=0, max_tokens=tokens, **WHERE, **more)


class Person(BaseModel):
    """Somebody."""

    name: str = Field(max_length=12)
    age: int


@tool
def weather(city: Literal["Bonn", "Köln"]) -> str:
    """The weather of a city."""
    return f"rain in {city}"


@cell("chat")
def _() -> None:
    said = [SystemMessage("Be brief."), HumanMessage("Name a colour."), AIMessage("Blue.")]
    told = chat().invoke([*said, HumanMessage("Another one.")])
    assert told.content
    assert told.response_metadata["finish_reason"] in ("stop", "length")


@cell("stream")
def _() -> None:
    whole = chat().invoke("Say hello.").content
    assert "".join(it.content for it in chat().stream("Say hello.")) == whole


@cell("usage")
def _() -> None:
    whole = chat().invoke("Say hello.").usage_metadata
    parts = list(chat(stream_usage=True).stream("Say hello."))
    counted = [it.usage_metadata for it in parts if it.usage_metadata]
    assert [it["total_tokens"] for it in counted] == [whole["total_tokens"]]


@cell("tools")
def _() -> None:
    called = chat(40).bind_tools([weather], tool_choice="any").invoke("Weather in Bonn?")
    (call,) = called.tool_calls
    result = ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
    said = [HumanMessage("Weather in Bonn?"), called, result]
    told = chat().bind_tools([weather]).invoke(said)
    assert told.content or told.tool_calls


@cell("tools streamed")
def _() -> None:
    bound = chat(40).bind_tools([weather], tool_choice="weather")
    first, *rest = bound.stream("Weather in Bonn?")
    for part in rest:
        first += part
    (call,) = first.tool_calls
    assert call["args"]["city"] in ("Bonn", "Köln")


@cell("structured")
def _() -> None:
    for method in ("json_schema", "function_calling"):
        found = chat(60).with_structured_output(Person, method=method).invoke("Somebody?")
        assert isinstance(found, Person)
    strict = chat(60).with_structured_output(Person, method="json_schema", strict=True)
    assert isinstance(strict.invoke("Somebody?"), Person)


@cell("structured streamed")
def _() -> None:
    *_, last = chat(60).with_structured_output(Person).stream("Somebody?")
    assert isinstance(last, Person)


@cell("logprobs")
def _() -> None:
    told = chat(logprobs=True, top_logprobs=2).invoke("Say hello.")
    rows = told.response_metadata["logprobs"]["content"]
    assert "".join(it["token"] for it in rows) == told.content


@cell("embeddings")
def _() -> None:
    # Its default is to cut texts with OpenAI's own tokenizer, which no other model has.
    model = OpenAIEmbeddings(model=EMBEDDER, check_embedding_ctx_length=False, **WHERE)
    assert [len(it) for it in model.embed_documents(["a cat", "a dog"])] == [384, 384]
    assert len(model.embed_query("a cat")) == 384


@cell("responses")
def _() -> None:
    model = chat(60, use_responses_api=True)
    whole = model.invoke("Say hello.")
    assert whole.text
    text = "".join(it.text for it in model.stream("Say hello."))
    assert text == whole.text
    assert isinstance(model.with_structured_output(Person).invoke("Somebody?"), Person)
    called = model.bind_tools([weather], tool_choice="any").invoke("Weather in Bonn?")
    result = ToolMessage("rain", tool_call_id=called.tool_calls[0]["id"])
    said = [HumanMessage("Weather in Bonn?"), called, result]
    assert model.bind_tools([weather]).invoke(said).content


@cell("errors")
def _() -> None:
    missing = ChatOpenAI(model="none-such", **WHERE)
    raises(openai.NotFoundError, lambda: missing.invoke("x"))
    wrong = chat(extra_body={"temperture": 1})
    error = raises(openai.BadRequestError, lambda: wrong.invoke("x"))
    assert error.param == "temperture"


tell("langchain-openai", "langchain-core", "openai")
