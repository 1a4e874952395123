"""`devnet`: a network in one process, on a screen that a person can follow, and its report."""

import json
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from trio import TaskStatus  # type: ignore[attr-defined]

from node.commands.output import console, show_aside, show_json, size
from node.devnet import homes
from node.devnet.config import DevnetConfig, config_of
from node.devnet.economy_plan import EPOCH_S_DEFAULT, EPOCHS_DEFAULT, EconomyConfig
from node.devnet.faults import parse
from node.devnet.machine import Machine
from node.devnet.net import Devnet, open_devnet
from node.devnet.open_loop import rate_of
from node.devnet.page import page_of
from node.devnet.report import DevnetReport, report_of
from p2p.transport import Transport
from wire.errors import InputError
from wire.plural import plural

# Drawn so often by real time, however fast the network's own time passes.
REDRAW_S = 0.25
# Where there is no screen.
TELL_S = 10.0
# As a shell tells it: 128 and the number of SIGTERM.
EXIT_TERMINATED = 143
SPARKS = "▁▂▃▄▅▆▇█"
SPARKS_SHOWN = 60
LOG_LINES = 6
REPLAY_BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOutput:
    """Where the report goes."""

    as_json: bool = False
    html: Path | None = None


async def devnet(
    config: DevnetConfig, machine: Machine, tcp: Transport | None, output: ReportOutput
) -> int:
    """Run the network and show it; returns the exit code."""
    if output.html is not None and not output.html.absolute().parent.is_dir():
        raise InputError(f"there is no folder for {output.html}", todo="check --html")
    if output.html is not None and output.html.is_dir():
        raise InputError(f"{output.html} is a folder", todo="name a file with --html")
    screen = _Screen(config, machine)
    with tempfile.TemporaryDirectory(prefix="baton-devnet-") as folder:
        run = partial(_run, config, machine, tcp, Path(folder), screen)
        if output.as_json or not console.is_terminal:
            report = await run(screen.tell)
        else:
            with Live(screen.picture(), console=console, auto_refresh=False) as drawn:
                report = await run(lambda: drawn.update(screen.picture(), refresh=True))
                drawn.update(screen.picture(), refresh=True)
    if report is None:
        return EXIT_TERMINATED
    if output.html is not None:
        output.html.write_text(page_of(report.document), encoding="utf-8")
    if output.as_json:
        show_json(report.document)
    else:
        console.print("\n".join(report.lines()), markup=False)
        verdict = "[green]held[/green]" if report.passed else "[red]did not hold[/red]"
        console.print(f"\n[bold]The network {verdict}[/bold]")
        for missed in report.missed:
            console.print(f"  {missed}", markup=False)
    return 0 if report.passed else 1


async def _run(
    config: DevnetConfig,
    machine: Machine,
    tcp: Transport | None,
    folder: Path,
    screen: "_Screen",
    show: Callable[[], None],
) -> DevnetReport | None:
    """The report; none if it was told to end before."""
    report = None
    async with trio.open_nursery() as nursery:
        await nursery.start(_end_on_signal, nursery.cancel_scope)
        nursery.start_soon(screen.show_forever, show)
        async with open_devnet(config, machine, folder=folder, tcp=tcp, watch=screen.watch) as net:
            await net.run()
            report = report_of(net)
        # What closing it showed belongs to the report too.
        report = report.closed(net)
        nursery.cancel_scope.cancel()
    return report


