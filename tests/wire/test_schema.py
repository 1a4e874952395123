"""No illegal record is ever in memory: every bound of every field holds where a record is born.

The cases are found by reading the annotations of every record, so a new field is tested at once.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

import pytest

from tests.each import named
from tests.wire.samples import (
    BLOCK,
    BY_NAME,
    CHANGE,
    KEY,
    SAMPLES,
    altered,
    every_record_type,
    name_of,
)
from wire import limits
from wire.amount import AMOUNT_MAX
from wire.content import ContentId, PeerId
from wire.content_message import BlocksComing
from wire.errors import Malformed, Oversize, WireError
from wire.jury import CaseState, SealedFinding
from wire.kinds import Level, Role
from wire.ledger import ACTIONS, Grant, Member, ModelPart, Redemption
from wire.motion import BOUNDS, FundGrant, Parameter
from wire.ownership import Ownership
from wire.receipt import MixedDraw
from wire.schema import Between, Omitted, Parameters, Record
from wire.stake import LeavingPart, StakePart
from wire.tariff import ModelPrice
from wire.task import Stage
from wire.usage import ModelUse

SIZED = (int, float, str, bytes, tuple)
# Bounded by another rule than Between: their lengths are exactly what their shapes say.
WITHOUT_BOUND = {"Vectors.data", "Tensor.data"}
# Legal by itself at its bound, but a rule between fields then refuses the sample.
TIED_TO_OTHERS = {
    *("LogHead.number", "FeedEntry.number", "FeedEntry.end"),
    *("AppKey.budget", "AppKey.share"),
    *("SlotSpan.first_ms", "SlotSpan.last_ms", "SlotSpan.slots"),
    *("Advert.models", "Tariff.models", "Manifest.files", "Answer.candidates", "Task.stages"),
    *("CheckPolicy.verifiers", "CheckPolicy.needed", "Verdict.sampled", "Verdict.worst_ppb"),
    *("Vectors.dimensions", "Vectors.rows"),
    *("Check.part", "Check.parts", "Check.rows", "Check.rows[]"),
    *("Generation.prompt", "Generation.messages", "Generation.prompt_tokens", "Generation.bias"),
    *("Vectors.tokens",),
    *("Bundle.items", "Outcomes.items", "Bundle.roots", "Outcomes.roots"),
    *("Checks.items", "Verdicts.items"),
    *("Tensor.kind", "Tensor.shape", "Tensor.shape[]", "Tensors.tensors"),
    *("AccountOrder.pay", "AccountOrder.open", "AccountOrder.top_up", "AccountOrder.redeem"),
    *(
        "AccountOrder.accuse",
        "AccountOrder.stake",
        "AccountOrder.unbond",
        "StakeRow.parts",
        "StakeRow.leaving",
    ),
    *("AccountState.stake", "AccountState.leaving"),
    *("Answer.mixed", "Answer.owned", "BlocksComing.places", "MixedDraw.index", "MixedDraw.count"),
    *("MixedDraw.proofs", "MixedDraw.absent", "MixedDraw.besides"),
    *("Answer.weights", "Answer.weights[]", "Commitments.items", "TellVerdicts.items"),
    *("AccountOrder.reclaim", "CheckpointHeader.epoch", "Proposal.round", "Proposal.valid_round"),
    *("CheckpointHeader.usage", "CheckpointHeader.draw", "UseLine.growth", "UseLine.paid"),
    *("ParameterChange.value", "FundGrant.use", "Motion.claims", "Motion.builders"),
    "Motion.seats",
    *("ModelUse.paid", "ModelUse.author", "UseLine.models", "Voucher.total", "Voucher.models"),
    *("AccountOrder.propose", "AccountOrder.ballot", "AccountOrder.find"),
    *("AccountOrder.jury", "JurySteps.announce", "JurySteps.charge", "JurySteps.commit"),
    *("Genesis.fund", "Genesis.grants", "Genesis.members"),
    *("Signatures.members", "Signatures.proofs"),
    *("StageRows.tables", "StageRows.tables[]", "StageRows.owners", "StageRows.places"),
    "StageRows.data",
    *("StageLeg.first", "StageLeg.last", "StageSign.table", "StageSign.rows", "Receipt.layers"),
    *("Receipt.segments", "Progress.segments"),
    *("RowBundle.first", "RowBundle.last", "RowBundle.rows", "RowBundle.answers"),
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record; `inside` if the bound is on the items of its tuple."""

    record: str
    name: str
    kind: Any
    bound: Between | None
    optional: bool
    inside: bool

    def __str__(self) -> str:
        return f"{self.record}.{self.name}" + ("[]" if self.inside else "")

    @property
    def on_the_wire(self) -> type:
        """The type that the codec gives for this field's."""
        if self.kind == Parameters or issubclass(self.kind, Record):
            return dict
        bases = {tuple: list, ContentId: bytes, PeerId: bytes, Role: int, Level: int}
        bases[CaseState] = int
        base: type = bases.get(self.kind, self.kind)
        return base

    def of_size(self, size: float) -> Any:
        """A value of the field that measures `size`."""
        if self.kind in (int, float):
            value: Any = self.kind(size)
        elif self.kind is tuple:
            value = (getattr(BY_NAME[self.record], self.name)[:1] or (1,)) * int(size)
        else:
            value = ("x" if self.kind is str else b"x") * int(size)
        return (value,) if self.inside else value

    def beside(self) -> Iterator[Any]:
        """The values next to the bounds on their wrong sides."""
        assert self.bound
        if self.kind is float:
            yield math.nextafter(self.bound.low, -math.inf)
            yield math.nextafter(self.bound.high, math.inf)
            yield from (math.nan, math.inf, -math.inf)
            return
        if self.bound.low > 0 or self.kind is int:
            yield self.of_size(self.bound.low - 1)
        yield self.of_size(int(self.bound.high) + 1)


