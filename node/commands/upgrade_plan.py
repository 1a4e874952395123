"""What is upgraded, and with what: looked at before anything is changed."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from node.commands.service import SYSTEM_STATE, UNIT, Service, with_python
from node.commands.upgrade_peer import status_of
from node.commands.verify_release import NAME, checked_release
from node.upgrading.installing import lock_of, wheel_in
from node.upgrading.journal import UpgradeJournal, keep_journal
from node.upgrading.started import Started, read_started
from node.upgrading.steps import UpgradeStep
from store.folder import folder_version, locked_by
from wire.errors import BatonError, InputError

_UNIT_BYTES_MAX = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeAsked:
    """What was typed; paths are whole."""

    state: Path
    release: Path | None
    release_key: str | None
    index: str
    offline: bool
    back: bool


async def planned(asked: UpgradeAsked, versions: Path, python: str) -> UpgradeJournal:
    """The journal of a new upgrade, as long as nothing is made yet; InputError if it may not begin.

    Its wheel is the one that was named, which `begun` copies.
    """
    assert asked.release is not None
    wheel, version = wheel_in(asked.release)
    if asked.release_key is not None:
        check_released(wheel, wheel.parent, asked.release_key)
    # What it needs is said by a file in it, so one that was cut is found out now.
    lock_of(wheel)
    old, for_user, unit = await _how_it_runs(asked.state)
    if old.version == version:
        raise InputError(
            f"version {version} already runs", todo="another build of it needs another number"
        )
    if Path(python).is_relative_to(versions / version):
        raise InputError(
            f"this is a command of {version} itself, which is installed anew",
            todo=f"use the running version's: {Path(old.prefix) / 'bin' / 'baton'} upgrade",
        )
    status = await status_of(asked.state)
    if status is None:
        raise InputError(
            "the running peer does not answer", todo="see what it does: python -m node status"
        )
    found = folder_version(asked.state)
    return UpgradeJournal(
        step=UpgradeStep.INSTALLING,
        old=old,
        version=version,
        wheel=str(wheel),
        source=str(wheel.parent) if asked.offline else "",
        index=asked.index,
        for_user=for_user,
        unit=unit,
        peer=str(status["peer"]),
        connected=bool(status["connected"]),
        models=tuple(str(it["name"]) for it in status["models"] if not it["problem"]),
        folder_version=0 if found is None else found[0],
    )


def begun(plan: UpgradeJournal, versions: Path, key: str | None) -> UpgradeJournal:
    """The journal of a new upgrade, kept, with the wheel beside it.

    What an earlier upgrade installed of that version is deleted: it may be of another wheel.
    """
    kept = _copied(Path(plan.wheel), versions / "release", key)
    journal = replace(plan, wheel=str(kept))
    if (prefix := versions / plan.version).exists():
        shutil.rmtree(prefix)
    keep_journal(versions, journal)
    return journal


def _copied(wheel: Path, folder: Path, key: str | None) -> Path:
    """The wheel as it is installed, also if the release is gone when a cut upgrade goes on.

    With a key it is the copy that is checked: nobody changes it between the check and the use.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o755)
    names = (wheel.name,) if key is None else (wheel.name, NAME, f"{NAME}.minisig")
    for name in names:
        try:
            shutil.copyfile(wheel.parent / name, folder / name)
        except OSError as error:
            raise InputError(
                f"{wheel.parent / name} cannot be copied: {error.strerror}",
                todo="a release is SHA256SUMS, SHA256SUMS.minisig and its files, in one folder",
            ) from error
    if key is not None:
        check_released(wheel, folder, key)
    return folder / wheel.name


def check_released(wheel: Path, folder: Path, key: str) -> None:
    """InputError unless the folder's list of digests is signed by the key and names this wheel."""
    _, files = checked_release(folder / NAME, key)
    if {it.name: it.state for it in files}.get(wheel.name) != "ok":
        raise InputError(
            f"{wheel.name} is not what was released", todo="delete it, and fetch it again"
        )


async def _how_it_runs(state: Path) -> tuple[Started, bool, str]:
    """How the running peer was started, if by a service of the user, and the unit of its service.

    InputError if it does not run, or cannot be started again from here.
    """
    process = locked_by(state)
    if process is None:
        raise InputError(
            "this system does not tell whether a peer runs",
            todo="end the peer, install the release as you did before, and start it again",
        )
    if not process:
        raise InputError(
            f"no peer runs on {state}, so there is nothing to upgrade",
            todo="start it: python -m node join; or install the release as you did before",
        )
    if (service := await _service_of(state, process)) is not None:
        unit = service.file.read_bytes()[:_UNIT_BYTES_MAX].decode(errors="replace")
        # What it says is not run: the unit is, which only the service's owner may write.
        old = read_started(state, trusted=False)
        if old is None or with_python(unit, Path(old.prefix), Path(old.prefix)) is None:
            raise InputError(
                f"{service.file} starts another Python than the peer runs on",
                todo="install it anew: python -m node service install, and the options of join",
            )
        _check_kind(old, process)
        return old, service.for_user, unit
    old = read_started(state)
    if old is None or old.process != process:
        raise InputError(
            "how the running peer was started is not known",
            todo="start it again, by the same words, and then upgrade",
        )
    _check_kind(old, process)
    return old, False, ""


def _check_kind(old: Started, process: int) -> None:
    if old.checkout:
        raise InputError(
            f"the running peer is a checkout, at {old.packages}, and no release",
            todo="bring it forward with git, and start it again; or run an installed release",
        )
    if process == 1 or any(it.startswith("--with-parent") for it in old.arguments):
        raise InputError(
            "the running peer ends with the program that started it, as a container does",
            todo="start a container of the new version on the same folder",
        )


async def _service_of(state: Path, process: int) -> Service | None:
    """The service whose peer this process is; None if it is no service of ours."""
    service = Service(for_user=state != SYSTEM_STATE)
    if not service.file.exists():
        return None
    try:
        said = await service.systemctl("show", UNIT, "--property=MainPID")
    except BatonError:
        return None
    return service if said.strip() == f"MainPID={process}" else None
