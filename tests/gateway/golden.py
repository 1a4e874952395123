"""Conversations of the official clients: what they sent, byte for byte, and what they are told.

The requests in `conversations/` were recorded by `python -m tests.bench clients --record`; the
answers are those of the tests' own network, whose engine says the same whenever it is asked the
same. `python -m tests.gateway.golden` writes the answers anew, to be read before they are kept.
"""

import json
import re
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "conversations"
HOST = "{host}"
READ_S = 60.0
# Ids and times, which are others each time.
_CHANGING = (
    (re.compile(r"bafkrei[a-z2-7]{20,}"), "CID"),
    (re.compile(r"\b(call|fc_call|toolu)_[0-9a-f]{16,}"), r"\1_ID"),
    (re.compile(r'"(created|created_at|completed_at)": ?\d+'), r'"\1":0'),
    (re.compile(r'"(\w+_duration|x_baton)": ?(\d+|\{[^{}]*\})'), r'"\1":0'),
    (re.compile(r'"(\w+_at)": ?"[^"]+"'), r'"\1":"TIME"'),
    (re.compile(r'"peers": ?\d+'), '"peers":0'),
)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One request of a client, and its answer if one was written down."""

    client: str
    number: int
    first: str
    headers: list[list[str]]
    body: str
    # The id of the response that this made, where it was recorded: later requests name it.
    made: str = ""
    answer: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return f"{self.client}-{self.number}"

    def data(self, host: str, ids: dict[str, str]) -> bytes:
        """The bytes that the client sent, to a gateway at another address.

        `ids` are those that responses have now, by those that they had.
        """
        lines = [f"{name}: {value.replace(HOST, host)}" for name, value in self.headers]
        text = "\r\n".join([self.first, *lines, "", ""]) + self.body
        for old, new in ids.items():
            text = text.replace(old, new)
        return text.encode()


def conversations() -> list[Conversation]:
    """All that are written down."""
    return [
        Conversation(path.stem, number, **json.loads(line))
        for path in sorted(FOLDER.glob("*.jsonl"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines())
    ]


class Connection:
    """One connection on which requests follow each other."""

    def __init__(self, url: str) -> None:
        self.host = url.removeprefix("http://")
        name, port = self.host.split(":")
        self._socket = socket.create_connection((name, int(port)), READ_S)
        self._file = self._socket.makefile("rb")
        self._ids: dict[str, str] = {}

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def ask(self, conversation: Conversation) -> dict[str, Any]:
        """The answer, without what changes from time to time."""
        self._socket.sendall(conversation.data(self.host, self._ids))
        status = int(self._file.readline().split()[1])
        headers = {}
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        body = self._body(headers).decode()
        if conversation.made and (made := re.search(r'"id": ?"(resp_[a-z2-7]+)"', body)):
            self._ids[conversation.made] = made[1]
        told: dict[str, Any] = {"status": status, "type": headers.get("content-type", "")}
        return told | {"body": steady(body)}

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self._file.read(int(headers["content-length"]))
        found = b""
        while size := int(self._file.readline(), 16):
            found += self._file.read(size)
            self._file.readline()
        self._file.readline()
        return found


def steady(text: str) -> str | list[Any]:
    """A body without ids and times; of a stream its events, the pieces of a text joined.

    How a text is cut into pieces is chance: tokens that come at once are told at once.
    """
    for pattern, instead in _CHANGING:
        text = pattern.sub(instead, text)
    if not (text.startswith(("data: ", "event: ")) or text.count("\n") > 1):
        return text
    lines = [it.removeprefix("data: ") for it in text.splitlines() if it]
    found: list[Any] = []
    for line in lines:
        if line.startswith("event: ") or not line.startswith("{"):
            # The name of an event is in its data too; and `[DONE]`.
            found += [] if line.startswith("event: ") else [line]
            continue
        event = json.loads(line)
        event.pop("sequence_number", None)
        if found and isinstance(found[-1], dict) and _blank(found[-1]) == _blank(event):
            _join(found[-1], event)
        else:
            found.append(event)
    return found


# Where the events of each dialect have a piece of a text, and what is told of its tokens.
_PIECES = (
    *(("choices", 0, "delta", "content"), ("choices", 0, "text"), ("delta",), ("delta", "text")),
    *(("message", "content"), ("response",), ("choices", 0, "logprobs", "content")),
    *(("choices", 0, "logprobs", it) for it in ("tokens", "token_logprobs", "top_logprobs")),
    ("choices", 0, "logprobs", "text_offset"),
)


def _at(event: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        try:
            event = event[part]
        except (KeyError, IndexError, TypeError):
            return None
    return event


def _blank(event: dict[str, Any]) -> str | None:
    """An event without its piece, as a text to compare; None if it has none."""
    copy, empty = json.loads(json.dumps(event)), True
    for path in _PIECES:
        piece = _at(copy, path)
        if isinstance(piece, str | list) and piece:
            _at(copy, path[:-1])[path[-1]] = piece[:0]
            empty = False
    return None if empty else json.dumps(copy)


def _join(event: dict[str, Any], after: dict[str, Any]) -> None:
    for path in _PIECES:
        piece = _at(after, path)
        if isinstance(piece, str | list) and piece:
            _at(event, path[:-1])[path[-1]] += piece


def write_answers() -> None:
    """Ask everything again, and write the answers beside the requests."""
    from tests.gateway.conftest import serving

    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as served:
        served.engine.follows_schemas = True
        connection = Connection(served.url)
        lines: dict[str, list[str]] = {}
        for one in conversations():
            answer = connection.ask(one)
            told = {"first": one.first, "headers": one.headers, "body": one.body}
            told |= {"made": one.made} if one.made else {}
            told |= {"answer": answer}
            lines.setdefault(one.client, []).append(json.dumps(told, ensure_ascii=False))
        connection.close()
    for client, found in lines.items():
        (FOLDER / f"{client}.jsonl").write_text("".join(f"{it}\n" for it in found))


if __name__ == "__main__":
    write_answers()
    sys.stdout.write(f"{len(conversations())} answers\n")
