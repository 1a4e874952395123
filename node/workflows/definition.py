"""Workflows as people write them: a TOML file says source, model, schedule, destinations.

every = "5m"

[source]
name = "prices"

[model]
name = "smollm2"
prompt = "What changed? {input}"
level = "replayed"

[[to]]
kind = "file"
path = "~/changes.jsonl"
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.ingest.agreement import AgreementTerms
from node.ingest.location import read_url
from node.ingest.source_file import source_of
from node.task.levels import CheckTerms, terms_of, terms_of_numbers
from node.workflows.definition_reader import TableReader
from node.workflows.feed_reading import FeedName
from node.workflows.schedule import SlotSchedule, read_length_ms
from node.workflows.slots import MISSED_RULES, OVERLAP_RULES, RunRules
from wire import limits
from wire.amount import read_credits
from wire.content import PeerId
from wire.errors import BatonError, InputError, Malformed
from wire.feed import KEEPERS_MAX
from wire.fetch import QUORUM_MAX, SourceRecord
from wire.operations import CALL, COMPLETE, EMBED, GENERATE
from wire.schema import Scalar
from wire.tensors import ELEMENT_BYTES

FILE_BYTES_MAX = 16 << 10
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
DESTINATIONS_MAX = 8
KEEP_DEFAULT, KEEP_MAX = 1000, 10_000
TRIES_MAX = 10
OPERATIONS = (GENERATE, COMPLETE, EMBED, CALL)
STANDBYS_MAX = KEEPERS_MAX - 1
# A keeper is asked four times in the time of a takeover, and each of the calls may fail.
TAKEOVER_S_MIN, TAKEOVER_S_MAX = 10, 7 * 86_400
TENSORS_MAX, RANK_MAX, COLUMNS_MAX = 16, 8, 64
INPUT = "{input}"
_EXAMPLE = 'for example: every = "5m", then [source] with name = "prices"'
_KEYS = (
    *("name", "every", "cron", "zone", "missed", "missed_max", "overlap", "late", "deadline"),
    *("tries", "keep", "standbys", "takeover", "pay_max", "source", "model", "to"),
)
_SOURCE_KEYS = {
    "name": ("name", "quorum", "agree"),
    "text": ("text",),
    "feed": ("feed",),
    "kind": (
        *("kind", "url", "format", "select", "columns", "encoding", "delimiter", "heading"),
        *("headers", "keep_headers", "paging", "content", "path", "prepare", "quorum", "agree"),
    ),
}
_MODEL_KEYS = ("name", "operation", "prompt", "level", "verdicts", "parameters", "inputs")
_TENSOR_KEYS = ("columns", "last", "shape", "type")
_TO_KEYS = {"file": ("kind", "path"), "webhook": ("kind", "url", "secret"), "feed": ("kind",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStep:
    """Where a run begins: a source of this peer by `name`, a `record`, or always the same `text`.

    Or the latest result of a `feed` that another peer keeps.
    With a quorum above 1 several data peers fetch it, and `agree` says when they agree.
    """

    name: str = ""
    text: str = ""
    feed: FeedName | None = None
    record: SourceRecord | None = None
    quorum: int = 1
    agree: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableTensor:
    """A tensor made of a table: the last `last` rows (0: all) of some columns, row by row."""

    name: str
    columns: tuple[str, ...]
    last: int
    shape: tuple[int, ...]
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStep:
    """What a model is asked. `prompt` has `{input}` where the source's text goes.

    A call without `inputs` is given the tensor that the source's preparation gives.
    """

    model: str
    operation: str
    prompt: str
    terms: CheckTerms
    parameters: Mapping[str, Scalar]
    inputs: tuple[TableTensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where results go: `file` with a path, `webhook` with a URL and its secret's name, `feed`."""

    kind: str
    place: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """One workflow, checked. `deadline_s` is for one try of a run.

    `standbys` take it over, in this order, after its keeper was silent for `takeover_s`. A slot
    costs at most `price_max` millionths: its fetches, its model and its checks, in all tries.
    """

    name: str
    schedule: SlotSchedule
    rules: RunRules
    deadline_s: int
    tries: int
    keep: int
    source: SourceStep
    model: ModelStep | None
    destinations: tuple[Destination, ...]
    standbys: tuple[PeerId, ...]
    takeover_s: int
    price_max: int
    text: str

    @property
    def digest(self) -> bytes:
        """What its feed names it by: 32 bytes."""
        return hashlib.sha256(self.text.encode()).digest()


