"""`upgrade`: does what `node.upgrading.steps` decides, until there is nothing more to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import trio

from node.commands.output import console, safe, show_json
from node.commands.service import Service
from node.commands.upgrade_peer import AsProcess, AsService, Keeper, status_of
from node.commands.upgrade_plan import UpgradeAsked, begun, planned
from node.upgrading.installing import Installer, environment, installed
from node.upgrading.journal import (
    UpgradeJournal,
    end_journal,
    keep_journal,
    read_journal,
    upgrading_alone,
    versions_folder,
)
from node.upgrading.started import read_started
from node.upgrading.steps import Action, Running, SeenPeer, UpgradeStep, next_action
from store.folder import folder_version, locked_by
from store.migrating import put_back
from wire.errors import BatonError, InputError

# How long a peer may take to be healthy, and for how long it then has to be so.
HEALTHY_WITHIN_S = 60.0
SETTLED_S = 3.0
LOOK_S = 0.5
# Why an upgrade went back that its owner ended.
BACK = "it was asked to go back"


async def upgrade(
    asked: UpgradeAsked, python: str, variables: Mapping[str, str], *, as_json: bool
) -> None:
    """Upgrade, or go on with an upgrade that was cut; BatonError if the old version runs again.

    `python` is the Python that the environment of the new version is made of, `variables` what
    was set for this process.
    """
    versions = versions_folder(asked.state)
    plan = await _plan(asked, versions, python)
    with upgrading_alone(versions) as lock:
        # Another may have begun or ended one meanwhile.
        journal = read_journal(versions)
        if journal is None:
            if plan is None:
                raise _no_upgrade()
            journal = await trio.to_thread.run_sync(begun, plan, versions, asked.release_key)
        elif plan is not None:
            raise _cut(journal)
        elif asked.back and journal.step is not UpgradeStep.RETURNING:
            journal = replace(journal, step=UpgradeStep.RETURNING, why=BACK)
            keep_journal(versions, journal)
        installer = Installer(
            python, Path(journal.old.prefix), lock, environment(variables), journal.index
        )
        await Upgrade(asked.state, versions, journal, installer, quiet=as_json).run()
    if as_json:
        went_back = asked.back or journal.why == BACK
        versions_told = {"from": journal.old.version, "to": journal.version}
        show_json({"upgraded": not went_back, **versions_told})


async def _plan(asked: UpgradeAsked, versions: Path, python: str) -> UpgradeJournal | None:
    """What is to be begun; None to go on with what was cut. InputError if neither can be.

    Nothing is made before it is known that there is something to do.
    """
    cut = read_journal(versions)
    if cut is not None:
        if asked.release is not None:
            raise _cut(cut)
        return None
    if asked.release is None:
        raise _no_upgrade()
    return await planned(asked, versions, python)


def _cut(journal: UpgradeJournal) -> InputError:
    return InputError(
        f"an upgrade to {journal.version} was cut while {journal.step.value}",
        todo="go on with it: python -m node upgrade; or end it, with --back instead",
    )


def _no_upgrade() -> InputError:
    return InputError(
        "no upgrade was cut, and no release is named",
        todo="python -m node upgrade FILE.whl, or the folder of a release",
    )


@dataclass(slots=True)
class Upgrade:
    """One upgrade under way."""

    state: Path
    versions: Path
    journal: UpgradeJournal
    installer: Installer
    quiet: bool = False
    healthy_within_s: float = HEALTHY_WITHIN_S
    keeper: Keeper = field(init=False)
    # Of this step: whether a peer was started, since when it is waited for, and was healthy.
    _started: bool = False
    _since_at_s: float = 0.0
    _healthy_at_s: float | None = None
    # Why the peer is not healthy, in words.
    _unwell: str = "it has not begun"

    def __post_init__(self) -> None:
        old = self.journal.old
        self.keeper = (
            AsService(
                Service(self.journal.for_user),
                self.state,
                self.journal.unit,
                Path(old.prefix),
                self.prefix,
            )
            if self.journal.unit
            else AsProcess(self.state, old, self.versions / "peer.log")
        )

    @property
    def prefix(self) -> Path:
        """Where the new version lies."""
        return self.versions / self.journal.version

    async def run(self) -> None:
        """Do one thing after the other until a peer runs; BatonError if it is not the new one."""
        self._since_at_s = trio.current_time()
        while True:
            action = next_action(self.journal.step, await self._look())
            if action is Action.WAIT:
                await trio.sleep(LOOK_S)
            elif await self._do(action):
                return

    async def _do(self, action: Action) -> bool:
        """Do one thing; returns whether it was the last."""
        old = self.journal.old
        match action:
            case Action.INSTALL:
                await self._install()
            case Action.TO_STOPPING:
                self._enter(UpgradeStep.STOPPING)
            case Action.TO_STARTING:
                self._enter(UpgradeStep.STARTING)
            case Action.TO_RETURNING:
                why = await self.keeper.last_error() or self._unwell
                self._say(f"{self.journal.version} is not healthy: {why}")
                self._enter(UpgradeStep.RETURNING, why)
            case Action.STOP:
                self._say("the running peer finishes what it holds, and ends …")
                await self.keeper.stop(by_force=self.journal.step is UpgradeStep.RETURNING)
                self._begin_to_wait()
            case Action.START_NEW:
                await self._start(self.prefix, self.journal.version)
            case Action.RESTORE:
                await trio.to_thread.run_sync(put_back, self.state, self.journal.folder_version)
            case Action.START_OLD:
                await self._start(Path(old.prefix), old.version)
            case Action.FINISH:
                end_journal(self.versions)
                self._say(f"upgraded from {old.version} to {self.journal.version}; its commands:")
                self._say(f"  {self.prefix / 'bin' / 'baton'}")
                return True
            case Action.RETURNED:
                end_journal(self.versions)
                if self.journal.why == BACK:
                    self._say(f"{old.version} runs, and the upgrade is over")
                    return True
                raise BatonError(
                    f"{self.journal.version} did not get healthy ({self.journal.why}), so"
                    f" {old.version} runs again",
                    todo="see what is wrong: python -m node doctor",
                )
            case _:
                why = await self.keeper.last_error() or self._unwell
                raise BatonError(
                    f"no peer could be brought up: {why}",
                    todo=f"see {self.versions / 'peer.log'}; then: python -m node upgrade --back",
                )
        return False

    async def _install(self) -> None:
        journal = self.journal
        self._say(f"installing {journal.version} in {self.prefix} …")
        source = Path(journal.source) if journal.source else None
        try:
            found = await self.installer.install(
                Path(journal.wheel), journal.version, self.prefix, source
            )
            if found.folder_version < journal.folder_version:
                raise InputError(
                    f"version {journal.version} reads state folders of version"
                    f" {found.folder_version}, and {self.state} is of {journal.folder_version}",
                    todo="an older release can only be joined with a folder that was kept for it",
                )
        except BatonError:
            # The old peer runs as if nothing had been asked.
            end_journal(self.versions)
            raise

    async def _start(self, prefix: Path, version: str) -> None:
        self._say(f"starting {version} …")
        self._started, self._since_at_s = True, trio.current_time()
        await self.keeper.start(prefix)

    def _enter(self, step: UpgradeStep, why: str = "") -> None:
        self.journal = replace(self.journal, step=step, why=why or self.journal.why)
        keep_journal(self.versions, self.journal)
        self._begin_to_wait()

    def _begin_to_wait(self) -> None:
        """What this process had started before is of no account any more."""
        self._started, self._since_at_s = False, trio.current_time()
        self._healthy_at_s = None

    async def _look(self) -> SeenPeer:
        running = await trio.to_thread.run_sync(self._running)
        watched = self.journal.step in (UpgradeStep.STARTING, UpgradeStep.RETURNING)
        healthy = watched and running in (Running.NEW, Running.OLD) and await self._is_healthy()
        found = await trio.to_thread.run_sync(partial(folder_version, self.state))
        wanted = (self.journal.folder_version, False)
        begun = running is Running.NONE and not self._started and await self.keeper.begun()
        late = trio.current_time() - self._since_at_s >= self.healthy_within_s
        return SeenPeer(
            installed=installed(self.prefix) is not None,
            running=running,
            healthy=healthy,
            started=self._started,
            ended=self._started and bool(self.keeper.ended()),
            # One that is healthy is given the moment that it takes to be sure of it.
            overdue=late and self._healthy_at_s is None,
            begun=begun,
            folder_ahead=bool(self.journal.folder_version) and found != wanted,
        )

    def _running(self) -> Running:
        process = locked_by(self.state)
        if not process:
            return Running.NONE
        try:
            found = read_started(self.state, trusted=False)
        except BatonError:
            found = None
        if found is None or found.process != process:
            return Running.UNKNOWN
        if found.version == self.journal.version:
            return Running.NEW
        return Running.OLD if found.version == self.journal.old.version else Running.UNKNOWN

    async def _is_healthy(self) -> bool:
        """Whether the peer has been well for a moment, as the old one was."""
        status = await status_of(self.state)
        self._unwell = self._trouble(status)
        if self._unwell:
            self._healthy_at_s = None
            return False
        now_at_s = trio.current_time()
        self._healthy_at_s = now_at_s if self._healthy_at_s is None else self._healthy_at_s
        return now_at_s - self._healthy_at_s >= SETTLED_S

    def _trouble(self, status: dict[str, object] | None) -> str:
        if status is None:
            return "it does not answer"
        if status["peer"] != self.journal.peer:
            return "it has another key"
        if self.journal.step is UpgradeStep.RETURNING:
            # It is what there was before: whatever ails it now, nothing is left to go back to.
            return ""
        if self.journal.connected and not status["connected"]:
            return "it reaches no other peer, and the old one did"
        models = status["models"]
        assert isinstance(models, list)
        for model in models:
            if model["problem"] and model["name"] in self.journal.models:
                return f"model {model['name']} does not run: {model['problem']}"
        return ""

    def _say(self, line: str) -> None:
        if not self.quiet:
            console.print(safe(line))
