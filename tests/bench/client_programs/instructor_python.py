"""instructor over OpenAI's client: answers as pydantic's models, in each of its modes."""

import instructor
import openai
from cells import MODEL, URL, cell, raises, tell
from pydantic import BaseModel, Field

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0, timeout=300)
ASKED = {"model": MODEL, "temperature": 0, "max_tokens": 80, "max_retries": 0}
HELLO = [{"role": "user", "content": "Somebody?"}]
TOOLS = instructor.from_openai(client, mode=instructor.Mode.TOOLS)
FORMED = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA)


class Person(BaseModel):
    """Somebody."""

    name: str = Field(max_length=12)
    age: int


@cell("chat")
def _() -> None:
    plain = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA)
    told = plain.chat.completions.create(**ASKED, messages=HELLO, response_model=str)
    assert isinstance(told, str)


@cell("stream")
def _() -> None:
    parts = FORMED.chat.completions.create_iterable(
        **ASKED | {"max_tokens": 120}, messages=HELLO, response_model=Person
    )
    assert all(isinstance(it, Person) for it, _ in zip(parts, range(1), strict=False))


@cell("usage")
def _() -> None:
    _, raw = FORMED.chat.completions.create_with_completion(
        **ASKED, messages=HELLO, response_model=Person
    )
    assert raw.usage.total_tokens > raw.usage.completion_tokens > 0


@cell("tools")
def _() -> None:
    found = TOOLS.chat.completions.create(**ASKED, messages=HELLO, response_model=Person)
    assert isinstance(found, Person)
    strict = instructor.from_openai(client, mode=instructor.Mode.TOOLS_STRICT)
    found = strict.chat.completions.create(**ASKED, messages=HELLO, response_model=Person)
    assert isinstance(found, Person)


@cell("tools streamed")
def _() -> None:
    *_, last = TOOLS.chat.completions.create_partial(**ASKED, messages=HELLO, response_model=Person)
    assert last.name is not None


@cell("structured")
def _() -> None:
    found = FORMED.chat.completions.create(**ASKED, messages=HELLO, response_model=Person)
    assert isinstance(found, Person)


@cell("structured streamed")
def _() -> None:
    *_, last = FORMED.chat.completions.create_partial(
        **ASKED, messages=HELLO, response_model=Person
    )
    assert isinstance(last.age, int)


@cell("responses")
def _() -> None:
    answering = instructor.from_openai(client, mode=instructor.Mode.RESPONSES_TOOLS)
    found = answering.responses.create(
        model=MODEL, input="Somebody?", max_output_tokens=80, response_model=Person, max_retries=0
    )
    assert isinstance(found, Person)


@cell("errors")
def _() -> None:
    error = raises(
        Exception,
        lambda: FORMED.chat.completions.create(
            **ASKED | {"model": "none-such"}, messages=HELLO, response_model=Person
        ),
    )
    assert "none-such" in str(error)


tell("instructor", "openai")
