"""Causes that lie in this machine and its state folder: disk, memory, limits, heat, port. Pure."""

from node.health.clock import gone_back_words, wrong_clock_words
from node.health.facts import Facts, ResourceFacts
from node.health.finding import NOT_RUNNING, Cause, Judged, bad, ok, unknown, warn
from wire.plural import plural

# With less the look itself, of 4 KiB, finds no room.
FULL_BYTES = 64 << 10
FREE_BYTES_BAD = 64 << 20
FREE_BYTES_WARN = 1 << 30
FREE_FILES_SHARE = 0.01
SLOW_SYNC_S = 0.5
OPEN_FILES_MIN = 4096
TASKS_MIN = 256
PRESSURE_SHARE = 0.20
HOT_CELSIUS = 90.0
_OTHERS = 0o077
# What helps where programs wait for a resource.
_REMEDIES = {
    "cpu": "if it is Baton that takes it: join --cpu 50%, or --pause-when-busy",
    "memory": "if it is Baton that takes it: join --memory N, or a smaller model",
    "io": "if it is Baton that takes it: move the state folder to another disk, --state DIR",
}


def _locked(facts: Facts) -> Judged:
    state = facts.state
    if facts.peer is not None:
        return ok("one peer uses the state folder, and it answers")
    if state.locked_by is None:
        return unknown("the folder's lock cannot be looked at")
    if not state.locked_by:
        return ok("no other process uses the state folder")
    return bad(
        f"process {state.locked_by} uses {state.path}, and does not answer",
        f"stop it (kill {state.locked_by}), or give this peer another folder with --state",
    )


def _same_key(facts: Facts) -> Judged:
    if facts.peer is None:
        return unknown(NOT_RUNNING)
    if facts.peer["same_key_elsewhere"]:
        return bad(
            "another machine runs with this peer's key: the state folder was copied",
            f"stop one of the two, and have it begin anew: mv {facts.state.path}"
            f" {facts.state.path}.old",
        )
    return ok("no other peer with this key was met")


def _clock(facts: Facts) -> Judged:
    wrong_s = None if facts.peer is None else facts.peer["clock_wrong_s"]
    by_network = facts.resources.clock_synchronized
    # By hand where no service sets it.
    by_hand = "date -s 'YYYY-MM-DD hh:mm'"
    remedy = by_hand if by_network is None else "timedatectl set-ntp true"
    if wrong_s is not None:
        way = "behind" if wrong_s > 0 else "ahead of"
        return bad(f"this machine's clock is {abs(wrong_s):.0f} s {way} most others'", remedy)
    if facts.wall_s is not None:
        newest_s = facts.state.newest_wall_s
        words = wrong_clock_words(facts.wall_s)
        words = words or ("" if newest_s is None else gone_back_words(facts.wall_s, newest_s))
        if words:
            alone = "" if by_network is None else f"; where no time server answers: {by_hand}"
            return bad(words, remedy + alone)
    if by_network is False:
        return warn("nothing sets this machine's clock", remedy)
    if facts.peer is None and by_network is None:
        return unknown(NOT_RUNNING)
    return ok("the clock agrees with others', as far as they were met")


def _disk(facts: Facts) -> Judged:
    state = facts.state
    free = state.free_bytes
    if free is None:
        return unknown("the disk of the state folder cannot be looked at")
    remedy = f"df -h {state.path}; make room, or: python -m node models rm NAME"
    if state.writable is False and free < FULL_BYTES:
        return bad(f"the disk of {state.path} is full", remedy)
    if state.writable is False and state.free_files_share != 0.0:
        return bad(f"{state.path} cannot be written", f"check its disk: findmnt -T {state.path}")
    if free < FREE_BYTES_BAD:
        return bad(f"{free >> 20} MiB are free on the disk of {state.path}", remedy)
    if state.free_files_share is not None and state.free_files_share < FREE_FILES_SHARE:
        return bad(f"the disk of {state.path} has no room for more files", f"df -i {state.path}")
    if free < FREE_BYTES_WARN:
        return warn(f"{free >> 20} MiB are free on the disk of {state.path}", remedy)
    if state.sync_s is not None and state.sync_s > SLOW_SYNC_S:
        return warn(
            f"the disk took {state.sync_s:.1f} s to keep 4 KiB",
            "move the state folder to another disk: --state DIR",
        )
    return ok(f"{free >> 30} GiB are free")


