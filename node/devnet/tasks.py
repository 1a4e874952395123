"""The tasks of a devnet, and the right answer to each.

The output of hash models is easy to compute, so every answer is compared, and every streamed token
at its place. Texts differ from task to task, so no answer comes from an earlier one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import trio

from node.asking.run import TaskRequest
from node.devnet.plan import DIMENSIONS, manifests
from node.engines.hash_engine import hash_piece
from node.engines.hash_vector import hash_vector
from node.ingest.passages import cut
from node.task.events import Event, Restarted, Streamed
from node.task.units import PASSAGES_PER_LEG
from wire.content import ContentId
from wire.errors import Refused
from wire.kinds import Level, RefusalCode, Role
from wire.operations import COMPLETE, EMBED, EMBED_PASSAGES, FETCH
from wire.payload import Texts, Vectors
from wire.task import Stage

SCHEME = "dev"
# How many of a hundred tasks are of each kind.
MIXTURE = {EMBED: 50, COMPLETE: 30, FETCH: 20}
# How often each model is used.
ASKED_FOR = {"common": 60, "uncommon": 30, "rare": 10}
TOKENS_MIN, TOKENS_MAX = 16, 64
TEXTS_MAX = 8
WORDS = [
    "baton",
    "passes",
    "from",
    "hand",
    "to",
    "hand",
    "and",
    "nobody",
    "drops",
    "it",
    "on",
    "the",
    "way",
    "home",
    "tonight",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DevnetQuestion:
    """One task and its answer."""

    number: int
    kind: str
    model: str
    request: TaskRequest
    answer: bytes
    # Set if the answer is streamed token by token.
    tokens: tuple[bytes, ...] = ()


class MadeUpSource:
    """A source with any number of texts, each made from its name."""

    def names(self) -> tuple[str, ...]:
        return tuple(f"{SCHEME}:{number}" for number in range(8))

    async def look(self) -> None:
        """Do nothing: there are always the same."""

    async def fetch(self, name: str) -> str:
        await trio.lowlevel.checkpoint()
        if not name.startswith(f"{SCHEME}:"):
            raise Refused(f"there is no source {name[:80]!r} here", code=RefusalCode.NOT_FOUND)
        return text_of(name)


def text_of(name: str) -> str:
    """A text of two or three passages."""
    random = Random(f"text:{name}")
    paragraphs = (" ".join(random.choices(WORDS, k=90)) for _ in range(3))
    return "\n\n".join(paragraphs)


def draw_question(number: int, random: Random, deadline_s: int) -> DevnetQuestion:
    """Task number `number` of a run."""
    kind = random.choices(tuple(MIXTURE), tuple(MIXTURE.values()))[0]
    model = random.choices(tuple(ASKED_FOR), tuple(ASKED_FOR.values()))[0]
    model_id = manifests()[model].id
    tokens: tuple[bytes, ...] = ()
    data: bytes | None
    if kind == COMPLETE:
        count = random.randint(TOKENS_MIN, TOKENS_MAX)
        data = f"task {number}".encode()
        tokens = tuple(hash_piece(model_id, data, place) for place in range(count))
        answer = b"".join(tokens)
        stages: tuple[Stage, ...] = (_infer(COMPLETE, model_id, {"tokens": count}),)
    elif kind == EMBED:
        texts = tuple(f"task {number}, text {it}" for it in range(random.randint(1, TEXTS_MAX)))
        data = Texts(texts=texts).to_bytes()
        answer = _vectors(model_id, texts)
        stages = (_infer(EMBED, model_id, {}),)
    else:
        name = f"{SCHEME}:{number}"
        data = None
        answer = _vectors(model_id, cut(text_of(name))[:PASSAGES_PER_LEG])
        fetch = Stage(role=Role.DATA, operation=FETCH, model=None, parameters={"source": name})
        stages = (fetch, _infer(EMBED_PASSAGES, model_id, {}))
    request = TaskRequest(
        stages=stages,
        input=data,
        deadline_s=deadline_s,
        level=Level.REPLAYED,
        verifiers=3,
        needed=2,
    )
    return DevnetQuestion(
        number=number, kind=kind, model=model, request=request, answer=answer, tokens=tokens
    )


def first_request(deadline_s: int) -> TaskRequest:
    """The first task of a new peer: one text for the common model."""
    stage = _infer(EMBED, manifests()["common"].id, {})
    data = Texts(texts=("hello",)).to_bytes()
    return TaskRequest(stages=(stage,), input=data, deadline_s=deadline_s)


def _infer(operation: str, model: ContentId, parameters: dict[str, str | int]) -> Stage:
    return Stage(role=Role.INFER, operation=operation, model=model, parameters=parameters)


def _vectors(model: ContentId, texts: Sequence[str]) -> bytes:
    rows = b"".join(hash_vector(model, text, DIMENSIONS) for text in texts)
    return Vectors(dimensions=DIMENSIONS, rows=len(texts), data=rows).to_bytes()


@dataclass(slots=True)
class Stream:
    """What an asker saw of an answer that was streamed token by token."""

    expected: tuple[bytes, ...]
    doubled: int = 0
    # For each token, in order, whether it was the right one.
    _right: list[bool] = field(default_factory=list)

    def see(self, event: Event) -> None:
        if isinstance(event, Restarted):
            # The event takes back all tokens from this position on.
            del self._right[event.position :]
        elif isinstance(event, Streamed):
            self._take(event)

    def _take(self, event: Streamed) -> None:
        seen_before = max(0, len(self._right) - event.position)
        self.doubled += min(event.units, seen_before)
        missing = max(0, event.position - len(self._right))
        self._right += [False] * missing
        wanted = self.expected[event.position : event.position + event.units]
        right = event.data == b"".join(wanted)
        self._right[event.position :] = [right] * event.units

    def again(self) -> None:
        """The asker's own peer was started again: the stream is shown again from its beginning."""
        self._right.clear()

    @property
    def lost(self) -> int:
        """How many tokens were missing or wrong; valid once the answer is there."""
        return len(self.expected) - sum(self._right[: len(self.expected)])
