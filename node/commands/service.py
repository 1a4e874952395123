"""`service`: the peer as a service of systemd, which starts it with the machine and keeps it up."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from node.commands.join_typed import CREDENTIAL, INVITE_PREFIX
from node.commands.members import NO_INVITE
from node.commands.models import meant
from node.commands.output import console, safe, show_json
from node.commands.to_type import hint
from store.files import appearing
from wire.errors import BatonError, InputError
from wire.ownership import PREFIX as OWNER_PREFIX

UNIT = "baton.service"
WATCHDOG_S = 120
SYSTEM_STATE = Path("/var/lib/baton")
_DEADLINE_S = 30.0
# More than the unit lets a peer take for the work in hand, and then to start.
_RESTART_S = 180.0
# It is there while systemd runs the machine, as `sd_booted` has it.
_BOOTED = Path("/run/systemd/system")
# Folders of / of which a service of the machine sees nothing, or has its own.
_NOT_SEEN = ("home", "root", "tmp")
_PATH_OPTIONS = ("--model", "--files", "--genesis", "--state", "--invite-file", "--srs", "--owner")
# Devices of GPUs; without an option that names one, the service sees none.
_GPU_OPTIONS = ("--gpu", "--device")
_GPU_DEVICES = ("char-nvidia-frontend", "char-nvidia", "char-nvidia-uvm", "char-drm", "char-kfd")
# The engine compiles while it runs, so memory may be written and then run; it reads all of /proc,
# and makes its workers nicer than itself, so these two are left as they are.
_HARDENED = (
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "ProtectSystem=strict",
    "PrivateTmp=yes",
    "PrivateUsers=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "RemoveIPC=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged",
    "SystemCallErrorNumber=EPERM",
    "UMask=0077",
)


@dataclass(frozen=True, slots=True)
class Service:
    """The service of the machine, or of this user alone."""

    for_user: bool

    @property
    def file(self) -> Path:
        """Where its unit lies."""
        if self.for_user:
            return Path("~/.config/systemd/user").expanduser() / UNIT
        return Path("/etc/systemd/system") / UNIT

    async def systemctl(self, *words: str, deadline_s: float = _DEADLINE_S) -> str:
        """What systemctl says; BatonError if it fails."""
        user = ("--user",) if self.for_user else ()
        return await _said("systemctl", *user, *words, deadline_s=deadline_s)

    async def journal(self, lines: int) -> str:
        """The last lines that it wrote; BatonError if they cannot be had."""
        user = ("--user",) if self.for_user else ()
        words = ("-u", UNIT, "-n", str(lines), "--no-pager", "-o", "cat")
        return await _said("journalctl", *user, *words)

    def write(self, text: str) -> None:
        """Write its unit, whole or not at all; PermissionError where this user may not."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(self.file.parent, os.W_OK):
            raise PermissionError
        with appearing(self.file) as file:
            file.write(text.encode())
        self.file.chmod(0o644)

    def unit(self, arguments: Sequence[str], prefix: Path) -> str:
        """The unit's text; `arguments` are those of `join`, `prefix` where Python is installed."""
        invites: list[str] = []
        if not self.for_user:
            # Its own user may not read the file: systemd, which may, hands it over.
            arguments, invites = _without(arguments, "--invite-file")
        python = prefix / "bin" / "python"
        state = () if self.for_user else ("--state", str(SYSTEM_STATE))
        words = (str(python), "-m", "node", "join", *state, *arguments)
        lines = [
            "[Unit]",
            "Description=Baton peer",
            "Wants=network-online.target",
            "After=network-online.target",
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            "Type=notify",
            "NotifyAccess=main",
            f"WatchdogSec={WATCHDOG_S}",
            f"ExecStart={' '.join(map(_escaped, words))}",
            "Restart=always",
            "RestartSec=5",
            "TimeoutStartSec=900",
            "TimeoutStopSec=60",
            "KillMode=mixed",
            "LimitNOFILE=65536",
            "TasksMax=4096",
            *([] if self.for_user else self._confined(arguments, prefix)),
            *(_credential(it) for it in invites[-1:]),
            *([f"SetCredential={CREDENTIAL}:{NO_INVITE}"] if invites else []),
            "",
            "[Install]",
            f"WantedBy={'default' if self.for_user else 'multi-user'}.target",
        ]
        return "\n".join(lines) + "\n"

    def _confined(self, arguments: Sequence[str], prefix: Path) -> list[str]:
        """What keeps a service of the machine from everything that it does not need."""
        gpu = any(it.partition("=")[0] in _GPU_OPTIONS for it in arguments)
        at_home = prefix.is_relative_to("/home")
        return [
            "DynamicUser=yes",
            "StateDirectory=baton",
            "StateDirectoryMode=0700",
            "CacheDirectory=baton",
            "WorkingDirectory=%S/baton",
            "Environment=XDG_CACHE_HOME=%C",
            f"ProtectHome={'read-only' if at_home else 'yes'}",
            *(
                ("DevicePolicy=closed", *(f"DeviceAllow={it} rw" for it in _GPU_DEVICES))
                if gpu
                else ("PrivateDevices=yes",)
            ),
            *_HARDENED,
        ]