async def _end_on_signal(
    whole: trio.CancelScope, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """End on SIGTERM as a run that ends by itself does, and delete its folder."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            whole.cancel()


def config_typed(typed: Mapping[str, Any]) -> DevnetConfig:
    """What the options of the command say, by name; InputError if they make no sense."""
    economy: EconomyConfig | None = typed["economy"]
    return DevnetConfig(
        peers=typed["peers"],
        seed=typed["seed"],
        seconds=typed["seconds"] if economy is None else economy.seconds,
        rate=rate_of(typed["load"]),
        faults=parse(typed["faults"]),
        deadline_s=typed["deadline"],
        on_disk=typed["store"] == "lmdb",
        over_tcp=typed["transport"] == "tcp",
        nat=homes.parse(typed["nat"]),
        economy=economy,
    )


def economy_typed(
    pays: bool, epochs: int | None, epoch_s: int | None, given: Sequence[str]
) -> EconomyConfig | None:
    """A network with credits, if one is asked for; InputError for options that exclude another.

    `given`: options for how long it runs in another way.
    """
    if not pays:
        if epochs is not None or epoch_s is not None:
            raise InputError("a network without credits has no epochs", todo="add --economy")
        return None
    if given:
        raise InputError(
            f"{given[0]} and --economy both say how long the run is",
            todo="give --epochs and --epoch, the length of each in seconds",
        )
    return EconomyConfig(
        epochs=EPOCHS_DEFAULT if epochs is None else epochs,
        epoch_s=EPOCH_S_DEFAULT if epoch_s is None else epoch_s,
    )


def replayed(path: Path) -> DevnetConfig:
    """The run that a report describes; InputError where it is none, or it is another version's."""
    try:
        if path.stat().st_size > REPLAY_BYTES_MAX:
            raise InputError(f"{path} is not a report: it is too large")
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON", todo="give a file that --json printed") from error
    return config_of(document.get("run", document) if isinstance(document, dict) else document)


@dataclass(slots=True)
class _Screen:
    """What is shown while the network runs."""

    config: DevnetConfig
    machine: Machine
    net: Devnet | None = None
    began_at_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.began_at_s = self.machine.monotonic_s()

    def watch(self, net: Devnet) -> None:
        self.net = net

    async def show_forever(self, show: Callable[[], None]) -> None:
        last_s = self.began_at_s
        while True:
            await trio.sleep(1.0)
            now_at_s = self.machine.monotonic_s()
            if now_at_s - last_s >= (REDRAW_S if show != self.tell else TELL_S):
                last_s = now_at_s
                show()

    def tell(self) -> None:
        """One line on standard error, where there is no screen."""
        net = self.net
        if net is None or net.began_at_s is None:
            up = 0 if net is None else len(net.living())
            show_aside(f"starting: {up} of {plural(self.config.peers, 'peer')} are up")
        else:
            counts = net.load.counts
            show_aside(
                f"{net.passed_s:.0f} of {self.config.seconds:.0f} s:"
                f" {plural(len(net.living()), 'peer')} are up,"
                f" {counts.answered} of {plural(counts.accepted, 'task')} answered"
            )

    def picture(self) -> Group:
        config, net = self.config, self.net
        real_s = self.machine.monotonic_s() - self.began_at_s
        passed_s = 0.0 if net is None else net.passed_s
        head = Text.assemble(
            ("Baton devnet", "bold green"),
            f"  {plural(config.peers, 'peer')}, seed {config.seed}, {config.rate:g} tasks/s   ",
            (f"{passed_s:.0f} of {config.seconds:.0f} s", "bold"),
            f" of its own time in {real_s:.0f} s",
        )
        bar = _bar(config.seconds, passed_s)
        if net is None or net.began_at_s is None:
            up = 0 if net is None else len(net.living())
            starting = Text(f"starting: {up} of {plural(config.peers, 'peer')} are up", "yellow")
            return Group(head, _bar(config.peers, up), starting)
        log = Text("\n".join(list(net.log)[-LOG_LINES:]), overflow="ellipsis", no_wrap=True)
        return Group(
            head,
            bar,
            Panel(_figures(net), title="now", title_align="left"),
            Panel(_curves(net), title="over time", title_align="left"),
            Panel(log, title="what happens", title_align="left"),
        )


def _bar(total: float, done: float) -> Table:
    # In a table, for by itself a bar ends no line.
    row = Table.grid(expand=True)
    row.add_row(ProgressBar(total=total, completed=min(done, total), complete_style="green"))
    return row


def _figures(net: Devnet) -> Table:
    counts, sampler = net.load.counts, net.sampler
    last = sampler.samples[-1] if sampler.samples else None
    table = Table(box=None, expand=True, pad_edge=False, show_header=False)
    for _ in range(6):
        table.add_column(no_wrap=True)

    def cell(value: object, *, bad: bool = False) -> Text:
        return Text(str(value), "bold red" if bad else "bold")

    views = "-" if last is None else f"{last.views_complete_ratio:.0%}"
    gossip = "-" if last is None else f"{size(last.gossip_bytes_per_peer_s)}/s a peer"
    p50_s, p99_s = (net.load.latencies.percentile_s(it) for it in (50, 99))
    table.add_row(
        *("peers up", cell(len(net.living()))),
        *("views complete", cell(views)),
        *("gossip", cell(gossip)),
    )
    table.add_row(
        *("accepted", cell(counts.accepted)),
        *("answered", cell(counts.answered)),
        *("in flight", cell(counts.in_flight)),
    )
    table.add_row(
        *("retried", cell(counts.retries)),
        *("lost", cell(counts.failed, bad=counts.failed > 0)),
        *("late", cell(counts.late, bad=counts.late > 0)),
    )
    table.add_row(
        *("p50", cell("-" if p50_s is None else f"{p50_s:.2f} s")),
        *("p99", cell("-" if p99_s is None else f"{p99_s:.2f} s")),
        *("violated", cell(net.violations.count, bad=net.violations.count > 0)),
    )
    return table


def _curves(net: Devnet) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    samples = net.sampler.samples
    for name, values in (
        ("peers up", [float(it.living) for it in samples]),
        ("in flight", [float(it.in_flight) for it in samples]),
        ("p99", [it.p99_s or 0.0 for it in samples]),
        ("gossip", [it.gossip_bytes_per_peer_s for it in samples]),
    ):
        table.add_row(name, Text(spark(values), "cyan"), f"{max(values, default=0):.4g} at most")
    return table


def spark(values: list[float]) -> str:
    """The latest values as a row of blocks, from 0 to the largest of all."""
    step = max(1, -(-len(values) // SPARKS_SHOWN))
    shown = values[::step]
    most = max([*values, 1e-9])
    return "".join(SPARKS[min(7, int(it / most * 7.99))] for it in shown)
