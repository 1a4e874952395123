"""The step `tokenise`: texts become rows of numbers, by their bytes or by a published table. Pure.

A table is content: a `tokenizer.json`, which may be a model's own, or the list of words of a
WordPiece model. The same table gives the same numbers, so whoever checks needs it too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from node.ingest.parsing import OUTPUT_BYTES_MAX
from node.ingest.table import DataTable
from wire.content import ContentId
from wire.errors import Malformed, ModelRefused, Oversize
from wire.fetch import Extraction
from wire.tensors import Tensor, Tensors

STEP, TABLE = "tokenise", "table"
BY_BYTES, BY_TOKENIZER, BY_WORDPIECE = "bytes", "tokenizer", "wordpiece"
LENGTH_MAX = 1 << 16
TABLE_BYTES_MAX = 24 << 20
PADDING_MAX = 2**53
# What models of sequences call what they read.
_NAMES = {"ids": "input_ids", "mask": "attention_mask", "types": "token_type_ids"}
# The settings, and those that came later: they are not written where they say nothing.
SETTINGS = {"by": BY_BYTES, "length": 256, "padding": 0}
ADDED = {TABLE: "", "tensors": "ids", "lowercase": True}
# The id of each table, as text, with its bytes.
Tables = Mapping[str, bytes]


def check_settings(told: Mapping[str, Any]) -> None:
    """Malformed for settings that contradict each other, or are out of bounds."""
    if not 1 <= told["length"] <= LENGTH_MAX or abs(told["padding"]) > PADDING_MAX:
        raise Malformed(f"length is 1 to {LENGTH_MAX}, and padding a small number")
    if told["by"] not in (BY_BYTES, BY_TOKENIZER, BY_WORDPIECE):
        raise Malformed(f"by is {BY_BYTES}, {BY_TOKENIZER} or {BY_WORDPIECE}")
    if (told["by"] == BY_BYTES) is bool(told[TABLE]):
        raise Malformed(
            f"{BY_BYTES} needs no {TABLE}"
            if told[TABLE]
            else f"{told['by']} needs a {TABLE}: the id that put shows of a tokenizer.json, or for"
            f" {BY_WORDPIECE} of a vocab.txt"
        )
    if told[TABLE]:
        ContentId.parse(told[TABLE])
    wanted = _wanted(told)
    if len(set(wanted)) != len(wanted) or not set(wanted) <= _NAMES.keys():
        raise Malformed(f"tensors are of {', '.join(_NAMES)}")


def tables_of(extraction: Extraction) -> tuple[ContentId, ...]:
    """The tables that its steps name; Malformed if one is no content id."""
    steps = [it for one in extraction.prepare for it in one.steps if it.name == STEP]
    named = [it.parameters.get(TABLE) or "" for it in steps]
    return tuple(dict.fromkeys(ContentId.parse(str(it)) for it in named if it))


def tokenised(source: DataTable | str, told: Mapping[str, Any], tables: Tables) -> Tensor | Tensors:
    """int64 [texts, length] for each tensor that is wanted; a single one is called `x`."""
    import numpy as np

    from node.ingest.image_tensor import to_tensor

    check_settings(told)
    length, wanted = told["length"], _wanted(told)
    texts = [source] if isinstance(source, str) else source.words()
    if len(texts) * length * 8 * len(wanted) > OUTPUT_BYTES_MAX:
        raise Oversize(f"{len(texts)} rows of {length} have more than {OUTPUT_BYTES_MAX} bytes")
    rows = _rows(texts, told, tables)
    values = {it: np.zeros((len(texts), length), np.int64) for it in wanted}
    for number, row in enumerate(rows):
        if "ids" in values:
            values["ids"][number, : len(row)] = row
            values["ids"][number, len(row) :] = told["padding"]
        if "mask" in values:
            values["mask"][number, : len(row)] = 1
    if len(wanted) == 1:
        return to_tensor(values[wanted[0]], "int64")
    named = [to_tensor(values[it], "int64", _NAMES[it]) for it in wanted]
    return Tensors(tensors=tuple(named))


def _wanted(told: Mapping[str, Any]) -> list[str]:
    return [it.strip() for it in told["tensors"].split(",")]


def _rows(texts: Sequence[str], told: Mapping[str, Any], tables: Tables) -> list[list[int]]:
    """The tokens of each text, at most `length` of them."""
    if told["by"] == BY_BYTES:
        return [list(it.encode()[: told["length"]]) for it in texts]
    data = tables.get(told[TABLE])
    if data is None:
        raise Malformed(f"the table {told[TABLE]} is not at hand")
    # Large, and needed where there are texts alone.
    from node.engines.worker.tokenizer import tokenizer_of, wordpiece_of

    try:
        if told["by"] == BY_TOKENIZER:
            table = tokenizer_of(data, "the table", tokens_max=told["length"])
        else:
            lowercase = told["lowercase"]
            table = wordpiece_of(data, lowercase=lowercase, tokens_max=told["length"])
    except ModelRefused as error:
        raise Malformed(error.message) from error
    return [list(table.encode(it).ids) for it in texts]