def read_workflow(text: str, default_name: str) -> Workflow:
    """The workflow that a TOML file describes; InputError names the line of what is wrong."""
    if len(text.encode()) > FILE_BYTES_MAX:
        raise InputError(f"a workflow has more than {FILE_BYTES_MAX} bytes")
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        end = f"at its end, line {len(text.splitlines())}"
        why = str(error).replace("at end of document", end)
        raise InputError(f"the workflow is not TOML: {why}", todo=_EXAMPLE) from error
    top = TableReader(text, (), found, _KEYS)
    name = top.string("name", default_name)
    if NAME.fullmatch(name) is None:
        top.reject("name", f"{name[:40]!r} is no name", "take up to 32 of a-z, 0-9, - and _")
    schedule = _schedule(top)
    model = _model(top) if top.has("model") else None
    return Workflow(
        name=name,
        schedule=schedule,
        rules=RunRules(
            missed=top.word("missed", "skip", MISSED_RULES),
            missed_max=top.number("missed_max", 100, 1, 1000),
            overlap=top.word("overlap", "skip", OVERLAP_RULES),
            late_ms=_length_ms(top, "late", "1m"),
        ),
        deadline_s=_deadline_s(top),
        tries=top.number("tries", 3, 1, TRIES_MAX),
        keep=top.number("keep", KEEP_DEFAULT, 1, KEEP_MAX),
        source=_source(top, model),
        model=model,
        destinations=tuple(_destination(text, *it) for it in top.tables("to", DESTINATIONS_MAX)),
        standbys=_standbys(top),
        takeover_s=_takeover_s(top),
        price_max=_price_max(top),
        text=text,
    )


def _schedule(top: TableReader) -> SlotSchedule:
    if top.has("every") is top.has("cron"):
        key = "cron" if top.has("cron") else ""
        top.reject(key, "a workflow has either every or cron", _EXAMPLE)
    key = "every" if top.has("every") else "cron"
    if key == "every" and top.has("zone"):
        top.reject("zone", "every counts in UTC, and has no zone", "leave it out, or give cron")
    words, zone = top.string(key), top.string("zone", "UTC", chars_max=64)
    try:
        return SlotSchedule.every(words) if key == "every" else SlotSchedule.cron(words, zone)
    except InputError as error:
        top.again("zone" if "time zone" in error.message else key, error)


def _length_ms(top: TableReader, key: str, default: str) -> int:
    try:
        return read_length_ms(top.string(key, default))
    except InputError as error:
        top.again(key, error)


def _deadline_s(top: TableReader) -> int:
    deadline_s = _length_ms(top, "deadline", "60s") // 1000
    if deadline_s > limits.DEADLINE_S_MAX:
        top.reject("deadline", f"a deadline is at most {limits.DEADLINE_S_MAX} s")
    return deadline_s


def _standbys(top: TableReader) -> tuple[PeerId, ...]:
    found = []
    for text in top.strings("standbys", STANDBYS_MAX):
        try:
            found.append(PeerId.parse(text))
        except Malformed as error:
            top.reject("standbys", f"{text[:60]!r} is no peer: {error.message}", _KEY)
    if len(set(found)) < len(found):
        top.reject("standbys", "a peer is named twice")
    if not found and top.has("takeover"):
        top.reject("takeover", "takeover needs standbys: the peers that take over", _KEY)
    return tuple(found)


def _takeover_s(top: TableReader) -> int:
    takeover_s = _length_ms(top, "takeover", "2m") // 1000
    if not TAKEOVER_S_MIN <= takeover_s <= TAKEOVER_S_MAX:
        top.reject("takeover", f"takeover is {TAKEOVER_S_MIN} s to {TAKEOVER_S_MAX // 86_400} days")
    return takeover_s


def _price_max(top: TableReader) -> int:
    if not top.has("pay_max"):
        return 0
    try:
        return read_credits(top.string("pay_max", chars_max=64))
    except InputError as error:
        top.again("pay_max", error)


