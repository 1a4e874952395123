"""Whether the packages that Python finds by our names are ours.

`wire`, `store` and `p2p` are names that other programs have too: where one of theirs is found
first, nothing here would run, and what Python says of it helps nobody. Imports nothing of ours.
"""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("wire", "store", "p2p")


def place_of_package(name: str) -> Path | None:
    """The folder that Python would import a package from; None where there is none."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


def clashing(
    beside: Path,
    names: Iterable[str] = PACKAGES,
    place_of: Callable[[str], Path | None] = place_of_package,
) -> str:
    """What is wrong, and what to do; "" if all packages lie beside the folder `beside`."""
    for name in names:
        place = place_of(name)
        if place is not None and place.resolve() != (beside.parent / name).resolve():
            return (
                f"another program's package {name!r} is in the way, at {place}: install Baton"
                " alone, with: uv tool install baton, or: pipx install baton; or run it from its"
                " own folder, without PYTHONPATH"
            )
    return ""
