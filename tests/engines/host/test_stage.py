"""Layers of one model in several engines: the same tokens, the same bits, and nothing is lost."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import trio

from node.commands.options import layers_of
from node.config import NodeConfig
from node.engines.formats.gguf import describe
from node.engines.formats.gguf_model import kept_bytes
from node.engines.host.engine import TinygradEngine, open_tinygrad_engine
from node.engines.host.launch import EngineConfig
from node.engines.interface import REPLAY, Job, Output, Part
from node.engines.other_layers import (
    BEGIN,
    END,
    SESSION,
    EndedRows,
    LayerPass,
    LayersLied,
    LayersLost,
)
from node.engines.replay import JudgedAnswer, request, told_otherwise
from node.guest.rules import GuestConfig
from node.models.inspect import check_layers
from tests.engines.tiny_gguf import gguf_manifest, write_gguf
from wire.content import ContentId
from wire.errors import EngineFailed, InputError, ModelRefused
from wire.generation import Ending, Generation, read_frames
from wire.layers import LayerRange
from wire.stage import StageRows

TOKENS = 16
PROMPT = "Once upon a time there was a peer that had but two of the layers " * 2


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The model of `test_generating`: what is compiled of it is compiled once.
    return write_gguf(tmp_path_factory.mktemp("lm") / "model.gguf", "qwen3", "q8_0", seed=7)


def asking(model: ContentId, prompt: str = PROMPT, tokens: int = TOKENS) -> Job:
    asked = Generation(prompt=prompt, messages="", tools="", schema="", stop=())
    parameters = {"tokens": tokens, "temperature": 0.0}
    return Job(
        model=model,
        operation="generate",
        input=asked.to_bytes(),
        parameters=parameters,
        deadline_s=100,
    )


def staged(model: ContentId, data: bytes = b"", **parameters: int) -> Job:
    return Job(
        model=model,
        operation="stage",
        input=data,
        parameters={SESSION: 1} | parameters,
        deadline_s=100,
    )


def rows(count: int = 2, *, hidden: int = 64, first: int = 0, value: float = 1.0) -> StageRows:
    return StageRows(
        tables=(b"\0\0\1\0",),
        owners=bytes(count),
        places=np.arange(first, first + count, dtype="<u4").tobytes(),
        data=np.full((count, hidden), value, "<f4").tobytes(),
    )


@dataclass
class Following:
    """The rest of the layers, in engines of this process: what peers do, without a network."""

    engines: list[TinygradEngine] = field(default_factory=list)
    passes: int = 0
    opened: bool = False
    # What happens before a pass, by its number.
    before: Callable[[int], None] = lambda _: None
    sessions: int = 0
    # What is signed of each answer, and what was asked to be; what is added to the rows.
    legs: tuple[bytes, ...] = ()
    ended: list[EndedRows] = field(default_factory=list)
    lie: float = 0.0

    async def sign(self, ended: EndedRows) -> tuple[bytes, ...]:
        self.ended.append(ended)
        if self.lie:
            self.lie, self.opened = 0.0, False
            raise LayersLied("it gave wrong rows")
        return self.legs

    def missing(self, model: ContentId, here: LayerRange) -> str:
        return ""

    async def run(self, some: LayerPass) -> bytes:
        self.passes += 1
        try:
            self.before(self.passes)
        except LayersLost:
            self.opened = False
            raise
        if not self.opened:
            pages = some.pages
            for engine in self.engines:
                await engine.infer(staged(some.model, **{SESSION: self.sessions, END: 1}))
                begin = {SESSION: self.sessions + 1, BEGIN: some.pages}
                output = await engine.infer(staged(some.model, **begin))
                pages = min(pages, int.from_bytes(output.data, "little"))
            self.opened, self.sessions = True, self.sessions + 1
            if not some.fresh or pages < some.pages:
                raise LayersLost("begun anew", pages=pages)
        data, asked = some.rows, StageRows.from_bytes(some.rows)
        for engine in self.engines:
            output = await engine.infer(staged(some.model, data, **{SESSION: self.sessions}))
            asked = StageRows(
                tables=asked.tables, owners=asked.owners, places=asked.places, data=output.data
            )
            data = asked.to_bytes()
        told = (np.frombuffer(asked.data, "<f4") * (1 + self.lie)).astype("<f4").tobytes()
        return told if some.wait else b""


@asynccontextmanager
async def chain(
    cache: Path, file: Path, *ranges: tuple[int, int]
) -> AsyncIterator[tuple[TinygradEngine, Following]]:
    """Engines with one range each; the first drives."""
    following = Following()
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                open_tinygrad_engine(cache, config=EngineConfig(layers=it), others=following)
            )
            for it in ranges
        ]
        for engine in opened:
            await engine.load(*gguf_manifest(file))
        following.engines = opened[1:]
        yield opened[0], following


@pytest.mark.own_device
async def test_two_engines_say_what_one_says_and_say_it_again_when_one_forgets(
    cache: Path, file: Path
) -> None:
    manifest, files = gguf_manifest(file)
    async with open_tinygrad_engine(cache, config=EngineConfig()) as whole:
        alone = await whole.load(manifest, files)
        expected = await whole.infer(asking(manifest.id))
    async with chain(cache, file, (0, 0), (1, 1)) as (driver, following):
        loaded = driver.loaded()[manifest.id]
        assert (loaded.model, loaded.layers) == (alone.model, LayerRange(0, 0, 2))
        assert loaded.memory_bytes < alone.memory_bytes
        assert await driver.infer(asking(manifest.id)) == expected
        # A verifier that has a part judges the same by the rest.
        claim = request(asking(manifest.id).input, expected.data, 0.0).to_bytes()
        again = replace(asking(manifest.id), operation=REPLAY, input=claim)
        found = JudgedAnswer.from_bytes((await driver.infer(again)).data)
        assert found.each == [0.0] * TOKENS
        assert told_otherwise(expected.data, found) == ""
        assert following.sessions == 1
        await _what_is_signed_is_told_and_lies_are_made_good(driver, following, expected)

        def forget(number: int) -> None:
            if number in lost_at:
                raise LayersLost("the peer left")

        following.before = forget
        for first in (1, 3):
            # In the prompt, at the first token, and twice.
            lost_at = {following.passes + first, following.passes + first + 7}
            assert await driver.infer(asking(manifest.id)) == expected
        assert following.sessions == 6

        def gone(_: int) -> None:
            raise LayersLost("nobody has the rest", final=True)

        following.before = gone
        with pytest.raises(EngineFailed, match="nobody has the rest"):
            await driver.infer(asking(manifest.id))
        assert driver.statistics().restarts == 0
        # Whoever comes back goes on.
        following.before = lambda _: None
        assert await driver.infer(asking(manifest.id)) == expected
        await _stage_keeps_its_promises(following.engines[0], manifest.id)


async def _what_is_signed_is_told_and_lies_are_made_good(
    driver: TinygradEngine, following: Following, expected: Output
) -> None:
    """What comes of an answer whose rows others signed, and of one to which they lied."""
    (model,) = driver.loaded()
    following.legs = b"one", b"two"
    for lie in (0.0, 0.5):
        following.ended.clear()
        following.lie = lie
        shown: dict[int, bytes] = {}

        async def emit(part: Part, shown: dict[int, bytes] = shown) -> None:
            await trio.lowlevel.checkpoint()
            shown[part.position] = part.data

        output = await driver.infer(asking(model), emit)
        assert output == replace(expected, layers=following.legs)
        assert b"".join(shown[at] for at in range(TOKENS)) == expected.data
        *_, ending = read_frames(expected.data)
        assert isinstance(ending, Ending)
        rows = ending.prompt_tokens + ending.tokens - 1
        assert [it.rows for it in following.ended] == [rows] * (2 if lie else 1)
        assert {len(it.table) for it in following.ended} == {2 * -(-rows // 128)}
    following.legs = ()


async def _stage_keeps_its_promises(engine: TinygradEngine, model: ContentId) -> None:
    """What nobody may do with a range of layers, and that it goes on afterwards."""
    loaded = engine.ready(model)
    assert loaded is not None
    assert (loaded.layers, loaded.middle) == (LayerRange(1, 1, 2), LayerRange(1, 1, 2))
    with pytest.raises(ModelRefused, match="generate"):
        await engine.infer(asking(model))

    async def through(some: StageRows, session: int = 50) -> bytes:
        return (await engine.infer(staged(model, some.to_bytes(), **{SESSION: session}))).data

    with pytest.raises(ModelRefused, match="begin again"):
        await through(rows())
    granted = int.from_bytes(
        (await engine.infer(staged(model, **{SESSION: 50, BEGIN: 99}))).data, "little"
    )
    assert 2 <= granted < 16
    for wrong, words in (
        (rows(hidden=32), "the layers take 64"),
        (rows(value=float("nan")), "no layer gives"),
        (rows(value=1e30), "no layer gives"),
        (rows(first=300), "no page"),
        (replace(rows(), tables=(granted.to_bytes(2, "little"),)), "not theirs"),
        (rows(200), "at most 128"),
    ):
        with pytest.raises(ModelRefused, match=words):
            await through(wrong)
    # A row has the same bits alone and among others, and the others' pages are not looked at.
    together = await through(rows(4))
    await engine.infer(staged(model, **{SESSION: 51, BEGIN: 2}))
    alone = b"".join([await through(rows(1, first=at), 51) for at in range(4)])
    assert together == alone
    assert len(together) == 4 * 64 * 4
    for session in (50, 51):
        await engine.infer(staged(model, **{SESSION: session, END: 1}))
    with pytest.raises(ModelRefused, match="begin again"):
        await through(rows())
    assert engine.statistics().restarts == 0


@pytest.mark.own_device
async def test_a_range_that_the_model_has_not_is_refused_in_words(cache: Path, file: Path) -> None:
    config = EngineConfig(layers=(5, 99))
    async with open_tinygrad_engine(cache, config=config) as engine:
        with pytest.raises(ModelRefused, match="has the layers 0 to 1, not 5 to 99"):
            await engine.load(*gguf_manifest(file))
    config = EngineConfig(layers=(0, 0))
    async with open_tinygrad_engine(cache, config=config) as engine:
        with pytest.raises(ModelRefused, match="layers 0-0 of 2 are not a whole model"):
            await engine.load(*gguf_manifest(file))


@pytest.mark.parametrize("text", ["5", "a-b", "9-5", "-1-2", "0-", "1-2-3", "0-1000", ""])
def test_what_is_no_range_is_refused_where_it_is_typed(text: str) -> None:
    assert layers_of(" 0-17 ") == (0, 17)
    with pytest.raises(InputError, match="no range of layers"):
        layers_of(text)


def test_a_range_is_refused_before_a_peer_joins_if_nobody_could_hold_it(
    file: Path, tmp_path: Path
) -> None:
    check_layers(file, (0, 1))
    with pytest.raises(InputError, match="layers 0 to 1, not 5 to 99"):
        check_layers(file, (5, 99))
    with pytest.raises(InputError, match="only language models"):
        check_layers(tmp_path / "m.onnx", (0, 1))
    for models in ((), ("one", "two")):
        with pytest.raises(InputError, match="layers are of one model"):
            NodeConfig(state=tmp_path, models=models, layers=(0, 1))
    with pytest.raises(InputError, match="on one GPU"):
        NodeConfig(
            state=tmp_path,
            models=("one",),
            layers=(0, 1),
            guest=GuestConfig(gpus=(0, 1), vram_bytes=1 << 30),
        )


def test_a_part_of_a_model_takes_its_part_of_the_memory(file: Path) -> None:
    model = describe(file)
    parts = [model.holding(0, 0), model.holding(1, 1)]
    ends = sum(kept_bytes(it) for name, it in model.tensors.items() if not name.startswith("blk."))
    assert sum(it.page_bytes for it in parts) == model.page_bytes
    assert sum(it.weights_bytes for it in parts) == model.weights_bytes
    assert parts[1].weights_bytes < model.weights_bytes - ends / 2
    for on_gpu in (False, True):
        assert parts[1].memory(on_gpu=on_gpu).most_bytes < model.memory(on_gpu=on_gpu).most_bytes
    assert model.holding(0, 1) == model
