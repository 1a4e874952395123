"""Chats and completions, as OpenAI's own client asks for them."""

import json

import openai
import pytest

from tests.gateway.conftest import Served

SNOW = "Grüße ☃ 日本語 🎉 end"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>'


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "be brief"}, {"role": "user", "content": f"SAY:{text}"}]


def streamed(client: openai.OpenAI, text: str, **options: object) -> list:
    return list(
        client.chat.completions.create(model="hash", messages=said(text), stream=True, **options)
    )


def text_of(chunks: list, index: int = 0) -> str:
    return "".join(
        choice.delta.content or ""
        for chunk in chunks
        for choice in chunk.choices
        if choice.index == index
    )


def reason_of(chunks: list) -> str | None:
    return next(it.choices[0].finish_reason for it in reversed(chunks) if it.choices)


def test_a_chat_is_answered_with_its_usage_and_its_receipt(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="hash", messages=said("hello!"))
    found = raw.parse()
    assert found.choices[0].message.content == "hello!"
    assert found.choices[0].finish_reason == "stop"
    assert found.usage is not None
    assert found.usage.completion_tokens == 3
    assert found.usage.total_tokens == found.usage.prompt_tokens + 3
    assert raw.headers["x-baton-task"].startswith("baf")
    assert raw.headers["x-baton-receipt"].startswith("baf")
    assert found.model_extra == {
        "x_baton": {
            "task": raw.headers["x-baton-task"],
            "receipt": raw.headers["x-baton-receipt"],
        }
    }


def test_a_stream_says_what_the_whole_answer_says_and_ends_with_its_receipt(
    client: openai.OpenAI,
) -> None:
    chunks = streamed(client, "hello, you there", stream_options={"include_usage": True})
    assert text_of(chunks) == "hello, you there"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert reason_of(chunks) == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 8
    assert all(it.usage is None for it in chunks[:-1])
    assert chunks[-1].model_extra["x_baton"]["receipt"].startswith("baf")
    assert len({it.id for it in chunks}) == 1
    without = streamed(client, "hello, you there")
    assert without[-1].model_extra["x_baton"]["receipt"].startswith("baf")


def test_a_character_in_several_tokens_is_shown_whole(client: openai.OpenAI) -> None:
    chunks = streamed(client, SNOW)
    assert text_of(chunks) == SNOW
    for chunk in chunks:
        assert "\ufffd" not in (chunk.choices[0].delta.content or "")


@pytest.mark.parametrize("tokens", [3, 5])
def test_an_answer_cut_in_the_middle_of_a_character_does_not_show_the_half_of_it(
    client: openai.OpenAI, tokens: int
) -> None:
    found = client.chat.completions.create(
        model="hash", messages=said(SNOW), max_completion_tokens=tokens
    )
    text = found.choices[0].message.content
    assert text
    assert SNOW.startswith(text)
    assert found.choices[0].finish_reason == "length"
    chunks = streamed(client, SNOW, max_tokens=tokens)
    assert text_of(chunks) == text
    assert reason_of(chunks) == "length"


@pytest.mark.parametrize("stop", ["STOP", ["nothing", "STOP"]])
def test_a_stop_sequence_is_never_shown_nor_what_follows(
    client: openai.OpenAI, stop: str | list[str]
) -> None:
    text = "go on, STO is not it. STOP and more"
    chunks = streamed(client, text, stop=stop)
    assert text_of(chunks) == "go on, STO is not it. "
    assert reason_of(chunks) == "stop"
    whole = client.chat.completions.create(model="hash", messages=said(text), stop=stop)
    assert whole.choices[0].message.content == "go on, STO is not it. "


def test_choices_differ_unless_their_seed_is_given(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "anything"}]

    def choices(**options: object) -> list[str | None]:
        found = client.chat.completions.create(
            model="hash", messages=messages, max_tokens=4, **options
        )
        assert found.usage is not None
        assert found.usage.prompt_tokens == len(json.dumps(messages).split())
        assert found.usage.completion_tokens == 4 * len(found.choices)
        return [it.message.content for it in found.choices]

    assert len(choices(n=3)) == 3
    assert choices(seed=7) == choices(seed=7)
    chunks = list(
        client.chat.completions.create(
            model="hash", messages=messages, max_tokens=4, n=2, stream=True
        )
    )
    assert len(text_of(chunks, 0)) == len(text_of(chunks, 1)) == 36


