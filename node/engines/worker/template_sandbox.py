"""A sandbox for chat templates in which every render has a budget. Worker only.

A template may come from anybody. jinja2's own sandbox keeps it away from what it must not touch;
this one bounds what it may use: steps (lines of Python that run, counted by a trace) and characters
(of every value that an operation reads or makes). Steps bound loops, recursion and generators;
characters bound what one step may do in C: repeat, join, replace, compare, print. Both are counted,
not timed: every machine refuses the same template.
"""

import functools
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import BuiltinMethodType, FrameType
from typing import Any

from jinja2 import Environment, Undefined, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from wire import limits

# About 0.4 s of Python. A long conversation takes fifty thousand for each of its up to three
# renders.
STEPS_MAX = 400_000
# Of one value, and of all values that the operations of one render read and make.
VALUE_CHARS_MAX = 4 * limits.PROMPT_BYTES_MAX
CHARS_MAX = 32 << 20
# To walk over an item takes as long as to copy so many characters.
ITEM_CHARS = 32
# What one operation may do of the kind "each of these for each of those", as `replace` does.
PRODUCT_MAX = 16 << 20
NUMBER_MAX = 1 << 16
NUMBER_BITS_MAX = 1024
POWER_MAX = 64

# Each takes time and room in proportion to its arguments, or to the product of two (_PRODUCTS).
# Not here: what draws at random, formats, looks up attributes by computed names, or parses markup.
_FILTERS = frozenset(
    (
        *("abs", "capitalize", "center", "count", "d", "default", "dictsort", "e", "escape"),
        *("first", "float", "groupby", "indent", "int", "items", "join", "last", "length", "list"),
        *("lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round"),
        *("safe", "select", "selectattr", "sort", "string", "sum", "title", "tojson", "trim"),
        *("unique", "upper", "urlencode"),
    )
)
_METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(
        (
            *("capitalize", "casefold", "center", "count", "endswith", "find", "index", "isalnum"),
            *("isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric"),
            *("isprintable", "isspace", "istitle", "isupper", "join", "ljust", "lower", "lstrip"),
            *("partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust"),
            *("rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip"),
            *("swapcase", "title", "upper", "zfill"),
        )
    ),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
    bytes: frozenset(),
    int: frozenset(),
    float: frozenset(("is_integer",)),
}
_PRODUCTS = frozenset(
    (
        *("center", "indent", "join", "ljust", "lstrip", "replace", "rjust", "rstrip", "strip"),
        *("tojson", "trim", "zfill"),
    )
)
# Whoever only hands a value on, or takes one item of it, does not read all of it.
_HANDS_ON = frozenset(("count", "d", "default", "first", "last", "length"))
_COMPARING_TESTS = frozenset(
    (
        *("!=", "<", "<=", "==", ">", ">=", "eq", "equalto", "ge", "greaterthan", "gt", "in"),
        *("le", "lessthan", "lower", "lt", "ne", "upper"),
    )
)
_OPERATIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": lambda left, right: left == right,
    "ne": lambda left, right: left != right,
    "gt": lambda left, right: left > right,
    "gteq": lambda left, right: left >= right,
    "lt": lambda left, right: left < right,
    "lteq": lambda left, right: left <= right,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}
_VIEWS: tuple[type[Collection[Any]], ...] = (type({}.keys()), type({}.values()), type({}.items()))
_CONTAINERS: tuple[type[Collection[Any]], ...] = (list, tuple, set, frozenset, *_VIEWS)
_SCALARS = (bool, int, float, type(None), Undefined)


class BudgetExceeded(BaseException):
    """A render used more than it may. No `except Exception` of a library may swallow it."""


class Budget:
    """What is left for one render."""

    def __init__(self) -> None:
        self.steps_left = STEPS_MAX
        self.chars_left = CHARS_MAX

    def step(self) -> None:
        self.steps_left -= 1
        if self.steps_left < 0:
            raise BudgetExceeded(f"it takes more than {STEPS_MAX} steps")

    def use(self, chars: int) -> None:
        self.chars_left -= chars
        if self.chars_left < 0:
            raise BudgetExceeded(f"it handles more than {CHARS_MAX} characters")

    @contextmanager
    def counting_lines(self) -> Iterator[None]:
        """Count each line of Python that runs in this thread as a step."""

        def trace(frame: FrameType, event: str, _argument: Any) -> Any:
            if event == "line":
                self.step()
            # What this file does is charged by size.
            return None if frame.f_code.co_filename == __file__ else trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(before)


def weight(value: Any, *, strict: bool = False) -> int:
    """How much `value` is, printed: its characters and its items, each as often as it is reached.

    BudgetExceeded beyond VALUE_CHARS_MAX: lists within lists can print as more than memory holds.
    TypeError for what is no plain value, where `strict`.
    """
    kind = type(value)
    if kind is str:
        return _bounded(len(value))
    if kind in _SCALARS:
        return 1
    total, stack = 0, [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str | bytes | range):
            total += len(item)
        elif isinstance(item, dict):
            total += 2 * ITEM_CHARS * len(item)
            _bounded(total)
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, _CONTAINERS):
            total += ITEM_CHARS * len(item)
            _bounded(total)
            stack.extend(item)
        elif strict and not isinstance(item, _SCALARS):
            raise TypeError(f"a {type(item).__name__} is no text")
        total += 1
        _bounded(total)
    return total


def _bounded(chars: int) -> int:
    if chars > VALUE_CHARS_MAX:
        raise BudgetExceeded(f"a value of more than {VALUE_CHARS_MAX} characters")
    return chars