def _field(record: str, name: str, hint: Any, optional: bool, inside: bool) -> Iterator[Field]:
    bound = None
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        # What may be left out and cannot grow has none.
        bound = next((extra for extra in extras if isinstance(extra, Between)), None)
    if hint != Parameters and get_origin(hint) in (Union, types.UnionType):
        (inner,) = (option for option in get_args(hint) if option is not types.NoneType)
        yield from _field(record, name, inner, True, inside)
    elif get_origin(hint) is tuple:
        yield Field(record, name, tuple, bound, optional, inside)
        yield from _field(record, name, get_args(hint)[0], optional, True)
    else:
        yield Field(record, name, hint, bound, optional, inside)


def _fields() -> Iterator[Field]:
    for kind in sorted(every_record_type(), key=lambda kind: kind.__name__):
        hints = typing.get_type_hints(kind, include_extras=True)
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            yield from _field(kind.__name__, field.name, hints[field.name], False, False)


FIELDS = list(_fields())
BOUNDED = [field for field in FIELDS if field.bound]
OUTER = [field for field in FIELDS if not field.inside]


def of_each_record(fields: Iterable[Field]) -> pytest.MarkDecorator:
    """One test for all fields of a record: one for each would spend more on itself."""
    by_record: dict[str, list[Field]] = {}
    for field in fields:
        by_record.setdefault(field.record, []).append(field)
    return pytest.mark.parametrize("fields", by_record.values(), ids=by_record)


every_record = pytest.mark.parametrize("record", SAMPLES, ids=name_of)


