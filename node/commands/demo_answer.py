"""The end of the demo: a language model words the answer, and its peer is killed in mid-sentence.

The passages that were found are all it is told. Who serves it gets SIGKILL once some words are on
the screen; another peer goes on after the last of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from node.commands.chat import question_with
from node.commands.demo_peers import pids_of
from node.commands.demo_story import Story, called, kill, on_event, task_deadline_s
from node.commands.streamed import StreamedAnswer
from p2p import timeouts
from p2p.timeouts import Processes
from wire.errors import TaskFailed

# So many passages are told to the model: it is a small one.
PASSAGES = 2
TOKENS = 72
# Words on the screen before the peer is killed.
KILL_AFTER_CHARS = 40
ANSWER_DEADLINE_S = 240.0
SYSTEM = "You answer questions about Python from the text you are given, in two short sentences."
Narrate = Callable[[str], None]


async def word_answer(story: Story, narrate: Narrate) -> None:
    """Have the answer written, and the peer that writes it killed."""
    await _writers_ready(story, narrate)
    story.chapter = "the answer in words, from the passages found; who writes it is killed half way"
    passages = story.answer["result"]["passages"][:PASSAGES]
    written = _Written(story, narrate)
    arguments = {
        "model": story.writer,
        "operation": "generate",
        "messages": prompt_of(story.question, [it["text"] for it in passages]),
        "parameters": {"tokens": TOKENS, "temperature": 0.0},
        "deadline_s": task_deadline_s(ANSWER_DEADLINE_S),
        # As many as run the language model besides those that serve it.
        "needed": len(story.writers("verify")),
        "verifiers": len(story.writers("verify")),
        "fresh": True,
        "price_max": story.price_max,
    }
    result = await called(story, "ask", arguments, written.on_event, ANSWER_DEADLINE_S + 30.0)
    written.shown.finish(result["result"])
    story.words = result
    story.answered += 1
    story.verified += bool(result["verified"])
    if not story.killed:
        raise TaskFailed("the answer was there before the peer that wrote it could be killed")
    narrate(f"the sentence is whole: {story.name_of(result['route'][-1]['peer'])} finished it")


def prompt_of(question: str, passages: list[str]) -> list[dict[str, str]]:
    """What the language model is told: the passages, then the question."""
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": question_with(passages, question)},
    ]


@dataclass(slots=True)
class _Written:
    """What is on the screen of the answer, and who writes it."""

    story: Story
    narrate: Narrate
    by: str = ""
    shown: StreamedAnswer = field(init=False)

    def __post_init__(self) -> None:
        self.shown = StreamedAnswer(self._write, self._tell)

    def on_event(self, event: Mapping[str, Any]) -> None:
        self.shown.on_event(event)
        if len(self.story.sentence) >= KILL_AFTER_CHARS and self.by and not self.story.killed:
            self.story.killed = kill(self.story, self.by, self.narrate)

    def _write(self, text: str) -> None:
        self.story.sentence += text

    def _tell(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "offered":
            if self.story.killed:
                self.narrate(f"{self.story.name_of(event['peer'])} goes on where it broke off")
            self.by = event["peer"]
        on_event(self.story, event, self.narrate)


async def _writers_ready(story: Story, narrate: Narrate) -> None:
    story.chapter = "the language model is made ready on those that run or check it"
    starved = Processes(lambda: pids_of(story.peers))
    with timeouts.move_on_after(story.model_deadline_s, starved=starved) as patience:
        for peer in story.writers():
            while not _has(peer.status, story.writer):
                await trio.sleep(0.2)
            narrate(f"{peer.name} has {story.writer} ready")
    if patience.cancelled_caught:
        raise TaskFailed(f"the model {story.writer} was not ready in time on every peer")


def _has(status: Mapping[str, Any], model: str) -> bool:
    rows = status.get("models", ())
    return any(it["name"] == model and it["state"] in ("ready", "resting") for it in rows)
