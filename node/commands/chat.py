"""A conversation with a model, and the commands that a person types in it. A pure core."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from wire.errors import InputError

HELP = """\
/help              this list
/system TEXT       what the model is told before anything else; without TEXT it is told nothing
/new               begin anew: the model forgets what was said
/receipt           where the receipt of the last answer lies, and how to check it
/route             who worked on the last answer, and how long
/save FILE         write the conversation; a .json file can be given to ask --messages
/quit              leave (Ctrl-D does the same)
Alt-Enter begins a new line, Enter sends. Ctrl-C stops an answer."""
# Of each passage so much is told to the model: small ones lose the thread in more.
PASSAGE_CHARS = 500
COMMANDS = ("help", "system", "new", "receipt", "route", "save", "quit")


@dataclass(frozen=True, slots=True)
class ChatCommand:
    """A command of the chat: its name without the slash, and the rest of the line."""

    name: str
    rest: str


def read_line(line: str) -> ChatCommand | str | None:
    """What a person typed: a command, a question, or nothing; InputError for no command.

    Two slashes at the beginning make a question that begins with one.
    """
    text = line.strip()
    if not text:
        return None
    if text.startswith("//"):
        return text[1:]
    if not text.startswith("/"):
        return text
    name, _, rest = text[1:].partition(" ")
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean /{near[0]}? /help lists all" if near else "/help lists all"
        raise InputError(f"there is no command /{name[:40]}", todo=hint)
    return ChatCommand(name, rest.strip())


def question_with(passages: Sequence[str], question: str) -> str:
    """What a model is told that is to answer from these passages."""
    told = "\n\n".join(" ".join(it.split())[:PASSAGE_CHARS] for it in passages)
    return f"Text:\n{told}\n\nQuestion: {question}"


@dataclass(slots=True)
class Conversation:
    """What was said so far. A question counts only once it has an answer."""

    system: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)

    def asked(self, question: str) -> list[dict[str, str]]:
        """The messages that a model answers when this is asked next."""
        first = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*first, *self.messages, {"role": "user", "content": question}]

    def answered(self, question: str, answer: str) -> None:
        """Keep a question with its answer, also one that was stopped half way."""
        self.messages.append({"role": "user", "content": question})
        self.messages.append({"role": "assistant", "content": answer})

    def forget(self) -> None:
        """Begin anew; what the model is told first stays."""
        self.messages.clear()

    def document(self, *, as_json: bool) -> str:
        """The conversation as text to read, or as the messages that `ask --messages` takes."""
        said = self.asked("")[:-1]
        if as_json:
            return json.dumps(said, indent=2, ensure_ascii=False) + "\n"
        return "\n".join(f"{it['role']}: {it['content']}\n" for it in said)
