"""Exact transformers of random weights, small enough to be made in a moment."""

import functools
from pathlib import Path

from node.engines.exact.text_file import read_text
from node.engines.exact.text_layers import TextLayers, Unpacking
from node.models.exact_texts import write_exact_text
from tests.engines.tiny_gguf import write_gguf
from wire.content import ContentId
from wire.model import Manifest, ModelFile

# hidden, layers, inner, heads, heads of keys, words
TINY = (64, 2, 64, 2, 1, 512)


def made_at(folder: Path, *, seed: int = 0, tied: bool = True, kind: str = "f32") -> Path:
    """The file of a random exact transformer."""
    source = write_gguf(folder / "tiny.gguf", kind=kind, sizes=TINY, tied=tied, seed=seed)
    out = folder / "tiny.exact"
    write_exact_text(source, out)
    return out


@functools.lru_cache(maxsize=4)
def layers_of(path: Path) -> TextLayers:
    """The reference of a file."""
    model = read_text(path)
    return TextLayers(model, Unpacking(model))


def exact_manifest(path: Path, name: str = "tiny-exact") -> tuple[Manifest, dict[str, Path]]:
    """What a peer would say of such a file."""
    data = path.read_bytes()
    file = ModelFile(name="model.exact", content=ContentId.of(data), size_bytes=len(data))
    manifest = Manifest(
        name=name,
        format="exact-text",
        profile="exact",
        operations=("generate",),
        files=(file,),
        parameters={"context": 256},
        tolerance=0.0,
    )
    return manifest, {"model.exact": path}
