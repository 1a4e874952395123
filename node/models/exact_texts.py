"""Makes an exact transformer's file from a GGUF file, and measures on a text what that costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from node.engines.exact import text_making
from node.engines.exact.text_file import (
    CONTEXT_MAX,
    GATES,
    GATES_COUNT,
    POWERS,
    POWERS_COUNT,
    Q8_0,
    TURNS,
    VERSION,
    VERSION_KEY,
    read_text,
)
from node.engines.exact.text_floats import logits_of
from node.engines.exact.text_layers import TextLayers, TextPast, Unpacking, as_floats
from node.engines.formats import gguf
from node.engines.formats.gguf_file import read_part
from node.engines.formats.gguf_model import GgufModel
from node.engines.formats.gguf_writing import NewTensor, write_gguf
from node.engines.formats.onnx_protobuf import Array
from node.engines.formats.rope_angles import angles
from node.engines.sampler import log_probabilities
from node.engines.worker.gguf_tokens import read_table
from node.engines.worker.weight_blocks import FORMS, BlockRows, row_bytes
from wire.errors import InputError, ModelRefused

# The text is read in pieces of so many tokens, each from the model's beginning.
PIECE_TOKENS = 320
PIECES = 2
TEXT_BYTES_MAX = 1 << 24
F32 = 0


@dataclass(frozen=True, slots=True)
class TextCost:
    """What making a model exact cost: its loss, in nats a token, beside the float model's."""

    tokens: int
    loss: float
    loss_in_floats: float
    same_best: float


# Told which step it is, how much of it is done, and how much there is.
Tell = Callable[[str, int, int], None]


def tell_nobody(_step: str, _done: int, _count: int) -> None:
    """Whoever makes a model in a moment need not be told how far it is."""


def make_exact_text(
    source: Path, out: Path, text: Path | None = None, tell: Tell = tell_nobody
) -> tuple[GgufModel, TextCost]:
    """Write the exact model of a GGUF file; InputError, ModelRefused name what is in the way.

    It is measured on `text`, or on a part of Python's own documentation.
    """
    model = _described(source)
    pieces = _pieces(model, text)
    write_exact_text(source, out, tell)
    return model, _cost(model, out, pieces, tell)


def write_exact_text(source: Path, out: Path, tell: Tell = tell_nobody) -> None:
    """Write the exact model of a GGUF file, and measure nothing; InputError, ModelRefused."""
    model, part = _described(source), read_part(source)
    draft = out.with_name(f"{out.name}.part")
    try:
        with draft.open("wb") as file:
            write_gguf(file, part, {VERSION_KEY: VERSION}, _told(_tensors(model), tell))
        # What cannot be run is not left under its name.
        read_text(draft)
        draft.replace(out)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def _described(source: Path) -> GgufModel:
    try:
        model = gguf.describe(source)
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}") from error
    text_making.check_makeable(model)
    return model


def _tensors(model: GgufModel) -> list[NewTensor]:
    context = min(model.context, CONTEXT_MAX)
    found = []
    for name, tensor in model.tensors.items():
        if name in {it.divisors for it in model.ropes}:
            # They are in the table of turns.
            continue
        matrix = len(tensor.shape) == 2
        found.append(NewTensor(name, Q8_0 if matrix else F32, tensor.shape, _making(model, name)))
    shapes = {TURNS: (context, model.head_size), POWERS: (POWERS_COUNT,), GATES: (GATES_COUNT,)}
    makes: dict[str, Callable[[], bytes]] = {
        TURNS: lambda: _turns(model, context).tobytes(),
        POWERS: lambda: text_making.powers_table().tobytes(),
        GATES: lambda: text_making.gates_table().tobytes(),
    }
    return [*found, *(NewTensor(name, F32, shape, makes[name]) for name, shape in shapes.items())]