def _folder_modes(facts: Facts) -> Judged:
    state = facts.state
    if not state.there:
        return ok("there is no state folder yet")
    if state.is_own is None or state.mode is None:
        return unknown("the state folder cannot be looked at")
    if not state.is_own:
        return bad(f"{state.path} is another user's", f'sudo chown -R "$USER" {state.path}')
    if state.mode & _OTHERS:
        return bad(f"others may open {state.path}", f"chmod 700 {state.path}")
    if state.key_mode is not None and state.key_mode & _OTHERS:
        return bad(f"others may read {state.path}/key", f"chmod 600 {state.path}/key")
    return ok("the state folder is this user's alone")


def _folder_version(facts: Facts) -> Judged:
    version = facts.state.version
    if not facts.state.there:
        return ok("there is no state folder yet")
    if version is None:
        return unknown("the folder's version cannot be read")
    if version == facts.state.version_here:
        return ok(version)
    return bad(
        f"the folder is of version {version!r}, this Baton reads {facts.state.version_here!r}",
        facts.state.way_out,
    )


def _folder_damaged(facts: Facts) -> Judged:
    damage = facts.state.damage
    if facts.peer is not None or not facts.state.there:
        return ok("a peer runs on the state folder" if facts.peer else "there is no folder yet")
    if damage is None:
        return unknown("what is in the state folder cannot be looked at")
    if damage:
        path = facts.state.path
        return bad(
            damage,
            f"put it back from a copy of the folder; to begin anew without: mv {path} {path}.old",
        )
    return ok("nothing that a peer left in the folder is gone or damaged")


def _memory(facts: Facts) -> Judged:
    machine = facts.resources
    if machine.available_bytes is None:
        return unknown("this system does not tell how much memory is free")
    room = _room_bytes(machine)
    if machine.killed_for_memory:
        return bad(
            f"{plural(machine.killed_for_memory, 'process')} of this group were killed for memory",
            "run a smaller model, or join with --memory N",
        )
    if room < 256 << 20:
        return bad(f"{room >> 20} MiB of memory are left", "run a smaller model, or --memory N")
    if room < 1 << 30:
        return warn(f"{room >> 20} MiB of memory are left", "run a smaller model, or --memory N")
    return ok(f"{room / 2**30:.1f} GiB of memory are left")


def _room_bytes(machine: ResourceFacts) -> int:
    assert machine.available_bytes is not None
    if machine.limit_bytes is None:
        return machine.available_bytes
    return min(machine.available_bytes, machine.limit_bytes)


def _limits(facts: Facts) -> Judged:
    machine = facts.resources
    if machine.open_files_max is None:
        return unknown("the limits of processes cannot be read")
    if machine.open_files_max < OPEN_FILES_MIN:
        return warn(
            f"a process may open {plural(machine.open_files_max, 'file')} and connections",
            f"ulimit -n 65536 (in a unit: LimitNOFILE=65536); {OPEN_FILES_MIN} are enough",
        )
    if machine.tasks_max is not None and machine.tasks_max < TASKS_MIN:
        return warn(
            f"at most {plural(machine.tasks_max, 'process')} and threads may run here",
            "in a unit: TasksMax=4096; in a container: --pids-limit 4096",
        )
    return ok(f"{plural(machine.open_files_max, 'file')} and connections may be open")


def _compiler(facts: Facts) -> Judged:
    engine = facts.tools
    if engine.compiler is None:
        return unknown("the compiler was not looked for")
    if engine.compiler_problem:
        advice = "sudo apt-get install clang (or brew install llvm)"
        return bad(engine.compiler_problem, advice)
    return ok(engine.compiler)


