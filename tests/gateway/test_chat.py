"""Chats, as OpenAI's own client asks for them."""

import openai


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "be brief"}, {"role": "user", "content": f"SAY:{text}"}]


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
