"""Refusals carry a code: what a newer peer says is read as OTHER, and no error lacks one."""

import inspect

import pytest

from p2p.typed_call import refusal_of, refused
from wire import errors
from wire.errors import (
    BatonError,
    EngineFailed,
    Malformed,
    ModelNotLoaded,
    ModelQuarantined,
    ModelRefused,
    Oversize,
    Refused,
    StoreFull,
)
from wire.kinds import RefusalCode
from wire.message import Refuse, decode, encode

ERRORS = [
    item
    for item in vars(errors).values()
    if inspect.isclass(item) and issubclass(item, BatonError) and item is not BatonError
]


def test_the_numbers_of_codes_are_the_protocol() -> None:
    # Append only: a number once used is never used for anything else.
    assert [it.name for it in sorted(RefusalCode)] == [
        *("OTHER", "BUSY", "TOO_LONG", "NO_SUCH_MODEL", "MODEL_FAILED", "LOADING", "NOT_WILLING"),
        *("MALFORMED", "LATE", "PAUSED", "NOT_PAID", "BANNED", "LEAVING", "CLOCK", "UNSUPPORTED"),
        *("NOT_FOUND", "STRANGER", "FAILED", "NOT_COVERED", "OTHER_EPOCH"),
    ]
    assert sorted(RefusalCode) == list(range(len(RefusalCode)))


@pytest.mark.parametrize("number", [len(RefusalCode), 999, 2**16 - 1])
def test_a_code_of_a_newer_peer_is_read_as_other(number: int) -> None:
    said = decode(encode(Refuse(code=number, reason="new here", retry_after_ms=500)))
    assert isinstance(said, Refuse)
    assert said.code == number
    assert said.cause is RefusalCode.OTHER
    error = refused(said)
    assert (error.code, error.message, error.retry_after_s) == (RefusalCode.OTHER, "new here", 0.5)


@pytest.mark.parametrize("number", [-1, 2**16, 2**63])
def test_a_code_beyond_its_bounds_is_no_message(number: int) -> None:
    with pytest.raises(Oversize):
        Refuse(code=number, reason="", retry_after_ms=None)


def test_a_code_is_a_number() -> None:
    sent = Refuse(code=1, reason="x", retry_after_ms=None)
    for odd in (True, "busy", None, 1.0):
        with pytest.raises(Malformed):
            Refuse.from_fields({**sent.to_fields(), "code": odd})


@pytest.mark.parametrize("code", RefusalCode)
def test_a_code_comes_over_the_wire_as_it_was_sent(code: RefusalCode) -> None:
    said = decode(encode(refusal_of(Refused("no", code=code, retry_after_s=2.0))))
    assert isinstance(said, Refuse)
    error = refused(said)
    assert (error.code, error.message, error.retry_after_s) == (code, "no", 2.0)


def test_a_refusal_without_a_code_is_busy_if_it_names_a_time_and_else_other() -> None:
    assert Refused("full", retry_after_s=1.0).code is RefusalCode.BUSY
    assert Refused("no").code is RefusalCode.OTHER
    assert Refused("no", code=RefusalCode.PAUSED, retry_after_s=1.0).code is RefusalCode.PAUSED


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_has_a_code_for_who_asked(kind: type[BatonError]) -> None:
    assert refusal_of(kind("x")).code == kind("x").code == kind.CODE
    # A full disk passes; whatever else fails here would fail again.
    wait_ms = 2000 if kind is StoreFull else None
    assert refusal_of(kind("x")).retry_after_ms == wait_ms
    assert kind("x", code=RefusalCode.CLOCK).code is RefusalCode.CLOCK


def test_whose_fault_a_model_is_shows_in_the_code() -> None:
    assert ModelRefused("x").code is RefusalCode.MALFORMED
    assert ModelNotLoaded("x").code is RefusalCode.NO_SUCH_MODEL
    assert ModelQuarantined("x").code is RefusalCode.MODEL_FAILED
    assert EngineFailed("x").code is RefusalCode.MODEL_FAILED
