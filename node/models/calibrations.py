"""The calibrations that this peer's owner measured, or took from somebody whom it trusts.

Each is a file in the state folder that is named by its content. Whoever puts one there decides what
this peer calls honest: none is ever taken from the network.
"""

from collections.abc import Mapping
from pathlib import Path

from store.files import appearing
from store.private_file import OTHERS_MAY_WRITE, read_private
from wire.calibration import Calibration
from wire.content import ContentId
from wire.errors import BatonError, InputError

FOLDER = "calibrations"
ENDING = ".calibration"
FILES_MAX = 256
# Why the store keeps one: verdicts name it.
PIN = "calibration"


def keep_calibration(state: Path, table: Calibration) -> Path:
    """Write a calibration to where a peer on this state folder finds it; InputError."""
    folder = state / FOLDER
    path = folder / f"{table.id}{ENDING}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with appearing(path) as file:
            file.write(table.to_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    return path


def kept_calibrations(state: Path) -> tuple[Mapping[ContentId, Calibration], list[str]]:
    """The latest calibration of each model; and what was found that is none, in words."""
    found: dict[ContentId, Calibration] = {}
    problems = []
    for path in sorted((state / FOLDER).glob(f"*{ENDING}"))[:FILES_MAX]:
        try:
            table = _read(path)
        except (BatonError, OSError) as error:
            problems.append(f"{path.name} is not used: {error}")
            continue
        assert table.model is not None, "one without a model was refused"
        before = found.get(table.model)
        if before is None or before.made_at_ms < table.made_at_ms:
            found[table.model] = table
    return found, problems


def _read(path: Path) -> Calibration:
    data = read_private(
        path,
        "a calibration",
        size_bytes_max=Calibration.SIZE_BYTES_MAX + 1,
        barred=OTHERS_MAY_WRITE,
    )
    table = Calibration.from_bytes(data)
    if table.model is None:
        raise InputError("it is of no model")
    if path.name != f"{table.id}{ENDING}":
        raise InputError("its content is not what its name says")
    return table
