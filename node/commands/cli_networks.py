"""`demo`, `devnet`, `load`: whole networks on this machine, and load against any network."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from node.commands.cli_peer import ADDRESS
from node.commands.command import Assembly, Command, heading, run
from node.commands.options import (
    deadline_option,
    json_option,
    network_option,
    state_option,
    verdicts_option,
)
from node.gateway_config import verdicts_of
from wire.errors import InputError

QUESTION = "how do I catch several exceptions at once?"
TASK_DEADLINE_HELP = "After how many seconds a task is late."
RATE_HELP = "How many tasks are sent, as 10/s or 90/min."


@click.command(
    "demo",
    cls=Command,
    examples=("demo", 'demo --ask "how do I open a file?" --files ~/notes'),
)
@click.option("--ask", "question", default=QUESTION, show_default=True, help="The question.")
@click.option(
    "--files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder or a file of your own text, to be searched as well. May be given several times.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("~/.baton/demo"),
    show_default=True,
    help="Where the peers keep their state. What an earlier demo left there is deleted.",
)
@json_option
@click.pass_obj
def demo_command(
    assembly: Assembly,
    /,
    *,
    question: str,
    files: tuple[Path, ...],
    folder: Path,
    as_json: bool,
) -> None:
    """Run a whole small network on this machine.

    Seven processes bring in real text, embed it with a real model, check each other, and answer a
    question; one of them is killed on the way. Who works is paid in credits of the demo's own.
    """
    from node.commands.demo import demo

    for path in files:
        if not path.exists():
            raise InputError(f"{path} does not exist", todo="check what --files names")
    shared = tuple(path.absolute() for path in files)
    place = folder.expanduser().absolute()
    run(lambda: demo(place, question, shared, assembly.entropy, as_json=as_json))


def _fault_rows() -> dict[str, list[tuple[str, str]]]:
    """The kinds of faults, by what they strike."""
    from node.devnet.faults import KINDS, STRUCK

    found: dict[str, list[tuple[str, str]]] = {}
    for name, kind in KINDS.items():
        struck = "a network with --economy" if kind.economic else STRUCK[kind.scope]
        found.setdefault(f"Faults of {struck}", []).append((name, kind.what))
    return found


@click.command(
    "devnet",
    cls=Command,
    examples=(
        "devnet --peers 40 --load 6/s --faults kill=0.3,loss=0.05 --html report.html",
        "devnet --peers 40 --nat 0.8 --faults relay_kill=0.3",
        "devnet --peers 24 --economy --epochs 4 --faults member=0.3,nonpayer=0.2,thief=0.1",
    ),
    details=_fault_rows,
)
@heading("The run")
@click.option("--peers", default=50, show_default=True, help="How many peers there are.")
@click.option(
    "--seed",
    default=7,
    show_default=True,
    help="A number from which peers, links, load and faults are drawn.",
)
@click.option(
    "--seconds", default=60.0, show_default=True, help="For how many seconds tasks are sent."
)
@click.option("--load", default="10/s", show_default=True, help=RATE_HELP)
@click.option(
    "--faults",
    default="",
    help="NAME=SHARE[@SECOND][+SECONDS],… where SHARE is between 0 and 1, as kill=0.3,loss=0.05.",
)
@deadline_option(60, TASK_DEADLINE_HELP)
@heading("What it is made of")
@click.option(
    "--store",
    default="memory",
    show_default=True,
    type=click.Choice(["memory", "lmdb"]),
    help="Where peers keep their data; lmdb is on disk.",
)
@click.option(
    "--transport",
    default="memory",
    show_default=True,
    type=click.Choice(["memory", "tcp"]),
    help="How peers are connected; tcp takes real sockets.",
)
@click.option(
    "--nat",
    default="",
    help="The share of peers behind routers, a third of them symmetric, as 0.8; or one of each"
    " kind, as cone=0.3,symmetric=0.2,carrier=0.1,home=0.1.",
)
@heading("Credits")
@click.option("--economy", is_flag=True, help="Pay with credits: a ledger, prices, channels.")
@click.option(
    "--epochs", type=int, help="How many epochs a network with credits runs; 10 unless given."
)
@click.option(
    "--epoch", type=int, help="How many seconds an epoch lasts; 10 unless given.", metavar="SECONDS"
)
@heading("Its report")
@click.option("--html", type=click.Path(path_type=Path), help="Write the report as a web page.")
@click.option(
    "--replay",
    type=click.Path(path_type=Path),
    help="Repeat the run of this report, which --json printed, with all its settings.",
)
@json_option
@click.pass_obj
def devnet_command(
    assembly: Assembly,
    /,
    *,
    html: Path | None,
    replay: Path | None,
    as_json: bool,
    **typed: Any,
) -> int:
    """Run a network in this process, under load and faults.

    The peers are real; only network, engine and clock are simulated. Exits 0 only if no accepted
    task was lost, late or answered wrong, and no invariant was broken.
    """
    import trio

    from node.commands.devnet import (
        ReportOutput,
        config_typed,
        devnet,
        economy_typed,
        replayed,
    )
    from node.devnet.virtual_time import virtual_time

    if replay is not None and (given := _given(typed)):
        raise InputError(
            f"--replay takes all settings from the report, so {', '.join(given)} cannot be given",
            todo="give --replay FILE with --json or --html alone",
        )
    if replay is not None:
        config = replayed(replay)
    else:
        pays, lengths = typed.pop("economy"), (typed.pop("epochs"), typed.pop("epoch"))
        typed["economy"] = economy_typed(pays, *lengths, _given(("seconds",)))
        config = config_typed(typed)
    if not config.in_real_time:
        assembly.fix_hashes()
    made = assembly.runtime()
    tcp = made.transport if config.over_tcp else None
    output = ReportOutput(as_json=as_json, html=html)
    if config.in_real_time:
        return trio.run(devnet, config, made.machine, tcp, output)
    # Work of the processor takes no time of the network's.
    with virtual_time() as clock:
        return trio.run(devnet, config, made.machine, tcp, output, clock=clock)


def _given(typed: Iterable[str]) -> list[str]:
    """Which of these options were typed, and are not there by default."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return [f"--{it}" for it in typed if context.get_parameter_source(it) is not default]


