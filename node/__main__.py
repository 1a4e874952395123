"""The command line's beginning and end: builds the seams, runs a command, says what went wrong.

Nothing below reaches for the clock, for randomness or for the environment; they are made here.
"""

import gc
import json
import logging
import os
import resource
import secrets
import sys
import time
import warnings
from pathlib import Path
from random import Random

from node.own_packages import clashing

if _CLASH := clashing(Path(__file__).parent):
    # Before anything of ours is imported, which might be another program's.
    sys.stderr.write(f"error: {_CLASH}\n")
    sys.exit(1)

from node.commands.failure import failure_of, leaves
from node.commands.run_log import run_log
from node.commands.standard_streams import streams


def main() -> None:
    """Run one command; exits 0 only on success, and says in one line why not."""
    streams.guard(os.environ)
    debug, as_json = ("--" + name in sys.argv[1:] for name in ("debug", "json"))
    if not debug:
        # Libraries warn of what is about to be said in one line; some clear every other handler.
        logging.lastResort = logging.NullHandler()
        warnings.simplefilter("ignore")
    try:
        code = _run()
        sys.stdout.flush()
    except BaseExceptionGroup as group:
        if debug:
            raise
        code = _say([*leaves(group)], as_json)
    except (Exception, KeyboardInterrupt) as error:
        # A bug too, or a program whose files are being replaced, ends in one line.
        if debug:
            raise
        code = _say([error], as_json)
    streams.finish()
    # A network in one process leaves millions of objects: whoever ends need not look through them.
    gc.freeze()
    sys.exit(code)


def _run() -> int:
    from node.commands.cli import cli
    from node.commands.command import Assembly

    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    assembly = Assembly(
        wall_s=time.time,
        entropy=os.urandom,
        runtime=_runtime,
        fix_hashes=_fix_hashes,
        python=sys.executable,
        variables=dict(os.environ),
        credentials=Path(credentials) if credentials else None,
    )
    arguments = [it for it in sys.argv[1:] if it != "--debug"]
    code = cli.main(arguments, prog_name="baton", standalone_mode=False, obj=assembly)
    return code if isinstance(code, int) else 0


def _fix_hashes() -> None:
    """Start Python again without chance in its hashes, unless it was started so.

    The order of a set of names follows from their hashes, so a simulation would not be the same
    again. Nothing was done yet that has to be undone.
    """
    typed = sys.argv[1:]
    # A process that was not started by these words, as a fork, cannot be started again by them.
    if sys.flags.hash_randomization and sys.orig_argv[-len(typed) :] == typed:
        words = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, words, {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606


def _runtime() -> object:
    """Made only by commands that are a peer themselves: the others start without these imports."""
    from node.commands.cli import VERSION
    from node.commands.join import Runtime
    from node.devnet.machine import Machine
    from node.engines.host.launch import DRIVER_VARIABLES, EngineConfig
    from node.local.service_manager import ServiceManager
    from node.upgrading.started import Started, without_invites
    from p2p.adverts import Environment
    from p2p.home_router import HomeRouter
    from p2p.lan_zeroconf import ZeroconfLan
    from p2p.over_libp2p import TcpTransport
    from p2p.peers import Surroundings
    from p2p.seed_dns import DnsSeeds
    from p2p.traffic import Traffic

    traffic = Traffic()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    # For choices that may be guessed; keys and secrets come from `entropy`.
    random = Random(secrets.randbits(64))  # noqa: S311
    return Runtime(
        environment=Environment(wall_s=time.time, random=random, entropy=os.urandom),
        transport=TcpTransport(wall_ns=time.time_ns, traffic=traffic),
        traffic=traffic,
        cache_folder=cache / "baton",
        # The compiler is found where a person's own shell would find it.
        engine_config=EngineConfig(
            search_path=os.environ.get("PATH", os.defpath),
            driver_environment={
                name: os.environ[name] for name in DRIVER_VARIABLES if name in os.environ
            },
        ),
        machine=Machine(
            monotonic_s=time.monotonic,
            cpu_s=time.process_time,
            used_bytes=_used_bytes,
            free_bytes=_free_bytes,
            collect_seldom=lambda: gc.set_threshold(1_000_000, 1000, 1000),
        ),
        service_manager=ServiceManager(os.environ.get("NOTIFY_SOCKET", ""), _watchdog_s()),
        around=Surroundings(lan=ZeroconfLan(), router=HomeRouter(os.urandom), seeds=DnsSeeds()),
        started=Started(
            version=VERSION,
            prefix=sys.prefix,
            packages=str(Path(__file__).resolve().parents[1]),
            arguments=without_invites(sys.argv[1:]),
            folder=os.getcwd(),  # noqa: PTH109
            process=os.getpid(),
        ),
    )


def _watchdog_s() -> float:
    """How long this process may be silent, as the service manager that started it says."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    told = os.environ.get("WATCHDOG_USEC", "")
    return int(told) / 1e6 if told.isdecimal() else 0.0


def _used_bytes() -> int:
    """The most memory this process ever had."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def _free_bytes() -> int:
    """What may still be taken without swapping; where nobody says, all there is."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return next(int(it.split()[1]) << 10 for it in lines if it.startswith("MemAvailable:"))


def _say(errors: list[BaseException], as_json: bool) -> int:
    """One line for the first error that says most, and with --json a document; the exit code."""
    failure = failure_of(errors)
    if failure.line and run_log.is_json and not failure.output_lost:
        run_log.write("error", failure.line, failure.document)
    elif failure.line:
        sys.stderr.write(f"error: {failure.line}\n")
    if failure.line and as_json and not failure.output_lost:
        sys.stdout.write(json.dumps(failure.document, indent=2) + "\n")
        sys.stdout.flush()
    return failure.exit_code


if __name__ == "__main__":
    main()
