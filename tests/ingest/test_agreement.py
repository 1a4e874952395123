"""Agreement: the count by itself, and over data peers of which some lie, fail or refuse."""

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from node.ingest.agreement import AgreementTerms, agree
from node.ingest.bring import Brought
from node.ingest.source_file import read_source
from node.ingest.table import DataTable
from node.peer import Node
from p2p.score import Standing
from tests.ingest import test_attested
from tests.ingest.test_attested import PRICES, TABLE, LyingIngest, data_peer, fetched
from tests.node.network import S, open_network
from wire.content import ContentId
from wire.errors import InputError, Oversize, TaskFailed
from wire.fetch import FetchAgreement

NOW_MS = 1_800_000_000_000


def counted(text: str, *outputs: bytes, times_ms: tuple[int, ...] = ()) -> tuple[object, object]:
    terms = AgreementTerms.read(len(outputs), text)
    found = agree(terms, outputs, times_ms or (NOW_MS,) * len(outputs))
    return found.agreeing, found.output


def price(value: object, name: str = "p") -> bytes:
    return f'["{name}"]\n[{value}]\n'.encode()


@pytest.mark.parametrize(
    ("text", "outputs", "expected"),
    [
        ("exact", (b"a", b"a", b"a"), ((0, 1, 2), b"a")),
        ("exact", (b"a", b"a", b"b"), ((0, 1), None)),
        ("majority", (b"a", b"b", b"a"), ((0, 2), b"a")),
        ("majority", (b"a", b"b", b"c"), ((0,), None)),
        ("majority", (b"a", b"a", b"b", b"b"), ((0, 1), None)),
        ("median 0.5%", (price(100), price(100.4), price(110)), ((0, 1), price(100.0))),
        ("median 0.5%", (price(100), price(101), price(102)), ((1,), None)),
        ("median 1%", (price(100), price(101), price(102)), ((0, 1, 2), price(101.0))),
        ("median 0%", (price(7), price(7), price(8)), ((0, 1), price(7.0))),
        ("median 5%", (price(0), price(0), price(0.1)), ((0, 1), price(0.0))),
        ("median 5%", (price(-100), price(-101), price(100)), ((0, 1), price(-101.0))),
        ("median 1%", (price('"1.50"'), price('"1.5"'), price("null")), ((0, 1), price(1.5))),
        ("median 1%", (price(1, "q"), price(1), price(1)), ((1, 2), price(1.0))),
        ("median 1%", (price('"a"'), price('"b"'), price('"a"')), ((0, 2), price('"a"'))),
        ("median 1%", (b"no table", price(2), price(2)), ((1, 2), price(2.0))),
        ("median 1%", (b"no", b"table", b"here"), ((), None)),
        ("median 1%", (price("true"), price(1), price(1)), ((1, 2), price(1.0))),
    ],
)
def test_who_agrees_and_on_what(
    text: str, outputs: tuple[bytes, ...], expected: tuple[object, object]
) -> None:
    assert counted(text, *outputs) == expected


@pytest.mark.parametrize(
    "cell", ["[1]", '{"a": 1}', "NaN", "Infinity", "1e999", '"\\ud800"', "[" * 99 + "]" * 99]
)
def test_what_is_no_cell_of_a_table_is_an_outlier_and_nothing_worse(cell: str) -> None:
    assert counted("median 1%", price(cell), price(2), price(2)) == ((1, 2), price(2.0))
    assert counted("median 1%", price(cell), price(cell), price(cell)) == ((), None)
    assert counted("median 1%", price(1, "\\ud800"), price(1, "\\udfff")) == ((), None)


def test_one_that_was_fetched_at_another_time_does_not_count() -> None:
    times = (NOW_MS, NOW_MS + 1000, NOW_MS + 20_000)
    assert counted("majority within 10s", b"a", b"a", b"a", times_ms=times) == ((0, 1), b"a")
    assert counted("exact within 10s", b"a", b"a", b"a", times_ms=times) == ((0, 1), None)


@pytest.mark.parametrize(
    "text",
    ["", "most", "median", "median 5", "median -1%", "median 1e3%", "exact within", "a" * 99],
)
def test_terms_are_read_or_refused(text: str) -> None:
    with pytest.raises(InputError, match="says not when"):
        AgreementTerms.read(3, text)


@pytest.mark.parametrize("quorum", [0, 17, -1])
def test_a_quorum_is_bounded(quorum: int) -> None:
    with pytest.raises(InputError, match="is not possible"):
        AgreementTerms.read(quorum, "exact")