def _source(top: TableReader, model: ModelStep | None) -> SourceStep:
    found = top.found.get("source")
    if found is None:
        top.reject("source", "the table [source] is missing", _EXAMPLE)
    said = [it for it in _SOURCE_KEYS if isinstance(found, dict) and it in found]
    if len(said) != 1:
        top.reject("source", "a source has one of name, text, feed and kind", _EXAMPLE)
    table = top.table("source", _SOURCE_KEYS[said[0]])
    if said[0] == "text":
        if model is None:
            table.reject("text", "a text needs a model that is asked about it")
        if model.operation == CALL:
            table.reject("text", "a text gives a function no numbers", _TENSOR)
        return SourceStep(text=table.string("text", chars_max=limits.TEXT_BYTES_MAX))
    if said[0] == "feed":
        try:
            return SourceStep(feed=FeedName.parse(table.string("feed")))
        except Malformed:
            table.reject("feed", "feed is the name of a feed and its keeper: FEED@KEY", _SEE)
    quorum = table.number("quorum", 1, 1, QUORUM_MAX)
    agree = table.string("agree", "majority")
    try:
        AgreementTerms.read(quorum, agree)
    except InputError as error:
        table.again("agree", error)
    if said[0] == "name":
        return SourceStep(name=table.string("name", chars_max=256), quorum=quorum, agree=agree)
    own = {key: it for key, it in table.found.items() if key not in ("quorum", "agree")}
    try:
        record = source_of(own)
    except InputError as error:
        table.reject("kind", error.message, error.todo)
    if record.kind not in ("http", "dataset"):
        table.reject("kind", f"a source of the kind {record.kind} is kept under a name", _ADD)
    gives = record.extraction.gives
    if model is not None and model.operation == CALL and not model.inputs and gives != "tensor":
        table.reject("kind", f"the source gives a {gives}, and a function takes tensors", _TENSOR)
    return SourceStep(record=record, quorum=quorum, agree=agree)


_KEY = 'python -m node status tells a peer its key: standbys = ["KEY"]'
_SEE = "its keeper sees it with python -m node workflows list"
_TENSOR = (
    "take a source whose [[prepare]] ends with stack, window, tokenise or image, or name columns:"
    " [model.inputs.NAME]"
)
_ADD = "python -m node sources add NAME FILE, and name it here: name = "


def _model(top: TableReader) -> ModelStep:
    table = top.table("model", _MODEL_KEYS)
    inputs = table.found.get("inputs", {})
    if not isinstance(inputs, dict) or len(inputs) > TENSORS_MAX:
        table.reject("inputs", "inputs are tables: [model.inputs.NAME]")
    named = table.string("operation", CALL if inputs else GENERATE)
    operation = named if named in OPERATIONS else ""
    if not operation:
        table.reject("operation", f"operation is one of {', '.join(OPERATIONS)}")
    if inputs and operation != CALL:
        table.reject("inputs", f"[model.inputs.NAME] is for the operation {CALL}")
    prompt = table.string("prompt", INPUT, chars_max=limits.TEXT_BYTES_MAX)
    try:
        terms = terms_of(
            table.string("level", "") or None,
            table.string("verdicts", "") or None,
            terms_of_numbers(2, 3),
        )
    except InputError as error:
        table.again("level" if table.has("level") else "verdicts", error)
    parameters = table.found.get("parameters", {})
    scalars = isinstance(parameters, dict) and all(
        isinstance(it, bool | int | float | str) for it in parameters.values()
    )
    if not scalars or len(parameters) > limits.PARAMETERS_MAX:
        table.reject("parameters", "parameters is a table of numbers and texts")
    return ModelStep(
        model=table.string("name", chars_max=256),
        operation=operation,
        prompt=prompt,
        terms=terms,
        parameters=dict(parameters),
        inputs=tuple(_tensor(table, name, it) for name, it in inputs.items()),
    )


def _tensor(table: TableReader, name: str, found: Any) -> TableTensor:
    if not isinstance(found, dict):
        table.reject("inputs", f"the input {name[:40]!r} is a table: [model.inputs.{name[:40]}]")
    own = TableReader(table.text, (*table.path, "inputs", name), found, _TENSOR_KEYS)
    columns = own.strings("columns", COLUMNS_MAX)
    if not columns:
        own.reject("columns", "columns names at least one column of the source")
    return TableTensor(
        name=name,
        columns=columns,
        last=own.number("last", 0, 0, 1 << 20),
        shape=own.numbers("shape", RANK_MAX),
        kind=own.word("type", "float32", tuple(ELEMENT_BYTES)),
    )


def _destination(text: str, path: tuple[str | int, ...], found: Mapping[str, Any]) -> Destination:
    kind = str(found.get("kind"))
    table = TableReader(text, path, found, _TO_KEYS.get(kind, tuple(found)))
    if kind not in _TO_KEYS:
        table.reject("kind", f"kind is one of {', '.join(_TO_KEYS)}")
    if kind == "file":
        place = table.string("path")
        if not place.startswith(("/", "~/")) or not place.isprintable():
            table.reject("path", "path begins with / or ~/")
        return Destination(kind=kind, place=place)
    if kind == "feed":
        return Destination(kind=kind)
    url, secret = table.string("url"), table.string("secret")
    try:
        read_url(url)
    except BatonError as error:
        table.reject("url", error.message, error.todo)
    if NAME.fullmatch(secret) is None:
        table.reject("secret", "secret is the name of a file in credentials/")
    return Destination(kind=kind, place=url, secret=secret)
