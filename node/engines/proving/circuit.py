"""What a circuit reads and gives in public: tensors as whole numbers, and whole numbers as tensors.

Pure. A circuit is made of a model for so many rows, with these settings and no others, so that
whoever has the model makes the same circuit and the same key. Its numbers are fixed-point: a whole
number stands for itself divided by 2 ** `scale_bits`. The public numbers of a proof are never taken
from who proved: they are worked out from the input that was asked and the output that was signed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from node.engines.formats.onnx_graph import OnnxModel, Value
from wire.codec import Value as Plain
from wire.errors import Malformed, ModelRefused
from wire.limits import PROOF_MODEL_BYTES_MAX
from wire.tensors import Tensor, Tensors

# The settings. Another number here makes other keys, so it comes with another number of the recipe.
RECIPE = 1
LOGROWS = 14
SCALE_BITS = 7
# Its table fills one column of 2 ** LOGROWS rows: inputs of exp, tanh and so on from -63.8 to 63.8.
LOOKUP_MAX = 8_176
DECOMPOSITION_BASE, DECOMPOSITION_LEGS = 4096, 3
WEIGHTS_MAX = 150_000
ROWS_MAX = 8
# The public numbers of one proof: a verifier adds them up, one by one.
NUMBERS_MAX = 16_384
# What a public number stands for has to fit in the circuit's own numbers, with room for sums.
NUMBER_MAX = 1 << 30
# Proofs are of numbers modulo this prime, the order of the curve BN254.
MODULUS = 0x30644E72E131A029B85045B68181585D2833E84879B9709143E1F593F0000001
FIELD_BYTES = 32
READABLE = ("float32", "float64", "int32", "int64")


@dataclass(frozen=True, slots=True)
class PublicTensor:
    """One input or output of a circuit; each number is multiplied with 2 ** `scale_bits`."""

    name: str
    kind: str
    shape: tuple[int, ...]
    scale_bits: int

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return int(np.prod(self.shape, dtype=np.int64))

    def to_plain(self) -> dict[str, Plain]:
        """As it is kept and told; `of` reads it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.shape),
            "scale_bits": self.scale_bits,
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "PublicTensor":
        """What `to_plain` gave."""
        return cls(plain["name"], plain["kind"], tuple(plain["shape"]), plain["scale_bits"])


@dataclass(frozen=True, slots=True)
class Circuit:
    """The public side of a circuit, and the hash of the key that proofs of it are checked with."""

    inputs: tuple[PublicTensor, ...]
    outputs: tuple[PublicTensor, ...]
    key: bytes

    def to_plain(self) -> dict[str, Plain]:
        """As the worker tells it, and as it is kept beside the key; `of` reads it."""
        return {
            "inputs": [it.to_plain() for it in self.inputs],
            "outputs": [it.to_plain() for it in self.outputs],
            "key": self.key,
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Circuit":
        """What `to_plain` gave; it comes from a worker of our own."""
        return cls(
            tuple(map(PublicTensor.of, plain["inputs"])),
            tuple(map(PublicTensor.of, plain["outputs"])),
            plain["key"],
        )

    def numbers_in(self, data: bytes) -> list[int]:
        """The public numbers of an input as it was asked, each rounded to the circuit's steps.

        Malformed says what the circuit reads instead.
        """
        given = {it.name: it for it in Tensors.from_bytes(data).tensors}
        if set(given) != {it.name for it in self.inputs}:
            names = ", ".join(it.name for it in self.inputs)
            raise Malformed(f"the circuit reads {names}, and {', '.join(sorted(given))} came")
        return [number for it in self.inputs for number in _numbers(it, given[it.name])]

    def numbers_out(self, output: Tensors) -> list[int]:
        """The public numbers that an output claims; Malformed for what no circuit gives."""
        if len(output.tensors) != len(self.outputs):
            raise Malformed(f"the circuit gives {len(self.outputs)} tensors")
        pairs = list(zip(self.outputs, output.tensors, strict=True))
        numbers = [number for it, tensor in pairs for number in _numbers(it, tensor)]
        if self.tensors_of(numbers) != output.tensors:
            raise Malformed("a number of the output is none that the circuit can give")
        return numbers

    def tensors_of(self, numbers: Sequence[int]) -> tuple[Tensor, ...]:
        """The outputs that these public numbers stand for; Malformed if one does not fit."""
        if len(numbers) != sum(it.size for it in self.outputs):
            raise Malformed(f"{len(numbers)} numbers are not the outputs of the circuit")
        found, at = [], 0
        for value in self.outputs:
            some = numbers[at : at + value.size]
            at += value.size
            if max(map(abs, some), default=0) > NUMBER_MAX:
                raise Malformed(f"a number of {value.name} is larger than the circuit's numbers")
            exact = np.array(some, np.float64) / 2.0**value.scale_bits
            array = exact.astype(np.dtype(value.kind).newbyteorder("<"))
            if not np.array_equal(array.astype(np.float64), exact):
                raise Malformed(f"a number of {value.name} does not fit in {value.kind}")
            found.append(
                Tensor(name=value.name, kind=value.kind, shape=value.shape, data=array.tobytes())
            )
        return tuple(found)


def _numbers(value: PublicTensor, tensor: Tensor) -> list[int]:
    """A tensor's numbers in the circuit's steps, rounded half away from zero."""
    if (tensor.name, tensor.kind, tensor.shape) != (value.name, value.kind, value.shape):
        came = f"{tensor.name}: {tensor.kind}[{', '.join(map(str, tensor.shape))}]"
        wanted = f"{value.name}: {value.kind}[{', '.join(map(str, value.shape))}]"
        raise Malformed(f"{came} came where the circuit has {wanted}")
    array = np.frombuffer(tensor.data, np.dtype(value.kind).newbyteorder("<")).astype(np.float64)
    scaled = array * 2.0**value.scale_bits
    if not np.all(np.abs(scaled) <= NUMBER_MAX):
        raise Malformed(f"{value.name} has a number that is too large, or none, for the circuit")
    whole = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled)
    return [int(it) for it in whole]