@settings(max_examples=30)
@given(
    st.lists(st.floats(99.9, 100.1), min_size=2, max_size=8),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=8),
)
def test_liars_in_the_minority_never_move_the_value_beyond_what_honest_peers_say(
    honest: list[float], lies: list[float]
) -> None:
    lies = lies[: len(honest) - 1]
    outputs = [price(repr(it)) for it in honest + lies]
    agreeing, output = counted("median 0.5%", *outputs)
    assert isinstance(agreeing, tuple)
    assert isinstance(output, bytes)
    value = float(output.splitlines()[1][1:-1])
    assert abs(value - 100) <= 0.5 + 0.1 + 0.01
    assert set(range(len(honest))) <= set(agreeing)


def test_what_the_arithmetic_says_of_liars_that_act_together() -> None:
    """With 20 % of liars and a quorum of 3, two of three lie together in 10.4 % of the draws."""
    random, wrong = Random(7), 0
    for _ in range(2_000):
        lies = [random.random() < 0.2 for _ in range(3)]
        outputs = [price(999 if it else 100) for it in lies]
        _, output = counted("median 0.5%", *outputs)
        wrong += output == price(999.0)
    assert wrong / 2_000 == pytest.approx(3 * 0.04 * 0.8 + 0.008, abs=0.02)


# Over data peers


def other_price(brought: Brought) -> Brought:
    body = brought.body.replace(b"2.5", b"9.9")
    output = brought.output.replace(b"2.5", b"9.9")
    record = replace(brought.record, body=ContentId.of(body), output=ContentId.of(output))
    return Brought(record, body, output)


async def agreed(asker: Node, terms: str = "median 0.5%", quorum: int = 3) -> dict[str, object]:
    record = read_source(PRICES).to_bytes()
    return await fetched(asker, record=record, terms=terms, quorum=quorum)


async def test_a_liar_among_three_is_named_and_loses_standing(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_attested, "lie", other_price)
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        honest = [await data_peer(network, strangers="*") for _ in range(2)]
        liar = await data_peer(network, strangers="*", kind=LyingIngest)
        await network.settled()
        found = await agreed(asker)
        record = FetchAgreement.from_bytes(found["agreement"])  # type: ignore[arg-type]
        assert set(record.agreeing) == {it.peers.me for it in honest}
        assert record.outliers == (liar.peers.me,)
        assert asker.peers.standing(liar.peers.me) is Standing.UNWELCOME
        assert all(asker.peers.standing(it.peers.me) is Standing.GOOD for it in honest)
        output = await asker.dependencies.store.get(record.output)
        assert output == b'["t","price"]\n[1.0,1.5]\n[2.0,2.5]\n'
        assert len(set(record.answers)) == 3


async def test_without_a_quorum_it_fails_aloud_and_nobody_is_blamed(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        for value in (b"2.5", b"3.5", b"4.5"):
            await data_peer(network, strangers="*", body=TABLE.replace(b"2.5", value))
        await network.settled()
        with pytest.raises(TaskFailed, match="no quorum: of 3 data peers 1 agree and 2 have to"):
            await agreed(asker)
        for other in network.nodes[1:]:
            assert asker.peers.standing(other.peers.me) is Standing.GOOD


async def test_too_few_peers_are_no_quorum(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await data_peer(network, strangers="*")
        await network.settled()
        with pytest.raises(TaskFailed, match="1 other data peers are known and 3 have to"):
            await agreed(asker)
        with pytest.raises(InputError, match="needs the source itself"):
            await fetched(asker, terms="exact", quorum=3)


async def test_a_peer_that_refuses_is_replaced_by_another(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        able = [await data_peer(network, strangers="*") for _ in range(3)]
        for _ in range(3):
            await data_peer(network, strangers="other.org")
        await network.settled()
        found = await agreed(asker, "exact")
        record = FetchAgreement.from_bytes(found["agreement"])  # type: ignore[arg-type]
        assert set(record.agreeing) == {it.peers.me for it in able}


def test_a_recount_needs_the_very_terms() -> None:
    outputs = [price(100), price(100.4), price(110)]
    assert counted("median 0.5%", *outputs) != counted("median 20%", *outputs)


def test_a_table_of_more_rows_than_any_has_is_not_read() -> None:
    with pytest.raises(Oversize, match="1000000 rows, at most"):
        DataTable.from_bytes(b'["a"]\n' + b"[1]\n" * 1_000_000)
