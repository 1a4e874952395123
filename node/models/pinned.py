"""Models with names that this project pins. Loads no library."""

from collections.abc import Callable, Mapping

from node.engines.formats.minilm import MINILM
from node.engines.formats.packaged import PackagedModel
from node.engines.formats.smollm2 import SMOLLM2
from node.engines.hash_model import hash_manifest
from wire.model import Manifest

# Models that Python packages bring.
PACKAGED: Mapping[str, PackagedModel] = {it.name: it for it in (MINILM, SMOLLM2)}
# Names that this project pins: only these names are as good as an id.
PINNED: Mapping[str, Callable[[], Manifest]] = {
    **{name: it.manifest for name, it in PACKAGED.items()},
    "hash": hash_manifest,
}
