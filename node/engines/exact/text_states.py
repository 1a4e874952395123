"""What each layer of an exact transformer gave for each token, and the Merkle tree over that.

The leaves of one token stand together: the row that it begins as, and of each layer what it keeps,
the row after attention, and the row after what follows. The last leaf of all is what is said of
the next token. All numbers are 64-bit integers, little-endian. So the first leaf that two models
give otherwise is of the first layer that is another one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from node.engines.exact.states import RowStates
from node.engines.exact.text_layers import TextLayers, TextPast
from node.engines.formats.onnx_protobuf import Array
from wire import limits, merkle
from wire.dispute import state_leaf
from wire.errors import Malformed

# Tokens that go through all layers together.
READ_ROWS = 256
STEPS = ("keys and values", "attention", "feed-forward")
BEGINS, SAID = "embedding", "output head"


@dataclass(frozen=True, slots=True)
class StatePlace:
    """Which state a leaf is: of the token at `place`, and the layer, None before and after all."""

    place: int
    layer: int | None
    step: str

    def __str__(self) -> str:
        layer = "" if self.layer is None else f"layer {self.layer}, "
        return f"{layer}{self.step}, at place {self.place}"


def count_of(layers: int, tokens: int) -> int:
    """How many leaves there are; Malformed for more than a dispute is held about."""
    count = tokens * (1 + len(STEPS) * layers) + 1
    if count > limits.TEXT_STATES_MAX:
        raise Malformed(
            f"{tokens} tokens have {count} states, and a dispute is about {limits.TEXT_STATES_MAX}"
        )
    return count


def place_of(leaf: int, layers: int, tokens: int) -> StatePlace:
    """Which state a leaf is, of a model of so many layers that read so many tokens."""
    each = 1 + len(STEPS) * layers
    place, at = divmod(leaf, each)
    if place == tokens:
        return StatePlace(tokens - 1, None, SAID)
    if at == 0:
        return StatePlace(place, None, BEGINS)
    layer, step = divmod(at - 1, len(STEPS))
    return StatePlace(place, layer, STEPS[step])


def text_states(
    layers: TextLayers, tokens: Sequence[int], before_pass: Callable[[], None] = lambda: None
) -> RowStates:
    """The tree over all states of these tokens; `before_pass` may raise. Malformed for too many."""
    count_of(layers.model.shape.layers, len(tokens))
    leaves: list[bytes] = []
    rows: Array = np.zeros(0, np.int64)
    past = TextPast(layers)
    for begin in range(0, len(tokens), READ_ROWS):
        before_pass()
        shown: list[Array] = []
        past.watch = shown.append
        rows = past.read(tokens[begin : begin + READ_ROWS])
        for at in range(len(rows)):
            first = len(leaves)
            leaves += [_leaf(first + step, it[at]) for step, it in enumerate(shown)]
    leaves.append(_leaf(len(leaves), layers.logits(rows[-1:])))
    return RowStates((), merkle.levels_of(leaves))


def _leaf(number: int, state: Array) -> bytes:
    return state_leaf(number, state.astype("<i8").tobytes())
