"""A gateway and an inference peer under every attack we know, while honest clients ask.

All peers are real processes: the gateway, two inference peers and a verifier. Each group of attacks
(`tests.bench._attacks`) has a process; the honest clients run in this one. First there is a time
without attacks, then the siege, then a time to recover. Both victims write their output into pipes
whose readers go away.

`python -m tests.bench siege [--minutes M] [--rate TASKS_PER_S] [--only WORD]`. A bench of this kind
may find that the product fails: `held` says so, and the exit status. With `--each SECONDS` every
attack has its turn alone, each after a time of peace, and what it costs is shown side by side.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from node.local.control import call, unheard
from tests.bench import _attacks
from tests.bench._attacks import ATTACKS, Target
from tests.bench.soak import free_port
from tests.live.command_line import ROOT, environment
from wire.errors import BatonError

START_S = 120.0
ANSWER_S = 60.0
PEACE_SHARE = 0.2
LOOK_EVERY_S = 2.0
ATTACKERS_START_S = 2.0
P99_TIMES_MAX = 2.0
# How much memory and how many descriptors a process may keep after the siege.
GROWN_BYTES_MAX = 64 << 20
GROWN_DESCRIPTORS_MAX = 32
SLOPE_BYTES_PER_MIN_MAX = 8 << 20
CALLING = Path("tests/engines/models/sklearn_linear.onnx")


@dataclass(slots=True)
class Victim:
    """A peer that is attacked. The reader of its output goes away once the peer is up."""

    name: str
    state: Path
    port: int
    arguments: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None
    seen: list[tuple[float, int, int]] = field(default_factory=list)
    died_at_s: float = 0.0

    @property
    def address(self) -> str:
        return f"/ip4/127.0.0.1/tcp/{self.port}"

    @property
    def socket(self) -> Path:
        return self.state / "control.sock"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        command = [sys.executable, "-m", "node", "join", "--state", str(self.state)]
        command += ["--listen", self.address, "--with-parent", str(os.getpid()), *self.arguments]
        with self.state.with_suffix(".log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment({}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    async def up(self) -> dict[str, Any]:
        """The peer's status, once it answers; then nobody reads its output any more."""
        with trio.fail_after(START_S):
            while True:
                try:
                    status = await call(self.socket, "status", {}, unheard, deadline_s=10.0)
                except BatonError:
                    if not self.alive:
                        raise
                    await trio.sleep(0.2)
                else:
                    break
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def look(self, now_at_s: float) -> None:
        """Note memory and descriptors; if the process has ended, note when that was seen."""
        if not self.alive:
            self.died_at_s = self.died_at_s or now_at_s
            return
        folder = Path("/proc") / str(self.pid)
        try:
            pages = int((folder / "statm").read_text().split()[1])
            descriptors = len(list((folder / "fd").iterdir()))
        except (OSError, IndexError):
            return
        self.seen.append((now_at_s, pages * os.sysconf("SC_PAGE_SIZE"), descriptors))

    def processor_s(self) -> float:
        """The processor time that the process has used, without its workers."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass(slots=True)
class Honest:
    """Clients that send tasks at a fixed rate (open loop); one connection for each task."""

    host: str
    port: int
    rate: float
    phase: str = "peace"
    took_s: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, Counter[str]] = field(default_factory=dict)
    number: int = 0

    async def ask_forever(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._one, self.phase, self.number)
                self.number += 1
                await trio.sleep(1 / self.rate)

    async def _one(self, phase: str, number: int) -> None:
        began_at_s = trio.current_time()
        why = "no answer in time"
        with trio.move_on_after(ANSWER_S):
            try:
                status = await ask_once(self.host, self.port, f"honest {phase} {number}")
            except (OSError, trio.BrokenResourceError, ValueError) as error:
                why = type(error).__name__
            else:
                if status == 200:
                    self.took_s.setdefault(phase, []).append(trio.current_time() - began_at_s)
                    return
                why = f"HTTP {status}"
        self.failed.setdefault(phase, Counter())[why] += 1

    def figures(self, phase: str) -> dict[str, Any]:
        took_s = sorted(self.took_s.get(phase, []))
        failed = self.failed.get(phase, Counter())
        asked = len(took_s) + failed.total()
        cuts = statistics.quantiles(took_s, n=100) if len(took_s) > 1 else [0.0] * 99
        return {
            "asked": asked,
            "answered": len(took_s),
            "answered_percent": round(100 * len(took_s) / max(1, asked), 2),
            "p50_ms": round(cuts[49] * 1000, 1),
            "p99_ms": round(cuts[98] * 1000, 1),
            "failed": dict(failed),
        }


async def ask_once(host: str, port: int, prompt: str) -> int:
    """The status of one answer that is read to its end."""
    body = json.dumps({"model": "hash", "prompt": prompt, "max_tokens": 4}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    heard = bytearray()
    async with await trio.open_tcp_stream(host, port) as stream:
        await stream.send_all(head.encode() + body)
        while part := await stream.receive_some(65_536):
            heard += part
    if not heard.startswith(b"HTTP/1.1 "):
        raise ValueError("no HTTP")
    return int(heard[9:12])


def run(arguments: list[str]) -> dict[str, Any]:
    """Minutes without and with attacks; `held` says whether every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench siege")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=2.0, help="honest tasks a second")
    parser.add_argument("--only", default="", help="a group, or a word of an attack's name")
    parser.add_argument("--each", type=float, default=0.0, help="seconds of each attack, alone")
    parser.add_argument("--json", action="store_true", help="it always is")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="baton-siege-") as folder:
        return trio.run(_each if options.each else _siege, options, Path(folder))


