"""What a command says when it fails: one line for people, one JSON document for programs."""

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from node.commands.command import CALLED
from node.commands.standard_streams import OutputLost
from wire.errors import BatonError

# A bug of ours, as opposed to an error of somebody's: sysexits' EX_SOFTWARE.
EXIT_BUG = 70
EXIT_INTERRUPTED = 130
EXIT_UNREAD = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """How a command ended. `line` is empty where nobody needs to be told.

    `kind` and `code` are for programs: whose fault it was, and the refusal's code.
    """

    exit_code: int
    line: str = ""
    kind: str = ""
    message: str = ""
    todo: str = ""
    code: str = ""
    # Standard output takes nothing any more.
    output_lost: bool = False

    @property
    def document(self) -> dict[str, dict[str, str]]:
        """What is printed with --json, in place of what the command would have printed."""
        told = {"kind": self.kind, "message": self.message, "todo": self.todo, "code": self.code}
        return {"error": {name: it for name, it in told.items() if it}}


def failure_of(errors: Sequence[BaseException]) -> Failure:
    """The failure that says most, of all errors that ended a command."""
    if any(isinstance(error, OutputLost) and error.reader_gone for error in errors):
        # Whoever read the output has read enough; what is still buffered goes nowhere.
        return Failure(EXIT_UNREAD, output_lost=True)
    if any(isinstance(error, KeyboardInterrupt | click.Abort) for error in errors):
        return Failure(EXIT_INTERRUPTED)
    for error in errors:
        if isinstance(error, BatonError):
            return Failure(
                1,
                _printable(str(error)),
                _snake(type(error).__name__),
                _printable(error.message),
                _printable(error.todo),
                error.code.name.lower(),
                isinstance(error, OutputLost),
            )
    error = errors[0]
    if isinstance(error, click.UsageError):
        words, todo = _one_line(error.format_message()), _todo(error)
        return Failure(2, f"{words} ({todo})", "usage", words, todo)
    if isinstance(error, click.ClickException):
        words = _one_line(error.format_message())
        return Failure(1, words, "usage", words)
    told = _printable(_one_line(str(error))) or f"at {_place(error)}"
    what = f"a bug in Baton ({type(error).__name__}: {told})"
    return Failure(
        EXIT_BUG, f"{what}: --debug shows where; report it", "bug", what, "--debug shows where"
    )


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The errors of a group and of the groups in it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


def _place(error: BaseException) -> str:
    """The file and line that raised it, for an error without words."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    return f"{'/'.join(Path(frames[-1].filename).parts[-3:])}:{frames[-1].lineno}"


def _todo(error: click.UsageError) -> str:
    """What to type: an example where words are missing, and in any case how to get help."""
    examples = getattr(error.ctx.command, "examples", ()) if error.ctx is not None else ()
    words: list[str] = []
    context = error.ctx
    while context is not None and context.parent is not None:
        words.insert(0, context.info_name or "")
        context = context.parent
    seek = f"see {' '.join((CALLED, *words))} --help"
    wants_words = isinstance(error, click.MissingParameter) or type(error) is click.UsageError
    if not examples or not wants_words:
        return seek
    return f"for example {CALLED} {examples[0]}; {seek}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _printable(text: str) -> str:
    """Words of a peer may be in it: they must not steer the terminal."""
    return "".join(it if it.isprintable() else "?" for it in text)


def _snake(name: str) -> str:
    return "".join(f"_{it.lower()}" if it.isupper() else it for it in name).lstrip("_")
