"""Named tensors: what models that are plain functions read and give."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.errors import Malformed
from wire.schema import Between, Digest, Name, Omitted, Record

# Element types by numpy's names, and the bytes of one element. Little-endian, in C order.
ELEMENT_BYTES = {
    name: size
    for size, names in (
        (1, ("bool", "int8", "uint8")),
        (2, ("int16", "uint16", "float16")),
        (4, ("int32", "uint32", "float32")),
        (8, ("int64", "uint64", "float64")),
    )
    for name in names
}
# The names of element types in safetensors files, and the same mapping in reverse.
SAFETENSORS_KINDS = {
    "BOOL": "bool",
    "I8": "int8",
    "U8": "uint8",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "I64": "int64",
    "U64": "uint64",
    "F64": "float64",
}
SAFETENSORS_LABELS = {kind: label for label, kind in SAFETENSORS_KINDS.items()}
RANK_MAX = 8
Dimension = Annotated[int, Between(0, 2**31)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor(Record):
    """An array: its name, type, shape, and its elements in C order, little-endian."""

    SIZE_BYTES_MAX: ClassVar[int] = limits.TENSORS_BYTES_MAX

    name: Name
    kind: Annotated[str, Between(1, 16)]
    shape: Annotated[tuple[Dimension, ...], Between(0, RANK_MAX)]
    data: bytes

    def check(self) -> None:
        if self.kind not in ELEMENT_BYTES:
            raise Malformed(f"{self.kind!r} is not an element type ({', '.join(ELEMENT_BYTES)})")
        size_bytes = math.prod(self.shape) * ELEMENT_BYTES[self.kind]
        if len(self.data) != size_bytes:
            shape = "x".join(map(str, self.shape)) or "one number"
            raise Malformed(
                f"{self.name} of {shape} {self.kind} takes {size_bytes} bytes, not {len(self.data)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitProof(Record):
    """A proof that a circuit of the model gave these tensors for that input (level zk).

    `system` is what made it, with its version; `srs` and `key` are the sha256 of the structured
    reference string and of the verifying key that it was made with, by which a checker sees early
    that it has others. Nothing here is believed but `proof`: the key is made of the model by who
    checks, and the public numbers of what was asked and answered.
    """

    system: Name
    srs: Digest
    key: Digest
    proof: Annotated[bytes, Between(1, limits.PROOF_BYTES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors(Record):
    """What goes into a model, or comes out of it, by name. No name stands twice."""

    SIZE_BYTES_MAX: ClassVar[int] = limits.TENSORS_BYTES_MAX

    tensors: Annotated[tuple[Tensor, ...], Between(1, 64)]
    # One, of an output at the level zk.
    proofs: Annotated[tuple[CircuitProof, ...], Between(0, 1), Omitted(())] = ()

    def check(self) -> None:
        if len({it.name for it in self.tensors}) != len(self.tensors):
            raise Malformed("a tensor is named twice")
