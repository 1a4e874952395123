"""Layers of one model in several engines: the same tokens, the same bits, and nothing is lost."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from node.engines.host.engine import TinygradEngine, open_tinygrad_engine
from node.engines.host.launch import EngineConfig
from node.engines.host.stage import BEGIN, END, SESSION
from node.engines.interface import Job
from node.engines.other_layers import LayerPass, LayersLost
from tests.engines.tiny_gguf import gguf_manifest, write_gguf
from wire.content import ContentId
from wire.generation import Generation
from wire.layers import LayerRange
from wire.stage import StageRows

# hidden, layers, inner, heads, heads of keys, words
SIZES = (64, 3, 128, 4, 2, 512)
TOKENS = 24
PROMPT = "Once upon a time there was a peer that had but two of the layers " * 2


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("lm") / "m.gguf", "qwen3", "q8_0", sizes=SIZES)


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
        return asked.data if some.wait else b""


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
    async with chain(cache, file, (0, 0), (1, 2)) as (driver, following):
        loaded = driver.loaded()[manifest.id]
        assert (loaded.model, loaded.layers) == (alone.model, LayerRange(0, 0, 3))
        assert loaded.memory_bytes < alone.memory_bytes
        assert await driver.infer(asking(manifest.id)) == expected
        assert following.sessions == 1

        def forget(number: int) -> None:
            if number in lost_at:
                raise LayersLost("the peer left")

        following.before = forget
        for first in (1, 2, 4):
            # In the prompt, at the first token, and twice.
            lost_at = {following.passes + first, following.passes + first + 7}
            assert await driver.infer(asking(manifest.id)) == expected
        assert following.sessions == 7
