"""Model manifests: everything that decides what a model computes. Their content id is its id."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.content import ContentId
from wire.errors import Malformed
from wire.schema import Between, Int, Name, Parameters, Record

FilePath = Annotated[str, Between(1, 128)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile(Record):
    """One file of a model, by content."""

    name: FilePath
    content: ContentId
    size_bytes: Int

    def check(self) -> None:
        # The name becomes a file in a worker's folder: it must not leave that folder.
        if "/" in self.name or "\\" in self.name or self.name.startswith("."):
            raise Malformed(f"a model file may not be called {self.name[:40]!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(Record):
    """Same id, same function: weights, tokenizer, precision and engine profile are all in it.

    `format` names the loader (`bert-safetensors`, `hash`), `profile` the precision in which results
    are defined, `operations` what may be asked of it. `tolerance` is how far two honest engines of
    this profile may differ, relative to the largest number of an output row.
    """

    SIZE_BYTES_MAX: ClassVar[int] = limits.MANIFEST_BYTES_MAX

    name: Name
    format: Name
    profile: Name
    operations: Annotated[tuple[Name, ...], Between(1, 16)]
    files: Annotated[tuple[ModelFile, ...], Between(0, limits.MANIFEST_FILES_MAX)]
    parameters: Parameters
    tolerance: Annotated[float, Between(0, 1)]

    def check(self) -> None:
        if len({file.name for file in self.files}) != len(self.files):
            raise Malformed("a manifest names a file twice")

    @property
    def id(self) -> ContentId:
        return ContentId.of(self.to_bytes())

    def file(self, name: str) -> ModelFile:
        """The file called `name`; Malformed if the manifest has none."""
        for file in self.files:
            if file.name == name:
                return file
        raise Malformed(f"the manifest of {self.name} has no {name}")
