"""What a bound on one field cannot say, and the few questions that records answer."""

from typing import Any

import pytest

from tests.wire.samples import (
    BLOCK,
    BY_NAME,
    EMBED,
    FETCH,
    FILE,
    INSTANCE,
    KEY,
    MODEL,
    OFFER,
    OTHER_KEY,
    OWNERSHIP,
    PEERS,
    TREE,
    altered,
)
from wire.advert import Advert, supersedes
from wire.content import ContentId
from wire.errors import Malformed
from wire.kinds import Level, Role
from wire.model import Manifest
from wire.schema import Record
from wire.signed import sign
from wire.task import Stage

BROKEN_RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "an advert names a model once": ("Advert", {"models": (OFFER, OFFER)}),
    "only data and inference are legs": ("Stage", {"role": Role.VERIFY}),
    "a store does no leg": ("Stage", {"role": Role.STORE}),
    "a gateway does no leg": ("Stage", {"role": Role.GATEWAY}),
    "an infer leg names its model": ("Stage", {"role": Role.INFER}),
    "a data leg names no model": ("Stage", {"model": MODEL}),
    "no more verdicts are needed than verifiers are asked": ("CheckPolicy", {"needed": 4}),
    "a level above signed has verifiers": ("CheckPolicy", {"verifiers": 0, "needed": 0}),
    "signed has no verifiers": ("CheckPolicy", {"level": Level.SIGNED}),
    "a check needs a verdict": ("CheckPolicy", {"needed": 0}),
    "a task begins with an input or with data": ("Task", {"stages": (EMBED,), "input": None}),
    "a data leg comes first": ("Task", {"stages": (EMBED, FETCH)}),
    "data comes once": ("Task", {"stages": (FETCH, FETCH)}),
    "a verdict has a difference for each row": ("Verdict", {"worst_ppb": (1, 2, 3)}),
    "a verdict has a row for each difference": ("Verdict", {"sampled": ()}),
    "what was not checked cannot be agreed with": ("Verdict", {"could_check": False}),
    "candidates stand in order": ("Answer", {"candidates": PEERS[::-1]}),
    "peers with owners stand once": ("Answer", {"owned": (OWNERSHIP, OWNERSHIP)}),
    "candidates stand once": ("Answer", {"candidates": PEERS[:1] * 2}),
    "a manifest names a file once": ("Manifest", {"files": (FILE, FILE)}),
    "a file is not above its folder": ("ModelFile", {"name": ".."}),
    "a file is not hidden": ("ModelFile", {"name": ".profile"}),
    "a file is not elsewhere": ("ModelFile", {"name": "/etc/passwd"}),
    "a file is not below": ("ModelFile", {"name": "a/../../b"}),
    "a file is not elsewhere on Windows": ("ModelFile", {"name": "C:\\b"}),
    "vectors are as long as they say": ("Vectors", {"data": bytes(7)}),
    "vectors have all their rows": ("Vectors", {"rows": 2}),
    "vectors have all their dimensions": ("Vectors", {"dimensions": 1}),
}

LEGAL: dict[str, tuple[str, dict[str, Any]]] = {
    "an advert without models": ("Advert", {"models": (), "addresses": ()}),
    "signed and nothing more": (
        "CheckPolicy",
        {"level": Level.SIGNED, "verifiers": 0, "needed": 0},
    ),
    "one of one": ("CheckPolicy", {"verifiers": 1, "needed": 1}),
    "a task of one inference": ("Task", {"stages": (EMBED,)}),
    "a task of two inferences": ("Task", {"stages": (EMBED, EMBED)}),
    "a task of data alone": ("Task", {"stages": (FETCH,), "input": None}),
    "a verdict about nothing that could be checked": (
        "Verdict",
        {"agrees": False, "could_check": False, "rows": 0, "sampled": (), "worst_ppb": ()},
    ),
    "an answer that nobody checked": ("Answer", {"candidates": (), "verdicts": ()}),
    "a model without files": ("Manifest", {"files": ()}),
    "no hits": ("Hits", {"hits": ()}),
}


def on_the_wire(value: Any) -> Any:
    if isinstance(value, tuple):
        return [on_the_wire(item) for item in value]
    return value.to_fields() if isinstance(value, Record) else value


@pytest.mark.parametrize("rule", BROKEN_RULES)
def test_a_record_that_breaks_a_rule_is_never_born_and_never_read(rule: str) -> None:
    kind, changes = BROKEN_RULES[rule]
    with pytest.raises(Malformed):
        altered(kind, **changes)
    fields = {name: on_the_wire(value) for name, value in changes.items()}
    with pytest.raises(Malformed):
        type(BY_NAME[kind]).from_fields({**BY_NAME[kind].to_fields(), **fields})


