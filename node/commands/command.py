"""What every command of the command line has: examples at the end of its help, and light imports.

What can be typed is described in the files `cli_*.py`, which are imported for every command, also
for `--help`; what a command does lies beside them, and is imported only when the command runs.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from wire.errors import BatonError

CALLED = "python -m node"
F = TypeVar("F", bound=Callable[..., Any])
# An example that is longer goes on in a second line.
COLUMNS = 80
# What an option does begins in a line of its own where the option is longer.
OPTION_COLUMNS_MAX = 26
# An option stays beside its value.
_WORD = re.compile(r"""(?:--[a-z-]+ (?!-))?(?:"[^"]*"|'[^']*'|\S)+""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """What only `node.__main__` may make; commands make of it what they need.

    `runtime` gives a `node.commands.join.Runtime`. It loads the network's libraries, which takes a
    second, and so does naming its type here. `fix_hashes` sees to it that hashes of text are the
    same as in every other process; it may start this process again from its beginning.
    """

    wall_s: Callable[[], float]
    entropy: Callable[[int], bytes]
    runtime: Callable[[], Any]
    fix_hashes: Callable[[], None] = lambda: None
    # The Python that runs this; a new version's environment is made of it.
    python: str = ""
    # What was set for this process, of which programs that install are told.
    variables: Mapping[str, str] = field(default_factory=dict)
    # Where the service manager put the secrets that it was told to hand over, if it has.
    credentials: Path | None = None


class Heading(click.Option):
    """What stands over the options after it, in `--help`; no option itself."""

    def __init__(self, declared: Sequence[str], *, text: str) -> None:
        super().__init__(declared, hidden=True, expose_value=False)
        self.text = text


def heading(text: str) -> Callable[[F], F]:
    """Put a heading over the options that are named below it."""
    return click.option("--heading", cls=Heading, text=text)


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Options that several commands have, shown in this order."""

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


class Command(click.Command):
    """A command with examples, and with rows under headings that only `--help` needs."""

    def __init__(
        self,
        *arguments: Any,
        examples: Sequence[str] = (),
        details: Callable[[], Mapping[str, Sequence[tuple[str, str]]]] = dict,
        **settings: Any,
    ) -> None:
        laid_out = settings.pop("params", None) or ()
        settings["params"] = [it for it in laid_out if not isinstance(it, Heading)]
        super().__init__(*arguments, **settings)
        self.examples = tuple(examples)
        self.details = details
        self._laid_out = tuple(laid_out)

    def sections(self, ctx: click.Context) -> list[tuple[str, list[tuple[str, str]]]]:
        """The headings, each with what `--help` says of the options under it."""
        found: list[tuple[str, list[tuple[str, str]]]] = [("Options", [])]
        asked = self.get_help_option(ctx)
        for shown in (*self._laid_out, *([asked] if asked else ())):
            if isinstance(shown, Heading):
                found.append((shown.text, []))
            elif isinstance(shown, click.Option) and (record := shown.get_help_record(ctx)):
                found[-1][1].append(record)
        return [it for it in found if it[1]]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        for text, records in self.sections(ctx):
            with formatter.section(text):
                formatter.write_dl(records, col_max=OPTION_COLUMNS_MAX)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; what an error says is to be done is about the state folder that was named."""
        try:
            return super().invoke(ctx)
        except BatonError as error:
            _fill_in(error, ctx)
            raise
        except BaseExceptionGroup as group:
            _fill_in(group, ctx)
            raise

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the details and the examples after the options."""
        for text, rows in self.details().items():
            with formatter.section(text):
                formatter.write_dl(rows)
        _write_examples(formatter, self.examples)


class Group(click.Group):
    """Commands under one name, with examples."""

    command_class = Command

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **settings: Any) -> None:
        # Nothing typed is an error of one line like any other, not a page on standard error.
        super().__init__(*arguments, **{"no_args_is_help": False, **settings})
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples after the commands."""
        _write_examples(formatter, self.examples)


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run `work` to its end, and return what it returns; trio is loaded only now."""
    from node.commands import running

    return running.run(work)


def _fill_in(error: BaseException, context: click.Context) -> None:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            _fill_in(each, context)
    elif isinstance(error, BatonError) and error.todo:
        from node.commands.to_type import todo_here

        error.todo = todo_here(error.todo, context)


def _write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    with formatter.section("Examples" if len(examples) > 1 else "Example"):
        for example in examples:
            formatter.write("".join(f"{it}\n" for it in example_lines(example)))


def example_lines(example: str) -> list[str]:
    """An example as it is typed, in lines that a shell takes for one if one would be too long."""
    lines = [f"  {CALLED}"]
    for word in _WORD.findall(example):
        # Room is kept for what says that the line goes on.
        if len(f"{lines[-1]} {word} \\") > COLUMNS:
            lines[-1] += " \\"
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}"
    return lines
