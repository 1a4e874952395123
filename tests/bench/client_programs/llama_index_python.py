"""LlamaIndex over its packages for servers that are like OpenAI's."""

import openai
from cells import EMBEDDER, MODEL, URL, cell, raises, tell
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field

WHERE = {"api_base": f"{URL}/v1", "api_key": "none", "max_retries": 0, "timeout": 300}
HELLO = [ChatMessage(role="user", content="Say hello.")]


def llm(tokens: int = 12, **more: object) -> OpenAILike:
    options = {"model": MODEL, "is_chat_model": True, "is_function_calling_model": True}
    options |= {"temperature": 0, "max_tokens": tokens, "context_window": 2048}
    return OpenAILike(**WHERE | options | more)


class Person(BaseModel):
    """Somebody."""

    name: str = Field(max_length=12)
    age: int


def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


TOOL = FunctionTool.from_defaults(weather)


@cell("chat")
def _() -> None:
    said = [ChatMessage(role="system", content="Be brief."), *HELLO]
    assert llm().chat(said).message.content
    assert llm(is_chat_model=False).complete("One two").text


@cell("stream")
def _() -> None:
    whole = llm().chat(HELLO).message.content
    assert "".join(it.delta or "" for it in llm().stream_chat(HELLO)) == whole
    text = llm(is_chat_model=False).complete("One two").text
    parts = llm(is_chat_model=False).stream_complete("One two")
    assert "".join(it.delta for it in parts) == text


@cell("usage")
def _() -> None:
    whole = llm().chat(HELLO).raw.usage
    more = {"stream_options": {"include_usage": True}}
    *_, last = llm(additional_kwargs=more).stream_chat(HELLO)
    assert last.raw.usage == whole


@cell("tools")
def _() -> None:
    model = llm(60)
    told = model.chat_with_tools([TOOL], "Weather in Bonn?", tool_required=True)
    (call,) = model.get_tool_calls_from_response(told)
    result = ChatMessage(
        role="tool", content="rain", additional_kwargs={"tool_call_id": call.tool_id}
    )
    asked = ChatMessage(role="user", content="Weather in Bonn?")
    after = model.chat_with_tools([TOOL], chat_history=[asked, told.message, result])
    assert after.message


@cell("tools streamed")
def _() -> None:
    model = llm(60)
    *_, last = model.stream_chat_with_tools([TOOL], "Weather in Bonn?", tool_required=True)
    (call,) = model.get_tool_calls_from_response(last)
    assert call.tool_name == "weather"


@cell("structured")
def _() -> None:
    found = llm(80).as_structured_llm(Person).chat(HELLO)
    assert isinstance(found.raw, Person)
    strict = llm(80, should_use_structured_outputs=True).as_structured_llm(Person)
    assert isinstance(strict.chat(HELLO).raw, Person)


@cell("structured streamed")
def _() -> None:
    # Without this it lets the model choose whether to give any structure.
    strict = llm(80, should_use_structured_outputs=True)
    *_, last = strict.as_structured_llm(Person).stream_chat(HELLO)
    assert isinstance(last.raw, Person)


@cell("logprobs")
def _() -> None:
    told = llm(logprobs=True, top_logprobs=2).chat(HELLO)
    assert len(told.logprobs[0]) == 2


@cell("embeddings")
def _() -> None:
    model = OpenAILikeEmbedding(model_name=EMBEDDER, **WHERE)
    assert [len(it) for it in model.get_text_embedding_batch(["a cat", "a dog"])] == [384, 384]


@cell("errors")
def _() -> None:
    raises(openai.NotFoundError, lambda: llm(model="none-such").chat(HELLO))
    wrong = llm(additional_kwargs={"extra_body": {"temperture": 1}})
    error = raises(openai.BadRequestError, lambda: wrong.chat(HELLO))
    assert error.param == "temperture"


tell("llama-index-llms-openai-like", "llama-index-core", "openai")
