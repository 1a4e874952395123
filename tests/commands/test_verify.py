"""`verify` compared with what whoever checks knows: the task, the peers, the model's own files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.checking.named import named_by
from node.commands.ask import save_receipt
from node.commands.verify import Expected, verify
from store.car_file import write_car
from tests.checking.answers import ASKER, NOW_MS, SIGNED_ONLY, WORKER, answer_to, changed, have
from tests.checking.exact_peers import answer_of, asked_of
from tests.engines.exact.samples import kept_at, made
from tests.engines.exact.samples import manifest_of as manifest_of_exact
from tests.engines.onnx_models import golden
from tests.node.asking import EMBED, FETCH, MANIFEST
from wire.errors import InputError
from wire.kinds import Role
from wire.model import Manifest, ModelFile
from wire.signed import open_signed
from wire.task import Stage, Task
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
    lines = rest.splitlines()[1:12]
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
        "cost",
        "log",
    ]
    assert all(it.split()[0] in ("✓", "?") for it in lines)


def test_a_model_without_files_is_not_the_file_that_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever answered named a model of no files: it is not the one that is meant."""
    rows = golden("sklearn_mlp")[0]["X"][:2]
    exact = made("sklearn_mlp")
    file = kept_at(tmp_path, exact, "digits")
    right, _ = manifest_of_exact(file)
    source, output = asked_of(exact, [rows]), answer_of(exact, [rows])
    for manifest, part, replay in (
        (right, "holds", "holds"),
        (replace(right, files=()), "fails", "cannot be known"),
    ):
        call = Stage(role=Role.INFER, operation="call", model=manifest.id, parameters={})
        answer = answer_to(call, source=source, output=output)
        blobs = {answer.id: answer.raw, manifest.id: manifest.to_bytes()}
        blobs |= {name_of(it): it for it in (source, output)}
        path = tmp_path / "call.car"
        write_car(path, answer.id, list(blobs), blobs.__getitem__)
        found = run(path, capsys, model=str(file))
        assert found["parts"]["model"]["status"] == part
        assert found["parts"]["replay"]["status"] == replay
        assert found["holds"] is (part == "holds")


def test_verdicts_on_something_else_do_not_make_a_fetch_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No leg of it can be checked, so there is nobody who did, whatever lies beside it."""
    path = tmp_path / "x.receipt"
    path.write_bytes(changed(answer_to(FETCH), verdicts=ANSWER.record.verdicts).raw)
    found = run(path, capsys)
    assert found["holds"]
    assert not found["checked"]


def test_a_file_whose_model_is_not_known_says_what_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A receipt alone names a model by its id: the file has to be called as the model was."""
    rows = golden("sklearn_mlp")[0]["X"][:2]
    exact = made("sklearn_mlp")
    manifest, _ = manifest_of_exact(kept_at(tmp_path, exact, "digits"))
    call = Stage(role=Role.INFER, operation="call", model=manifest.id, parameters={})
    answer = answer_to(call, source=asked_of(exact, [rows]), output=answer_of(exact, [rows]))
    path = tmp_path / "call.receipt"
    path.write_bytes(answer.raw)
    found = run(path, capsys, model=str(kept_at(tmp_path, exact, "other")))
    assert found["parts"]["replay"]["status"] == "cannot be known"
    assert "receipts export ID --output x.car" in str(found)


def test_with_the_manifest_beside_it_a_receipt_needs_no_name_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = golden("sklearn_mlp")[0]["X"][:2]
    exact = made("sklearn_mlp")
    manifest, _ = manifest_of_exact(kept_at(tmp_path, exact, "digits"))
    call = Stage(role=Role.INFER, operation="call", model=manifest.id, parameters={})
    source, output = asked_of(exact, [rows]), answer_of(exact, [rows])
    answer = answer_to(call, source=source, output=output)
    saved = save_receipt(
        tmp_path,
        {
            "receipt": str(answer.id),
            "answer": answer.raw,
            "input_payload": source,
            "payload": output,
            "manifest_payload": manifest.to_bytes(),
        },
    )
    renamed = str(kept_at(tmp_path, exact, "other"))
    found = run(saved, capsys, model=renamed)
    assert found["parts"]["model"]["status"] == found["parts"]["replay"]["status"] == "holds"
    assert found["holds"]
    # Another model's manifest is none of this task.
    saved.with_suffix(".manifest").write_bytes(replace(manifest, name="x").to_bytes())
    found = run(saved, capsys, model=renamed)
    assert not found["holds"]
    assert ".manifest is an input or an output" in found["error"]
