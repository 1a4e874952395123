"""What every command of the command line has: examples at the end of its help, and light imports.

What can be typed is described in the files `cli_*.py`, which are imported for every command, also
for `--help`; what a command does lies beside them, and is imported only when the command runs.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from wire.errors import BatonError

CALLED = "python -m node"


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


class Command(click.Command):
    """A command with examples, and with lines about it that only `--help` needs."""

    def __init__(
        self,
        *arguments: Any,
        examples: Sequence[str] = (),
        details: Callable[[], Sequence[str]] = tuple,
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **settings)
        self.examples = tuple(examples)
        self.details = details

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
        if lines := self.details():
            with formatter.section(lines[0]):
                formatter.write_dl([_halves(line) for line in lines[1:]])
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


def _halves(line: str) -> tuple[str, str]:
    name, _, text = line.partition(": ")
    return name, text


def _write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    with formatter.section("Examples" if len(examples) > 1 else "Example"):
        for example in examples:
            # Not wrapped: a line is copied as it stands.
            formatter.write(f"  {CALLED} {example}\n")
