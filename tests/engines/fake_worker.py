"""Workers that are not there: scripts answer, so that a test says when one of them dies."""

from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from node.engines.formats.gguf_model import SLOTS
from node.engines.host import model_worker
from node.engines.host.engine import TinygradEngine
from node.engines.host.launch import EngineConfig
from node.engines.host.worker_process import Question
from node.engines.interface import Job
from tests.engines.tiny_gguf import gguf_manifest
from wire.content import ContentId
from wire.errors import EngineError, EngineFailed, EngineMissing
from wire.generation import Ending, Generation, Token, to_frame
from wire.model import Manifest

Message = dict[str, Any]


def frames_of(prompt: str, count: int) -> list[bytes]:
    """What these workers' one language model answers to a prompt."""
    tokens = [
        Token(id=at, text=f"{prompt}{at} ".encode(), logprob_millionths=None, top=())
        for at in range(count)
    ]
    text_bytes = sum(len(token.text) for token in tokens)
    ending = Ending(reason="length", prompt_tokens=1, tokens=count, text_bytes=text_bytes)
    frames = [to_frame(token) for token in tokens]
    frames[-1] += to_frame(ending)
    return frames


@dataclass(slots=True, eq=False)
class FakeWorker:
    """One life. It does with what it is sent as a real one would, doubled answers included."""

    id: int
    scene: "Scene"
    running: bool = True
    slots: int = SLOTS
    # By model: number, frames that are left.
    answers: dict[bytes, list[tuple[int, list[bytes]]]] = field(default_factory=dict)
    # Every number that it was told to begin with.
    begun: list[int] = field(default_factory=list)
    steps: int = 0
    # It answers nothing any more.
    hangs: bool = False
    # How many answers each step went on with.
    moved: list[int] = field(default_factory=list)
    _ended: trio.Event = field(default_factory=trio.Event)
    # Whether its engine ended it, and not the scene.
    killed: bool = False

    def kill(self) -> None:
        self.running, self.killed = False, True
        self._ended.set()

    async def wait(self) -> None:
        await self._ended.wait()

    async def ask(
        self,
        message: Message,
        *,
        timeout_s: float,
        on_progress: Callable[[int], None] | None = None,
        on_question: Question | None = None,
    ) -> Message:
        await trio.lowlevel.checkpoint()
        if not self.running:
            raise EngineFailed("the worker ended (signal 9): it said nothing")
        self.scene.asked.append(message)
        self.steps += message["do"] == "step"
        # Under a mock clock this is no time, but all who ask meanwhile are in the next step.
        await trio.sleep(0.01)
        if self.hangs:
            await trio.sleep_forever()
        for millionths in self.scene.progress(message):
            assert on_progress is not None
            on_progress(millionths)
            # Close to the longest that a step of a load may take.
            with trio.move_on_after(50):
                await self._ended.wait()
            if not self.running:
                raise EngineFailed("the worker ended (signal 9): it said nothing")
        try:
            self.scene.before(self, message)
            match message["do"]:
                case "load":
                    return {"units_per_s": 10.0, "job_units_per_s": 5.0, "memory_bytes": 1}
                case "unload":
                    self.answers.pop(message["model"], None)
                    return {}
                case _:
                    return self._step(message)
        except EngineFailed:
            self.kill()
            raise
        finally:
            self.scene.after(self, message)

    def _step(self, message: Message) -> Message:
        answers = self.answers.get(message["model"], [])
        answers = [it for it in answers if it[0] not in message["end"]]
        for job in message["begin"]:
            prompt = Generation.from_bytes(job["input"]).prompt
            self.begun.append(job["id"])
            answers.append((job["id"], frames_of(prompt, job["parameters"]["tokens"])))
        made: dict[int, list[bytes]] = {}
        for number, frames in answers[: self.slots]:
            if number not in message["paused"]:
                made.setdefault(number, []).append(frames.pop(0))
        self.answers[message["model"]] = answers = [it for it in answers if it[1]]
        self.moved.append(len(made))
        return {
            "read": [],
            "margins": [],
            "made": [[number, frames] for number, frames in made.items()],
            "refused": [],
            "free": self.slots - len(answers),
            "slots": self.slots,
            "pages": [len(answers), self.slots],
            "lost": [],
        }


def nothing(_worker: FakeWorker, _message: Message) -> None:
    """As it comes."""


@dataclass(slots=True, eq=False)
class Scene:
    """All lives of one engine's worker; `before` and `after` see each message it is asked."""

    before: Callable[[FakeWorker, Message], None] = nothing
    after: Callable[[FakeWorker, Message], None] = nothing
    # What a worker tells of its progress before it answers a message.
    progress: Callable[[Message], list[int]] = lambda _: []
    missing: str = ""
    lives: list[FakeWorker] = field(default_factory=list)
    asked: list[Message] = field(default_factory=list)

    def steps(self) -> Iterator[Message]:
        return (it for it in self.asked if it["do"] == "step")


def dies_of(*prompts: str) -> Callable[[FakeWorker, Message], None]:
    """A worker dies as soon as one of these is begun."""

    def before(_worker: FakeWorker, message: Message) -> None:
        for job in message.get("begin", ()):
            if Generation.from_bytes(job["input"]).prompt in prompts:
                raise EngineFailed("the worker ended (signal 11): it said nothing")

    return before


def take_over(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """From here on engines have workers of this scene."""
    scene = Scene()

    @asynccontextmanager
    async def open_worker(_launch: object) -> Any:
        worker = FakeWorker(len(scene.lives) + 1, scene)
        scene.lives.append(worker)
        try:
            yield worker
        finally:
            worker.kill()

    async def prepare(_folder: Path, _config: EngineConfig) -> object:
        await trio.lowlevel.checkpoint()
        if scene.missing:
            raise EngineMissing(scene.missing)
        return object()

    monkeypatch.setattr(model_worker, "open_worker", open_worker)
    monkeypatch.setattr(model_worker, "prepare", prepare)
    return scene


def write_model(folder: Path, name: str = "lm") -> tuple[Manifest, dict[str, Path]]:
    """A file that nobody reads here, and its manifest."""
    path = folder / f"{name}.gguf"
    path.write_bytes(name.encode())
    return gguf_manifest(path, name)


def asking(model: ContentId, prompt: str, tokens: int = 4, deadline_s: float = 60.0) -> Job:
    asked = Generation(prompt=prompt, messages="", tools="", schema="", stop=())
    parameters = {"tokens": tokens}
    return Job(
        model=model,
        operation="generate",
        input=asked.to_bytes(),
        parameters=parameters,
        deadline_s=deadline_s,
    )


async def answered(engine: TinygradEngine, found: dict[str, Any], job: Job) -> None:
    """Ask, and note the answer or the error by its prompt."""
    prompt = Generation.from_bytes(job.input).prompt
    try:
        found[prompt] = (await engine.infer(job)).data
    except EngineError as error:
        found[prompt] = error
