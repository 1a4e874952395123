"""The command line: what can be typed, and what it means."""

import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import trio
from trio.testing import MockClock

from node.commands import ask as asking
from node.commands import content
from node.commands import demo as showing_demo
from node.commands import devnet as showing_devnet
from node.commands import load as loading_command
from node.commands import status as looking
from node.commands import verify as verifying
from node.commands.bench import bench
from node.commands.guest_options import guest_of, guest_options
from node.commands.join import Runtime, join
from node.commands.keys import keys
from node.commands.models import meant, models
from node.commands.options import (
    bytes_of,
    gateway_of,
    json_option,
    roles_of,
    state_option,
    text_of,
    verdicts_of,
)
from node.commands.running import run
from node.config import ROLES_DEFAULT, NodeConfig
from node.devnet.config import DevnetConfig
from node.devnet.faults import KINDS, parse
from node.devnet.open_loop import rate_of
from p2p.peers import PeersConfig
from wire import limits
from wire.errors import InputError
from wire.kinds import Role

PORT_DEFAULT = 4747
QUESTION = "how do I catch several exceptions at once?"
DEADLINE_S = click.IntRange(1, limits.DEADLINE_S_MAX)


@click.group(
    # Nothing typed is an error of one line like any other, not a page on standard error.
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
def cli(*, debug: bool) -> None:
    """Baton: a peer-to-peer network that runs AI models on machines nobody has to trust, and can
    show afterwards what was run."""
    del debug  # Read by `node.__main__`, which is where errors end.


cli.add_command(keys)
cli.add_command(bench)
cli.add_command(models)


@cli.command("join")
@click.argument("bootstrap", nargs=-1)
@click.option("--role", "roles", multiple=True, help="data, infer, verify, store, gateway.")
@click.option(
    "--model", "names", multiple=True, help="To serve: minilm, a name, a file, a folder, an id."
)
@click.option(
    "--files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder (or file) of text that this peer may bring in.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), help=f"TCP port; {PORT_DEFAULT} or any free."
)
@click.option("--listen", multiple=True, help="A multiaddr to listen on instead of --port.")
@click.option("--network", default="baton", show_default=True, help="Peers of other names refuse.")
@click.option("--quota", default="20GB", show_default=True, help="What the store may grow to.")
@click.option("--http", help="ADDRESS:PORT for OpenAI clients; of a gateway 127.0.0.1:8000.")
@click.option("--http-name", "http_names", multiple=True, help="A name that clients reach it by.")
@click.option("--http-origin", "http_origins", multiple=True, help="A site whose pages may use it.")
@click.option("--http-verdicts", default="0/0", show_default=True, help="For tasks over HTTP.")
@guest_options
@click.option("--with-parent", type=int, hidden=True, help="End when this parent process does.")
@state_option
@json_option
@click.pass_obj
def join_command(
    runtime: Callable[[], Runtime],
    /,
    *,
    bootstrap: tuple[str, ...],
    roles: tuple[str, ...],
    names: tuple[str, ...],
    files: tuple[Path, ...],
    port: int | None,
    listen: tuple[str, ...],
    network: str,
    quota: str,
    http: str | None,
    http_names: tuple[str, ...],
    http_origins: tuple[str, ...],
    http_verdicts: str,
    with_parent: int | None,
    state: Path,
    as_json: bool,
    **guest: Any,
) -> None:
    """Be a peer. Without BOOTSTRAP a new network starts, and the command that joins it is shown."""
    if port is None:
        port = 0 if bootstrap else _free_or_any(PORT_DEFAULT)
    chosen = roles_of(roles) or ROLES_DEFAULT
    gateway = None
    if http is not None or Role.GATEWAY in chosen:
        chosen |= {Role.GATEWAY}
        gateway = gateway_of(http, http_names, http_origins, http_verdicts)
    config = NodeConfig(
        state=state.expanduser(),
        peers=PeersConfig(
            network=network,
            bootstraps=bootstrap,
            listen=listen or (f"/ip4/0.0.0.0/tcp/{port}",),
        ),
        roles=chosen,
        models=tuple(map(meant, names)) if {Role.INFER, Role.VERIFY} & chosen else (),
        files=files,
        quota_bytes=bytes_of(quota),
        gateway=gateway,
        guest=guest_of(**guest),
    )
    run(lambda: join(config, runtime(), as_json=as_json, with_parent=with_parent))


def _free_or_any(port: int) -> int:
    """The usual port, unless something on this machine has it: then any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return 0
    return port


@cli.command("demo")
@click.option("--ask", "question", default=QUESTION, show_default=True, help="What to ask.")
@click.option(
    "--files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder (or file) of your own text to bring in besides.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("~/.baton/demo"),
    show_default=True,
    help="Where the peers keep their state; an earlier demo's is replaced.",
)
@json_option
def demo_command(*, question: str, files: tuple[Path, ...], folder: Path, as_json: bool) -> None:
    """A whole small network on this machine: real data, a real model, real checks."""
    for path in files:
        if not path.exists():
            raise InputError(f"{path} does not exist", todo="check what --files names")
    shared = tuple(path.absolute() for path in files)
    place = folder.expanduser().absolute()
    run(lambda: showing_demo.demo(place, question, shared, as_json=as_json))


@cli.command("ask")
@click.argument("model")
@click.option("--text", help="The text: embedded, or the question with --index.")
@click.option("--file", "file", type=click.Path(path_type=Path), help="A UTF-8 file as the text.")
@click.option("--index", help="Content id of an index: the text is a question to search it with.")
@click.option("--source", "sources", multiple=True, help="Outside data to embed (pydoc:try).")
@click.option("--count", default=5, show_default=True, type=click.IntRange(1, 32))
@click.option("--operation", help="What to ask of the model, where it does several things.")
@click.option("--tokens", type=click.IntRange(1, 4096), help="How many tokens to make.")
@click.option("--deadline", default=120, show_default=True, type=DEADLINE_S, help="Seconds.")
@click.option("--verdicts", default="2/3", show_default=True, help="Verdicts needed, of how many.")
@click.option("--fresh", is_flag=True, help="Do not take a kept answer to the same question.")
@state_option
@json_option
def ask_command(
    *,
    model: str,
    text: str | None,
    file: Path | None,
    index: str | None,
    sources: tuple[str, ...],
    count: int,
    operation: str | None,
    tokens: int | None,
    deadline: int,
    verdicts: str,
    fresh: bool,
    state: Path,
    as_json: bool,
) -> None:
    """Submit one task, watch it, and keep its receipt."""
    if sum(it is not None for it in (text, file)) + bool(sources) != 1:
        raise InputError(
            "one thing is asked at a time", todo="give one of --text, --file or --source"
        )
    needed, verifiers = verdicts_of(verdicts)
    arguments = {
        "model": model,
        "text": text_of(text, file),
        "index": index,
        "sources": list(sources),
        "count": count,
        "operation": operation,
        "parameters": {} if tokens is None else {"tokens": tokens},
        "deadline_s": deadline,
        "needed": needed,
        "verifiers": verifiers,
        "fresh": fresh,
    }
    run(lambda: asking.ask(state.expanduser(), arguments, as_json=as_json))


@cli.command("verify")
@click.argument("receipt", type=click.Path(path_type=Path))
@click.option(
    "--content",
    multiple=True,
    type=click.Path(path_type=Path),
    help="An input or output that you have: it is checked against the receipt.",
)
@json_option
def verify_command(*, receipt: Path, content: tuple[Path, ...], as_json: bool) -> None:
    """Check a receipt offline: what holds, what does not, what cannot be known."""
    verifying.verify(receipt, content, as_json=as_json)


@cli.command("put")
@click.argument("file", type=click.Path(path_type=Path))
@state_option
@json_option
def put_command(*, file: Path, state: Path, as_json: bool) -> None:
    """Keep a file under its content id."""
    if not file.is_file():
        raise InputError(f"{file} is not a file", todo="name one file that can be read")
    run(lambda: content.put(state.expanduser(), file, as_json=as_json))


@cli.command("get")
@click.argument("content_id")
@click.option("--output", type=click.Path(path_type=Path), help="A file; else standard output.")
@click.option("--deadline", default=600, show_default=True, type=DEADLINE_S, help="Seconds.")
@state_option
@json_option
def get_command(
    *, content_id: str, output: Path | None, deadline: int, state: Path, as_json: bool
) -> None:
    """Bring content here, from this peer's store or from others."""
    place = state.expanduser()
    run(lambda: content.get(place, content_id, output, deadline_s=deadline, as_json=as_json))


def _looking(name: str, help_text: str) -> None:
    @cli.command(name, help=help_text)
    @state_option
    @json_option
    def command(*, state: Path, as_json: bool) -> None:
        run(lambda: looking.look(state.expanduser(), name, as_json=as_json))


_looking("status", "How this peer is, by what the others say.")
_looking("peers", "The peers that this one knows.")
_looking("receipts", "The answers this peer has kept, latest first.")


@cli.command("devnet", epilog="Faults: " + "; ".join(f"{it}: {KINDS[it].what}" for it in KINDS))
@click.option("--peers", default=50, show_default=True, help="How many peers.")
@click.option("--seed", default=7, show_default=True, help="Draws peers, links, load and faults.")
@click.option("--seconds", default=60.0, show_default=True, help="How long tasks are asked.")
@click.option("--load", default="10/s", show_default=True, help="Tasks that are due, a second.")
@click.option("--faults", default="", help="NAME=SHARE[@SECOND][+SECONDS],… as kill=0.3,loss=0.05.")
@click.option("--deadline", default=60, show_default=True, type=DEADLINE_S, help="Of each task.")
@click.option("--store", default="memory", type=click.Choice(["memory", "lmdb"]))
@click.option("--transport", default="memory", type=click.Choice(["memory", "tcp"]))
@click.option("--html", type=click.Path(path_type=Path), help="Write the report as a page.")
@click.option("--replay", type=click.Path(path_type=Path), help="Have a report's run again.")
@json_option
@click.pass_obj
def devnet_command(
    runtime: Callable[[], Runtime],
    /,
    *,
    html: Path | None,
    replay: Path | None,
    as_json: bool,
    **typed: Any,
) -> int:
    """A network of real peers in this process, under load and faults, and whether it holds."""
    if replay is not None and (given := _given(typed)):
        raise InputError(
            f"--replay has a report's run again, and {', '.join(given)} would make it another",
            todo="give --replay FILE with --json or --html alone",
        )
    config = _devnet_config(**typed) if replay is None else showing_devnet.replayed(replay)
    made = runtime()
    tcp = made.transport if config.over_tcp else None
    output = showing_devnet.ReportOutput(as_json=as_json, html=html)
    return trio.run(
        lambda: showing_devnet.devnet(config, made.machine, tcp, output),
        # Work of the processor then takes no time of the network's.
        clock=None if config.in_real_time else MockClock(autojump_threshold=0),
    )


def _given(typed: Iterable[str]) -> list[str]:
    """Which of these options were typed, and are not there by default."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return [f"--{it}" for it in typed if context.get_parameter_source(it) is not default]


def _devnet_config(
    *,
    peers: int,
    seed: int,
    seconds: float,
    load: str,
    faults: str,
    deadline: int,
    store: str,
    transport: str,
) -> DevnetConfig:
    return DevnetConfig(
        peers=peers,
        seed=seed,
        seconds=seconds,
        rate=rate_of(load),
        faults=parse(faults),
        deadline_s=deadline,
        on_disk=store == "lmdb",
        over_tcp=transport == "tcp",
    )


@cli.command("load")
@click.argument("bootstrap", nargs=-1)
@click.option("--rate", default="10/s", show_default=True, help="Tasks that are due, a second.")
@click.option("--clients", default=8, show_default=True, type=click.IntRange(1, 256))
@click.option("--model", default="hash", show_default=True, help="What to ask: it embeds a text.")
@click.option("--seconds", default=30.0, show_default=True, type=click.FloatRange(1, 86_400))
@click.option("--deadline", default=60, show_default=True, type=DEADLINE_S, help="Of each task.")
@click.option("--verdicts", default="2/3", show_default=True, help="Verdicts needed, of how many.")
@click.option("--network", default="baton", show_default=True, help="Peers of other names refuse.")
@state_option
@json_option
@click.pass_obj
def load_command(
    runtime: Callable[[], Runtime],
    /,
    *,
    bootstrap: tuple[str, ...],
    verdicts: str,
    state: Path,
    as_json: bool,
    **typed: Any,
) -> int:
    """Ask at a rate, whatever the answers do. Without BOOTSTRAP the running peer asks."""
    needed, verifiers = verdicts_of(verdicts)
    config = loading_command.LoadConfig(
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
    loading_command.check(config)
    return run(lambda: loading_command.load(config, runtime(), as_json=as_json))
