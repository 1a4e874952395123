"""What an upgrade does next, from its journal and from what is seen. Pure.

The journal holds a step, written before anything of that step is done. All else is seen anew each
time, so a process that was killed at any moment is followed by one that goes on from what is there.
"""

from dataclasses import dataclass
from enum import StrEnum


class UpgradeStep(StrEnum):
    """How far an upgrade has come, as its journal says."""

    # The new version is put beside the old one, which runs meanwhile.
    INSTALLING = "installing"
    # The old peer finishes what it holds.
    STOPPING = "stopping"
    # The new peer is started and looked at; it may bring the state folder forward.
    STARTING = "starting"
    # The new peer is ended and the old one started, on its own folder.
    RETURNING = "returning"


class Running(StrEnum):
    """Which version's peer has the state folder."""

    NONE = "none"
    OLD = "old"
    NEW = "new"
    # One has the folder that has not said its version, as a peer in its first moment.
    UNKNOWN = "unknown"


class Action(StrEnum):
    """What is done next. `TO_…` writes that step into the journal."""

    INSTALL = "install"
    TO_STOPPING = "to stopping"
    STOP = "stop"
    TO_STARTING = "to starting"
    START_NEW = "start new"
    TO_RETURNING = "to returning"
    RESTORE = "restore"
    START_OLD = "start old"
    WAIT = "wait"
    # The upgrade is over: with the new version, with the old one, or with words for a person.
    FINISH = "finish"
    RETURNED = "returned"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPeer:
    """What is seen at one moment.

    `started`, `ended` and `overdue` are about the peer that this process started in this step:
    whether it did, whether that peer ended by itself, and whether it has had its time to be healthy
    (without a start, counted from the first look). `begun` is about one that a killed upgrade, or
    an earlier step, has started: it has not ended, and has not taken the folder.
    """

    installed: bool
    running: Running
    healthy: bool = False
    started: bool = False
    ended: bool = False
    overdue: bool = False
    begun: bool = False
    # The state folder is of a version that the old Baton does not read, or is being brought there.
    folder_ahead: bool = False


def next_action(step: UpgradeStep, seen: SeenPeer) -> Action:
    """What is done next; every end but GIVE_UP leaves one healthy peer running."""
    match step:
        case UpgradeStep.INSTALLING:
            return Action.TO_STOPPING if seen.installed else Action.INSTALL
        case UpgradeStep.STOPPING:
            return _stopping(seen)
        case UpgradeStep.STARTING:
            return _starting(seen)
        case UpgradeStep.RETURNING:
            return _returning(seen)


def _stopping(seen: SeenPeer) -> Action:
    if seen.running is Running.OLD:
        return Action.STOP
    if seen.running is Running.UNKNOWN:
        return Action.GIVE_UP if seen.overdue else Action.WAIT
    return Action.TO_STARTING


def _starting(seen: SeenPeer) -> Action:
    if seen.running is Running.OLD:
        # Somebody else started it after this upgrade was cut.
        return Action.STOP
    if seen.running is Running.NEW and seen.healthy:
        return Action.FINISH
    # One that ended may have met another, which somebody started.
    if seen.overdue or (seen.ended and seen.running is Running.NONE):
        return Action.TO_RETURNING
    if seen.running is Running.NONE and not seen.started and not seen.begun:
        return Action.START_NEW
    return Action.WAIT


def _returning(seen: SeenPeer) -> Action:
    if seen.running is Running.OLD and seen.healthy:
        return Action.RETURNED
    # What is about to take the folder is ended first: the folder is not put back under it.
    if seen.running is Running.NEW or (seen.begun and not seen.started):
        return Action.STOP
    if seen.overdue or (seen.ended and seen.running is Running.NONE):
        return Action.GIVE_UP
    if seen.running is not Running.NONE or seen.started:
        return Action.WAIT
    return Action.RESTORE if seen.folder_ahead else Action.START_OLD