@click.command(
    "load",
    cls=Command,
    examples=(
        "load --model hash --rate 10/s --seconds 30",
        f"load {ADDRESS} --rate 90/min --clients 16",
    ),
)
@click.argument("bootstrap", nargs=-1)
@click.option("--rate", default="10/s", show_default=True, help=RATE_HELP)
@click.option(
    "--clients",
    default=8,
    show_default=True,
    type=click.IntRange(1, 256),
    help="How many tasks may wait for their answers at once.",
)
@click.option(
    "--model", default="hash", show_default=True, help="The model that every task embeds a text by."
)
@click.option(
    "--seconds",
    default=30.0,
    show_default=True,
    type=click.FloatRange(1, 86_400),
    help="For how many seconds tasks are sent.",
)
@deadline_option(60, TASK_DEADLINE_HELP)
@verdicts_option
@network_option
@state_option
@json_option
@click.pass_obj
def load_command(
    assembly: Assembly,
    /,
    *,
    bootstrap: tuple[str, ...],
    verdicts: str,
    state: Path,
    as_json: bool,
    **typed: Any,
) -> int:
    """Send tasks at a fixed rate (open loop), and show latencies.

    Without BOOTSTRAP the running peer of --state sends them. With the address of a peer in a
    network, a peer that is started for this joins there and sends them.
    """
    from node.commands.load import LoadConfig, check, load
    from node.devnet.open_loop import rate_of

    needed, verifiers = verdicts_of(verdicts)
    config = LoadConfig(
        state=state.expanduser(),
        bootstraps=bootstrap,
        network=typed["network"],
        model=typed["model"],
        rate=rate_of(typed["rate"]),
        seconds=typed["seconds"],
        clients=typed["clients"],
        deadline_s=typed["deadline"],
        needed=needed,
        verifiers=verifiers,
    )
    check(config)
    code: int = run(lambda: load(config, assembly.runtime(), as_json=as_json))
    return code
