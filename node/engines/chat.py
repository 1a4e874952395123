"""A conversation as the prompt that a model's own template makes of it. Worker only.

The template may come from anybody: it runs in a sandbox without attributes that matter, and what it
makes is bounded. One that never ends is ended with the worker, by the engine's deadline.
"""

import json
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from wire import limits
from wire.errors import ModelRefused

TEMPLATE_CHARS_MAX = 256 << 10
PROMPT_CHARS_MAX = 4 * limits.PROMPT_BYTES_MAX
# What templates that ask for a date are told: answers must not depend on the day.
DATE = "2024-07-26"


class ChatTemplate:
    """One model's template, compiled; `names` are the texts of its special tokens."""

    def __init__(self, source: str, names: dict[str, str]) -> None:
        if len(source) > TEMPLATE_CHARS_MAX:
            raise ModelRefused(f"a chat template of {len(source)} characters")
        self._names = names
        surroundings = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        surroundings.filters["tojson"] = _to_json
        surroundings.globals["raise_exception"] = _raise
        surroundings.globals["strftime_now"] = _date
        try:
            self._template = surroundings.from_string(source) if source else None
        except (TemplateError, RecursionError, ValueError) as error:
            raise ModelRefused(f"the chat template cannot be read: {_words(error)}") from error

    def prompt(self, messages: str, tools: str) -> str:
        """The prompt for `messages` and `tools`, both JSON; ModelRefused with the reason."""
        if self._template is None:
            raise ModelRefused(
                "the model has no chat template", todo="give it a prompt instead of messages"
            )
        said, usable = _array(messages, "messages"), _array(tools, "tools") if tools else None
        parts: list[str] = []
        size = 0
        try:
            for part in self._template.generate(
                messages=said, tools=usable, add_generation_prompt=True, **self._names
            ):
                parts.append(part)
                size += len(part)
                if size > PROMPT_CHARS_MAX:
                    raise ModelRefused(
                        f"the chat template makes over {PROMPT_CHARS_MAX} characters"
                    )
        except (
            TemplateError,
            ArithmeticError,
            AttributeError,
            LookupError,
            OverflowError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            raise ModelRefused(
                f"the chat template does not take these messages: {_words(error)}"
            ) from error
        return "".join(parts)


def _array(data: str, what: str) -> list[Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"the {what} are not JSON: {_words(error)}") from error
    if not isinstance(found, list):
        raise ModelRefused(f"the {what} are not a JSON array")
    return found


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> None:
    raise TemplateError(str(message))


def _date(form: str) -> str:
    return "26 Jul 2024" if "%d" in form else DATE


def _words(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__