def with_python(unit: str, old: Path, new: Path) -> str | None:
    """A unit's text that starts the Python of another prefix; None if it starts neither of them."""
    for prefix in (old, new):
        before = f"\nExecStart={_escaped(str(prefix / 'bin' / 'python'))} "
        if before in unit:
            return unit.replace(before, f"\nExecStart={_escaped(str(new / 'bin' / 'python'))} ", 1)
    return None


async def install(service: Service, arguments: Sequence[str], *, shown_only: bool) -> None:
    """Write the unit and start it; InputError says what stands in the way."""
    prefix = Path(sys.prefix)
    arguments = placed(arguments)
    _check_words(service, arguments)
    unit = service.unit(arguments, prefix)
    if shown_only:
        console.print(unit, end="", markup=False)
        return
    _check_place(service, prefix, arguments)
    # Where systemd does not answer, no unit is left behind that it would start some day.
    await service.systemctl("show", "--property=Version")
    try:
        await trio.to_thread.run_sync(service.write, unit)
    except PermissionError as error:
        raise InputError(
            f"{service.file} may not be written by this user",
            todo="run it with sudo, or install it for this user alone: --user",
        ) from error
    await service.systemctl("daemon-reload")
    await service.systemctl("enable", UNIT)
    # One that runs finishes the work in hand, and begins again with the options given now.
    await service.systemctl("restart", UNIT, deadline_s=_RESTART_S)
    user = "--user " if service.for_user else ""
    console.print(f"[green]installed[/green] {safe(service.file)}: it runs, and starts again by")
    console.print(hint(f"itself. See it with: python -m node service status {user}".rstrip()))
    if service.for_user:
        console.print("It ends when you log out, unless you run: loginctl enable-linger")
    else:
        console.print(
            f"Its state folder is {SYSTEM_STATE}: other commands about it need root and --state"
            f" {SYSTEM_STATE}"
        )


def placed(arguments: Sequence[str]) -> tuple[str, ...]:
    """The options of `join` with whole paths: a service starts in another folder."""
    words = []
    option = ""
    for word in arguments:
        name, equals, value = word.partition("=")
        if option in _PATH_OPTIONS:
            words.append(_whole(option, word))
        elif equals and name in _PATH_OPTIONS:
            words.append(f"{name}={_whole(name, value)}")
        else:
            words.append(word)
        option = "" if option in _PATH_OPTIONS else word
    return tuple(words)


def _whole(option: str, value: str) -> str:
    if option == "--model":
        return meant(value)
    path = Path(value).expanduser().absolute()
    # An owner is a line, or a file with one.
    return value if option == "--owner" and value.startswith(OWNER_PREFIX) else str(path)


def _without(arguments: Sequence[str], option: str) -> tuple[tuple[str, ...], list[str]]:
    """The arguments that are left without an option, and its values."""
    words, values, is_value = [], [], False
    for word in arguments:
        if is_value or word.startswith(f"{option}="):
            values.append(word if is_value else word.partition("=")[2])
            is_value = False
        elif not (is_value := word == option):
            words.append(word)
    return tuple(words), values


def _credential(file: str) -> str:
    """Has systemd hand a file over, whoever may read it; without it there is what stands in."""
    return f"LoadCredential={CREDENTIAL}:{file.replace('%', '%%')}"


def _check_words(service: Service, arguments: Sequence[str]) -> None:
    """InputError for what a unit is no place for."""
    if strange := [it for it in (*arguments, sys.prefix) if not it.isprintable()]:
        raise InputError(
            f"{strange[0][:60]!r} has characters that end a line, or that nobody sees",
            todo="give it another name: a unit is lines of plain text",
        )
    if any(it != it.strip() or it.endswith("\\") for it in _without(arguments, "--invite-file")[1]):
        raise InputError(
            "systemd does not read the name of a file that ends with a space or a backslash",
            todo="call the file of --invite-file otherwise",
        )
    if any(it.lower().startswith(INVITE_PREFIX) for it in arguments):
        raise InputError(
            "everybody on this machine could read an invite in a service's unit",
            todo="put it into a file, and give --invite-file FILE",
        )
    if not service.for_user and _without(arguments, "--state")[1]:
        raise InputError(
            f"a service of the machine keeps its state folder in {SYSTEM_STATE}",
            todo="leave --state out, or install for this user alone: --user",
        )