def raw(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_every_field_that_can_grow_has_a_bound() -> None:
    unbounded = {str(field) for field in FIELDS if field.kind in SIZED and not field.bound}
    assert unbounded == WITHOUT_BOUND
    assert len(BOUNDED) > 80


@of_each_record(BOUNDED)
def test_one_beyond_a_bound_is_never_born_and_never_read(fields: list[Field]) -> None:
    for field in fields:
        with named(field):
            is_refused_beside_its_bound(field)


def is_refused_beside_its_bound(field: Field) -> None:
    fields = BY_NAME[field.record].to_fields()
    for value in field.beside():
        with pytest.raises(Oversize):
            altered(field.record, **{field.name: value})
        with pytest.raises(Oversize):
            type(BY_NAME[field.record]).from_fields({**fields, field.name: raw(value)})


@of_each_record(BOUNDED)
def test_a_bound_itself_is_legal(fields: list[Field]) -> None:
    for field in fields:
        with named(field):
            is_legal_at_its_bound(field)


def is_legal_at_its_bound(field: Field) -> None:
    assert field.bound
    for size in (field.bound.low, field.bound.high):
        try:
            record = altered(field.record, **{field.name: field.of_size(size)})
        except (Malformed, Oversize):
            assert f"{field.record}.{field.name}" in TIED_TO_OTHERS
        else:
            assert type(record).from_fields(record.to_fields()) == record


WRONG = (None, True, 7, 1.5, "text", b"bytes", (1,), [1], {"a": 1}, {1}, object(), BY_NAME["Ping"])


@of_each_record(OUTER)
def test_a_value_of_another_type_is_never_born_and_never_read(fields: list[Field]) -> None:
    for field in fields:
        with named(field):
            is_refused_with_another_type(field)


def is_refused_with_another_type(field: Field) -> None:
    record = BY_NAME[field.record]
    right = dict if field.kind == Parameters else field.kind
    tried = 0
    for value in WRONG:
        if value is None and field.optional:
            continue
        if isinstance(value, right) and not (right is int and value is True):
            continue
        tried += 1
        if not (field.kind is float and value == 7) and field.kind != Parameters:
            with pytest.raises(WireError):
                altered(field.record, **{field.name: value})
        if type(value) is not field.on_the_wire:
            with pytest.raises(Malformed):
                type(record).from_fields({**record.to_fields(), field.name: value})
    assert tried >= len(WRONG) - 3


@of_each_record(field for field in OUTER if field.optional)
def test_an_optional_field_may_be_absent_but_not_left_out(fields: list[Field]) -> None:
    for field in fields:
        with named(field):
            may_be_absent_but_not_left_out(field)


def may_be_absent_but_not_left_out(field: Field) -> None:
    if field.name == "model" and field.record == "Stage":
        record = altered("Stage", model=None, role=Role.DATA)
    elif field.name == "receipt" and field.record == "TaskOutcome":
        refused = {
            "output": None,
            "refusal": BY_NAME["OrderRefusal"],
            "root": 0,
            "leaf": 0,
            "later": (),
            "source": b"",
        }
        record = altered("TaskOutcome", receipt=None, **refused)
    elif field.name == "result" and field.record == "FeedEntry":
        record = altered("FeedEntry", result=None, end="failed")
    elif field.name == "verdict" and field.record == "CheckOutcome":
        record = altered("CheckOutcome", verdict=None, refusal=BY_NAME["OrderRefusal"])
    elif field.record == "CheckpointHeader":
        record = altered("CheckpointHeader", previous=None, epoch=0)
    elif field.record == "Motion" and field.name == "grant":
        record = altered("Motion", grant=None, change=CHANGE)
    elif field.record == "Proposal":
        record = altered("Proposal", valid_round=None, prevotes=None)
    else:
        record = altered(field.record, **{field.name: None})
    fields = record.to_fields()
    assert fields[field.name] is None
    assert type(record).from_fields(fields) == record
    del fields[field.name]
    with pytest.raises(Malformed):
        type(record).from_fields(fields)


def later_of(record: Record) -> dict[str, Any]:
    """The fields of a record that are left out at a value, with that."""
    hints = typing.get_type_hints(type(record), include_extras=True)
    return {
        name: extra.value
        for name, hint in hints.items()
        for extra in get_args(hint)[1:]
        if isinstance(extra, Omitted)
    }


@pytest.mark.parametrize("name", ["Generation", "Vectors", "Check", "Answer"])
def test_a_field_that_was_added_later_is_left_out_where_it_says_nothing(name: str) -> None:
    record = BY_NAME[name]
    for field, value in later_of(record).items():
        fields = record.to_fields()
        fields.pop(field, None)
        plain = type(record).from_fields(fields)
        assert getattr(plain, field) == value
        assert field not in plain.to_fields()
        # Said all the same it would be a second encoding of one record.
        with pytest.raises(Malformed):
            type(record).from_fields({**fields, field: raw(value)})


@every_record
def test_a_record_with_a_field_more_or_less_is_refused(record: Record) -> None:
    fields = record.to_fields()
    with pytest.raises(Malformed):
        type(record).from_fields({**fields, "extra": 1})
    later = later_of(record)
    for name in fields:
        rest = {key: value for key, value in fields.items() if key != name}
        if name in later:
            continue
        with pytest.raises(Malformed):
            type(record).from_fields(rest)
        with pytest.raises(Malformed):
            type(record).from_fields({**rest, name + "_": fields[name]})


@every_record
@pytest.mark.parametrize("fields", [None, True, 1, "a", b"a", [], [["a", 1]], {}, {1: 2}], ids=repr)
def test_what_is_not_a_map_of_its_fields_is_refused(record: Record, fields: object) -> None:
    with pytest.raises(Malformed):
        type(record).from_fields(fields)


@every_record
def test_a_record_never_changes(record: Record) -> None:
    assert not hasattr(record, "__dict__")
    for name in record.to_fields():
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, name, None)


