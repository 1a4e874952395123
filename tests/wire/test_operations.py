"""The table of operations: complete, and silent about what it does not know."""

import pytest

from wire.kinds import Role
from wire.operations import OPERATIONS, Comparison, Operation, Unit, by_rows, streams


def test_the_names_are_the_protocol() -> None:
    assert sorted(OPERATIONS) == [
        *("call", "complete", "embed", "embed-passages", "fetch", "generate", "list", "nearest"),
        "rerank",
    ]
    assert all(name == it.name for name, it in OPERATIONS.items())


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda it: it.name)
def test_what_a_model_does_is_checked_and_what_brings_data_in_is_not(operation: Operation) -> None:
    runs_a_model = operation.role is Role.INFER
    assert runs_a_model is (operation.role is not Role.DATA)
    assert (operation.comparison is not None) is runs_a_model
    assert (operation.engine is not None) is runs_a_model
    # Tokens are what streams, and a stream is compared byte for byte: it was shown already.
    assert operation.streams is (operation.unit is Unit.TOKEN)
    assert not operation.streams or operation.comparison in (Comparison.BYTES, Comparison.REPLAY)


def test_an_engine_is_asked_for_operations_that_are_in_the_table() -> None:
    engines = {it.engine for it in OPERATIONS.values() if it.engine is not None}
    assert engines == {"embed", "rerank", "complete", "generate", "call"}
    assert all(OPERATIONS[it].engine == it for it in engines)


def test_rows_are_drawn_of_embeddings_alone_and_an_unknown_operation_is_nothing() -> None:
    assert {it for it in OPERATIONS if by_rows(it)} == {"embed", "embed-passages", "rerank"}
    assert {it for it in OPERATIONS if streams(it)} == {"complete", "generate"}
    assert not by_rows("invent")
    assert not streams("")
