"""A conversation as the prompt that a model's own template makes of it. Worker only.

The template may come from anybody: it runs in a sandbox that bounds what it does, and whatever it
does wrong is an error of the one request that it was rendered for.
"""

import json
from typing import Any

from jinja2 import TemplateError

from node.engines.worker.template_sandbox import (
    VALUE_CHARS_MAX,
    Budget,
    BudgetExceeded,
    TemplateSandbox,
)
from wire.errors import ModelRefused

TEMPLATE_CHARS_MAX = 256 << 10
PROMPT_CHARS_MAX = VALUE_CHARS_MAX
# What templates that ask for a date are told: answers must not depend on the day.
DATE = "2024-07-26"


# What compiling a template raises: the last three come of Python's own compiler, for what jinja2
# makes of deep nesting.
_UNREADABLE = (TemplateError, RecursionError, ValueError, SyntaxError, MemoryError, OverflowError)
_FAULTS = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


class ChatTemplate:
    """One model's template, compiled; `names` are the texts of its special tokens."""

    def __init__(self, source: str, names: dict[str, str]) -> None:
        if len(source) > TEMPLATE_CHARS_MAX:
            raise ModelRefused(f"a chat template of {len(source)} characters")
        self._names = names
        self._sandbox = TemplateSandbox()
        self._sandbox.add_filter("tojson", _to_json)
        self._sandbox.globals["raise_exception"] = _raise
        self._sandbox.globals["strftime_now"] = _date
        try:
            self._template = self._sandbox.from_string(source) if source else None
        except _UNREADABLE as error:
            raise ModelRefused(f"the chat template cannot be read: {_words(error)}") from error

    @property
    def budget(self) -> Budget:
        """What the last render left of what it might use."""
        return self._sandbox.budget

    def prompt(self, messages: str, tools: str, names: str = "") -> str:
        """The prompt for `messages` and `tools`, both JSON; ModelRefused with the reason.

        `names` is a JSON object of what a client gives the template besides.
        """
        if self._template is None:
            raise ModelRefused(
                "the model has no chat template", todo="give it a prompt instead of messages"
            )
        said, usable = _array(messages, "messages"), _array(tools, "tools") if tools else None
        given = _object(names) if names else {}
        given |= {"messages": said, "tools": usable, "add_generation_prompt": True, **self._names}
        budget = self._sandbox.budget = Budget()
        parts: list[str] = []
        size = 0
        try:
            with budget.counting_lines():
                for part in self._template.generate(given):
                    parts.append(part)
                    size += len(part)
                    if size > PROMPT_CHARS_MAX:
                        raise ModelRefused(
                            f"the chat template makes over {PROMPT_CHARS_MAX} characters"
                        )
        except BudgetExceeded as error:
            raise ModelRefused(
                f"the chat template does too much with these messages: {error}",
                todo="send fewer or shorter ones, or a prompt instead",
            ) from error
        except _FAULTS as error:
            raise ModelRefused(
                f"the chat template does not take these messages: {_words(error)}"
            ) from error
        prompt = "".join(parts)
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise ModelRefused(f"the prompt would not be text: {_words(error)}") from error
        return prompt


def _array(data: str, what: str) -> list[Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"the {what} are not JSON: {_words(error)}") from error
    if not isinstance(found, list):
        raise ModelRefused(f"the {what} are not a JSON array")
    return found


def _object(data: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"what the template is given is not JSON: {_words(error)}") from error
    if not isinstance(found, dict):
        raise ModelRefused("what the template is given is not a JSON object")
    return found


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> None:
    raise TemplateError(str(message))


def _date(form: str) -> str:
    return "26 Jul 2024" if "%d" in form else DATE


def _words(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__
