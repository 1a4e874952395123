"""Finds what model a file or folder is, without running it; refuses models that cannot run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.engines.exact import model as exact
from node.engines.exact import text_file
from node.engines.exact.file import read_file
from node.engines.exact.overflow import memory_elements
from node.engines.formats import bert, gguf, onnx_file, onnx_shapes
from node.engines.formats.gguf_model import SLOT_TOKENS, VECTORS, GgufModel
from node.engines.formats.model_memory import ModelMemory
from node.engines.formats.safetensors import read_table
from node.engines.host import calls as onnx_calls
from node.engines.host import embedding
from node.engines.interface import EXACT_PROFILE
from node.models.encoder_config import read_encoder
from node.models.pinned import PINNED
from wire import limits
from wire.content import ContentId
from wire.errors import EngineError, InputError, ModelRefused
from wire.model import Manifest, ModelFile
from wire.operations import CALL, EMBED, GENERATE, NEAREST, RERANK

WEIGHTS, TOKENIZER = embedding.FILES
SUFFIXES = (".exact", ".gguf", ".onnx", ".safetensors")
# Measured: engines with and without fused multiply-add differ by up to 2e-6.
EMBED_TOLERANCE = 1e-4
CALL_TOLERANCE = 1e-5
# How many inputs and outputs a manifest names; a model may have more.
VALUES_TOLD = 8
# Measured: a worker with a small model takes less (140 MiB), one with MiniLM 357 of 373 MiB.
BESIDES_BYTES = 200 << 20
# Numbers that an integer model has in memory while its rows are computed, for a small one.
EXACT_PASS_ELEMENTS = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedModel:
    """A model in files. `memory_bytes`: how much memory running it takes, as computed."""

    name: str
    format: str
    operations: tuple[str, ...]
    parameters: Mapping[str, bool | int | float | str | bytes]
    tolerance: float
    files: Mapping[str, Path]
    memory_bytes: int
    what: str
    profile: str = "f32"

    def manifest(self, contents: Mapping[str, ModelFile]) -> Manifest:
        """The manifest to publish, once the content id of each file is known."""
        return Manifest(
            name=self.name,
            format=self.format,
            profile=self.profile,
            operations=self.operations,
            files=tuple(contents[name] for name in self.files),
            parameters=self.parameters,
            tolerance=self.tolerance,
        )


def is_path(name: str) -> bool:
    """Whether `name` means a file or folder, and not a model's name or id."""
    return "/" in name or name.startswith((".", "~")) or name.lower().endswith(SUFFIXES)


def describe(path: Path, name: str | None = None) -> InspectedModel:
    """Read enough of a file or folder to see what model it is; InputError, ModelRefused."""
    called = _name(name or _called_by_file(path.absolute()))
    with _refusing(path.name), _readable(path):
        if path.is_dir():
            return _bert(path, called)
        if not path.is_file():
            raise InputError(f"{path} does not exist", todo="name a model's file or folder")
        match path.suffix.lower():
            case ".gguf":
                return _gguf(path, called)
            case ".onnx":
                return _onnx(path, called)
            case ".exact":
                return (_exact_text if text_file.is_text(path) else _exact)(path, called)
            case ".safetensors":
                return _bert(path.parent, _name(name or path.absolute().parent.name))
    raise ModelRefused(
        f"{path} is no model that is known here: its name ends in {path.suffix or 'nothing'!r}",
        todo="give a .gguf, .onnx or .exact, or a folder with model.safetensors and tokenizer.json",
    )


def check_runs(manifest: Manifest, files: Mapping[str, Path]) -> None:
    """ModelRefused, with the reason, if a model from other peers cannot run here."""
    with _refusing(manifest.name), _kept(manifest.name):
        match manifest.format:
            case gguf.FORMAT | gguf.EMBED_FORMAT | gguf.RERANK_FORMAT:
                gguf.check_format(gguf.describe(_file(files, gguf.FILE)), manifest.format)
            case onnx_calls.FORMAT:
                onnx_file.describe(_file(files, onnx_calls.FILES[0]))
            case exact.FORMAT:
                read_file(_file(files, exact.FILE))
            case text_file.FORMAT:
                text_file.read_text(_file(files, text_file.FILE))
            case bert.MEAN_FORMAT | bert.FIRST_FORMAT | bert.NOMIC_FORMAT | bert.RERANK_FORMAT:
                shape = bert.BertShape.of(manifest)
                bert.BertWeights.read(read_table(_file(files, WEIGHTS)), shape)


def memory_bytes(manifest: Manifest, files: Mapping[str, Path]) -> int:
    """How much memory loading a model will take, computed beforehand; 0 if almost nothing."""
    return memory_of(manifest.format, files, on_gpu=False).most_bytes


