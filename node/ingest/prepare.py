"""Preparation: a closed list of steps from what was extracted to what a model reads. Pure.

No step runs anything of a peer's; each gives the same for the same, so whoever checks repeats it.
Sums are exact, so that no order of adding makes a difference.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from node.ingest.candles import TYPES, candles_of, number_of, terms_of
from node.ingest.parsing import OUTPUT_BYTES_MAX, Cell, to_lines
from node.ingest.passages import PASSAGE_CHARS, cut
from node.ingest.table import DataTable
from node.ingest.tokenise import ADDED, SETTINGS, STEP, Tables, check_settings, tokenised
from wire import limits
from wire.errors import InputError, Malformed, Oversize, WireError
from wire.fetch import STEPS_MAX, Extraction, Preparation, PreparationStep
from wire.schema import Parameters, Scalar
from wire.tensors import Tensor, Tensors

Form = DataTable | str | bytes | Tensor | Tensors
Work = Callable[[Any, Mapping[str, Any]], Form]
# A parameter that has to be given.
_NEEDED = object()
_SHOWN = 8
# Every whole number up to it is a float, too.
_WHOLE_MAX = 2**53
_FACTOR_MIN, _FACTOR_MAX = 1e-6, 1e6


@dataclass(frozen=True, slots=True)
class _Kind:
    """A step that there is: what it takes and gives, its parameters with their defaults, its work.

    A list of names is a text with commas.
    """

    takes: tuple[str, ...]
    gives: str
    parameters: Mapping[str, object]
    work: Work
    # Parameters that came later: records of before have none, and where one says nothing it is
    # not written, so that the same steps keep their id.
    added: Mapping[str, object] = field(default_factory=dict)


def prepared(extraction: Extraction, output: bytes, tables: Tables) -> bytes:
    """What the steps make of an output; Malformed names the step that could not go on.

    `tables` are those that `tables_of` names.
    """
    form: Form = output
    gives = extraction.reads
    if extraction.reads == "table":
        form = DataTable.from_bytes(output)
    elif extraction.reads == "text":
        form = output.decode()
    for number, step in enumerate(extraction.prepare[0].steps, start=1):
        kind, told = _checked(step)
        if gives not in kind.takes:
            raise Malformed(f"step {number}, {step.name}: it does not take what is there")
        gives = kind.gives
        try:
            with_tables: Work = partial(tokenised, tables=tables)
            form = (with_tables if step.name == STEP else kind.work)(form, told)
        except WireError as error:
            raise type(error)(f"step {number}, {step.name}: {error.message}") from error
    if isinstance(form, DataTable):
        return to_lines(list(form.columns), map(list, form.rows))
    if isinstance(form, Tensor):
        form = Tensors(tensors=(form,))
    assert isinstance(form, Tensors), "each step gives a table or tensors"
    if (size_bytes := sum(len(it.data) for it in form.tensors)) > OUTPUT_BYTES_MAX:
        raise Oversize(f"tensors of {size_bytes} bytes, at most {OUTPUT_BYTES_MAX}")
    return form.to_bytes()


def read_preparation(found: Any) -> Iterator[Preparation]:
    """The steps of a TOML file, with every setting filled in; InputError."""
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list) or not all(isinstance(it, dict) for it in found):
        raise InputError("prepare is a list of steps", todo=_EXAMPLE)
    if not 0 < len(found) <= STEPS_MAX:
        raise InputError(f"a preparation of {len(found)} steps, and 1 to {STEPS_MAX} are possible")
    yield Preparation(steps=tuple(map(_step, found)))


def check_preparation(extraction: Extraction) -> None:
    """InputError if a step is not known, is told what it is not, or does not fit the one before."""
    form = extraction.reads
    for preparation in extraction.prepare:
        for step in preparation.steps:
            try:
                kind, told = _checked(step)
                if step.name == "candles":
                    terms_of(told)
                if step.name == STEP:
                    check_settings(told)
            except Malformed as error:
                raise InputError(f"the step {step.name!r}: {error.message}") from error
            if form not in kind.takes:
                raise InputError(
                    f"the step {step.name!r} takes {' or '.join(kind.takes)}, and there is"
                    f" {'text' if form == 'text' else f'a {form}'}"
                )
            form = kind.gives


def tensor_of(output: bytes) -> Tensor:
    """The first tensor of an output; WireError if there is none."""
    return Tensors.from_bytes(output).tensors[0]


def words_of(output: bytes) -> str:
    """What an output of tensors is, in words."""
    return "; ".join(
        f"tensor {it.name}, {it.kind} {'x'.join(map(str, it.shape)) or 'scalar'}"
        for it in Tensors.from_bytes(output).tensors
    )


def beginning_of(output: bytes) -> str:
    """The first numbers of a tensor."""
    import numpy as np

    tensor = tensor_of(output)
    first = np.frombuffer(tensor.data, np.dtype(tensor.kind).newbyteorder("<"))[:_SHOWN]
    return ", ".join(f"{it:g}" for it in first) + ", …" * (len(first) == _SHOWN)


def _step(found: Mapping[str, Any]) -> PreparationStep:
    told = dict(found)
    name = told.pop("step", None)
    if not isinstance(name, str) or name not in STEPS:
        raise InputError(f"there is no step {name!r}: {', '.join(STEPS)}", todo=_EXAMPLE)
    parameters: dict[str, Scalar] = {}
    for key, value in told.items():
        scalar = ",".join(map(str, value)) if isinstance(value, list) else value
        if not isinstance(scalar, str | int | float):
            raise InputError(f"{key} of the step {name!r} is {value!r}", todo=_EXAMPLE)
        parameters[key] = scalar
    kind = STEPS[name]
    given = {**kind.parameters, **parameters}
    filled = {
        key: it
        for key, it in given.items()
        if it is not _NEEDED and (key not in kind.added or repr(it) != repr(kind.added[key]))
    }
    return PreparationStep(name=name, parameters=filled)  # type: ignore[arg-type]


def _checked(step: PreparationStep) -> tuple[_Kind, Parameters]:
    kind = STEPS.get(step.name)
    if kind is None:
        raise Malformed(f"it is none of {', '.join(STEPS)}")
    known = {**kind.parameters, **kind.added}
    told: Parameters = {**kind.added, **step.parameters}  # type: ignore[dict-item]
    if odd := sorted(told.keys() ^ known.keys()):
        what = "it is not told" if odd[0] in known else "it knows no"
        raise Malformed(f"{what} {odd[0]!r}; it has {', '.join(known)}")
    for key, default in known.items():
        wanted = str if default is _NEEDED else type(default)
        if wanted is float and isinstance(told[key], int):
            continue
        if not isinstance(told[key], wanted) or isinstance(told[key], bool) != (wanted is bool):
            raise Malformed(f"{key!r} is {told[key]!r}, and not {wanted.__name__}")
    return kind, told


def _places(table: DataTable, names: str) -> dict[str, int]:
    """The columns that are named, or all, each with its place."""
    places = {name: number for number, name in enumerate(table.columns)}
    wanted = [it.strip() for it in names.split(",")] if names else list(places)
    for name in wanted:
        if name not in places:
            raise Malformed(f"there is no column {name!r}; there are: {', '.join(places)[:200]}")
    return {name: places[name] for name in wanted}


def _select(table: DataTable, told: Mapping[str, Any]) -> DataTable:
    places, first, last = _places(table, told["columns"]), told["first"], told["last"]
    if first < 0 or last < 0:
        raise Malformed("first and last are how many rows, 0 for all")
    rows = table.rows[:first] if first else table.rows
    rows = rows[-last:] if last else rows
    return DataTable(tuple(places), tuple(tuple(r[it] for it in places.values()) for r in rows))


def _cast(table: DataTable, told: Mapping[str, Any]) -> DataTable:
    places, to, otherwise = _places(table, told["columns"]), told["to"], told["otherwise"]
    if to not in ("number", "whole", "text") or otherwise not in ("refuse", "empty", "drop"):
        raise Malformed("to is number, whole or text; otherwise is refuse, empty or drop")
    rows = []
    for number, row in enumerate(table.rows, start=1):
        cells = list(row)
        try:
            for name, place in places.items():
                cells[place] = _cast_cell(row[place], to, number, name, otherwise)
        except Malformed:
            if otherwise == "refuse":
                raise
            continue
        rows.append(tuple(cells))
    return DataTable(table.columns, tuple(rows))


def _cast_cell(cell: Cell, to: str, row: int, column: str, otherwise: str) -> Cell:
    if to == "text":
        return "" if cell is None else cell if isinstance(cell, str) else str(cell)
    try:
        found = number_of(cell, row, column)
    except Malformed:
        if otherwise == "empty":
            return None
        raise
    if to == "whole" and abs(found) > _WHOLE_MAX:
        raise Malformed(f"row {row}, column {column!r}: {found} is too large for a whole number")
    return round(found) if to == "whole" else found


def _normalise(table: DataTable, told: Mapping[str, Any]) -> DataTable:
    columns: list[tuple[Cell, ...]] = [()] * len(table.columns)
    if table.rows:
        columns = list(zip(*table.rows, strict=True))
    for name, place in _places(table, told["columns"]).items():
        numbers = [number_of(it, row, name) for row, it in enumerate(columns[place], start=1)]
        columns[place] = tuple(_normalised(numbers, told["by"]))
    return DataTable(table.columns, tuple(zip(*columns, strict=True)))


def _normalised(numbers: list[float], by: str) -> list[float]:
    """The numbers about 0 and of size 1; those that are all the same become 0."""
    if not numbers:
        return []
    match by:
        case "range":
            low, size = min(numbers), max(numbers) - min(numbers)
        case "deviation":
            try:
                low = math.fsum(numbers) / len(numbers)
                size = math.sqrt(math.fsum((it - low) ** 2 for it in numbers) / len(numbers))
            except OverflowError as error:
                raise Malformed("the numbers are too large") from error
        case "first":
            low = size = numbers[0]
        case _:
            raise Malformed(f"by is range, deviation or first, not {by[:20]!r}")
    if not math.isfinite(size):
        raise Malformed("the numbers are too large")
    return [(it - low) / size if size else 0.0 for it in numbers]


def _stack(table: DataTable, told: Mapping[str, Any]) -> Tensor:
    import numpy as np

    from node.ingest.image_tensor import to_tensor

    if told["kind"] not in ("float32", "float64", "int64"):
        raise Malformed("kind is float32, float64 or int64")
    places = _places(table, told["columns"])
    numbers = [
        [number_of(row[place], number, name) for name, place in places.items()]
        for number, row in enumerate(table.rows, start=1)
    ]
    values = np.array(numbers, np.float64).reshape(len(numbers), len(places))
    if told["kind"] == "float32" and np.abs(values).max(initial=0) > np.finfo(np.float32).max:
        raise Malformed("a number is too large for float32")
    if told["kind"] == "int64" and np.abs(values).max(initial=0) > _WHOLE_MAX:
        raise Malformed("a number is too large for a whole one")
    return to_tensor(values, told["kind"])


def _window(tensor: Tensor | Tensors, told: Mapping[str, Any]) -> Tensor:
    import numpy as np

    from node.ingest.image_tensor import to_tensor

    if isinstance(tensor, Tensors):
        raise Malformed(f"it takes one tensor, and there are {len(tensor.tensors)}")
    size, every = told["size"], told["every"]
    if size < 1 or every < 1:
        raise Malformed("size and every are 1 at least")
    values = np.frombuffer(tensor.data, np.dtype(tensor.kind).newbyteorder("<"))
    values = values.reshape(tensor.shape)
    starts = range(0, len(values) - size + 1, every)
    if not starts:
        raise Malformed(f"{len(values)} rows are fewer than a window of {size}")
    if len(starts) * size * values[:1].nbytes > OUTPUT_BYTES_MAX:
        raise Oversize(f"{len(starts)} windows have more than {OUTPUT_BYTES_MAX} bytes")
    return to_tensor(np.stack([values[it : it + size] for it in starts]), tensor.kind)


def _passages(text: str, told: Mapping[str, Any]) -> DataTable:
    chars = told["chars"]
    if not 50 <= chars <= limits.PASSAGE_BYTES_MAX // 4:
        raise Malformed(f"chars is 50 to {limits.PASSAGE_BYTES_MAX // 4}")
    return DataTable(("text",), tuple((it,) for it in cut(text, chars)))


def _image(data: bytes, told: Mapping[str, Any]) -> Tensor:
    from node.ingest.image_tensor import SIDE_MAX, image_tensor, to_tensor

    width, height, layout = told["width"], told["height"], told["layout"]
    if not 1 <= width <= SIDE_MAX or not 1 <= height <= SIDE_MAX:
        raise Malformed(f"width and height are 1 to {SIDE_MAX}")
    if layout not in ("chw", "hwc") or told["colour"] not in ("rgb", "grey"):
        raise Malformed("layout is chw or hwc, and colour rgb or grey")
    if not _FACTOR_MIN <= told["scale"] <= _FACTOR_MAX:
        raise Malformed(f"scale is {_FACTOR_MIN} to {_FACTOR_MAX}")
    pixels = image_tensor(
        data,
        (width, height),
        crop=told["crop"],
        grey=told["colour"] == "grey",
        channels_last=layout == "hwc",
    )
    means, sizes = (_channels(told[key], key, pixels, layout) for key in ("mean", "deviation"))
    return to_tensor(((pixels / told["scale"] - means) / sizes)[None], "float32")


def _channels(text: str, key: str, pixels: Any, layout: str) -> Any:
    import numpy as np

    numbers = [number_of(it, 1, key) for it in text.split(",")]
    channels = pixels.shape[2 if layout == "hwc" else 0]
    least = _FACTOR_MIN if key == "deviation" else 0.0
    if len(numbers) not in (1, channels) or not all(
        least <= abs(it) <= _FACTOR_MAX for it in numbers
    ):
        raise Malformed(f"{key} is one number or {channels}, of {least} to {_FACTOR_MAX}")
    return np.array(numbers).reshape((1, 1, -1) if layout == "hwc" else (-1, 1, 1))


STEPS: dict[str, _Kind] = {
    "select": _Kind(("table",), "table", {"columns": "", "first": 0, "last": 0}, _select),
    "cast": _Kind(
        ("table",), "table", {"columns": "", "to": "number", "otherwise": "refuse"}, _cast
    ),
    "normalise": _Kind(("table",), "table", {"columns": "", "by": "range"}, _normalise),
    "candles": _Kind(
        ("table",),
        "table",
        {
            "base": _NEEDED,
            "quote": _NEEDED,
            "count": 60,
            "minutes": 1,
            "order": "oldest",
            "types": ",".join(TYPES),
            "gaps": "repeat",
            "time": "time",
            "price": "price",
            "volume": "",
            "zone": "UTC",
        },
        lambda table, told: candles_of(table, terms_of(told)),
    ),
    "stack": _Kind(("table",), "tensor", {"columns": "", "kind": "float32"}, _stack),
    "window": _Kind(("tensor",), "tensor", {"size": 32, "every": 1}, _window),
    "passages": _Kind(("text",), "table", {"chars": PASSAGE_CHARS}, _passages),
    STEP: _Kind(("text", "table"), "tensor", SETTINGS, partial(tokenised, tables={}), ADDED),
    "image": _Kind(
        ("binary",),
        "tensor",
        {
            "width": 224,
            "height": 224,
            "crop": True,
            "colour": "rgb",
            "scale": 255.0,
            "mean": "0",
            "deviation": "1",
            "layout": "chw",
        },
        _image,
    ),
}
_EXAMPLE = 'for example: [[prepare]] step = "stack", columns = ["open", "close"]'
