"""Tools for templates that know of none: they, their calls and results as text of the turns. Pure.

The form is the one of Hermes and Qwen, which small models have met most often.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

Message = dict[str, Any]
_ABOUT = """You may call functions. They are described in JSON between <tools> and </tools>:
<tools>
{tools}
</tools>
To call one, answer with its name and its arguments, as JSON in these tags:
<tool_call>
{{"name": "NAME", "arguments": {{"ARGUMENT": "VALUE"}}}}
</tool_call>
The results come between <tool_response> and </tool_response>."""


def tools_told(messages: Sequence[Message], tools: Sequence[Any]) -> list[Message]:
    """The messages, with tools described at the end of the system turn; there is one then."""
    lines = "\n".join(json.dumps(it, ensure_ascii=False) for it in tools)
    about = _ABOUT.format(tools=lines)
    if messages and messages[0]["role"] == "system":
        first, *rest = messages
        content = first.get("content")
        if isinstance(content, list):
            return [{**first, "content": [*content, _part(f"\n\n{about}")]}, *rest]
        return [{**first, "content": f"{content}\n\n{about}" if content else about}, *rest]
    return [{"role": "system", "content": about}, *messages]


def calls_told(messages: Sequence[Message]) -> list[Message]:
    """The messages, with calls as text of who made them, and results said by the user."""
    found: list[Message] = []
    answering = False
    for message in messages:
        if message["role"] == "tool":
            text = f"<tool_response>\n{_text(message.get('content'))}\n</tool_response>"
            # What was called at once is answered at once: some templates want turns to alternate.
            if answering:
                found[-1]["content"] += f"\n{text}"
            else:
                found.append({"role": "user", "content": text})
            answering = True
            continue
        answering = False
        calls = message.get("tool_calls")
        made = {name: value for name, value in message.items() if name != "tool_calls"}
        if calls:
            said = _text(message.get("content"))
            made["content"] = "\n".join([*([said] if said else []), *map(_call, calls)])
        found.append(made)
    return found


def _call(call: Any) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    told = function if isinstance(function, dict) else {}
    given = told.get("arguments", {})
    if isinstance(given, str):
        # What is no JSON is told as the model wrote it.
        with suppress(ValueError, RecursionError):
            given = json.loads(given) if given.strip() else {}
    line = json.dumps({"name": told.get("name"), "arguments": given}, ensure_ascii=False)
    return f"<tool_call>\n{line}\n</tool_call>"


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(it["text"] for it in content if isinstance(it, dict) and "text" in it)
    return str(content or "")


def _part(text: str) -> Message:
    return {"type": "text", "text": text}
