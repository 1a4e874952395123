"""Each example runs as its first lines say."""

import csv
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.command_line import DEADLINE_S, ROOT, Peer, environment, joined

EXAMPLES = ROOT / "examples"
PROGRAMS = sorted(it for it in EXAMPLES.glob("*.py") if "__main__" in it.read_text())


def test_a_gateway_answers_the_example(state: Path) -> None:
    roles = ("--role", "infer", "--role", "gateway", "--model", "hash")
    with joined(state, *roles, "--http", "127.0.0.1:0") as gateway:
        ran = subprocess.run(
            [sys.executable, str(EXAMPLES / "ask_a_gateway.py"), gateway.url],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=environment({}),
            timeout=DEADLINE_S,
            check=False,
            text=True,
        )
    assert ran.returncode == 0, ran.stderr
    assert "2 vectors of 64 numbers" in ran.stdout
    assert "receipt bafkr" in ran.stdout


@pytest.mark.soak
def test_a_price_feed_is_forecast_every_second(state: Path) -> None:
    with joined(state, "--role", "data", "--role", "infer", "--role", "store", "--no-lan"):
        ran = subprocess.run(
            [sys.executable, str(EXAMPLES / "price_feed.py"), str(state), "20"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=environment({}),
            timeout=3 * DEADLINE_S,
            check=False,
            text=True,
        )
    assert ran.returncode == 0, ran.stderr
    rows = [it for it in ran.stdout.splitlines() if "  done  forecast 9" in it]
    assert len(rows) >= 3, ran.stdout
    assert all("receipt bafkr" in it for it in rows)


@pytest.mark.soak
def test_a_table_of_rows_is_classified(asker: Peer, tmp_path: Path) -> None:
    def labelled(*labels: str) -> tuple[list[str], str]:
        ran = subprocess.run(
            [sys.executable, str(EXAMPLES / "classify_rows.py"), "hash", "300", *labels],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=environment({"BATON_STATE": str(asker.state)}),
            cwd=tmp_path,
            timeout=DEADLINE_S,
            check=False,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
        with (tmp_path / "rows-300.labels.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(it["id"]) for it in rows] == list(range(300))
        return [it["label"] for it in rows], ran.stdout

    first, printed = labelled("sport", "money", "food")
    assert set(first) == {"sport", "money", "food"}
    assert "300 rows of the table beside it are what was signed" in printed
    # Other labels have vectors of their own: those of before are not taken for them.
    assert labelled("food", "sport", "money")[0] == first


def test_every_example_is_run_by_a_test() -> None:
    live = Path(__file__).parent
    run = [live / "test_examples.py", live / "test_govern.py"]
    run.append(ROOT / "tests" / "gateway" / "test_examples.py")
    here = "".join(path.read_text(encoding="utf-8") for path in run)
    left = [path.name for path in PROGRAMS if path.name not in here]
    assert not left, f"{left} would rot; run them in {[path.name for path in run]}"
    # What is no program is a part of one, or of the clients of a bench or a slow test.
    users = [*PROGRAMS, ROOT / "tests" / "gateway" / "x402_credit_clients.py"]
    programs = "".join(path.read_text(encoding="utf-8") for path in users)
    parts = [path.stem for path in EXAMPLES.glob("*.py") if path not in PROGRAMS]
    assert not [it for it in parts if f"from {it} import" not in programs]


def test_every_example_has_a_line_of_usage() -> None:
    for path in PROGRAMS:
        text = path.read_text(encoding="utf-8")
        assert 'if "--help" in sys.argv' in text, path.name
        assert "usage: python {sys.argv[0]} " in text, path.name


# The others import a client of somebody else's, which takes seconds.
QUICK = sorted(it.name for it in PROGRAMS if "openai" not in it.read_text())


@pytest.mark.parametrize("name", QUICK)
def test_an_example_says_how_it_is_used(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(EXAMPLES / name)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", [path, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(path, run_name="__main__")
    assert not ended.value.code
    assert f"usage: python {path}" in capsys.readouterr().out
    if name == "ask_a_gateway.py":
        return
    # Without what it needs it says the same, and fails.
    monkeypatch.setattr(sys, "argv", [path])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(path, run_name="__main__")
    assert ended.value.code
