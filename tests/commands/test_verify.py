"""`verify` compared with what whoever checks knows: the task, the peers, the model's own files."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from node.checking.named import named_by
from node.commands.verify import Expected, verify
from node.engines.exact.model import FILE
from node.models.inspect import describe
from store.car_file import write_car
from tests.checking.answers import ASKER, NOW_MS, SIGNED_ONLY, WORKER, answer_to, have
from tests.checking.exact_peers import answer_of, asked_of, one_step_off
from tests.engines.exact.samples import kept_at, made
from tests.engines.onnx_models import golden
from tests.node.asking import EMBED, MANIFEST
from wire.errors import InputError
from wire.model import Manifest, ModelFile
from wire.signed import open_signed
from wire.task import Task
from wire.tree import name_of

# More than one block.
WEIGHTS, WORDS = bytes(range(256)) * 1200, b"words"


def manifest_of(**files: bytes) -> Manifest:
    contents = [
        ModelFile(name=name, content=name_of(data), size_bytes=len(data))
        for name, data in files.items()
    ]
    return replace(MANIFEST, name="small", files=tuple(contents))


MODEL = manifest_of(weights=WEIGHTS, words=WORDS)
ANSWER = answer_to(replace(EMBED, model=MODEL.id))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that has the manifest of a model with files."""
    path = tmp_path / "x.car"
    named = [ANSWER.id, MODEL.id]
    blocks = {ANSWER.id: ANSWER.raw, MODEL.id: MODEL.to_bytes()}
    for content in named_by(ANSWER).blobs:
        data = have(content)
        assert data is not None
        blocks[content] = data
        named.append(content)
    write_car(path, ANSWER.id, named, blocks.__getitem__)
    return path


def run(path: Path, capsys: pytest.CaptureFixture[str], **expected: Any) -> dict[str, Any]:
    """The document of `verify --json`, and under `error` what it says at the end."""
    error = ""
    try:
        verify(path.parent, str(path), Expected(**expected), NOW_MS + 2000, as_json=True)
    except InputError as raised:
        error = str(raised)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found | {"error": error}


def test_the_model_is_known_only_with_its_files(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(bundle, capsys)
    assert found["error"] == ""
    assert found["parts"]["model"]["status"] == "cannot be known"
    assert "--model FILE checks them" in found["parts"]["model"]["why"]
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(WEIGHTS)
    (folder / "words").write_bytes(WORDS)
    found = run(bundle, capsys, model=str(folder))
    assert found["parts"]["model"] == {"status": "holds", "why": ""}
    # It says so itself that the model was not run.
    assert "not replayed" in found["parts"]["replay"]["why"]


def test_a_model_file_that_is_not_the_one_named_fails_by_name(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    altered = WEIGHTS[:-1] + b"\0"
    (folder / "weights").write_bytes(altered)
    (folder / "words").write_bytes(WORDS)
    found = run(bundle, capsys, model=str(folder))
    assert found["parts"]["model"]["status"] == "fails"
    should = f"weights should be {name_of(WEIGHTS)}; given was {name_of(altered)}"
    assert should in found["parts"]["model"]["why"]
    assert should in found["error"]
    (folder / "weights").unlink()
    assert run(bundle, capsys, model=str(folder))["parts"]["model"]["status"] == "fails"
    with pytest.raises(InputError, match="is no model"):
        verify(tmp_path, str(bundle), Expected(model="nowhere"), NOW_MS, as_json=True)


def test_what_another_exact_model_gives_is_no_proof_against_a_receipt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = made("sklearn_mlp"), golden("sklearn_mlp")[0]["X"][:6]
    file, receipt = kept_at(tmp_path, model, "digits"), tmp_path / "x.receipt"
    file.with_name("renamed.exact").write_bytes(file.read_bytes())
    altered = (one_step_off(model, Random(seed))[0] for seed in range(100))
    other = next(it for it in altered if answer_of(it, [rows]) != answer_of(model, [rows]))
    kept_at(tmp_path, other, "other")
    named = ModelFile(name=FILE, content=name_of(file.read_bytes()), size_bytes=file.stat().st_size)
    stage = replace(EMBED, operation="call", model=describe(file).manifest({FILE: named}).id)
    asked = asked_of(model, [rows])
    for given_by, used, status in (
        (model, "digits", "holds"),
        (model, "renamed", "holds"),
        (model, "other", "cannot be known"),
        (other, "digits", "fails"),
    ):
        output = answer_of(given_by, [rows])
        receipt.write_bytes(answer_to(stage, checking=SIGNED_ONLY, source=asked, output=output).raw)
        receipt.with_suffix(".input").write_bytes(asked)
        receipt.with_suffix(".output").write_bytes(output)
        found = run(receipt, capsys, model=str(tmp_path / f"{used}.exact"))
        assert found["parts"]["replay"]["status"] == status, used
        assert bool(found["error"]) is (status == "fails")


def test_a_receipt_of_another_task_or_peer_does_not_pass_for_the_one_that_is_meant(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = str(open_signed(ANSWER.record.task, Task).id)
    asker, worker = str(ASKER.peer), str(WORKER.peer)
    right = run(bundle, capsys, task=task, asked_by=asker, answered_by=worker)
    assert right["error"] == ""
    assert right["holds"]
    for wrong, part in (
        ({"task": str(name_of(b"another"))}, "request"),
        ({"asked_by": worker}, "signatures"),
        ({"answered_by": asker}, "signatures"),
    ):
        found = run(bundle, capsys, **wrong)
        assert found["parts"][part]["status"] == "fails", wrong
        assert "that was named" in found["error"]


def test_the_level_says_which_parts_have_to_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.receipt"
    path.write_bytes(answer_to(checking=SIGNED_ONLY).raw)
    found = run(path, capsys)
    assert (found["level"], found["promised"]) == ("signed", ["signatures", "request"])
    assert found["error"] == ""
    path.write_bytes(ANSWER.raw)
    found = run(path, capsys)
    assert found["promised"] == ["signatures", "request", "selection", "verdicts"]


def test_a_page_has_a_line_for_each_part(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify(bundle.parent, str(bundle), Expected(), NOW_MS + 2000, as_json=False)
    page = capsys.readouterr().out
    _, _, rest = page.partition("Part by part")
    lines = rest.splitlines()[1:11]
    assert [it.split()[1] for it in lines] == [
        "signatures",
        "request",
        "model",
        "input",
        "output",
        "sampler",
        "replay",
        "selection",
        "verdicts",
        "log",
    ]
    assert all(it.split()[0] in ("✓", "?") for it in lines)