def memory_of(
    kind: str,
    files: Mapping[str, Path],
    *,
    on_gpu: bool,
    layers: tuple[int, int] | None = None,
) -> ModelMemory:
    """What a model of a format takes of the memory it runs in, computed from its files.

    `layers` are the first and the last that are held of a language model; None: all.
    ModelRefused if a file is missing or cannot be described: both come from any peer. EngineError
    if one cannot be read: kept files may be deleted, or replaced, at any time.
    """
    measure = _MEASURES.get(kind)
    if measure is None:
        return NOTHING
    with _refusing(f"the {kind} model"), _kept(f"the {kind} model"):
        if layers is not None and kind == gguf.FORMAT:
            model = gguf.describe(_file(files, gguf.FILE))
            return model.holding(*layers).memory(on_gpu=on_gpu)
        return measure(files, on_gpu)


def check_layers(path: Path, layers: tuple[int, int]) -> None:
    """InputError unless the file is a language model's that has these layers; ModelRefused."""
    if path.suffix.lower() != ".gguf":
        raise InputError(
            f"{path.name} is no GGUF file: only language models are held in part",
            todo="leave --layers out",
        )
    with _refusing(path.name), _readable(path):
        model = gguf.describe(path)
    if not model.speaks:
        raise InputError(
            f"{path.name} makes {model.makes} of texts: only what makes words is held in part",
            todo="leave --layers out",
        )
    try:
        model.holding(*layers)
    except ModelRefused as error:
        raise InputError(error.message, todo=error.todo) from error


