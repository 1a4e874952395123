"""The shape in which a model's template takes a conversation, found out by trying it. Pure.

Templates differ in what they want: a call's arguments as JSON text or as an object; a call's
message with a content of none, an empty one, or without any; content as text or as parts; a system
turn, or none; short ids of calls. `find_shape` renders small conversations in each form and keeps
the first form in which everything said is in the prompt.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from node.engines.worker.tools_as_text import calls_told, tools_told
from wire.errors import ModelRefused

Message = dict[str, Any]
# Renders messages and tools; ModelRefused where the template does not take them.
Render = Callable[[Sequence[Message], Any], str]
SHORT_ID_CHARS = 9
NONE, EMPTY, ABSENT = "none", "empty", "absent"
_USER, _ANSWER, _SYSTEM, _RESULT = "Quokka one", "Numbat two", "Bilby three", "Potoroo four"
_NAME, _KEY, _WORD = "find_wombat", "burrow", "Dibbler five"
_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "other_tool",
        "description": "Another one.",
        "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}},
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationShape:
    """`calls_fault` says why the template takes no calls; empty where it does.

    Where it tells no tools, or takes no calls, but who speaks, these are told as text.
    """

    parts: bool = False
    system: bool = True
    objects: bool = False
    call_content: str = NONE
    short_ids: bool = False
    calls_fault: str = ""
    tools_as_text: bool = False
    calls_as_text: bool = False

    def fit(self, messages: Sequence[Any], tools: Sequence[Any] | None = None) -> list[Message]:
        """A conversation as clients send it, in this shape; ModelRefused says what cannot be."""
        found = [_checked(it) for it in messages]
        if self.calls_as_text:
            found = calls_told(found)
        if tools and self.tools_as_text:
            found = tools_told(found, tools)
        if not self.system:
            found = _without_system(found)
        names: dict[str, str] = {}
        return [self._message(it, names) for it in found]

    def _message(self, message: Message, names: dict[str, str]) -> Message:
        made = dict(message)
        calls = message.get("tool_calls")
        if calls:
            if self.calls_fault:
                raise ModelRefused(
                    f"the chat template takes no calls of tools: {self.calls_fault}",
                    todo="leave out the turns with calls, or choose another model",
                )
            made["tool_calls"] = [self._call(it, names) for it in calls]
        else:
            made.pop("tool_calls", None)
        if (number := message.get("tool_call_id")) is not None:
            made.setdefault("name", names.get(str(number), ""))
            made["tool_call_id"] = self._id(str(number))
        content = _text(made.get("content"))
        if not calls and made.get("content") is None:
            return made
        if calls and not content:
            made["content"] = None if self.call_content == NONE else ""
            if self.call_content == ABSENT:
                del made["content"]
        else:
            made["content"] = [{"type": "text", "text": content}] if self.parts else content
        return made

    def _call(self, call: Any, names: dict[str, str]) -> Message:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ModelRefused("a call of a tool has a function with a name")
        given = function.get("arguments", "")
        if self.objects and isinstance(given, str):
            try:
                given = json.loads(given) if given.strip() else {}
            except (ValueError, RecursionError) as error:
                raise ModelRefused(
                    f"the arguments of {function['name'][:80]!r} are not JSON",
                    todo="send the arguments as the model wrote them",
                ) from error
            if not isinstance(given, dict):
                raise ModelRefused(f"the arguments of {function['name'][:80]!r} are no object")
        elif not self.objects and not isinstance(given, str):
            given = json.dumps(given, ensure_ascii=False)
        number = str(call.get("id", ""))
        names[number] = function["name"]
        made = {**call, "type": "function", "function": {**function, "arguments": given}}
        return {**made, "id": self._id(number)}

    def _id(self, number: str) -> str:
        if not self.short_ids or (len(number) == SHORT_ID_CHARS and number.isalnum()):
            return number
        return hashlib.sha256(number.encode(errors="replace")).hexdigest()[:SHORT_ID_CHARS]


def find_shape(render: Render) -> ConversationShape:
    """The shape that the template takes, by trying it."""
    shape = ConversationShape()
    said, _ = _try(render, shape, [_turn("user", _USER)])
    if _USER not in said:
        parts = replace(shape, parts=True)
        said, fault = _try(render, parts, [_turn("user", _USER)])
        if _USER not in said:
            return replace(shape, calls_fault=fault or "it does not tell what a user says")
        shape = parts
    turns = [_turn("system", _SYSTEM), _turn("user", _USER)]
    made, _ = _try(render, shape, turns)
    if not (_SYSTEM in made and _USER in made):
        shape = replace(shape, system=False)
    shape = _with_calls(render, shape)
    if not _tells_speakers(render, shape):
        return shape
    turns = [_turn("user", _USER)]
    made, _ = _try(render, shape, turns, [_TOOL])
    shape = replace(shape, tools_as_text=_TOOL["function"]["name"] not in made)
    if shape.calls_fault:
        shape = replace(shape, calls_as_text=True, calls_fault="")
    return shape


def _tells_speakers(render: Render, shape: ConversationShape) -> bool:
    """Whether what the model says can be told from what it is told."""
    turns = [_turn("user", _USER), _turn("assistant", _ANSWER), _turn("user", _SYSTEM)]
    made, _ = _try(render, shape, turns)
    before, answered, after = made.partition(_ANSWER)
    _, asked, opening = before.partition(_USER)
    closing, asked_again, _ = after.partition(_SYSTEM)
    return bool(answered and asked and asked_again) and opening != closing


def ending_of(render: Render, shape: ConversationShape) -> str:
    """What the template writes after an answer, up to the next turn; empty where that is open."""
    turns = [_turn("user", _USER), _turn("assistant", _ANSWER), _turn("user", _SYSTEM)]
    made, _ = _try(render, shape, turns)
    _, found, rest = made.partition(_ANSWER)
    return rest.partition(_SYSTEM)[0].lstrip() if found else ""


def named_calls(messages: Sequence[Message], mark: str) -> tuple[list[Message], list[str]]:
    """The messages with each call under a name of its own, and those names."""
    names: list[str] = []
    made = []
    for message in messages:
        calls = []
        for call in message.get("tool_calls") or ():
            names.append(f"{mark}{len(names)}{mark}")
            calls.append({**call, "function": {**call["function"], "name": names[-1]}})
        made.append({**message, "tool_calls": calls} if calls else message)
    return made, names


def _with_calls(render: Render, shape: ConversationShape) -> ConversationShape:
    best, most, said = shape, 0, ""
    for tried in _call_shapes(shape):
        made, fault = _try(render, tried, _conversation())
        said = said or fault
        if (score := _score(made)) > most:
            best, most = tried, score
    return best if most else replace(shape, calls_fault=said or "it leaves them out")


def _call_shapes(shape: ConversationShape) -> Iterator[ConversationShape]:
    for short, content, objects in itertools.product(
        (False, True), (NONE, EMPTY, ABSENT), (False, True)
    ):
        yield replace(shape, short_ids=short, call_content=content, objects=objects)


def _score(made: str) -> int:
    """How well a call is told; 0 where it or its result is not there at all."""
    if _NAME not in made or _RESULT not in made:
        return 0
    plain = _KEY in made and _WORD in made
    quoted = f'\\"{_KEY}\\"' in made or f"'{_KEY}'" in made
    # A content of none that is printed as a word would be read as said.
    return 1 + 2 * ("None" not in made) + 4 * plain + 8 * (plain and not quoted)


def _conversation() -> list[Message]:
    call = {"name": _NAME, "arguments": json.dumps({_KEY: _WORD})}
    return [
        _turn("user", _USER),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_wombat_1", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "call_wombat_1", "content": _RESULT},
    ]


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _try(
    render: Render, shape: ConversationShape, turns: list[Message], tools: Any = None
) -> tuple[str, str]:
    if any("tool_calls" in it for it in turns):
        tools = [_TOOL]
    try:
        return render(shape.fit(turns), tools), ""
    except ModelRefused as error:
        return "", error.message


def _checked(message: Any) -> Message:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ModelRefused("a message is an object with a role")
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise ModelRefused("tool_calls are a list")
    return {**message, "role": "system"} if message["role"] == "developer" else dict(message)


def _without_system(messages: list[Message]) -> list[Message]:
    """What the system turns say, said at the beginning of the first turn of the user."""
    said = [_text(it.get("content")) for it in messages if it["role"] == "system"]
    if not said:
        return messages
    rest = [it for it in messages if it["role"] != "system"]
    for at, message in enumerate(rest):
        if message["role"] == "user":
            text = "\n\n".join([*said, _text(message.get("content"))])
            return [*rest[:at], {**message, "content": text}, *rest[at + 1 :]]
    return [{"role": "user", "content": "\n\n".join(said)}, *rest]


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise ModelRefused("a message's content is a text or a list of parts")
    texts = []
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise ModelRefused(f"a part of the kind {str(kind)[:40]!r} is not taken by this model")
        texts.append(part["text"])
    return "".join(texts)