def to_field(number: int) -> str:
    """A public number as ezkl writes it: 32 bytes, little-endian, in hexadecimal."""
    return (number % MODULUS).to_bytes(FIELD_BYTES, "little").hex()


def from_field(text: str) -> int:
    """The number that ezkl wrote, negative ones from above; Malformed if it is not canonical."""
    try:
        raw = bytes.fromhex(text)
    except ValueError as error:
        raise Malformed("a public number is no hexadecimal") from error
    number = int.from_bytes(raw, "little")
    if len(raw) != FIELD_BYTES or number >= MODULUS or raw.hex() != text:
        raise Malformed("a public number is not canonical")
    return number if number <= MODULUS // 2 else number - MODULUS


def check_provable(model: OnnxModel) -> None:
    """ModelRefused, in words, for a model of which no circuit is made."""
    if model.weights > WEIGHTS_MAX:
        raise ModelRefused(
            f"it has {model.weights} weights, and models of up to {WEIGHTS_MAX} are proved",
            todo="ask for the level replayed",
        )
    for value in (*model.inputs, *model.outputs):
        if value.kind not in READABLE:
            raise ModelRefused(
                f"{value} cannot be public in a proof, only {', '.join(READABLE)} can"
            )
    for value in model.inputs:
        if not value.shape or not all(isinstance(it, int) for it in value.shape[1:]):
            raise ModelRefused(
                f"{value} has sizes that are not fixed beside its rows, and a circuit has none",
                todo="export the model with fixed sizes",
            )


def rows_asked(model: OnnxModel, data: bytes) -> int:
    """For how many rows a circuit is needed; 1 where the model itself fixes the size. Malformed."""
    given = {it.name: it for it in Tensors.from_bytes(data).tensors}
    rows = {
        tensor.shape[0] if tensor.shape else 0
        for value in model.inputs
        if _is_open(value) and (tensor := given.get(value.name)) is not None
    }
    if not rows:
        return 1
    if len(rows) > 1 or not 1 <= min(rows) <= ROWS_MAX:
        came = " and ".join(map(str, sorted(rows)))
        raise Malformed(f"{came} rows came, and one proof is of 1 to {ROWS_MAX}: ask in parts")
    return rows.pop()


def _is_open(value: Value) -> bool:
    return bool(value.shape) and not isinstance((value.shape or ())[0], int)


def open_sizes(model: OnnxModel) -> list[str]:
    """The names of sizes that are as many as the rows are; ezkl's own for one without a name."""
    names = {(it.shape or ())[0] for it in model.inputs if _is_open(it)}
    return sorted({"batch_size", *(it for it in names if isinstance(it, str))})


def canonical(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What ezkl laid out, in an order of its own.

    ezkl lists look-ups and range checks in the order of a hash table, which is another one in each
    process, and columns follow that order: without this no two peers would make the same key.
    """
    found = dict(settings)
    for name in ("required_lookups", "required_range_checks"):
        found[name] = sorted(settings[name], key=lambda it: json.dumps(it, sort_keys=True))
    found["timestamp"] = 0
    return found


def public_of(model: OnnxModel, settings: Mapping[str, Any], key: bytes) -> Circuit:
    """The public side of what ezkl made of a model; ModelRefused where the two do not fit."""
    shapes = [tuple(it) for it in settings["model_instance_shapes"]]
    scales = [*settings["model_input_scales"], *settings["model_output_scales"]]
    values = [*model.inputs, *model.outputs]
    if not len(values) == len(shapes) == len(scales):
        raise ModelRefused("its circuit has other inputs or outputs than the model")
    made = [
        PublicTensor(value.name, value.kind, _as_declared(value, shape), scale)
        for value, shape, scale in zip(values, shapes, scales, strict=True)
    ]
    if sum(it.size for it in made) > NUMBERS_MAX:
        raise ModelRefused(f"it reads and gives more than {NUMBERS_MAX} numbers in one proof")
    return Circuit(tuple(made[: len(model.inputs)]), tuple(made[len(model.inputs) :]), key)


def _as_declared(value: Value, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A circuit's shape, which has to be the declared one where that is known."""
    declared = value.shape
    if declared is not None and (
        len(declared) != len(shape)
        or any(isinstance(it, int) and it != size for it, size in zip(declared, shape, strict=True))
    ):
        raise ModelRefused(f"its circuit has {list(shape)} where the model has {value}")
    return shape


def check_size(size_bytes: int) -> None:
    """ModelRefused for a file that is too large for a circuit."""
    if size_bytes > PROOF_MODEL_BYTES_MAX:
        raise ModelRefused(
            f"its file has {size_bytes} bytes, and models of up to {PROOF_MODEL_BYTES_MAX} bytes"
            f" and {WEIGHTS_MAX} weights are proved",
            todo="ask for the level replayed",
        )
