"""pydantic-ai: agents over chats, responses and messages."""

import asyncio
from typing import Literal

from cells import MODEL, URL, cell, raises, tell
from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

PROVIDER = OpenAIProvider(base_url=f"{URL}/v1", api_key="none")
FEW = {"temperature": 0, "max_tokens": 12}
SOME = {"temperature": 0, "max_tokens": 80}


def agent(**options: object) -> Agent:
    settings = {"model": OpenAIChatModel(MODEL, provider=PROVIDER), "retries": 0}
    return Agent(**settings | options)


class Person(BaseModel):
    """Somebody."""

    name: str = Field(max_length=12)
    age: int


def weather(city: Literal["Bonn", "Köln"]) -> str:
    """The weather of a city."""
    return f"rain in {city}"


@cell("chat")
def _() -> None:
    brief = agent(instructions="Be brief.")
    first = brief.run_sync("Name a colour.", model_settings=FEW)
    again = brief.run_sync("Another one.", message_history=first.all_messages(), model_settings=FEW)
    assert again.output


@cell("stream")
def _() -> None:
    async def streamed() -> str:
        async with agent().run_stream("Say hello.", model_settings=FEW) as result:
            return "".join([it async for it in result.stream_text(delta=True)])

    assert asyncio.run(streamed()) == agent().run_sync("Say hello.", model_settings=FEW).output


@cell("usage")
def _() -> None:
    found = agent().run_sync("Say hello.", model_settings=FEW).usage
    found = found() if callable(found) else found
    assert found.input_tokens > 0
    assert found.output_tokens > 0


@cell("tools")
def _() -> None:
    # The output is a tool too, so that the model has to call one of the two.
    able = agent(tools=[weather], output_type=ToolOutput(Person))
    found = able.run_sync("Somebody?", model_settings=SOME)
    assert isinstance(found.output, Person)


@cell("tools streamed")
def _() -> None:
    async def streamed() -> object:
        able = agent(output_type=ToolOutput(Person))
        async with able.run_stream("Somebody?", model_settings=SOME) as result:
            return await result.get_output()

    assert isinstance(asyncio.run(streamed()), Person)


@cell("structured")
def _() -> None:
    for strict in (True, False, None):
        formed = agent(output_type=NativeOutput(Person, strict=strict))
        assert isinstance(formed.run_sync("Somebody?", model_settings=SOME).output, Person)


@cell("structured streamed")
def _() -> None:
    async def streamed() -> object:
        formed = agent(output_type=NativeOutput(Person))
        async with formed.run_stream("Somebody?", model_settings=SOME) as result:
            return await result.get_output()

    assert isinstance(asyncio.run(streamed()), Person)


@cell("responses")
def _() -> None:
    answering = OpenAIResponsesModel(MODEL, provider=PROVIDER)
    plain = agent(model=answering, tools=[weather])
    assert plain.run_sync("Say hello.", model_settings=SOME).output
    formed = agent(model=answering, output_type=NativeOutput(Person))
    assert isinstance(formed.run_sync("Somebody?", model_settings=SOME).output, Person)


@cell("messages")
def _() -> None:
    provider = AnthropicProvider(base_url=URL, api_key="none")
    said = agent(model=AnthropicModel(MODEL, provider=provider), tools=[weather])
    assert said.run_sync("Say hello.", model_settings={"max_tokens": 40}).output


@cell("errors")
def _() -> None:
    missing = agent(model=OpenAIChatModel("none-such", provider=PROVIDER))
    error = raises(ModelHTTPError, lambda: missing.run_sync("x"))
    assert error.status_code == 404
    wrong = {"extra_body": {"temperture": 1}}
    error = raises(ModelHTTPError, lambda: agent().run_sync("x", model_settings=wrong))
    assert error.status_code == 400


tell("pydantic-ai-slim", "openai", "anthropic")
