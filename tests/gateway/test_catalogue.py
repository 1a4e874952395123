"""What a model's name means at a gateway."""

from node.gateway.catalogue import meanings
from wire.content import ContentId

A, B, C = (ContentId.of(it) for it in (b"a", b"b", b"c"))


def test_a_name_is_the_one_model_that_is_offered_under_it() -> None:
    assert meanings({"one": {A}, "two": {B, C}}, {}, {}) == {"one": A}


def test_what_is_settled_here_is_not_for_others_to_say() -> None:
    assert meanings({"one": {B}}, {"one": A}, {}) == {}
    assert meanings({"one": {A, B}}, {"one": A}, {"one": B}) == {"one": A}


def test_who_offers_another_model_under_a_name_does_not_take_it_away() -> None:
    before = meanings({"one": {A}}, {}, {})
    assert meanings({"one": {A, B}}, {}, before) == {"one": A}
    # Once nobody offers the first, the name is free.
    assert meanings({"one": {B}}, {}, before) == {"one": B}
    assert meanings({"one": {B, C}}, {}, before) == {}