def test_logprobs_are_told_for_each_token(client: openai.OpenAI) -> None:
    options = {"logprobs": True, "top_logprobs": 2}
    found = client.chat.completions.create(model="hash", messages=said("abcd"), **options)
    assert found.choices[0].logprobs is not None
    content = found.choices[0].logprobs.content
    assert content is not None
    assert [it.token for it in content] == ["ab", "cd"]
    assert content[0].logprob == -0.5
    assert [it.logprob for it in content[0].top_logprobs] == [-1.0, -2.0]
    chunks = streamed(client, "abcd", **options)
    told = [
        token.token
        for chunk in chunks
        if chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    assert told == ["ab", "cd"]
    plain = client.chat.completions.create(model="hash", messages=said("abcd"))
    assert plain.choices[0].logprobs is None


def test_a_tool_is_called_and_what_is_said_before_is_told(client: openai.OpenAI) -> None:
    text = f"Let me see. {CALL}"
    found = client.chat.completions.create(model="hash", messages=said(text), tools=[WEATHER])
    message = found.choices[0].message
    assert found.choices[0].finish_reason == "tool_calls"
    assert message.content is not None
    assert message.content.strip() == "Let me see."
    assert message.tool_calls is not None
    call = message.tool_calls[0]
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Zürich"}
    chunks = streamed(client, text, tools=[WEATHER])
    assert text_of(chunks).strip() == "Let me see."
    calls = [
        it for chunk in chunks if chunk.choices for it in chunk.choices[0].delta.tool_calls or []
    ]
    assert json.loads(calls[0].function.arguments) == {"city": "Zürich"}
    assert reason_of(chunks) == "tool_calls"


def test_without_tools_a_call_is_only_text(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(
        model="hash", messages=said(CALL), tools=[WEATHER], tool_choice="none"
    )
    assert found.choices[0].message.tool_calls is None
    assert found.choices[0].message.content == CALL


def test_a_conversation_with_earlier_calls_and_parts_is_taken(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(
        model="hash",
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "and in Zürich?"}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city": "Zürich"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
            {"role": "user", "content": "SAY:It rains."},
        ],
        tools=[WEATHER],
        response_format={"type": "json_object"},
    )
    assert found.choices[0].message.content == "It rains."


def test_a_prompt_is_completed_echoed_and_stopped(client: openai.OpenAI) -> None:
    found = client.completions.create(model="hash", prompt="SAY:one two", echo=True, logprobs=1)
    assert found.choices[0].text == "SAY:one twoone two"
    assert found.choices[0].logprobs is not None
    told = found.choices[0].logprobs
    assert told.tokens == ["SA", "Y:", "on", "e ", "tw", "o", "on", "e ", "tw", "o"]
    assert told.text_offset == [0, 2, 4, 6, 8, 10, 11, 13, 15, 17]
    assert told.token_logprobs == [None, *[-0.25] * 5, *[-0.5] * 4]
    assert told.top_logprobs == [None, *[{"A": -1.0}] * 9]
    chunks = list(
        client.completions.create(model="hash", prompt="SAY:one two", stream=True, stop="two")
    )
    assert "".join(it.choices[0].text for it in chunks) == "one "
    assert chunks[-1].choices[0].finish_reason == "stop"
    several = client.completions.create(model="hash", prompt=["SAY:a", "SAY:b"])
    assert [it.text for it in several.choices] == ["a", "b"]


def test_verdicts_are_asked_for_in_a_header(client: openai.OpenAI, served: Served) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="hash", messages=said("checked"), extra_headers={"x-baton-verdicts": "2/2"}
    )
    receipt = raw.headers["x-baton-receipt"]
    told = client.get(f"/receipts/{receipt}", cast_to=object)
    assert isinstance(told, dict)
    assert told["verified"] is True
    assert len(told["verdicts"]) == 2


@pytest.mark.parametrize(("level", "verdicts"), [("replayed", 2), ("signed", 0)])
def test_a_level_is_asked_for_in_a_header(client: openai.OpenAI, level: str, verdicts: int) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="hash", messages=said(f"level {level}"), extra_headers={"x-baton-level": level}
    )
    told = client.get(f"/receipts/{raw.headers['x-baton-receipt']}", cast_to=object)
    assert isinstance(told, dict)
    assert len(told["verdicts"]) == verdicts


def test_models_are_listed_with_what_they_do(client: openai.OpenAI) -> None:
    names = [it.id for it in client.models.list()]
    assert names == ["doubling", "hash"]
    found = client.models.retrieve("hash")
    assert found.model_extra is not None
    assert "generate" in found.model_extra["x_baton"]["operations"]
    assert found.model_extra["x_baton"]["levels"] == ["signed", "spot", "replayed"]
    # By its content id too.
    by_id = client.models.retrieve(found.model_extra["x_baton"]["model"])
    assert by_id.id == "hash"
