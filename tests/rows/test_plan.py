"""How rows are cut into bundles, and how answers become rows again."""

import pytest

from node.engines.hash_engine import hash_manifest
from node.rows.cells import TableRow
from node.rows.plan import BUNDLE_BYTES_MAX, RowPlan, outputs_of, sources_of, value_of
from wire.errors import InputError, Malformed
from wire.generation import Ending, Token, to_frame
from wire.payload import Texts, Vectors

MODEL = hash_manifest().id


def plan(operation: str = "embed", *, marks_bad: bool = False, system: str = "") -> RowPlan:
    return RowPlan(
        model=MODEL,
        operation=operation,
        column="text",
        parameters={},
        marks_bad=marks_bad,
        system=system,
    )


def rows(*texts: object) -> list[TableRow]:
    return [TableRow(number, {"text": text}) for number, text in enumerate(texts)]


def test_bundles_are_bounded_in_rows_and_in_bytes() -> None:
    many = list(plan().batches(rows(*["x"] * 600)))
    assert [(it.index, it.first, it.last) for it in many] == [
        (0, 0, 255),
        (1, 256, 511),
        (2, 512, 599),
    ]
    large = list(plan().batches(rows(*["y" * 30_000] * 20)))
    assert all(sum(len(it) for it in one.texts) <= BUNDLE_BYTES_MAX for one in large)
    assert sum(len(it.texts) for it in large) == 20
    assert [len(it.texts) for it in plan("generate").batches(rows(*["x"] * 40))] == [32, 8]
    assert list(plan().batches([])) == []


def test_a_bad_row_stops_the_job_by_its_number_or_is_marked() -> None:
    with pytest.raises(InputError, match="row 1: the column 'text' has a number"):
        list(plan().batches(rows("a", 2, "c")))
    (batch,) = plan(marks_bad=True).batches(rows("a", 2, "c"))
    assert batch.numbers == (0, 2)
    assert batch.texts == ("a", "c")
    assert batch.bad == ((1, "the column 'text' has a number, not text"),)
    (batch,) = plan(marks_bad=True).batches(rows(None))
    assert plan().inputs(batch) == []


def test_what_was_read_decides_the_digest() -> None:
    (one,) = plan().batches(rows("a", "b"))
    assert one.digest == next(plan().batches(rows("a", "b"))).digest
    for other in (rows("ab", "c"), rows("a", "c"), rows("a"), rows("b", "a")):
        assert next(plan().batches(other)).digest != one.digest


def test_an_embedding_takes_all_rows_at_once_and_a_conversation_each_alone() -> None:
    (batch,) = plan().batches(rows("a", "b"))
    (data,) = plan().inputs(batch)
    assert Texts.from_bytes(data).texts == ("a", "b")
    assert sources_of("embed", [data]) == [b"a", b"b"]
    one, two = plan("generate", system="be brief").inputs(batch)
    assert one != two
    assert b"be brief" in one
    assert sources_of("generate", [one, two]) == [one, two]
    assert plan("complete").inputs(batch) == [b"a", b"b"]
    with pytest.raises(InputError, match="rows cannot be asked for 'nearest'"):
        plan("nearest")


def test_answers_become_rows_again_and_too_few_are_refused() -> None:
    vectors = Vectors(dimensions=2, rows=2, data=bytes(range(16))).to_bytes()
    assert outputs_of("embed", [vectors], 2) == [bytes(range(8)), bytes(range(8, 16))]
    with pytest.raises(Malformed, match="2 rows where 3"):
        outputs_of("embed", [vectors], 3)
    with pytest.raises(Malformed):
        outputs_of("generate", [b""], 2)
    frames = b"".join(
        to_frame(Token(id=number, text=it, logprob_millionths=None, top=()))
        for number, it in enumerate((b"h\xc3", b"\xa4 STOP"))
    )
    ending = Ending(reason="stop", prompt_tokens=1, tokens=2, text_bytes=3)
    assert value_of("generate", frames + to_frame(ending)) == "hä"
    assert value_of("embed", b"1234") == b"1234"
    assert value_of("complete", b"ok\xff") == "ok\N{REPLACEMENT CHARACTER}"
