"""An exact transformer as the worker keeps it: its matrices on the device, all else in numpy.

Every token has the reference's bits, whatever else goes through the same pass, or the model is not
loaded here: made-up rows are multiplied both ways first. Worker only.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tinygrad.device import CompileError
from tinygrad.helpers import DEV

from node.engines.exact.text_file import FILE, OUTPUT, TextModel, read_text
from node.engines.exact.text_layers import TextLayers, Unpacking, as_floats
from node.engines.exact.whole_numbers import BLOCK, ROW_BITS, SCALE_MAX, Blocks
from node.engines.formats.gguf_model import GgufModel
from node.engines.worker.attention import PAGE
from node.engines.worker.buffers import Array
from node.engines.worker.device import WorkerDevice
from node.engines.worker.exact_products import ROWS, DeviceProducts
from node.engines.worker.gguf_tokens import read_table
from node.engines.worker.graph_cache import GraphCache
from node.engines.worker.language_model import LoadedLanguageModel, pages_of
from node.engines.worker.passes import SlotRow
from node.engines.worker.thread_team import ThreadTeam
from node.engines.worker.transformer import ANSWERING, READING, Rest
from wire.errors import ModelRefused
from wire.model import Manifest

# Changes whenever a graph is built in another way: old files are then not found.
LAYOUT = 1
# What is done of a load once the matrices are on the device, and once graphs are compiled.
PLACED, COMPILED = 0.5, 0.9
SEED = 1


class ExactLanguage:
    """See `node.engines.worker.language_model.Language`."""

    # A token's numbers are the same to the bit in every pass.
    exact = True

    def __init__(self, text: TextModel, pages: int, products: DeviceProducts, team: ThreadTeam):
        self.model: GgufModel = text.shape
        self.team = team
        self.pages = pages
        self.context = text.context
        self._layers = TextLayers(text, products)
        shape = (pages, self.model.kv_heads, PAGE, self.model.head_size)
        # Whole numbers that 32-bit floats hold. Memory is taken where something is kept.
        self._kept = [
            (np.zeros(shape, np.float32), np.zeros(shape, np.float32))
            for _ in range(self.model.layers)
        ]

    @property
    def reading(self) -> tuple[int, ...]:
        """The rows of passes that read: none that the context could never fill."""
        return tuple(rows for rows in READING if rows <= self.context) or READING[:1]

    def run(
        self, rows: Sequence[SlotRow], rest: Rest | None = None, *, sketched: bool = False
    ) -> Array | None:
        """One pass; the logits of every row, if they are few enough to answer."""
        states = self._passed(rows)
        if len(rows) > ANSWERING[-1]:
            return None
        return self._said(states, sketched=sketched)

    def lines(
        self,
        rows: Sequence[SlotRow],
        first: int,
        rest: Rest | None = None,
        *,
        sketched: bool = False,
    ) -> Iterator[Array]:
        """One pass, and then the logits of its rows from `first` on, a few at a time."""
        states = self._passed(rows)[first:]
        return self._blocks(states, sketched=sketched)

    def _blocks(self, states: Array, *, sketched: bool) -> Iterator[Array]:
        for at in range(0, len(states), READING[0]):
            yield from self._said(states[at : at + READING[0]], sketched=sketched)

    def _said(self, states: Array, *, sketched: bool) -> Array:
        logits = as_floats(self._layers.logits(states))
        if not sketched:
            return logits
        return np.concatenate((logits, states.astype(np.float32)), axis=1)

    def _passed(self, rows: Sequence[SlotRow]) -> Array:
        """The rows after all layers: [rows, hidden]."""
        layers = self._layers
        states = layers.embedded([row.token for row in rows])
        places = np.array([row.position for row in rows])
        pages = np.array([row.pages[row.position // PAGE] for row in rows])
        conversations = list(_conversations(rows))
        for number, kept in enumerate(self._kept):
            asked, *made = layers.asked(number, states, places)
            for array, new in zip(kept, made, strict=True):
                array[pages, :, places % PAGE] = new.values
            mixed = np.empty((len(rows), asked.numbers.shape[1] * asked.numbers.shape[2]), np.int64)
            for own, seen, count in conversations:
                keys, values = (_joined(array[seen], count) for array in kept)
                part = Blocks(asked.numbers[own], asked.scales[own], asked.exponents[own])
                mixed[own] = layers.mixed(part, places[own], keys, values)
            states = layers.fed(number, layers.attended(number, states, mixed))
        return states


def _conversations(rows: Sequence[SlotRow]) -> Iterator[tuple[list[int], list[int], int]]:
    """The rows of each slot, the pages that they see, and how many places of them."""
    for slot in dict.fromkeys(row.slot for row in rows):
        own = [at for at, row in enumerate(rows) if row.slot == slot]
        last = max((rows[at] for at in own), key=lambda row: row.position)
        yield own, list(last.pages[: last.position // PAGE + 1]), last.position + 1


def _joined(pages: Array, count: int) -> Array:
    """[pages, heads, place, size] as [heads, place, size], of the first places."""
    heads, size = pages.shape[1], pages.shape[3]
    return np.asarray(pages.swapaxes(0, 1).reshape(heads, -1, size)[:, :count])


def load(manifest: Manifest, files: dict[str, Path], place: WorkerDevice) -> LoadedLanguageModel:
    """Check, read and compile (or find compiled) one model; ModelRefused, EngineMissing."""
    text = read_text(files[FILE])
    table = read_table(text.shape)
    team = ThreadTeam(place.threads)
    with place.progress.part(0.0, PLACED):
        products = DeviceProducts(text, groups_of(text), team)
    shapes = " ".join(f"{it.outputs}x{it.terms}" for it in products.shapes)
    key = " ".join(("exact-text", str(LAYOUT), shapes, place.versions, str(DEV.value)))
    try:
        with place.progress.part(PLACED, COMPILED):
            products.ready(GraphCache(place, key).collect(ROWS, products.capture))
    except CompileError as error:
        raise ModelRefused(f"it cannot be compiled here: {str(error)[:200]}") from error
    check_products(text, products)
    language = ExactLanguage(text, pages_of(text.shape, place), products, team)
    sizes = sorted({*ANSWERING, *language.reading})
    return LoadedLanguageModel(manifest, table, language, sizes, place)


def groups_of(text: TextModel) -> list[list[str]]:
    """Matrices that are multiplied with the same rows, of all layers, and that of the logits."""
    found = []
    for number in range(text.shape.layers):
        at = f"blk.{number}."
        found.append([f"{at}attn_{name}.weight" for name in "qkv"])
        found.append([f"{at}ffn_{name}.weight" for name in ("gate", "up")])
        found += [[f"{at}{name}.weight"] for name in ("attn_output", "ffn_down")]
    return [*found, [OUTPUT]]


def check_products(text: TextModel, products: DeviceProducts) -> None:
    """ModelRefused unless this device multiplies as numpy does, in matrices of every shape."""
    numpys = Unpacking(text)
    for names in products.examples():
        for rows in ROWS:
            blocks = _made_up(rows, products.terms(names))
            pairs = zip(products(blocks, names), numpys(blocks, names), strict=True)
            for name, (ours, theirs) in zip(names, pairs, strict=True):
                if not np.array_equal(ours, theirs):
                    raise ModelRefused(
                        f"{name} is not exact on this device ({DEV.value}):"
                        f" {int((ours != theirs).sum())} of {ours.size} sums differ",
                        todo="run it on another device: --device cpu",
                    )


def _made_up(rows: int, terms: int) -> Blocks:
    """Rows of all sizes, the same each time; the first has the largest numbers there can be."""
    chance = np.random.default_rng(SEED)
    numbers = chance.integers(-127, 128, (rows, terms))
    scales = chance.integers(1, SCALE_MAX + 1, (rows, terms // BLOCK))
    numbers[0], scales[0] = 127, SCALE_MAX
    return Blocks(numbers, scales, np.full((rows, 1), ROW_BITS))
