"""`verify --model`: whether files are the model that a receipt names, byte for byte."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from node.checking.audit import Have, Replay, not_replayed
from node.checking.report import AuditReport, ReceiptPart
from node.commands.verify_exact import BUNDLE, is_exact, replay_exact
from node.commands.verify_proof import is_onnx, replay_proof
from node.models.inspect import describe
from node.models.pinned import PACKAGED, PINNED
from store import id_of_file
from wire.content import ContentId
from wire.errors import BatonError, InputError, WireError
from wire.model import Manifest, ModelFile


def manifest_of(content_id: ContentId) -> bytes | None:
    """The manifest of a model that this project pins, which needs not come with a receipt."""
    found = next((make() for make in PINNED.values() if make().id == content_id), None)
    return None if found is None else found.to_bytes()


def files_at(model: str) -> dict[str, Path]:
    """The files of a model by their names in its manifest, as far as that is known: of a package,
    a folder, or one file under its own name; InputError if there are none.
    """
    if model in PACKAGED:
        return PACKAGED[model].files()
    path = Path(model).expanduser()
    if path.is_dir():
        found = {it.name: it for it in sorted(path.iterdir()) if it.is_file()}
    else:
        found = {path.name: path} if path.is_file() else {}
    if not found:
        raise InputError(
            f"{model} is no model: there is no such file or folder",
            todo=f"name the model's file or folder, or one of {', '.join(PACKAGED)}",
        )
    return found


def replay_with(model: str | None, have: Have, srs: Path | None, state: Path) -> Replay:
    """What runs a model again for an audit. Of most the report says why not."""
    if model is None:
        return not_replayed("no model was given, see --model")
    if is_exact(model):
        return replay_exact(Path(model), have, partial(_consists_of, model, have))
    if is_onnx(model):
        path = Path(model).expanduser()
        return replay_proof(path, srs, state, have, partial(_consists_of, model, have))
    return not_replayed("this version of verify does not run models")


def _consists_of(model: str, have: Have, model_id: ContentId) -> bool:
    """Whether a model is known to be the one in this file."""
    contents = {name: id_of_file(path) for name, path in files_at(model).items()}
    manifest = _manifest(model_id, model, contents, have)
    named = set() if manifest is None else {it.content for it in manifest.files}
    return bool(named) and named <= set(contents.values())


def check_model(report: AuditReport, model: str | None, have: Have) -> None:
    """Say of each leg's model whether the files that are given are the ones it consists of."""
    legs = [it.record for it in report.receipts if it.record.model is not None]
    if not report.is_chain or not legs:
        return
    files = None if model is None else files_at(model)
    contents = {name: id_of_file(path) for name, path in (files or {}).items()}
    named = dict.fromkeys(it.model for it in legs if it.model is not None)
    matched = []
    for model_id in named:
        legs_of = [it.stage + 1 for it in legs if it.model == model_id]
        what = f"the files of the model of leg {', '.join(map(str, legs_of))}"
        manifest = _manifest(model_id, model, contents, have)
        if manifest is not None and not manifest.files and (files is None or len(named) > 1):
            report.note(ReceiptPart.MODEL, True, f"{what}: it has none")
        elif manifest is not None and not manifest.files:
            why = f"{manifest.name} has no files, and {model} was given"
            report.note(ReceiptPart.MODEL, False, f"{what} are those given", why)
        elif files is None:
            report.note(ReceiptPart.MODEL, None, what, "not given: --model FILE checks them")
        elif manifest is None:
            why = f"no manifest of {model_id} is at hand that says which they are: {BUNDLE}"
            report.note(ReceiptPart.MODEL, None, what, why)
        else:
            missing = [it for it in manifest.files if it.content not in contents.values()]
            if not missing:
                matched.append(model_id)
                report.note(ReceiptPart.MODEL, True, f"{what} are those given", manifest.name)
            elif len(named) == 1:
                _say_other(report, what, missing[0], contents)
            else:
                report.note(
                    ReceiptPart.MODEL, None, what, f"not given: {missing[0].name} is needed"
                )
    if files is not None and len(named) > 1 and not matched:
        report.note(
            ReceiptPart.MODEL, False, f"{model} is a model of this task", "it is another one"
        )


def _say_other(
    report: AuditReport, what: str, file: ModelFile, contents: Mapping[str, ContentId]
) -> None:
    """Name the first file that is another one, or is not there."""
    there = contents.get(file.name) or next(iter(contents.values()))
    report.note(
        ReceiptPart.MODEL,
        False,
        f"{what} are those given",
        f"{file.name} should be {file.content}; given was {there}",
    )


def _manifest(
    model_id: ContentId, model: str | None, contents: Mapping[str, ContentId], have: Have
) -> Manifest | None:
    """The manifest that a model id names: at hand, or as it is made of the files themselves."""
    data = have(model_id)
    if data is not None:
        try:
            return Manifest.from_bytes(data)
        except WireError:
            return None
    if model is None:
        return None
    try:
        found = describe(Path(model).expanduser())
        files = {
            name: ModelFile(name=name, content=contents[path.name], size_bytes=path.stat().st_size)
            for name, path in found.files.items()
        }
        made = found.manifest(files)
    except (BatonError, KeyError, OSError):
        # It is no model that can be described here; then nothing is known of its manifest.
        return None
    return made if made.id == model_id else None
