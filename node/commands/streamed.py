"""A model's answer as it comes over the peer's control socket: text to show, once and clean."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from node.commands.output import plain_text
from node.gateway.reading import Reader
from wire.errors import WireError
from wire.generation import Token, read_frames

Write = Callable[[str], None]
# What a peer says, as events name it, that is asked again in a moment: it loads the model, or waits
# for its price to be promised.
WAITING = frozenset({"loading", "not_paid"})
UNACCEPTED = "[what stands above is no answer: it is not whole, or nobody checked it]"
CORRECTED = "[what stands above was wrong; the right answer is]"


@dataclass(slots=True)
class StreamedAnswer:
    """Writes the text of one answer while it is made; other lines may come in between.

    `write` takes text that is safe to show, `tell` one event of another kind, if it `is_told`.
    """

    write: Write
    tell: Callable[[Mapping[str, Any]], None]
    is_told: Callable[[Mapping[str, Any]], bool] = lambda _: True
    reader: Reader = field(default_factory=Reader)
    # What was written of the answer itself, and whether a line is under way.
    said: str = ""
    _mid_line: bool = False

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Take in what happened: pieces become text, everything else is told."""
        match event["event"]:
            case "piece":
                self._take(event)
            case "restarted":
                self.reader.restart(event["position"])
            case _ if self.is_told(event):
                self.end_line()
                self.tell(event)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write what is still missing of the whole answer, which is what counts."""
        text = plain_text(result["text"])
        if not text.startswith(self.said):
            self.end_line()
            self.write(f"{CORRECTED}\n")
            self.said = ""
        self._say(text[len(self.said) :])
        self.end_line()

    def give_up(self) -> None:
        """Say of what was written that no accepted answer came of it."""
        if self.said:
            self.end_line()
            self.write(f"{UNACCEPTED}\n")

    def end_line(self) -> None:
        """What is written next begins a line."""
        if self._mid_line:
            self.write("\n")
            self._mid_line = False

    def _take(self, event: Mapping[str, Any]) -> None:
        try:
            units = sum(isinstance(it, Token) for it in read_frames(event["data"]))
        except WireError:
            # The whole answer at the end counts; until then nothing more is shown.
            units = 0
        self.reader.take(event["position"], units, event["data"])
        fresh = self.reader.fresh()
        if not self.reader.contradicted:
            self._say(plain_text(fresh.text))

    def _say(self, text: str) -> None:
        if text:
            self.write(text)
            self.said += text
            self._mid_line = not text.endswith("\n")
