"""An upgrade that is cut anywhere, any number of times, ends with one peer on a folder of its own.

The world is small enough to be gone through whole: what is installed, who runs, which version the
folder has, what the journal says. Before each action, and after each, the process may be killed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from node.upgrading.steps import Action, Running, SeenPeer, UpgradeStep, next_action


@dataclass(frozen=True)
class World:
    """What outlives the process that upgrades; `old_folder` is the state folder's version."""

    step: UpgradeStep | None = UpgradeStep.INSTALLING
    installed: bool = False
    running: Running = Running.OLD
    # The folder is the old version's, is being brought forward, or is the new one's.
    folder: str = "old"
    # What was kept of the old folder.
    kept: bool = False
    # Which version's peer was started and has not taken the folder yet.
    coming: Running = Running.NONE


@dataclass(frozen=True)
class Releases:
    """How the new version behaves."""

    starts: bool
    healthy: bool
    migrates: bool


@dataclass(frozen=True)
class Process:
    """What the process that upgrades knows of this step; lost when it is killed."""

    started: bool = False
    ended: bool = False
    overdue: bool = False


def seen(world: World, process: Process, releases: Releases) -> SeenPeer:
    healthy = world.running is Running.OLD or (world.running is Running.NEW and releases.healthy)
    return SeenPeer(
        installed=world.installed,
        running=world.running,
        healthy=healthy,
        started=process.started,
        ended=process.ended,
        overdue=process.overdue,
        begun=world.running is Running.NONE and world.coming is not Running.NONE,
        folder_ahead=world.folder != "old",
    )


def arrived(world: World, process: Process, releases: Releases) -> Iterator[tuple[World, Process]]:
    """What comes of a peer that was started: each state that it may be in when all is cut."""
    which, world = world.coming, replace(world, coming=Running.NONE)
    ended = replace(process, ended=process.started)
    if which is Running.NONE:
        return
    if world.running is not Running.NONE:
        # It meets another one, and ends.
        yield world, ended
    elif which is Running.OLD:
        runs = world.folder == "old"
        # Else it refuses the folder.
        yield (replace(world, running=Running.OLD), process) if runs else (world, ended)
    else:
        if releases.migrates and world.folder != "new":
            copied = replace(world, kept=True)
            yield replace(copied, coming=which), process
            world = replace(copied, folder="between")
            yield world, ended
            world = replace(world, folder="new")
        runs = releases.starts
        yield (replace(world, running=Running.NEW), process) if runs else (world, ended)


def done(
    action: Action, world: World, process: Process, releases: Releases
) -> Iterator[tuple[World, Process]]:
    """All that may be after an action, the process being alive."""
    steps = {
        Action.TO_STOPPING: UpgradeStep.STOPPING,
        Action.TO_STARTING: UpgradeStep.STARTING,
        Action.TO_RETURNING: UpgradeStep.RETURNING,
    }
    match action:
        case Action.INSTALL:
            yield replace(world, installed=True), process
        case Action.STOP:
            yield replace(world, running=Running.NONE, coming=Running.NONE), Process()
        case Action.START_NEW | Action.START_OLD:
            assert world.coming is Running.NONE, "two are started, and either may have the folder"
            new = action is Action.START_NEW
            yield replace(world, coming=Running.NEW if new else Running.OLD), Process(started=True)
        case Action.RESTORE:
            assert world.coming is Running.NONE, "the folder is put back under who takes it"
            assert world.kept, "nothing was kept that could be put back"
            yield replace(world, folder="old", kept=False), process
        case Action.WAIT:
            yield from arrived(world, process, releases)
            # The old version, to which it goes back, comes up in time.
            if world.step is not UpgradeStep.RETURNING:
                yield world, replace(process, overdue=True)
        case Action.FINISH | Action.RETURNED:
            yield replace(world, step=None), process
        case _:
            yield replace(world, step=steps[action]), Process()


def others(world: World, releases: Releases) -> Iterator[World]:
    """What a person, or a service manager, may do while no upgrade runs: start either version."""
    if world.running is Running.NONE and world.folder == "old":
        yield replace(world, running=Running.OLD)
    if world.running is Running.NONE and world.installed and releases.starts:
        folder = "new" if releases.migrates else world.folder
        yield replace(
            world, running=Running.NEW, folder=folder, kept=world.kept or releases.migrates
        )


RELEASES = [
    Releases(starts=starts, healthy=healthy, migrates=migrates)
    for starts in (True, False)
    for healthy in (True, False)
    for migrates in (True, False)
]


@pytest.mark.parametrize("releases", RELEASES)
def test_from_every_cut_an_upgrade_ends_with_one_healthy_peer(releases: Releases) -> None:
    begin = (World(), Process())
    found, todo, ends = {begin}, [begin], set()
    after: dict[tuple[World, Process], set[tuple[World, Process]]] = {}
    while todo:
        world, process = here = todo.pop()
        if world.step is None:
            ends.add(world)
            continue
        action = next_action(world.step, seen(world, process, releases))
        assert action is not Action.GIVE_UP, here
        uncut = set(done(action, world, process, releases))
        after[here] = uncut
        cut = {(it, Process()) for it, _ in uncut} | {(world, Process())}
        cut |= {(it, Process()) for it in others(world, releases)}
        cut |= {(it, Process()) for it, _ in arrived(world, process, releases)}
        for each in (uncut | cut) - found:
            found.add(each)
            todo.append(each)
    assert len(found) > 10
    # Whatever was cut before: without another cut, each state comes to an end.
    reached = {it for it in found if it[0].step is None}
    while more := {it for it, nexts in after.items() if it not in reached and nexts & reached}:
        reached |= more
    assert reached == found
    well = releases.starts and releases.healthy
    for world in ends:
        assert world.running in (Running.OLD, Running.NEW)
        assert (world.running is Running.NEW) <= well
        if world.running is Running.OLD:
            assert world.folder == "old"
    if well:
        assert any(it.running is Running.NEW for it in ends)


def test_a_peer_that_is_not_known_is_waited_for_and_never_ended() -> None:
    for step in (UpgradeStep.STOPPING, UpgradeStep.STARTING, UpgradeStep.RETURNING):
        strange = SeenPeer(installed=True, running=Running.UNKNOWN)
        assert next_action(step, strange) is Action.WAIT
        late = replace(strange, overdue=True)
        assert next_action(step, late) in (Action.GIVE_UP, Action.TO_RETURNING)


def test_the_old_peer_runs_while_the_new_version_is_installed() -> None:
    action = next_action(UpgradeStep.INSTALLING, SeenPeer(installed=False, running=Running.OLD))
    assert action is Action.INSTALL


def test_where_even_the_old_version_does_not_come_up_a_person_is_told() -> None:
    ended = SeenPeer(installed=True, running=Running.NONE, started=True, ended=True)
    assert next_action(UpgradeStep.RETURNING, ended) is Action.GIVE_UP


def test_one_that_a_killed_upgrade_started_is_not_taken_for_one_that_failed() -> None:
    begun = SeenPeer(installed=True, running=Running.NONE, begun=True)
    assert next_action(UpgradeStep.STARTING, begun) is Action.WAIT
    for running in (Running.NEW, Running.UNKNOWN):
        seen = SeenPeer(installed=True, running=running, started=True, ended=True)
        assert next_action(UpgradeStep.STARTING, seen) is Action.WAIT
        late = replace(seen, overdue=True)
        assert next_action(UpgradeStep.STARTING, late) is Action.TO_RETURNING
