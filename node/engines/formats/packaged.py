"""Models that come as Python packages, and that Baton therefore knows by name.

A package is looked for and never imported: it would bring libraries of its own.
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wire.errors import EngineMissing
from wire.model import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedModel:
    """One model of a package.

    `requirement` is the package and version on PyPI, `package` its module, `paths` where each file
    of the manifest lies in it.
    """

    name: str
    requirement: str
    package: str
    paths: Mapping[str, str]
    manifest: Callable[[], Manifest]

    @property
    def install(self) -> str:
        """The command that installs the package without what it depends on."""
        return f"pip install --no-deps {self.requirement}"

    @property
    def reinstall(self) -> str:
        """The command that mends a package whose files were altered."""
        return f"pip install --force-reinstall --no-deps {self.requirement}"

    def files(self) -> dict[str, Path]:
        """Where each file of the manifest lies on this machine; EngineMissing if it is not there.

        Nothing is said about the content of the files: who takes them in checks their ids.
        """
        found = importlib.util.find_spec(self.package)
        folders = list(found.submodule_search_locations or ()) if found is not None else []
        for folder in folders:
            paths = {name: Path(folder, path) for name, path in self.paths.items()}
            if all(path.is_file() for path in paths.values()):
                return paths
        raise EngineMissing(f"the model {self.name} is not installed", todo=self.install)
