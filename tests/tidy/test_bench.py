"""`python -m tests.bench` prints one document, or says which benches there are."""

import json
import sys
from random import Random
from types import SimpleNamespace

import pytest

from tests.bench import __main__ as bench
from tests.bench._trend import trend_of


def test_an_unknown_bench_is_refused_with_the_names_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bench.main(["nonsense"]) == 2
    said = capsys.readouterr().err
    assert "no bench is called nonsense" in said
    assert all(name in said for name in bench.bench_names())


def test_a_bench_is_given_its_arguments_and_told_with_the_machine_it_ran_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "bench_names", lambda: ["echo"])
    echo = SimpleNamespace(run=lambda arguments: {"arguments": arguments})
    monkeypatch.setitem(sys.modules, "tests.bench.echo", echo)
    assert bench.main(["echo", "--rounds", "3"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["measured"] == {"arguments": ["--rounds", "3"]}
    assert document["machine"].keys() == {"cpus", "load_average_1_min", "python", "system"}


def test_a_trend_is_told_from_scatter_and_single_spikes_move_nothing() -> None:
    random = Random(7)
    flat = [(10.0 * it, 100.0 + random.gauss(0, 1)) for it in range(200)]
    assert trend_of(flat).is_flat
    assert trend_of([(at, 7.0) for at, _ in flat]).is_flat
    spiked = [(at, 900.0 if number % 17 == 0 else it) for number, (at, it) in enumerate(flat)]
    assert trend_of(spiked).is_flat
    growing = trend_of([(at, it + at / 200.0) for at, it in flat])
    assert not growing.is_flat
    assert growing.low < 1 / 200.0 < growing.high
    assert trend_of([(at, it - at / 200.0) for at, it in flat]).is_flat