async def _each(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Each attack alone, after half as long in peace: p99, and what the victims' processors do."""
    gateway, peer, others, target = await _network(folder)
    honest = Honest(target.host, target.http_port, options.rate)
    victims = (gateway, peer)
    chosen = [it for it in ATTACKS if _attacks.chosen(options.only, it)]
    alone: dict[str, Any] = {}
    try:
        await _settled(honest)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(honest.ask_forever)
            for attack in chosen:
                name = f"before {attack.name}"
                peace = await _phase(honest, victims, name, options.each / 2)
                groups = [(attack.group, attack.name)]
                async with _attackers(groups, target, folder) as strikes:
                    # The attackers' own start is not measured.
                    await trio.sleep(ATTACKERS_START_S)
                    under = await _phase(honest, victims, attack.name, options.each)
                    counts = strikes()
                alone[attack.name] = {
                    "peace": peace | honest.figures(name),
                    "attack": under | honest.figures(attack.name),
                    "strikes": counts,
                }
            nursery.cancel_scope.cancel()
    finally:
        for victim in (*victims, *others):
            victim.end()
    answered = all(it["attack"]["answered_percent"] == 100.0 for it in alone.values())
    return {"alone": alone, "held": answered}


async def _phase(
    honest: Honest, victims: tuple[Victim, ...], phase: str, length_s: float
) -> dict[str, Any]:
    """Let so much time pass; each process's processor time in it, in percent of one core.

    Beside the victims it shows the whole machine, of which 100 is one core: where that is all it
    has, what was measured is its load.
    """
    honest.phase = phase
    before_s, all_s = {it.name: it.processor_s() for it in victims}, machine_s()
    began_at_s = trio.current_time()
    await trio.sleep(length_s)
    took_s = trio.current_time() - began_at_s
    used_s = {it.name: it.processor_s() - before_s[it.name] for it in victims if it.alive}
    used_s["machine"] = machine_s() - all_s
    return {f"{name}_cpu_percent": round(100 * it / took_s, 1) for name, it in used_s.items()}


def machine_s() -> float:
    """The processor time that everything on this machine has used."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    busy = sum(map(int, fields[1:4])) + sum(map(int, fields[6:9]))
    return busy / os.sysconf("SC_CLK_TCK")


async def _siege(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    groups = _attacks.groups(options.only)
    gateway, peer, others, target = await _network(folder)
    honest = Honest(target.host, target.http_port, options.rate)
    whole_s = options.minutes * 60
    try:
        await _settled(honest)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(honest.ask_forever)
            victims = (gateway, peer)
            nursery.start_soon(_look_forever, victims)
            used = {"peace": await _phase(honest, victims, "peace", whole_s * PEACE_SHARE)}
            honest.phase = "start"
            async with _attackers(groups, target, folder) as strikes:
                # Three programs that start take a small machine for themselves.
                await trio.sleep(ATTACKERS_START_S)
                siege_s = whole_s * (1 - PEACE_SHARE)
                used["siege"] = await _phase(honest, victims, "siege", siege_s)
                counts = strikes()
            used["after"] = await _phase(honest, victims, "after", max(10.0, whole_s * 0.05))
            nursery.cancel_scope.cancel()
        return _document(options, victims, honest, counts) | {"used": used}
    finally:
        for victim in (gateway, peer, *others):
            victim.end()


async def _network(folder: Path) -> tuple[Victim, Victim, list[Victim], Target]:
    """The gateway and the peer that are attacked, and two helpers; all up and connected."""
    http_port = free_port()
    gateway = Victim(
        "gateway",
        folder / "g",
        free_port(),
        ("--role", "gateway", "--role", "store", "--http", f"127.0.0.1:{http_port}"),
    )
    gateway.start()
    told = await gateway.up()
    bootstrap = f"{gateway.address}/p2p/{told['peer']}"
    infer = ("--role", "infer", "--role", "store", "--model", "hash")
    peer = Victim("peer", folder / "p", free_port(), (bootstrap, *infer, "--model", str(CALLING)))
    others = [
        Victim("second", folder / "q", free_port(), (bootstrap, *infer)),
        Victim("verify", folder / "v", free_port(), (bootstrap, "--role", "verify", *infer[4:])),
    ]
    for victim in (peer, *others):
        victim.start()
    statuses = [await victim.up() for victim in (peer, *others)]
    target = Target(
        host="127.0.0.1",
        http_port=http_port,
        gateway_address=bootstrap,
        peer_address=f"{peer.address}/p2p/{statuses[0]['peer']}",
        gateway_pid=gateway.pid,
        peer_pid=peer.pid,
        peer_state=str(peer.state),
        crash_model=await _add_crashing(folder, peer),
    )
    return gateway, peer, others, target


async def _add_crashing(folder: Path, peer: Victim) -> str:
    """Give the peer a model that divides whole numbers; its name, empty if it was refused."""
    try:
        from tests.engines.onnx_models import INT64, kept_at, made, value
    except ImportError:
        return ""
    from onnx import helper

    sides = [value("a", INT64, 2), value("b", INT64, 2)]
    graph = made([helper.make_node("Div", ["a", "b"], ["c"])], sides, [value("c", INT64, 2)])
    path = kept_at(folder, graph, "divides")
    try:
        await call(peer.socket, "models-add", {"what": str(path)}, unheard, deadline_s=START_S)
    except BatonError:
        return ""
    return "divides"


async def _settled(honest: Honest) -> None:
    """Wait until the gateway answers."""
    with trio.fail_after(START_S):
        turn = 0
        while True:
            turn += 1
            try:
                if await ask_once(honest.host, honest.port, f"first {turn}") == 200:
                    return
            except (OSError, trio.BrokenResourceError, ValueError):
                pass
            await trio.sleep(0.3)


async def _look_forever(victims: tuple[Victim, ...]) -> None:
    while True:
        for victim in victims:
            victim.look(trio.current_time())
        await trio.sleep(LOOK_EVERY_S)


@asynccontextmanager
async def _attackers(
    groups: list[tuple[str, str]], target: Target, folder: Path
) -> AsyncIterator[Any]:
    """Run each group of attacks in a process until the block ends; yields the counter."""
    told = {group: folder / f"{group}.strikes" for group, _ in groups}
    running = [
        _started(
            _attacks.command(group, only, target, told[group]), folder / f"{group}.attackers.log"
        )
        for group, only in groups
    ]

    def counts() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for group, path in told.items():
            found |= json.loads(path.read_text()) if path.exists() else {group: "never struck"}
        ended = {group: it.poll() for (group, _), it in zip(groups, running, strict=True)}
        for group, code in ended.items():
            if code is not None:
                log = (folder / f"{group}.attackers.log").read_text(errors="replace")
                found[f"{group} attackers ended"] = log.strip().splitlines()[-1:]
        return found

    try:
        yield counts
    finally:
        for process in running:
            process.kill()
            process.wait()


def _started(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as errors:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment({}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )


def _document(
    options: argparse.Namespace,
    victims: tuple[Victim, ...],
    honest: Honest,
    counts: Mapping[str, Any],
) -> dict[str, Any]:
    peace, start, siege, after = map(honest.figures, ("peace", "start", "siege", "after"))
    times = siege["p99_ms"] / max(1.0, peace["p99_ms"])
    kept = {it.name: _kept(it.seen) for it in victims}
    promises = {
        "alive": all(it.alive for it in victims),
        "honest tasks answered": siege["answered"] == siege["asked"] > 0
        and start["answered"] == start["asked"],
        "answered afterwards": after["answered"] == after["asked"] > 0,
        "p99": times <= P99_TIMES_MAX,
        "memory": all(
            it["slope_bytes_per_min"] <= SLOPE_BYTES_PER_MIN_MAX
            or it["grown_bytes"] <= GROWN_BYTES_MAX
            for it in kept.values()
        ),
        "descriptors": all(
            it["grown_descriptors"] <= GROWN_DESCRIPTORS_MAX for it in kept.values()
        ),
    }
    return {
        "minutes": options.minutes,
        "rate": options.rate,
        "only": options.only,
        "attacks": sum(_attacks.chosen(options.only, it) for it in ATTACKS),
        "peace": peace,
        "start": start,
        "siege": siege,
        "after": after,
        "p99_times_peace": round(times, 2),
        "processes": {
            it.name: {
                "alive": it.alive,
                "died_after_s": round(it.died_at_s - it.seen[0][0], 1) if it.died_at_s else None,
                "exit": None if it.process is None else it.process.poll(),
                "last_words": _last_words(it),
                **kept[it.name],
            }
            for it in victims
        },
        "strikes": dict(sorted(counts.items())),
        "promises": promises,
        "held": all(promises.values()),
    }


def _last_words(victim: Victim) -> str:
    lines = victim.state.with_suffix(".log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _kept(seen: list[tuple[float, int, int]]) -> dict[str, Any]:
    """A process's memory and descriptors over time, and how fast they grow."""
    if len(seen) < 2:
        return {"grown_bytes": 0, "grown_descriptors": 0, "slope_bytes_per_min": 0}
    second_half = seen[len(seen) // 2 :]
    return {
        "rss_bytes": [it[1] for it in seen[:: max(1, len(seen) // 20)]],
        "descriptors": [it[2] for it in seen[:: max(1, len(seen) // 20)]],
        "grown_bytes": seen[-1][1] - seen[0][1],
        "grown_descriptors": seen[-1][2] - seen[0][2],
        "slope_bytes_per_min": round(60 * slope([(it[0], it[1]) for it in second_half])),
        "slope_descriptors_per_min": round(60 * slope([(it[0], it[2]) for it in second_half]), 2),
    }


def slope(points: list[tuple[float, int]]) -> float:
    """The slope of the straight line through points of (seconds, value), in value a second."""
    if len(points) < 2:
        return 0.0
    return statistics.linear_regression(*zip(*points, strict=True)).slope
