"""A peer whose owner lies: `python -m node`, but what it answers is not what its models gave.

Only legs for others are altered, not what its own probes see: it looks healthy to all.
"""

from collections.abc import Sequence
from dataclasses import replace

from node.__main__ import main
from node.serving.infer_role import InferRole
from node.serving.role import Done, Emit, LegInput
from wire.errors import BatonError
from wire.operations import CALL
from wire.payload import Vectors
from wire.task import Stage
from wire.tensors import ELEMENT_BYTES, Tensors

_do, _do_many = InferRole.do, InferRole.do_many


def lie(stage: Stage, done: Done) -> Done:
    """Another answer of the same shape."""
    if stage.operation == CALL:
        tensors = Tensors.from_bytes(done.data).tensors
        altered = tuple(
            replace(it, data=_backwards(it.data, ELEMENT_BYTES[it.kind])) for it in tensors
        )
        return replace(done, data=Tensors(tensors=altered).to_bytes())
    vectors = Vectors.from_bytes(done.data)
    return replace(done, data=replace(vectors, data=_backwards(vectors.data, 4)).to_bytes())


def _backwards(data: bytes, element_bytes: int) -> bytes:
    parts = [data[at : at + element_bytes] for at in range(0, len(data), element_bytes)]
    return b"".join(reversed(parts))


async def do(self: InferRole, stage: Stage, source: LegInput, emit: Emit) -> Done:
    return lie(stage, await _do(self, stage, source, emit))


async def do_many(
    self: InferRole, works: Sequence[tuple[Stage, LegInput]]
) -> list[Done | BatonError]:
    found = await _do_many(self, works)
    return [
        lie(stage, it) if isinstance(it, Done) else it
        for (stage, _), it in zip(works, found, strict=True)
    ]


if __name__ == "__main__":
    InferRole.do, InferRole.do_many = do, do_many  # type: ignore[method-assign]
    main()
