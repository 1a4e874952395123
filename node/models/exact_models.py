"""Makes an integer model's file from a float model's file, and measures what that costs.

Scales are measured on one half of the rows, and what the model then gives is compared with the
float model's answers on the other half.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from node.engines.exact.model import BLOCK, ELEMENTS_MAX, ExactModel
from node.engines.exact.overflow import prove
from node.engines.exact.quantise import float_outputs, quantise
from node.engines.exact.reference import run
from node.engines.formats.onnx_file import describe
from node.engines.formats.onnx_graph import OnnxModel, Value
from node.engines.formats.onnx_protobuf import Array
from wire import limits
from wire.errors import InputError, ModelRefused

ROWS_SYNTHETIC = 512
ROWS_LEAST = 8
ROWS_MAX = 4096
SEED = 1
LABELS = "labels"
Figures = dict[str, bool | int | float | str | bytes]


@dataclass(frozen=True, slots=True)
class MeasuredRows:
    """Inputs to measure with, in the model's order, and the right answers if they are known."""

    inputs: Sequence[Array]
    labels: Array | None
    synthetic: bool

    def half(self, number: int) -> "MeasuredRows":
        """Every second row, from the first or from the second on."""
        labels = None if self.labels is None else self.labels[number::2]
        return MeasuredRows([it[number::2] for it in self.inputs], labels, self.synthetic)


def make_exact(path: Path, out: Path, calibration: Path | None = None) -> ExactModel:
    """Write the integer model of an ONNX file; InputError, ModelRefused name what is in the way.

    `calibration` is a .npz with an array for each input, and `labels` if they are known, or a .npy
    for a model with one input. Without it the rows are made up.
    """
    if path.suffix.lower() != ".onnx":
        raise InputError(
            f"{path} is no .onnx or .gguf file: integer models are made from those",
            todo="export the model as ONNX first; language models are .gguf",
        )
    check_name(out)
    model = describe(path)
    rows = _rows(model, calibration)
    one, other = rows.half(0), rows.half(1)
    in_blocks = _made(model, one.inputs, BLOCK)
    whole = _made(model, one.inputs, ELEMENTS_MAX)
    figures: Figures = {"rows": len(other.inputs[0]), "synthetic": rows.synthetic}
    figures |= _compared(model, in_blocks, other, "")
    figures |= _compared(model, whole, other, "_per_tensor")
    kept = dict(list(figures.items())[: limits.PARAMETERS_MAX])
    made = replace(in_blocks, accuracy=kept)
    try:
        out.write_bytes(made.to_bytes())
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from error
    return made


def check_name(out: Path) -> None:
    """InputError for a name that does not end as files of integer models do."""
    if out.suffix.lower() != ".exact":
        raise InputError(
            f"{out} is no name for an integer model: peers know these by the ending .exact",
            todo=f"name it {out.with_suffix('.exact').name}",
        )


def _made(model: OnnxModel, inputs: Sequence[Array], block: int) -> ExactModel:
    made = quantise(model, inputs, block)
    prove(made)
    return made


def _compared(model: OnnxModel, made: ExactModel, rows: MeasuredRows, suffix: str) -> Figures:
    """How far from the float model's answers these are, for each output."""
    found: Figures = {}
    pairs = zip(
        made.outputs, run(made, rows.inputs), float_outputs(model, rows.inputs), strict=True
    )
    for output, ours, floats in pairs:
        name = f"{output.name[:24]}{suffix}"
        if output.kind == "float32":
            most = max(float(np.abs(floats).max()), 1e-30)
            error = float(np.sqrt(np.mean((ours - floats) ** 2))) / most
            found[f"error {name}"] = round(error, 9)
        choice, wanted = (_choice(it, output.kind) for it in (ours, floats))
        if choice is None or wanted is None:
            continue
        found[f"same {name}"] = round(float((choice == wanted).mean()), 6)
        if rows.labels is not None:
            right = float((choice == rows.labels).mean())
            before = float((wanted == rows.labels).mean())
            found[f"right {name}"] = round(right, 6)
            found[f"right in floats {name}"] = round(before, 6)
    return found


def _choice(values: Array, kind: str) -> Array | None:
    """What an answer chooses: the label itself, or the largest of several; None if it does not."""
    if kind == "int64":
        return values.reshape(len(values))
    if values.ndim != 2 or values.shape[1] < 2:
        return None
    return np.asarray(values.argmax(axis=1))


def _rows(model: OnnxModel, calibration: Path | None) -> MeasuredRows:
    for value in model.inputs:
        if value.kind != "float32":
            raise ModelRefused(f"the input {value} cannot be made exact: only float32 is")
        if value.shape is None or not all(isinstance(it, int) for it in value.shape[1:]):
            raise ModelRefused(
                f"the input {value} cannot be made exact: its rows have no one shape"
            )
    if calibration is None:
        chance = np.random.default_rng(SEED)
        made = [
            chance.standard_normal((ROWS_SYNTHETIC, *_row(it))).astype(np.float32)
            for it in model.inputs
        ]
        return MeasuredRows(made, None, synthetic=True)
    arrays = _read(calibration)
    if len(model.inputs) == 1 and set(arrays) == {""}:
        arrays = {model.inputs[0].name: arrays[""]}
    inputs = [_fitting(it, arrays, calibration) for it in model.inputs]
    counts = {len(it) for it in inputs} | ({len(arrays[LABELS])} if LABELS in arrays else set())
    if len(counts) != 1 or not min(counts) >= ROWS_LEAST:
        raise InputError(
            f"{calibration} has {', '.join(map(str, sorted(counts)))} rows",
            todo=f"give each input, and the labels, the same number of rows, {ROWS_LEAST} at least",
        )
    labels = arrays.get(LABELS)
    if labels is not None:
        labels = labels.reshape(len(labels), -1)[:ROWS_MAX, 0]
    return MeasuredRows([it[:ROWS_MAX] for it in inputs], labels, synthetic=False)


def _row(value: Value) -> tuple[int, ...]:
    return tuple(it for it in (value.shape or ())[1:] if isinstance(it, int))


def _read(path: Path) -> Mapping[str, Array]:
    try:
        # Left to itself it forgets to close what it cannot read.
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            return {"": found} if isinstance(found, np.ndarray) else dict(found.items())
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read as numbers: {str(error)[:200]}",
            todo="write it with numpy.savez, an array for each input",
        ) from error


def _fitting(value: Value, arrays: Mapping[str, Array], path: Path) -> Array:
    array = arrays.get(value.name)
    if array is None or array.dtype.kind not in "iufb" or array.shape[1:] != _row(value):
        there = ", ".join(f"{name} {list(it.shape)}" for name, it in arrays.items())[:200]
        raise InputError(
            f"{path} has no numbers for the input {value}; it has: {there or 'nothing'}",
            todo="write it with numpy.savez, an array for each input, one row after the other",
        )
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise InputError(f"{path}: not all numbers of {value.name} are finite 32-bit floats")
    return narrow
