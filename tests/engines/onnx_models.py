"""ONNX models for tests: the kept ones with what onnxruntime gave, and small ones made here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from node.engines.interface import Job
from wire.content import ContentId
from wire.model import Manifest, ModelFile
from wire.tensors import Tensor, Tensors

FOLDER = Path(__file__).parent / "models"
KEPT = tuple(sorted(path.stem for path in FOLDER.glob("*.onnx")))
OPSETS = (helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3))
Arrays = Mapping[str, np.ndarray]
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def manifest_of(path: Path) -> tuple[Manifest, dict[str, Path]]:
    """What the engine is given for a file. Its content id is not looked at here."""
    data = path.read_bytes()
    file = ModelFile(name="model.onnx", content=ContentId.of(data), size_bytes=len(data))
    manifest = Manifest(
        name=path.stem,
        format="onnx",
        profile="f32",
        operations=("call",),
        files=(file,),
        parameters={},
        tolerance=1e-5,
    )
    return manifest, {"model.onnx": path}


def golden(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs of a kept model, and what onnxruntime gave for them."""
    with np.load(FOLDER / f"{name}.npz") as file:
        sides = [
            {key[len(side) :]: file[key] for key in file.files if key.startswith(side)}
            for side in ("in:", "out:")
        ]
    return sides[0], sides[1]


def to_tensors(arrays: Arrays) -> bytes:
    return Tensors(
        tensors=tuple(
            Tensor(name=name, kind=it.dtype.name, shape=it.shape, data=it.tobytes())
            for name, it in arrays.items()
        )
    ).to_bytes()


def to_arrays(data: bytes) -> dict[str, np.ndarray]:
    return {
        it.name: np.frombuffer(it.data, it.kind).reshape(it.shape)
        for it in Tensors.from_bytes(data).tensors
    }


def call(model: ContentId, arrays: Arrays, **changes: Any) -> Job:
    given = {
        "model": model,
        "operation": "call",
        "input": to_tensors(arrays),
        "parameters": {},
        "deadline_s": 60.0,
    }
    return Job(**(given | changes))


def value(name: str, kind: int, *shape: int | str | None) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def made(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    constants: Arrays | None = None,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(it, name) for name, it in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "made", list(inputs), list(outputs), tensors)
    return helper.make_model(graph, opset_imports=list(OPSETS), ir_version=10)


def kept_at(folder: Path, model: onnx.ModelProto, name: str = "made") -> Path:
    path = folder / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    return path
