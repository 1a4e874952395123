"""What sources gave, as the inputs of a function: each tensor gets a model's name and shape. Pure.

The numbers stay as they were fetched, so whoever checks compares them with what was fetched.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from wire.content import ContentId
from wire.errors import InputError, Malformed
from wire.schema import Scalar
from wire.tensors import ELEMENT_BYTES, RANK_MAX, Tensor, Tensors

# The parameter of a call that names the receipts of the fetches that its input is from.
FETCHED = "fetched"
# As manifests of functions tell it: `prices: float32[1, any]`.
_TOLD = re.compile(r"(?P<name>.+): (?P<kind>\w+)(?:\[(?P<sizes>[^\]]*)\])?", re.DOTALL)
INPUTS_MAX = 64

Sizes = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One input of a function; None for a size that is open, or a shape that is not told."""

    name: str
    kind: str
    shape: Sizes | None

    def __str__(self) -> str:
        return f"{self.name}, {self.kind}{'' if self.shape is None else f' {_words(self.shape)}'}"


def model_inputs(parameters: Mapping[str, Scalar]) -> tuple[ModelInput, ...]:
    """The inputs that a manifest tells of; empty if it tells none, or nothing that can be read."""
    found: list[ModelInput] = []
    while len(found) < INPUTS_MAX and (told := parameters.get(f"input {len(found)}")) is not None:
        match = _TOLD.fullmatch(told) if isinstance(told, str) else None
        if match is None or match["kind"] not in ELEMENT_BYTES:
            return ()
        sizes = _sizes(match["sizes"])
        if sizes is not None and len(sizes) > RANK_MAX:
            return ()
        found.append(ModelInput(match["name"], match["kind"], sizes))
    return tuple(found)


def _sizes(told: str | None) -> Sizes | None:
    if told is None:
        return None
    words = [it.strip() for it in told.split(",") if it.strip()]
    # Whatever is no number is open.
    return tuple(
        int(it) if it.isascii() and it.isdigit() and len(it) < 10 else None for it in words
    )


def inputs_from(tensors: Sequence[Tensor], wanted: Sequence[ModelInput]) -> bytes:
    """The input of a call; InputError says which tensor does not fit, and what would.

    Tensors are matched by name where all the names are the model's, else by their order.
    """
    if len(tensors) != len(wanted):
        raise InputError(
            f"the sources give {len(tensors)} tensors, and the model takes {len(wanted)}:"
            f" {'; '.join(map(str, wanted))[:300]}",
            todo="name a source for each, in this order: --source A --source B",
        )
    by_name = {it.name: it for it in wanted}
    is_named = by_name.keys() == {it.name for it in tensors}
    pairs = zip(tensors, wanted, strict=True)
    fitted = [_fitted(it, by_name[it.name] if is_named else one) for it, one in pairs]
    return Tensors(tensors=tuple(fitted)).to_bytes()


def same_numbers(fetched: Sequence[bytes], given: bytes) -> bool:
    """Whether the input of a call has the numbers of these outputs, in order; WireError.

    Names, and sizes of 1, may differ.
    """
    have = [one for it in fetched for one in Tensors.from_bytes(it).tensors]
    tensors = Tensors.from_bytes(given).tensors
    return [(it.kind, it.data) for it in have] == [(it.kind, it.data) for it in tensors]


def fetched_parameter(answers: Sequence[ContentId]) -> str:
    """The value of `FETCHED` for the receipts of these fetches, in the order of their tensors."""
    return " ".join(map(str, answers))


def read_fetched(parameters: Mapping[str, Scalar]) -> tuple[ContentId, ...]:
    """The receipts that a stage names; none where it names none. Malformed if it is no list."""
    told = parameters.get(FETCHED, "")
    if not isinstance(told, str):
        raise Malformed(f"{FETCHED} is no list of receipts")
    return tuple(map(ContentId.parse, told.split()))


def _fitted(tensor: Tensor, wanted: ModelInput) -> Tensor:
    if tensor.kind != wanted.kind:
        raise InputError(
            f"the source gives {tensor.kind}, and the model takes {wanted}",
            todo=f'end its [[prepare]] with a step that gives it: kind = "{wanted.kind}" of stack',
        )
    shape: tuple[int, ...] | None = tensor.shape
    if wanted.shape is not None:
        shape = _reshaped(tuple(it for it in tensor.shape if it != 1), wanted.shape)
    if shape is None:
        raise InputError(
            f"the source gives {tensor.kind} {_words(tensor.shape)}, and the model takes {wanted}",
            todo="change its [[prepare]]: select, candles and window say how many there are",
        )
    return replace(tensor, name=wanted.name, shape=shape)


def _reshaped(sizes: tuple[int, ...], wanted: Sizes) -> tuple[int, ...] | None:
    """The shape that numbers of these sizes (none of them 1) have in a model; None if none fits.

    Sizes of 1 come and go, and all that is left may lie in one row; no size changes its place.
    """
    if not wanted:
        return None if sizes else ()
    first, rest = wanted[0], wanted[1:]
    if sizes and first in (None, sizes[0]):
        found = _reshaped(sizes[1:], rest)
        if found is not None:
            return (sizes[0], *found)
    if first in (None, 1):
        found = _reshaped(sizes, rest)
        return None if found is None else (1, *found)
    if sizes and first == math.prod(sizes):
        found = _reshaped((), rest)
        return None if found is None else (first, *found)
    return None


def _words(sizes: Sizes) -> str:
    return "x".join("any" if it is None else str(it) for it in sizes) or "scalar"
