"""`python -m tests.bench` prints one document, or says which benches there are."""

import json
import sys
from types import SimpleNamespace

import pytest

from tests.bench import __main__ as bench


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
