"""The hash model's manifest; `node.engines.hash_engine` runs it. Loads no library."""

from wire.model import Manifest
from wire.operations import COMPLETE, EMBED, GENERATE, NEAREST


def hash_manifest(name: str = "hash", dimensions: int = 64) -> Manifest:
    """A manifest `HashEngine` loads; name and dimensions make models with different answers."""
    return Manifest(
        name=name,
        format="hash",
        profile="exact",
        operations=(EMBED, NEAREST, COMPLETE, GENERATE),
        files=(),
        parameters={"dimensions": dimensions},
        tolerance=0.0,
    )
