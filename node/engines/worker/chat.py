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


# What makes much out of little, or something else each time.
_NO_FILTERS = ("center", "format", "indent", "random", "wordwrap", "xmlattr")
_NO_METHODS = frozenset(
    ("center", "expandtabs", "format", "format_map", "ljust", "rjust", "translate", "zfill")
)
_POWER_MAX = 64


class _Surroundings(ImmutableSandboxedEnvironment):
    """Where no single step of a template takes long, or much memory."""

    intercepted_binops = frozenset(("*", "**", "%"))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _NO_METHODS and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            sized = [len(it) for it in (left, right) if isinstance(it, str | list | tuple)]
            times = [it for it in (left, right) if isinstance(it, int)]
            if sized and max(times, default=0) * max(sized) > PROMPT_CHARS_MAX:
                raise OverflowError("a text repeated too often")
        elif operator == "**" and max(abs(left), abs(right)) > _POWER_MAX:
            raise OverflowError("a power too large")
        elif operator == "%" and isinstance(left, str):
            raise TypeError("texts are not formatted here")
        if any(isinstance(it, int) and it.bit_length() > 1024 for it in (left, right)):
            raise OverflowError("a number too large")
        return super().call_binop(context, operator, left, right)


class ChatTemplate:
    """One model's template, compiled; `names` are the texts of its special tokens."""

    def __init__(self, source: str, names: dict[str, str]) -> None:
        if len(source) > TEMPLATE_CHARS_MAX:
            raise ModelRefused(f"a chat template of {len(source)} characters")
        self._names = names
        surroundings = _Surroundings(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols"],
            # What never runs is not worked out either.
            optimized=False,
        )
        for name in _NO_FILTERS:
            del surroundings.filters[name]
        del surroundings.globals["lipsum"]
        surroundings.filters["tojson"] = _to_json
        surroundings.globals["raise_exception"] = _raise
        surroundings.globals["strftime_now"] = _date
        try:
            self._template = surroundings.from_string(source) if source else None
        except (TemplateError, RecursionError, ValueError) as error:
            raise ModelRefused(f"the chat template cannot be read: {_words(error)}") from error

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
        parts: list[str] = []
        size = 0
        try:
            for part in self._template.generate(
                {
                    **given,
                    "messages": said,
                    "tools": usable,
                    "add_generation_prompt": True,
                    **self._names,
                }
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
            MemoryError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
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