def _told(tensors: Sequence[NewTensor], tell: Tell) -> list[NewTensor]:
    """The same tensors; whoever waits is told of each that is made."""

    def making(at: int, make: Callable[[], bytes]) -> bytes:
        tell("making", at, len(tensors))
        return make()

    return [replace(it, make=partial(making, at, it.make)) for at, it in enumerate(tensors)]


def _making(model: GgufModel, name: str) -> Callable[[], bytes]:
    make = (
        text_making.matrix_bytes if len(model.tensors[name].shape) == 2 else text_making.norm_bytes
    )
    return lambda: make(name, _floats(model, name))


def _turns(model: GgufModel, context: int) -> Array:
    (rope,) = model.ropes
    divisors = _floats(model, rope.divisors) if rope.divisors else None
    return text_making.turns_table(*angles(rope, context, divisors))


def _floats(model: GgufModel, name: str) -> Array:
    """A tensor in 32-bit floats, as it lies in the file; ModelRefused."""
    tensor = model.tensors[name]
    if tensor.kind not in FORMS:
        raise ModelRefused(
            f"{name} is of a type whose numbers are not read here",
            todo="take a file of another quantisation, Q8_0 or Q4_K_M",
        )
    raw = np.fromfile(model.path, np.uint8, tensor.end - tensor.begin, offset=tensor.begin)
    columns = tensor.shape[-1]
    rows = BlockRows(name, tensor.kind, columns, raw.reshape(-1, row_bytes(tensor.kind, columns)))
    return rows.floats().reshape(tensor.shape)


def _pieces(model: GgufModel, text: Path | None) -> list[list[int]]:
    """The tokens that the cost is measured on; InputError for a text that is too short."""
    table = read_table(model)
    length = min(PIECE_TOKENS, model.context)
    found = []
    for part in _texts(text):
        tokens = table.of(part)
        found += [tokens[at : at + length] for at in range(0, len(tokens) - length + 1, length)]
        if len(found) >= PIECES:
            return found[:PIECES]
    if not found:
        raise InputError(
            f"{text} has fewer than {length} tokens", todo="give a longer text to measure with"
        )
    return found


def _texts(text: Path | None) -> Sequence[str]:
    if text is None:
        return [topics[name][: 20 * PIECE_TOKENS] for name in sorted(topics)]
    try:
        if text.stat().st_size > TEXT_BYTES_MAX:
            raise InputError(f"{text} has over {TEXT_BYTES_MAX >> 20} MiB")
        return [text.read_text()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{text} cannot be read as text: {error}", todo="give a file of plain text in UTF-8"
        ) from error


def _cost(model: GgufModel, out: Path, pieces: Sequence[Sequence[int]], tell: Tell) -> TextCost:
    layers, turns = _layers_of(out), _turns(model, min(model.context, CONTEXT_MAX))
    losses, same = [], []
    # A layer's matrices are read for each piece; the table of tokens stays.
    weights = lru_cache(maxsize=2)(lambda name: _floats(model, name))
    for at, tokens in enumerate(pieces):
        tell("measuring", 2 * at, 2 * len(pieces))
        ours = as_floats(layers.logits(TextPast(layers).read(tokens)))
        tell("measuring", 2 * at + 1, 2 * len(pieces))
        theirs = logits_of(model, weights, turns, tokens)
        same.append(np.mean(ours.argmax(axis=1) == theirs.argmax(axis=1)))
        losses.append([_loss(it, tokens) for it in (ours, theirs)])
    loss, loss_in_floats = np.mean(losses, axis=0)
    return TextCost(
        tokens=sum(map(len, pieces)),
        loss=round(float(loss), 6),
        loss_in_floats=round(float(loss_in_floats), 6),
        same_best=round(float(np.mean(same)), 6),
    )


def _layers_of(path: Path) -> TextLayers:
    model = read_text(path)
    return TextLayers(model, Unpacking(model))


def _loss(logits: Array, tokens: Sequence[int]) -> float:
    pairs = zip(logits[:-1], tokens[1:], strict=True)
    return float(np.mean([-log_probabilities(line)[token] for line, token in pairs]))
