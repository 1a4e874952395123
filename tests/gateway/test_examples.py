"""Every file of `examples/` runs as it stands, against one gateway."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from tests.gateway.conftest import Served
from tests.live.command_line import ROOT, environment

EXAMPLES = ROOT / "examples"
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Bergen"}}</tool_call>'


def example(served: Served, name: str, *arguments: object, typed: str = "") -> list[str]:
    """What an example prints, line by line, to what is `typed`; it has to end well."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        input=typed.encode(),
        env=environment({"BATON_URL": served.url}),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


def test_a_chat_ends_with_a_receipt_that_an_auditor_checks(served: Served) -> None:
    said, _, last = example(served, "chat.py", "hash", "SAY:It is a stick.")
    assert said == "It is a stick."
    *points, verdict = example(served, "audit.py", last.removeprefix("receipt "))
    assert verdict == "holds"
    assert any(it.startswith("cannot be known") for it in points)


def test_the_same_text_is_nearest(served: Served) -> None:
    first, *rest = example(served, "search.py", "hash", "baton", "stick", "baton", "relay")
    assert first == "1.000  baton"
    assert len(rest) == 2


def test_an_array_goes_through_a_function(served: Served) -> None:
    outputs, receipt = example(served, "onnx_call.py", "doubling", "x", "1", "2.5")
    assert outputs == "x (1, 2) [[2.0, 5.0]]"
    assert receipt.startswith("receipt baf")


def test_a_function_is_called_with_what_the_model_says(served: Served) -> None:
    called, _ = example(served, "tools.py", "hash", f"SAY:{CALL}")
    assert called == f"weather({json.loads(CALL[11:-12])['arguments']}) = 9 °C"


def test_only_what_changed_in_a_folder_is_embedded_again(served: Served, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(name)
    search = ("folder.py", "hash", tmp_path, "two")
    first, nearest, *_ = example(served, *search)
    assert (first, nearest) == ("2 of 2 texts embedded now", "1.000  two.txt")
    (tmp_path / "one.txt").write_text("two")
    (tmp_path / "three.txt").write_text("three")
    first, *found = example(served, *search)
    assert first == "1 of 3 texts embedded now"
    assert sorted(it.split()[1] for it in found[:2]) == ["one.txt", "two.txt"]


def test_a_folder_is_followed_and_asked_with_its_passages_named(
    served: Served, tmp_path: Path
) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.txt").write_text(name)
    ask = ("searchable_folder.py", "hash", "hash", tmp_path)
    first, *_, named = example(served, *ask, typed="two\n")
    assert first == "3 files: 3 came or changed, 0 went"
    assert named.startswith("from two.txt, ")
    assert "receipt baf" in named


def test_a_followed_folder_sees_what_changes_and_embeds_nothing_twice(tmp_path: Path) -> None:
    embedded: list[str] = []

    def embed(texts: list[str]) -> list[list[float]]:
        embedded.extend(texts)
        return [[float(len(it)), 1.0] for it in texts]

    index = example_module("searchable_folder").FolderIndex(tmp_path, embed)
    assert index.follow() == "0 files: 0 came or changed, 0 went"
    assert index.nearest("who?") == []
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text(f"this is {name}")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    assert index.follow() == "3 files: 3 came or changed, 0 went"
    (tmp_path / "a.txt").unlink()
    (tmp_path / "b.txt").rename(tmp_path / "d.txt")
    (tmp_path / "c.txt").write_bytes("so wächst es".encode()[:5])
    embedded.clear()
    assert index.follow() == "2 files: 2 came or changed, 2 went"
    assert embedded == ["so w\ufffd"]
    assert {name for name, _ in index.nearest("this is b")} == {"c.txt", "d.txt"}
    embedded.clear()
    assert index.follow() == "2 files: 0 came or changed, 0 went"
    assert not embedded


def example_module(name: str) -> Any:
    """An example, imported."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_price_feeds_model_is_onnx_and_says_what_was_trained() -> None:
    feed = example_module("price_feed")
    prices = feed.Market().prices
    weights, error = feed.trained(prices)
    # Guessing that nothing changes is further off.
    assert error < np.abs(np.diff(prices)).mean() / 2
    data = feed.onnx_model(weights)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    row = prices[None, : feed.LOOKED_AT].astype(np.float32)
    (forecast,) = ReferenceEvaluator(data).run(None, {"prices": row})
    assert forecast.shape == (1, 1)
    np.testing.assert_allclose(forecast[0, 0], row[0] @ weights, rtol=1e-5)


def test_a_table_is_classified_as_one_batch(served: Served, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    rows = [("good", "bad", "good ", "ugly")[it % 4] for it in range(40)]
    table.write_text("id,text\n" + "".join(f"{n},SAY:{it}\n" for n, it in enumerate(rows)))
    found = example(served, "classify.py", "hash", table, "good", "bad")
    assert found[0] == "20 good"
    assert sorted(found[1:3]) == ["10 bad", "10 something else"]
    assert found[3].endswith(" receipts")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda it: it.name)
def test_every_example_is_named_where_people_look(path: Path) -> None:
    assert f"`{path.name}" in (EXAMPLES / "README.md").read_text()
