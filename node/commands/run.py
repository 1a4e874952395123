"""`run`: a conversation with a model in the terminal, or one question a line from a pipe."""

import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import trio

from node.commands.ask import SOCKET, save_receipt, show_event, show_route
from node.commands.chat import HELP, ChatCommand, Conversation, question_with, read_line
from node.commands.content import bar
from node.commands.models import is_running
from node.commands.output import console, plain_text, safe, show_aside
from node.commands.own_network import own_network
from node.commands.running import run as fairly
from node.commands.streamed import WAITING, StreamedAnswer
from node.commands.to_type import hint
from node.local.control import call, unheard
from node.models.inspect import is_path
from wire.errors import BatonError, InputError

HISTORY = "chat-history"
PREPARE_DEADLINE_S = 24 * 3600.0
# So many passages are told to the model.
PASSAGES = 3


class LineReader(Protocol):
    """Where questions come from; EOFError at the end, KeyboardInterrupt for a line given up."""

    def __call__(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Whom to talk to, and how. `model` is a name, an id, or the path of a file."""

    state: Path
    model: str
    system: str | None
    parameters: Mapping[str, int | float]
    deadline_s: int
    needed: int
    verifiers: int
    # An index from whose passages it answers, and the model that made it; "" for neither.
    index: str = ""
    search: str = ""
    # Options of the peer that is started where none runs: what the model runs on.
    device: tuple[str, ...] = ()

    @property
    def terms(self) -> dict[str, Any]:
        """How each task of the conversation is asked."""
        return {
            "deadline_s": self.deadline_s,
            "needed": self.needed,
            "verifiers": self.verifiers,
            "fresh": True,
        }


def run(config: RunConfig) -> int:
    """Talk until the end of the input; the exit code. BatonError says what could not be done."""
    with ExitStack() as stack:
        if fairly(lambda: is_running(config.state)):
            _check_no_device(config)
        else:
            if sys.stdin.isatty():
                console.print("[dim]no peer is running: starting a network of this machine[/dim]")
            stack.enter_context(own_network(config.state, config.model, config.device))
        model = fairly(lambda: _prepare(config))
        chat = Chat(config, model)
        if not sys.stdin.isatty():
            return chat.from_lines(_lines_of_a_pipe())
        console.print(
            f"[bold]{safe(config.model)}[/bold] is ready."
            " [dim]Enter sends, Ctrl-C stops an answer, /help lists commands[/dim]"
        )
        return chat.talk(_terminal(config.state / HISTORY))


def _check_no_device(config: RunConfig) -> None:
    if config.device:
        raise InputError(
            f"a peer is running on {config.state}, and what its models run on was said by its join",
            todo=f"leave out {' '.join(config.device)}, or end that peer first",
        )


async def _prepare(config: RunConfig) -> str:
    """Have somebody answer for the model, with a bar while that takes time; the model's name."""
    model = config.model
    with bar() as progress:
        task = progress.add_task("loading", total=None)

        def tell(event: Mapping[str, Any]) -> None:
            progress.update(
                task,
                description=f"{event['event']} {plain_text(Path(config.model).name)}",
                completed=event["done_bytes"],
                total=event["size_bytes"] or None,
            )

        async def asked(command: str, what: str) -> dict[str, Any]:
            socket = config.state / SOCKET
            return await call(socket, command, {"what": what}, tell, deadline_s=PREPARE_DEADLINE_S)

        if is_path(model):
            model = (await asked("models-add", model))["id"]
        await asked("models-prepare", model)
    return model


def _lines_of_a_pipe() -> Iterator[str]:
    for line in sys.stdin.buffer:
        yield line.decode(errors="replace")


def _terminal(history: Path) -> LineReader:
    """Line editing with a history that is kept, and with several lines in one question."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.key_binding.key_processor import KeyPressEvent

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    # Only its owner reads what was asked.
    history.touch(mode=0o600)
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)), key_bindings=keys, multiline=True
    )
    return lambda: session.prompt(">>> ", prompt_continuation="... ")


@dataclass(slots=True)
class Chat:
    """One conversation: lines in, answers and what commands say out."""

    config: RunConfig
    model: str
    write: Callable[[str], object] = sys.stdout.write
    conversation: Conversation = field(init=False)
    result: dict[str, Any] | None = None
    saved: Path | None = None

    def __post_init__(self) -> None:
        self.conversation = Conversation(self.config.system)

    def talk(self, read: LineReader) -> int:
        """Read and answer until /quit or the end; an error of one line ends nothing."""
        while True:
            try:
                if not self._do(read()):
                    return 0
            except EOFError:
                return 0
            except KeyboardInterrupt:
                console.print("[dim]/quit or Ctrl-D leaves[/dim]")
            except BatonError as error:
                console.print(f"[yellow]{safe(error)}[/yellow]")

    def from_lines(self, lines: Iterator[str]) -> int:
        """Answer each line; the first error is the end, and is raised."""
        for line in lines:
            if not self._do(line):
                break
        return 0

    def _do(self, line: str) -> bool:
        """One line; False if it says that this is the end."""
        said = read_line(line)
        match said:
            case None:
                return True
            case str():
                self._answer(said)
            case ChatCommand(name="quit"):
                return False
            case ChatCommand():
                self._command(said)
        return True

    def _answer(self, question: str) -> None:
        shown = StreamedAnswer(self._show, show_event, _is_told)
        passages = fairly(lambda: self._found(question)) if self.config.index else []
        told = question_with([it["text"] for it in passages], question) if passages else question
        result = fairly(lambda: self._asked(self.conversation.asked(told), shown))
        if result is None:
            # Stopped: what was said counts, so that "go on" makes sense.
            shown.end_line()
            self.conversation.answered(question, shown.said.strip())
            return
        shown.finish(result["result"])
        _show_passages(passages)
        self.conversation.answered(question, result["result"]["text"])
        self.result, self.saved = result, save_receipt(self.config.state, result)

    async def _found(self, question: str) -> list[dict[str, Any]]:
        """The passages of the index that are nearest to the question; each has a score and text."""
        config = self.config
        arguments = {
            "model": config.search,
            "text": question,
            "index": config.index,
            "count": PASSAGES,
            **config.terms,
        }
        deadline_s = config.deadline_s + 30.0
        result = await call(config.state / SOCKET, "ask", arguments, unheard, deadline_s=deadline_s)
        found: list[dict[str, Any]] = result["result"]["passages"]
        return found

    async def _asked(
        self, messages: list[dict[str, str]], shown: StreamedAnswer
    ) -> dict[str, Any] | None:
        """The result; None if it was stopped by Ctrl-C, which also ends the task."""
        config, result = self.config, None
        arguments = {
            "model": self.model,
            "operation": "generate",
            "messages": messages,
            "parameters": dict(config.parameters),
            **config.terms,
            "attended": True,
        }
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:

                async def stop() -> None:
                    async for _ in signals:
                        nursery.cancel_scope.cancel()

                nursery.start_soon(stop)
                error = None
                try:
                    result = await call(
                        config.state / SOCKET,
                        "ask",
                        arguments,
                        shown.on_event,
                        deadline_s=config.deadline_s + 30.0,
                    )
                except BatonError as raised:
                    # Outside of the nursery, so that it is not one of a group.
                    error = raised
                nursery.cancel_scope.cancel()
        if error is not None:
            raise error
        return result

    def _show(self, text: str) -> None:
        self.write(text)
        sys.stdout.flush()

    def _command(self, command: ChatCommand) -> None:
        match command.name:
            case "help":
                console.print(HELP, markup=False)
            case "system":
                self.conversation.system = command.rest or None
                console.print(f"[dim]told first: {safe(command.rest) or 'nothing'}[/dim]")
            case "new":
                self.conversation.forget()
                console.print("[dim]a new conversation[/dim]")
            case "save":
                self._save(command.rest)
            case "route":
                show_route(self._last())
            case "receipt":
                console.print(
                    hint(
                        f"receipt {self._last()['receipt']}\n"
                        f"  check it: python -m node verify {safe(self.saved)}"
                    )
                )

    def _last(self) -> dict[str, Any]:
        if self.result is None:
            raise InputError("there is no answer yet", todo="ask something first")
        return self.result

    def _save(self, name: str) -> None:
        if not name:
            raise InputError("/save needs a file", todo="for example /save talk.json")
        path = Path(name).expanduser()
        text = self.conversation.document(as_json=path.suffix == ".json")
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"{name[:200]} cannot be written: {error.strerror}", todo="name another file"
            ) from error
        console.print(f"[dim]saved in {safe(path)}[/dim]")


def _show_passages(passages: Sequence[Mapping[str, Any]]) -> None:
    """What an answer rests on, beside it: who reads the answers of a pipe reads nothing else."""
    for place, passage in enumerate(passages, 1):
        words = " ".join(plain_text(passage["text"]).split())
        beginning = textwrap.shorten(words, 64, placeholder=" …")
        show_aside(f"from {place}. {passage['score']:.3f} {beginning}")


def _is_told(event: Mapping[str, Any]) -> bool:
    """Of what happens on the way only that a peer failed is worth a line in a conversation."""
    return event["event"] == "failed" and event.get("code") not in WAITING