@pytest.mark.parametrize("case", LEGAL)
def test_what_looks_odd_but_is_legal_is_read_back(case: str) -> None:
    kind, changes = LEGAL[case]
    record = altered(kind, **changes)
    assert type(record).from_bytes(record.to_bytes()) == record


def advert(**changes: Any) -> Advert:
    found = altered("Advert", **changes)
    assert isinstance(found, Advert)
    return found


def test_an_advert_says_which_roles_its_peer_plays() -> None:
    found = advert(roles=1 << Role.DATA | 1 << Role.GATEWAY)
    assert [role for role in Role if found.plays(role)] == [Role.DATA, Role.GATEWAY]
    assert not any(map(advert(roles=0).plays, Role))
    assert all(map(advert(roles=0b111111).plays, Role))


def test_an_advert_finds_its_offer_of_a_model() -> None:
    assert advert().offer_of(MODEL) == OFFER
    assert advert().offer_of(BLOCK) is None


def test_an_advert_expires_at_the_end_of_its_time_and_not_before() -> None:
    found = advert(issued_at_s=1000, ttl_s=90)
    assert not found.expired(1000)
    assert not found.expired(1089.999)
    assert found.expired(1090)


def test_a_peer_that_leaves_is_expired_at_once() -> None:
    assert advert(leaving=True).expired(0)


def test_a_later_advert_of_the_same_key_supersedes() -> None:
    old, new = sign(advert(seq=1), KEY), sign(advert(seq=2), KEY)
    assert supersedes(new, old)
    assert not supersedes(old, new)
    assert not supersedes(new, new)


def test_an_advert_of_another_key_supersedes_nothing() -> None:
    old, new = sign(advert(seq=1), KEY), sign(advert(seq=2), OTHER_KEY)
    assert not supersedes(new, old)


def stage(**changes: Any) -> Stage:
    record = Stage(role=Role.INFER, operation="embed", model=MODEL, parameters={"a": 1, "b": 2})
    fields = {name: getattr(record, name) for name in record.to_fields()}
    return Stage(**{**fields, **changes})


def test_two_legs_with_one_job_have_one_key() -> None:
    assert stage().job_key(BLOCK) == stage(parameters={"b": 2, "a": 1}).job_key(BLOCK)
    read = Stage.from_bytes(stage().to_bytes())
    assert read == stage()
    assert read.job_key(BLOCK) == stage().job_key(BLOCK)


def test_whatever_changes_the_answer_changes_the_key_of_the_job() -> None:
    keys = [
        stage().job_key(BLOCK),
        stage().job_key(TREE),
        stage().job_key(None),
        stage(model=BLOCK).job_key(BLOCK),
        stage(operation="search").job_key(BLOCK),
        stage(parameters={}).job_key(BLOCK),
        stage(parameters={"a": 1, "b": 3}).job_key(BLOCK),
        stage(parameters={"a": 1, "b": 2.0}).job_key(BLOCK),
        stage(parameters={"a": 1, "b": True}).job_key(BLOCK),
        stage(parameters={"a": 1, "b": "2"}).job_key(BLOCK),
        stage(role=Role.DATA, model=None).job_key(BLOCK),
    ]
    assert len(set(keys)) == len(keys)


def manifest(**changes: Any) -> Manifest:
    found = altered("Manifest", **changes)
    assert isinstance(found, Manifest)
    return found


def test_the_id_of_a_model_is_the_content_id_of_its_manifest() -> None:
    assert manifest().id == ContentId.of(manifest().to_bytes())


@pytest.mark.parametrize(
    "changes",
    [
        {"profile": "float16"},
        {"tolerance": 0.001},
        {"parameters": {"layers": 6, "pooling": "max"}},
        {"operations": ("embed", "search")},
        {"files": ()},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_changes_what_a_model_computes_changes_its_id(changes: dict[str, Any]) -> None:
    assert manifest(**changes).id != manifest().id


def test_a_manifest_finds_its_file_or_says_which_is_missing() -> None:
    assert manifest().file("model.safetensors") == FILE
    with pytest.raises(Malformed, match=r"minilm has no vocab\.txt"):
        manifest().file("vocab.txt")


def test_two_starts_of_a_peer_are_told_apart() -> None:
    assert advert(instance=b"\0" * 8) != advert(instance=INSTANCE)
