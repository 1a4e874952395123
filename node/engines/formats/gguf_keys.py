"""The metadata of a GGUF file, with every value checked where it is read. Pure."""

from typing import Any

from node.engines.formats.gguf_file import GgufFile
from wire.errors import ModelRefused


class GgufKeys:
    """Values by name; those of `prefix` are the architecture's own."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self.prefix = ""

    def refused(self, name: str, found: Any) -> ModelRefused:
        """The error for a value of the metadata, by its whole name."""
        where = self._file.path.name
        if found is None:
            return ModelRefused(f"{where} lacks {name} in its metadata")
        return ModelRefused(f"{where}: {name} is {str(found)[:60]!r}, which is not run")

    def get(self, name: str) -> Any:
        return self._file.metadata.get(f"{self.prefix}.{name}")

    def has_tensor(self, name: str) -> bool:
        return name in self._file.tensors

    def text(self, name: str, default: str | None = None) -> str:
        """A text, by its whole name; ModelRefused."""
        found = self._file.metadata.get(name, default)
        if not isinstance(found, str):
            raise self.refused(name, found)
        return found

    def count(self, name: str, most: int, default: int | None = None) -> int:
        """A number from 1 to `most`; ModelRefused."""
        found = self.get(name)
        found = default if found is None else found
        if type(found) is not int or not 1 <= found <= most:
            raise self.refused(f"{self.prefix}.{name}", found)
        return found

    def real(self, name: str, least: float, most: float, default: float | None = None) -> float:
        """A number above `least`, up to `most`; ModelRefused."""
        found = self.get(name)
        found = default if found is None else found
        if not isinstance(found, float | int) or not least < found <= most:
            raise self.refused(f"{self.prefix}.{name}", found)
        return float(found)
