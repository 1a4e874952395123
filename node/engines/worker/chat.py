"""A conversation as the prompt that a model's own template makes of it. Worker only.

The template may come from anybody: it runs in a sandbox that bounds what it does, and whatever it
does wrong is an error of the one request that it was rendered for.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from node.engines.worker.control_text import ControlText
from node.engines.worker.conversation_shape import (
    ConversationShape,
    Message,
    ending_of,
    find_shape,
    named_calls,
)
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


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt in which `mark` breaks what is no control token though it has the name of one."""

    marked: str
    mark: str

    @property
    def text(self) -> str:
        return self.marked.replace(self.mark, "") if self.mark else self.marked


class _Generation(Extension):
    """`{% generation %}`, by which templates tell what is learned from: its body, as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


class ChatTemplate:
    """One model's template, compiled. What is wrong with it is an error of chats alone.

    `names` are the texts of its special tokens, as templates ask for them; `controls` the names of
    all tokens that nobody's text may become.
    """

    def __init__(self, source: str, names: dict[str, str], controls: Sequence[str] = ()) -> None:
        self._names = names
        self._control = ControlText(controls)
        self._sandbox = TemplateSandbox()
        self._sandbox.add_extension(_Generation)
        self._sandbox.add_filter("tojson", _to_json)
        self._sandbox.globals["raise_exception"] = _raise
        self._sandbox.globals["strftime_now"] = _date
        self._template: Any = None
        self._fault = ModelRefused(
            "the model has no chat template", todo="give it a prompt instead of messages"
        )
        self._compile(source)
        self._shape = ConversationShape()
        self.ending = ""
        if self._template is not None:
            self._find_shape()

    @property
    def budget(self) -> Budget:
        """What the last render left of what it might use."""
        return self._sandbox.budget

    @property
    def shape(self) -> ConversationShape:
        return self._shape

    def prompt(self, messages: str, tools: str, names: str = "") -> str:
        """The prompt for `messages` and `tools`, both JSON; ModelRefused with the reason.

        `names` is a JSON object of what a client gives the template besides.
        """
        return self.render(messages, tools, names).text

    def render(self, messages: str, tools: str, names: str = "") -> RenderedPrompt:
        """As `prompt`, with what people say kept from being control tokens."""
        if self._template is None:
            raise self._fault
        said, usable = _array(messages, "messages"), _array(tools, "tools") if tools else None
        fitting = self._shape.fit(said, usable)
        request = [fitting, usable, _object(names) if names else {}]
        control = self._control
        mark = control.mark_for(request)
        self._check_calls(request, mark)
        made = self._render(*control.broken(request, mark))
        if control.is_suspect(request):
            # A template that takes texts apart may have made a name of one.
            masked = self._render(*control.masked(request, mark))
            if control.controls(made) != control.controls(masked):
                made = masked
        return RenderedPrompt(made, mark)

    def parts(self, messages: str, tools: str, names: str = "") -> list[tuple[str, bool]]:
        """The prompt as parts, each with whether it is the name of a control token."""
        made = self.render(messages, tools, names)
        return [
            (it.replace(made.mark, ""), known) for it, known in self._control.split(made.marked)
        ]

    def _check_calls(self, request: list[Any], mark: str) -> None:
        named, names = named_calls(request[0], mark)
        if not names:
            return
        made = self._render(named, *request[1:])
        if any(name not in made for name in names):
            raise ModelRefused(
                "the chat template leaves out a call of a tool",
                todo="leave out the turns with calls, or choose another model",
            )

    def _compile(self, source: str) -> None:
        if not source:
            return
        if len(source) > TEMPLATE_CHARS_MAX:
            self._fault = ModelRefused(f"a chat template of {len(source)} characters")
            return
        try:
            self._template = self._sandbox.from_string(source)
        except _UNREADABLE as error:
            self._fault = ModelRefused(f"the chat template cannot be read: {_words(error)}")

    def _find_shape(self) -> None:
        spent: list[ModelRefused] = []

        def render(messages: Sequence[Message], tools: Any) -> str:
            # One that does too much does so each time: its owner waits for one try only.
            if spent:
                raise spent[0]
            try:
                return self._render(messages, tools)
            except ModelRefused as error:
                if isinstance(error.__cause__, BudgetExceeded):
                    spent.append(error)
                raise

        self._shape = find_shape(render)
        self.ending = ending_of(render, self._shape)

    def _render(
        self, messages: Sequence[Message], tools: Any, besides: Mapping[str, Any] | None = None
    ) -> str:
        given = {**(besides or {}), "messages": messages, "tools": tools}
        given |= {"add_generation_prompt": True, **self._names}
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