@every_record
def test_a_record_beyond_its_size_is_not_even_parsed(record: Record) -> None:
    with pytest.raises(Oversize):
        type(record).from_bytes(b"\xc1" * (record.SIZE_BYTES_MAX + 1))


def test_a_whole_number_may_stand_for_a_float_here_but_not_on_the_wire() -> None:
    # Both encodings of 2 would be read otherwise, and one value would have two.
    record = altered("Advert", queue_s=2)
    assert record.to_fields()["queue_s"] == 2.0
    assert record.to_bytes() == altered("Advert", queue_s=2.0).to_bytes()
    with pytest.raises(Malformed):
        type(record).from_fields({**record.to_fields(), "queue_s": 2})


@pytest.mark.parametrize("role", [-1, len(Role), 99, 2**40])
def test_a_number_that_is_no_role_is_never_born_and_never_read(role: int) -> None:
    with pytest.raises(Malformed):
        altered("Receipt", role=role)
    record = BY_NAME["Receipt"]
    with pytest.raises(Malformed):
        type(record).from_fields({**record.to_fields(), "role": role})


def test_a_role_is_read_as_a_role() -> None:
    receipt: Any = type(BY_NAME["Receipt"]).from_bytes(BY_NAME["Receipt"].to_bytes())
    assert receipt.role is Role.INFER