class _Generator(CodeGenerator):
    """jinja2's compiler, with the operations that it leaves to Python asked of the environment."""

    def _output_const_repr(self, group: Any) -> str:
        return f"environment.literal({super()._output_const_repr(group)})"

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self._call("joined", node.nodes, frame)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        self.write("environment.compared(")
        self.visit(node.expr, frame)
        for operand in node.ops:
            self.write(f", {operand.op!r}, ")
            self.visit(operand.expr, frame)
        self.write(")")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        self.write("environment.made(")
        super().visit_List(node, frame)
        self.write(")")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx != "load":
            super().visit_Tuple(node, frame)
            return
        self.write("environment.made(")
        super().visit_Tuple(node, frame)
        self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        # A key is hashed when the literal is made: each is looked at before.
        self.write("environment.made({")
        for item in node.items:
            self.write("environment.made(")
            self.visit(item.key, frame)
            self.write("): ")
            self.visit(item.value, frame)
            self.write(", ")
        self.write("})")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        part = node.arg
        bounds = [it or nodes.Const(None) for it in (part.start, part.stop, part.step)]
        self._call("sliced", [node.node, *bounds], frame)

    def _call(self, name: str, arguments: list[nodes.Expr], frame: Frame) -> None:
        self.write(f"environment.{name}(")
        for argument in arguments:
            self.visit(argument, frame)
            self.write(", ")
        self.write(")")


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """An environment for one template at a time; `budget` is that of the render under way."""

    code_generator_class = _Generator
    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols"],
            # What never runs is not worked out either.
            optimized=False,
            finalize=self._printed,
        )
        self.budget = Budget()
        filters: dict[str, Any] = self.filters
        self.filters = {name: self._guarded(name, filters[name]) for name in _FILTERS}
        self.tests = {
            name: self._guarded(name, test) if name in _COMPARING_TESTS else test
            for name, test in self.tests.items()
            if name not in ("filter", "test")
        }
        del self.globals["lipsum"]

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        self.filters[name] = self._guarded(name, function)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, methods in _METHODS.items():
            if isinstance(obj, kind):
                return attr in methods
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        # jinja2 allows `format` through a wrapper of its own; here it is a method like others.
        return None

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, tuple):
            self._read(argument)
        return super().getitem(obj, argument)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.budget.step()
        name, read = "", [*args, *kwargs.values()]
        if isinstance(obj, BuiltinMethodType):
            # A method of a text or a list reads that too.
            args = _whole(args)
            name, read = obj.__name__, [obj.__self__, *args, *kwargs.values()]
        self._check(name, read)
        return self._made(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.budget.step()
        if any(isinstance(it, int) and it.bit_length() > NUMBER_BITS_MAX for it in (left, right)):
            raise OverflowError("a number too large")
        match operator:
            case "%" if isinstance(left, str | bytes):
                raise TypeError("texts are not formatted here")
            case "**" if any(not isinstance(it, int | float) for it in (left, right)):
                raise TypeError("only numbers have powers")
            case "**" if max(abs(left), abs(right)) > POWER_MAX:
                raise OverflowError("a power too large")
            case "*":
                sized = [weight(it) for it in (left, right) if not isinstance(it, _SCALARS)]
                times = [it for it in (left, right) if isinstance(it, int)]
                if sized and max(times, default=0) * max(sized) > VALUE_CHARS_MAX:
                    raise OverflowError("a text repeated too often")
        self._read(left, right)
        return self._made(super().call_binop(context, operator, left, right))

    # What compiled templates call, by `_Generator`.

    def literal(self, text: str) -> str:
        self.budget.use(len(text))
        return text

    def joined(self, *parts: Any) -> str:
        self.budget.step()
        self._read(*parts, strict=True)
        return "".join(map(str, parts))

    def compared(self, left: Any, *rest: Any) -> bool:
        self.budget.step()
        for operation, right in zip(rest[::2], _whole(rest[1::2]), strict=True):
            self._read(left, right)
            if not _OPERATIONS[operation](left, right):
                return False
            left = right
        return True

    def made(self, value: Any) -> Any:
        self.budget.step()
        return self._made(value)

    def sliced(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        self.budget.step()
        return self._made(value[start:stop:step])

    def _printed(self, value: Any) -> Any:
        self._read(value, strict=True)
        return value

    def _read(self, *values: Any, strict: bool = False) -> None:
        for value in values:
            self.budget.use(weight(value, strict=strict))

    def _made(self, value: Any) -> Any:
        self.budget.use(weight(value))
        return value

    def _check(self, name: str, values: list[Any], *, strict: bool = False) -> None:
        """Whether an operation may read these values; charges for it."""
        sizes = [weight(it, strict=strict) for it in values]
        self.budget.use(sum(sizes))
        if name in _PRODUCTS:
            # A number says how often: as wide as this, as deep as this.
            sizes += [abs(it) for it in values if isinstance(it, int)]
            first, second = sorted([1, 1, *sizes])[-2:]
            if first * second > PRODUCT_MAX:
                raise OverflowError(f"{name} would make too much")

    def _guarded(self, name: str, function: Any) -> Any:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.budget.step()
            args = _whole(args)
            values = [it for it in (*args, *kwargs.values()) if not isinstance(it, _INTERNAL)]
            if name not in _HANDS_ON:
                if any(isinstance(it, int) and abs(it) > NUMBER_MAX for it in values[1:]):
                    raise OverflowError(f"a number too large for {name}")
                self._check(name, values, strict=name not in _COMPARING_TESTS)
            found = function(*args, **kwargs)
            return found if _lazy(found) or name in _HANDS_ON else self._made(found)

        return guarded


_INTERNAL = (Context, Environment, EvalContext)


def _lazy(value: Any) -> bool:
    """Whether a value's items are made as they are asked for: a list of them is what they weigh."""
    return isinstance(value, Iterator) and not isinstance(value, LoopContext)


def _whole(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(list(it) if _lazy(it) else it for it in values)