def _gpu(facts: Facts) -> Judged:
    engine = facts.tools
    if not engine.gpu_nodes:
        return ok("no GPU has a device node here: models run on the processor")
    if engine.missing_libraries:
        return warn(
            f"{engine.gpu_nodes[0]} is there, its driver's {engine.missing_libraries[0]} is not",
            "install the driver's libraries; in a unit: DeviceAllow, in a container: --gpus all",
        )
    return ok(f"{', '.join(engine.gpu_nodes)} and the driver's libraries are there")


def _heat(facts: Facts) -> Judged:
    machine = facts.resources
    if machine.hottest_celsius is None and machine.on_battery is None:
        return unknown("this machine has no sensors that can be read")
    if machine.throttled:
        return warn("the processor was slowed down for heat", "clean its fans; join --max-temp 85C")
    limit = machine.critical_celsius or HOT_CELSIUS
    if machine.hottest_celsius is not None and machine.hottest_celsius > limit - 5.0:
        return warn(
            f"the hottest sensor has {machine.hottest_celsius:.0f} °C",
            "join --max-temp 85C, or --cpu 50%",
        )
    if machine.on_battery:
        return warn(
            "this machine runs on its battery", "connect it to power, or join --on-battery pause"
        )
    return ok("cool, and on power")


def _metered(facts: Facts) -> Judged:
    untold = (facts.peer or {}).get("guest", {}).get("cannot_tell", [])
    if untold:
        return warn(
            f"a rule of join cannot be kept to: {'; '.join(untold)}", "join without this option"
        )
    if facts.resources.metered is None:
        return unknown("no NetworkManager says whether the network is paid by the byte")
    if facts.resources.metered:
        return warn(
            "this machine pays for its network by the byte",
            "join --metered pause, or --per-month 50GB",
        )
    return ok("the network is not paid by the byte")


def _starved(facts: Facts) -> Judged:
    pressure = facts.resources.pressure
    if not pressure:
        return unknown("this system does not tell what its programs wait for")
    name, share = max(pressure.items(), key=lambda it: it[1])
    if share > PRESSURE_SHARE:
        return warn(
            f"for {share:.0%} of the last minute programs waited for {name}",
            _REMEDIES[name],
        )
    return ok(f"programs waited for {name} for {share:.0%} of the last minute, no longer")


def _port_taken(facts: Facts) -> Judged:
    port = facts.port
    if port.taken is None:
        return unknown(f"port {port.number} could not be tried")
    if facts.peer is not None:
        return ok(f"the peer listens on port {port.number}")
    if not port.taken:
        return ok(f"port {port.number} is free")
    held_by = f"process {port.holder} ({port.command})" if port.holder else "another program"
    stop = f", or stop that one: kill {port.holder}" if port.holder else ""
    found, todo = warn, "join takes another port, which invites and forwards do not name"
    if port.named:
        found, todo = bad, "join with --port 0, any that is free"
    return found(f"{held_by} has port {port.number}", todo + stop)


CAUSES: tuple[Cause, ...] = (
    Cause("folder-in-use", "a second peer uses the state folder", _locked),
    Cause("same-key", "one key on two machines", _same_key),
    Cause("clock", "the clock is wrong", _clock),
    Cause("disk", "the disk is full, slow, or cannot be written", _disk),
    Cause("folder-modes", "others may open the state folder", _folder_modes),
    Cause("folder-version", "the state folder is of another version", _folder_version),
    Cause("folder-damaged", "the key or the store is gone or damaged", _folder_damaged),
    Cause("memory", "too little memory", _memory),
    Cause("limits", "too few files or processes are allowed", _limits),
    Cause("compiler", "models cannot be compiled", _compiler),
    Cause("gpu", "a GPU cannot be used", _gpu),
    Cause("heat", "hot, slowed down, or on battery", _heat),
    Cause("metered", "the network is paid by the byte", _metered),
    Cause("starved", "other programs leave too little", _starved),
    Cause("port-taken", "another program has the port", _port_taken),
)