def _check_place(service: Service, prefix: Path, arguments: Sequence[str]) -> None:
    if service.for_user:
        return
    if prefix.is_relative_to("/root"):
        raise InputError(
            f"Baton is installed in {prefix}, which a service's own user may not read",
            todo="install it elsewhere, as /opt/baton, or as a service of root: --user",
        )
    for word in _without(arguments, "--invite-file")[0]:
        path = Path(word.partition("=")[2] if word.startswith("--") else word)
        at_home = path.is_relative_to("/home") and prefix.is_relative_to("/home")
        if path.is_absolute() and path.parts[1:2] and path.parts[1] in _NOT_SEEN and not at_home:
            raise InputError(
                f"a service of the machine cannot see {path}",
                todo="put it elsewhere, as into /srv, or install for this user alone: --user",
            )


async def show(service: Service, *, as_json: bool) -> int:
    """Say how the service is; returns 0 only if it runs."""
    names = ("LoadState", "ActiveState", "SubState", "UnitFileState", "NRestarts", "Result")
    asked = (*names, "StatusText", "ActiveEnterTimestamp", "MemoryCurrent")
    said = await service.systemctl("show", UNIT, *(f"--property={it}" for it in asked))
    told = dict(it.partition("=")[::2] for it in said.splitlines())
    runs = told.get("ActiveState") == "active"
    if as_json:
        show_json({"runs": runs, "unit": str(service.file), "systemd": told})
        return 0 if runs else 1
    if told.get("LoadState") != "loaded":
        raise InputError(
            "the service is not installed", todo="install it: python -m node service install"
        )
    state = f"{told.get('ActiveState')} ({told.get('SubState')})"
    since = told.get("ActiveEnterTimestamp") or "never"
    console.print(f"[bold]{UNIT}[/bold] is {safe(state)} since {safe(since)}")
    console.print(
        f"  starts with the machine: {safe(told.get('UnitFileState', 'unknown'))};"
        f" restarted {safe(told.get('NRestarts', '?'))} times; ended last by"
        f" {safe(told.get('Result', '?'))}"
    )
    if text := told.get("StatusText"):
        console.print(f"  {safe(text)}")
    return 0 if runs else 1


async def logs(service: Service, lines: int) -> None:
    """Show the last lines that the service wrote."""
    console.print(safe(await service.journal(lines)), end="")


async def remove(service: Service) -> None:
    """Stop the service and delete its unit; the state folder stays."""
    if not service.file.exists():
        raise InputError(f"there is no {service.file}", todo="nothing has to be removed")
    await service.systemctl("disable", "--now", UNIT)
    service.file.unlink()
    await service.systemctl("daemon-reload")
    console.print(f"removed {safe(service.file)}; the peer's state folder stays")


def _escaped(word: str) -> str:
    """A word of ExecStart, in which systemd replaces % and $, and reads quotes."""
    plain = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    return '"' + plain.replace('"', '\\"') + '"' if shlex.quote(word) != word else plain


async def _said(program: str, *words: str, deadline_s: float = _DEADLINE_S) -> str:
    found = shutil.which(program)
    if found is None:
        raise InputError(
            f"this machine has no {program}: services are kept by systemd",
            todo="have what supervises programs here run: python -m node join",
        )
    if not _BOOTED.exists():
        raise InputError(
            "systemd does not run this machine, so it can keep no service",
            todo="have what supervises programs here run: python -m node join",
        )
    try:
        with trio.fail_after(deadline_s):
            done = await trio.run_process(
                [found, *words],
                stdin=subprocess.DEVNULL,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
    except trio.TooSlowError as error:
        raise BatonError(f"{program} did not answer within {deadline_s:.0f} s") from error
    if done.returncode:
        told = done.stderr.decode(errors="replace")
        why = " ".join(told.split()) or f"it ended with {done.returncode}"
        todo = "run it with sudo, or for this user alone: --user" if os.getuid() else ""
        if "--user" in words:
            todo = "log in as that user, or have systemd keep it: loginctl enable-linger USER"
        raise BatonError(f"{program} {' '.join(words[:2])}: {why}", todo=todo)
    return done.stdout.decode(errors="replace")