def test_bounds_of_text_are_in_bytes() -> None:
    longest = "€" * (limits.NAME_BYTES_MAX // 3)
    altered("ModelOffer", name=longest)
    with pytest.raises(Oversize):
        altered("ModelOffer", name=longest + "€")


def test_text_that_has_no_bytes_is_never_born() -> None:
    # JSON can carry half a surrogate pair, so a person's text may be like this.
    with pytest.raises(Malformed):
        altered("Texts", texts=("\ud800",))


def stage(parameters: Any) -> Stage:
    return Stage(role=Role.DATA, operation="fetch", model=None, parameters=parameters)


MANY = {f"p{at}": at for at in range(limits.PARAMETERS_MAX)}


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        MANY,
        {"a": True, "b": -(2**63), "c": 2**64 - 1, "d": 1e300, "e": "", "f": b""},
        {"x" * limits.PARAMETER_BYTES_MAX: "x" * limits.PARAMETER_BYTES_MAX},
        {"a": "€" * (limits.PARAMETER_BYTES_MAX // 3), "b": bytes(limits.PARAMETER_BYTES_MAX)},
    ],
    ids=lambda parameters: repr(parameters)[:20],
)
def test_parameters_map_names_to_scalars(parameters: Any) -> None:
    found = Stage.from_bytes(stage(parameters).to_bytes())
    assert dict(found.parameters) == parameters
    assert [type(item) for item in dict(found.parameters).values()] == [
        type(parameters[name]) for name in sorted(parameters)
    ]
    with pytest.raises(TypeError):
        found.parameters["a"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    "parameters",
    [
        {1: 2},
        {b"a": 2},
        {"a": None},
        {"a": [1]},
        {"a": {}},
        {"a": {1}},
        {"a": math.nan},
        {"a": math.inf},
        {"a": 2**64},
        {"a": -(2**63) - 1},
        {"a": "\ud800"},
        {"\ud800": 1},
        {**MANY, "more": 1},
        {"x" * (limits.PARAMETER_BYTES_MAX + 1): 1},
        {"a": "x" * (limits.PARAMETER_BYTES_MAX + 1)},
        {"a": bytes(limits.PARAMETER_BYTES_MAX + 1)},
        {"a": "€" * (limits.PARAMETER_BYTES_MAX // 3 + 1)},
    ],
    ids=lambda parameters: repr(parameters)[:20],
)
def test_other_parameters_are_never_born(parameters: Any) -> None:
    with pytest.raises(WireError):
        stage(parameters)


# Bounded as a whole, for their fields at their bounds together would be more than they are for.
BOUNDED_AS_A_WHOLE = {
    *("Advert", "Manifest", "Stage", "Task", "Texts", "Vectors"),
    *("Generation", "Tensor", "Tensors", "Bundle", "Outcomes", "Checks", "Verdicts", "StageRows"),
    *("Certificates", "RowBundle", "Evidence", "Commitments", "TellVerdicts"),
}


def largest(kind: type[Record]) -> Record:
    """The record with every field at its upper bound."""
    values: dict[str, Any] = {}
    for field in FIELDS:
        if field.record != kind.__name__ or field.name in largest_of_the_ledger(kind.__name__):
            continue
        if field.inside and field.kind in (str, bytes, int):
            assert field.bound
            values[field.name] = field.of_size(field.bound.high) * len(values[field.name])
        elif field.bound:
            values[field.name] = field.of_size(field.bound.high)
    if kind.__name__ == "Answer":
        count = limits.CANDIDATES_MAX
        values["candidates"] = tuple(PeerId(at.to_bytes(32, "big")) for at in range(count))
        drawn = largest(MixedDraw)
        stages = range(limits.STAGES_MAX)
        values["mixed"] = tuple(dataclasses.replace(drawn, stage=it) for it in stages)
        one = largest(Ownership)
        peers = values["candidates"][: limits.OWNERSHIPS_MAX]
        values["owned"] = tuple(dataclasses.replace(one, peer=it) for it in peers)
    if kind is MixedDraw:
        values["index"] = limits.DRAW_RECEIPTS_MAX - 1
        values["absent"] = tuple(PeerId(at.to_bytes(32, "big")) for at in range(limits.ABSENT_MAX))
        values["besides"] = tuple(range(limits.CANDIDATES_MAX))
    if kind is BlocksComing:
        values["places"] = bytes(range(limits.WANTED_BLOCKS_MAX))
    if kind.__name__ == "Check":
        values["rows"] = tuple(range(limits.SAMPLE_MAX))
    return altered(kind.__name__, **values | largest_of_the_ledger(kind.__name__))


def largest_of_the_ledger(kind: str) -> dict[str, Any]:
    """Fields of a record of the ledger that are tied to others, at their bounds together."""
    digests = [at.to_bytes(32, "big") for at in range(limits.GRANTS_MAX)]
    match kind:
        case "Genesis":
            keys = [PeerId(it) for it in digests]
            members = keys[: limits.LEDGER_MEMBERS_MAX]
            return {
                "fund": AMOUNT_MAX - len(keys) * 2**40,
                "grants": tuple(Grant(account=it, amount=2**40) for it in keys),
                "members": tuple(Member(key=it, weight=2**32) for it in members),
            }
        case "AccountOrder":
            # Vouchers are the largest of all actions.
            voucher = bytes(limits.VOUCHER_BYTES_MAX)
            redeem = tuple(
                Redemption(channel=it, voucher=voucher, release=True)
                for it in digests[: limits.ACTIONS_MAX]
            )
            return {**dict.fromkeys(ACTIONS, ()), "redeem": redeem}
        case "JurySteps":
            some = digests[: limits.ACTIONS_MAX]
            commit = tuple(SealedFinding(case=it, seal=it) for it in some)
            return {"announce": (), "charge": (), "commit": commit}
        case "FeedEntry":
            return {"end": "done"}
        case "SlotSpan":
            return {"first_ms": 2**62 - 1, "last_ms": 2**62, "slots": 2**40}
        case "StakeRow" | "AccountState":
            parts = tuple(StakePart(role=it, amount=AMOUNT_MAX) for it in Role)
            leaving = tuple(
                LeavingPart(role=Role.VERIFY, amount=AMOUNT_MAX, until=2**62 - at)
                for at in reversed(range(limits.LEAVING_PARTS_MAX))
            )
            return {"stake" if kind == "AccountState" else "parts": parts, "leaving": leaving}
        case "ParameterChange":
            return {"value": BOUNDS[Parameter.GROWTH][1], "parameter": Parameter.GROWTH}
        case "Motion" | "MotionRow":
            grant = largest(FundGrant)
            motion = {"change": None, "grant": grant, "claims": (), "builders": (), "seats": ()}
            return motion if kind == "Motion" else {}
        case "Voucher":
            names = sorted(ContentId.of(it) for it in digests[: limits.VOUCHER_MODELS_MAX])
            return {"models": tuple(ModelPart(model=it, amount=2**59) for it in names)}
        case "UseLine":
            names = sorted(ContentId.of(it) for it in digests[: limits.LINE_MODELS_MAX])
            use = {"paid": 2**50, "author": 2**50}
            return {"models": tuple(ModelUse(model=it, **use) for it in names)}
        case "Proposal":
            return {"valid_round": 2**32 - 1}
        case "Tariff":
            models = sorted(ContentId.of(it) for it in digests[: limits.ADVERT_MODELS_MAX])
            price = {"base": AMOUNT_MAX, "given": AMOUNT_MAX, "made": AMOUNT_MAX}
            return {"models": tuple(ModelPrice(model=it, **price) for it in models)}
        case _:
            return {}


@pytest.mark.parametrize(
    "kind",
    [type(record) for record in SAMPLES if name_of(record) not in BOUNDED_AS_A_WHOLE],
)
def test_a_record_with_every_field_at_its_bound_can_be_sent(kind: type[Record]) -> None:
    record = largest(kind)
    assert kind.from_bytes(record.to_bytes()) == record


def test_an_id_of_content_is_not_an_id_of_a_peer() -> None:
    with pytest.raises(Malformed):
        altered("Want", block=KEY.peer)
    with pytest.raises(Malformed):
        altered("Offer", avoid=(BLOCK,))
    with pytest.raises(Malformed):
        altered("Want", block=bytes(BLOCK))
    assert altered("Want", block=ContentId(bytes(BLOCK))) == BY_NAME["Want"]