def _file(files: Mapping[str, Path], name: str) -> Path:
    found = files.get(name)
    if found is None:
        there = ", ".join(sorted(files))[:80] or "none"
        raise ModelRefused(
            f"the model lacks the file {name}; it has: {there}",
            todo="publish it again from its file or folder: baton models add",
        )
    return found


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """A description that fails in a way that no check foresaw is the model's fault too."""
    try:
        yield
    except (ArithmeticError, LookupError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"[:120]
        raise ModelRefused(
            f"{what[:80]} cannot be described ({why})",
            todo="use another copy of the model; if this one is whole, report it",
        ) from error


@contextmanager
def _kept(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EngineError(
            f"a file of {what[:80]} cannot be read: {error.strerror}",
            todo="it is tried again; add the model again if this goes on",
        ) from error


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", todo="check its permissions"
        ) from error


def _called_by_file(path: Path) -> str:
    """A file's name without its ending; smollm2.exact is another model than the pinned smollm2."""
    if path.suffix.lower() == ".exact" and path.stem in PINNED:
        return f"{path.stem}-exact"
    return path.stem


def _name(text: str) -> str:
    kept = "".join(it if it.isprintable() and it not in "/\\" else "-" for it in text).strip()
    short = kept.encode()[: limits.NAME_BYTES_MAX].decode(errors="ignore")
    if not short:
        raise InputError("a model needs a name", todo="give one with --name")
    return short


def _gguf(path: Path, name: str) -> InspectedModel:
    model = gguf.describe(path)
    if not model.speaks:
        return _embedding_gguf(path, name, model)
    return InspectedModel(
        name=name,
        format=gguf.FORMAT,
        operations=(GENERATE,),
        parameters={
            "architecture": model.architecture,
            "quantisation": model.quantisation,
            "context": model.context,
            "chat": bool(model.chat_template),
        },
        tolerance=0.0,
        files={gguf.FILE: path},
        memory_bytes=model.memory_bytes,
        what=f"{model.architecture} {model.quantisation}, context of {model.context} tokens",
    )


def _embedding_gguf(path: Path, name: str, model: GgufModel) -> InspectedModel:
    tokens = min(model.context, SLOT_TOKENS)
    return InspectedModel(
        name=name,
        format=gguf.FORMAT_OF[model.makes],
        operations=(EMBED, NEAREST) if model.makes == VECTORS else (RERANK,),
        parameters={
            "architecture": model.architecture,
            "quantisation": model.quantisation,
            "layers": model.layers,
            "dimensions": model.hidden,
            "tokens_max": tokens,
        },
        tolerance=EMBED_TOLERANCE,
        files={gguf.FILE: path},
        memory_bytes=model.memory_bytes,
        what=f"{model.architecture} {model.quantisation}, {model.makes} of {tokens} tokens",
    )


def _onnx(path: Path, name: str) -> InspectedModel:
    model = onnx_file.describe(path)
    told: dict[str, str] = {}
    for side, values in (("input", model.inputs), ("output", model.outputs)):
        for number, value in enumerate(values[:VALUES_TOLD]):
            told[f"{side} {number}"] = str(value)[: limits.PARAMETER_BYTES_MAX // 4]
    operators = len(model.operators)
    return InspectedModel(
        name=name,
        format=onnx_calls.FORMAT,
        operations=(CALL,),
        parameters=told,
        tolerance=CALL_TOLERANCE,
        files={onnx_calls.FILES[0]: path},
        memory_bytes=_onnx_memory({onnx_calls.FILES[0]: path}, False).most_bytes,
        what=f"{operators} kinds of operators, {model.weights} weights",
    )


def _exact(path: Path, name: str) -> InspectedModel:
    model = read_file(path)
    told: dict[str, bool | int | float | str | bytes] = {"exact": True}
    told |= {
        f"input {at}": f"{it.name}: float32[any, {', '.join(map(str, it.shape))}]"
        for at, it in enumerate(model.inputs)
    }
    told |= {f"output {at}": f"{it.name}: {it.kind}" for at, it in enumerate(model.outputs)}
    return InspectedModel(
        name=name,
        format=exact.FORMAT,
        operations=(CALL,),
        parameters=dict(list(told.items())[: limits.PARAMETERS_MAX]),
        tolerance=0.0,
        files={exact.FILE: path},
        memory_bytes=_exact_memory({exact.FILE: path}, False).most_bytes,
        what=f"{len(model.layers)} layers in whole numbers",
        profile=exact.FORMAT,
    )


def _exact_text(path: Path, name: str) -> InspectedModel:
    model = text_file.read_text(path)
    return InspectedModel(
        name=name,
        format=text_file.FORMAT,
        operations=(GENERATE,),
        parameters={
            "architecture": model.shape.architecture,
            "exact": True,
            "context": model.context,
            "chat": bool(model.shape.chat_template),
        },
        tolerance=0.0,
        files={text_file.FILE: path},
        memory_bytes=model.shape.memory_bytes,
        what=f"{model.shape.layers} layers in whole numbers, context of {model.context} tokens",
        profile=EXACT_PROFILE,
    )


def _bert(folder: Path, name: str) -> InspectedModel:
    files = {it: folder / it for it in embedding.FILES}
    for path in (*files.values(), folder / "config.json"):
        if not path.is_file():
            raise ModelRefused(
                f"{folder} is not a model folder: {path.name} is missing",
                todo="it needs model.safetensors, tokenizer.json and config.json",
            )
    encoder, parameters = read_encoder(folder)
    found = InspectedModel(
        name=name,
        format=encoder,
        operations=(RERANK,) if encoder == bert.RERANK_FORMAT else (EMBED, NEAREST),
        parameters=parameters,
        tolerance=EMBED_TOLERANCE,
        files=files,
        memory_bytes=_bert_memory(files, False).most_bytes,
        what=f"{parameters['layers']} layers, {parameters['dimensions']} dimensions,"
        f" {encoder.removesuffix('-safetensors')}",
    )
    # This manifest is never published: only its shape and its name are used.
    nothing = ContentId.of(b"")
    shape = bert.BertShape.of(
        found.manifest({it: ModelFile(name=it, content=nothing, size_bytes=0) for it in files})
    )
    bert.BertWeights.read(read_table(files[WEIGHTS]), shape)
    return found


def _gguf_memory(files: Mapping[str, Path], on_gpu: bool) -> ModelMemory:
    return gguf.describe(_file(files, gguf.FILE)).memory(on_gpu=on_gpu)


def _exact_text_memory(files: Mapping[str, Path], on_gpu: bool) -> ModelMemory:
    return text_file.describe(_file(files, text_file.FILE)).memory(on_gpu=on_gpu)


def _onnx_memory(files: Mapping[str, Path], on_gpu: bool) -> ModelMemory:
    # The file stays mapped.
    path = _file(files, onnx_calls.FILES[0])
    work_bytes = onnx_shapes.memory_bytes(onnx_file.describe(path))
    return ModelMemory(
        weights_bytes=path.stat().st_size,
        besides_bytes=work_bytes + (0 if on_gpu else BESIDES_BYTES),
    )


def _exact_memory(files: Mapping[str, Path], on_gpu: bool) -> ModelMemory:
    path = _file(files, exact.FILE)
    # Rows of one pass, in 32-bit integers, and a few copies of them on the way.
    work_bytes = 16 * max(EXACT_PASS_ELEMENTS, memory_elements(read_file(path)))
    return ModelMemory(
        weights_bytes=2 * path.stat().st_size,
        besides_bytes=work_bytes + (0 if on_gpu else BESIDES_BYTES),
    )


def _bert_memory(files: Mapping[str, Path], on_gpu: bool) -> ModelMemory:
    # The file stays mapped, and its matrices are in memory a second time, in 32-bit floats.
    path = _file(files, WEIGHTS)
    size_bytes, copied_bytes = path.stat().st_size, read_table(path).copied_bytes
    laid_out_bytes = copied_bytes or size_bytes
    return ModelMemory(
        weights_bytes=laid_out_bytes if on_gpu else size_bytes + copied_bytes + laid_out_bytes,
        besides_bytes=BESIDES_BYTES,
    )


_MEASURES: Mapping[str, Callable[[Mapping[str, Path], bool], ModelMemory]] = {
    gguf.FORMAT: _gguf_memory,
    **dict.fromkeys(embedding.GGUF_FORMATS, _gguf_memory),
    onnx_calls.FORMAT: _onnx_memory,
    exact.FORMAT: _exact_memory,
    text_file.FORMAT: _exact_text_memory,
    **dict.fromkeys(embedding.ENCODERS, _bert_memory),
}
NOTHING = ModelMemory(weights_bytes=0, besides_bytes=0)
