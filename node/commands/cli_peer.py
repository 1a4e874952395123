"""`join`, `status`, `peers`: a peer, and what it says of itself."""

from pathlib import Path
from typing import Any

import click

from node.commands.command import Assembly, Command, heading, run
from node.commands.gateway_options import gateway_pay_options
from node.commands.guest_options import machine_options, manners_options
from node.commands.options import (
    json_option,
    network_option,
    seed_options,
    state_option,
)
from node.commands.run_log import run_log
from node.console_config import CONSOLE_DEFAULT
from node.paying_config import SPONSOR_EACH_DEFAULT
from wire.errors import InputError

PORT_DEFAULT = 4747
ADDRESS = "/ip4/192.0.2.7/tcp/4747/p2p/12D3KooW…"


@click.command(
    "join",
    cls=Command,
    examples=(
        "join",
        f"join {ADDRESS} --role infer --model minilm",
        "join --invite-file ~/invite --role infer --model minilm",
    ),
)
@click.argument("bootstrap", nargs=-1)
@heading("What most peers are told")
@click.option(
    "--role",
    "roles",
    multiple=True,
    help="What this peer does: data, infer, verify, store or gateway; ledger, if it is a member."
    " May be given several times. Default: all of them but gateway.",
)
@click.option(
    "--model",
    "names",
    multiple=True,
    help="A model to run or to check: minilm, a name, an id, a file or a folder. May be given"
    " several times.",
)
@click.option(
    "--http",
    help="Serve OpenAI clients at this ADDRESS:PORT. The role gateway alone serves them at"
    " 127.0.0.1:8000.",
)
@click.option(
    "--console",
    is_flag=True,
    help=f"Serve a page about this peer at http://{CONSOLE_DEFAULT}/; `open` prints the link.",
)
@click.option(
    "--invite-file",
    type=click.Path(path_type=Path),
    envvar="BATON_INVITE_FILE",
    help="A file with the line that `invite` printed, to join a private network; also"
    " BATON_INVITE_FILE, or the credential baton-invite of a systemd unit. A state folder that has"
    " joined once needs it no more.",
)
@state_option
@heading("The network")
@network_option
@click.option(
    "--genesis",
    type=click.Path(path_type=Path),
    help="The genesis file of a network with a ledger, as `network new` wrote it. A state folder"
    " that has joined it once needs it no more.",
)
@click.option(
    "--owner",
    metavar="LINE|FILE",
    help="Show whose peer this is, by the line that `owner sign` printed, or a file with it: peers"
    " of one owner never check each other, and of them one checks an answer at most.",
)
@seed_options
@click.option(
    "--no-lan",
    is_flag=True,
    help="Do not look for peers in the local network (mDNS), and do not be found there.",
)
@heading("How it is reached")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="The TCP port to listen on. Default: the one of its earlier starts, and at first"
    f" {PORT_DEFAULT} for the first peer of a network; else, or if that is taken, any free port.",
)
@click.option("--listen", multiple=True, help="A multiaddr to listen on, instead of --port.")
@click.option(
    "--no-map-port",
    is_flag=True,
    help="Do not ask the router (PCP, NAT-PMP, UPnP) to pass a port on to this peer.",
)
@click.option(
    "--relay-pay-max",
    metavar="CREDITS",
    help="What this peer pays others for a million KiB (about 1 GB) that they pass on for it, at"
    " most. Of relays that ask for more only what is free is used. Default: nothing.",
)
@heading("Models and data")
@click.option(
    "--layers",
    help="The layers of the model that this peer holds, as 0-17, where others hold the rest: who"
    " holds the first answers questions, through the others. Default: all.",
)
@click.option(
    "--files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder or a file of text that this peer may bring into the network.",
)
@click.option(
    "--quota", default="20GB", show_default=True, help="How much disk the store may take at most."
)
@click.option(
    "--background-checks",
    type=float,
    default=0.05,
    show_default=True,
    help="Which part of the answers that nobody checks is checked afterwards; 0: none.",
)
@click.option(
    "--srs",
    type=click.Path(path_type=Path),
    help="The structured reference string with which proofs of small ONNX models are made and"
    " checked, for the level zk: of a ceremony, or of `models srs`. Default: no proofs.",
)
@heading("The machine")
@machine_options
@heading("A guest's manners")
@manners_options
@heading("The gateway and the console")
@click.option(
    "--http-name",
    "http_names",
    multiple=True,
    help="A host name, other than an address, under which clients reach the gateway.",
)
@click.option(
    "--http-origin",
    "http_origins",
    multiple=True,
    help="A website, as https://example.org, whose pages may use the gateway from a browser.",
)
@click.option(
    "--http-verdicts",
    default="0/0",
    show_default=True,
    help="How many verdicts an answer over HTTP needs, of how many verifiers; 0/0: none.",
)
@click.option(
    "--http-apps",
    is_flag=True,
    help="Take keys of other peers' apps: they come in, and ask for what costs nothing.",
)
@click.option(
    "--console-at",
    help="Serve that page at this ADDRESS:PORT; from other machines only with an API key.",
)
@heading("Prices")
@click.option(
    "--price",
    "prices",
    multiple=True,
    metavar="MODEL=IN:OUT",
    help="What others pay, in credits, for units given to a model and tokens that it makes, as"
    " smollm2=0.3/1k:0.6/1k; +0.001 at the end is for each task. Also data=0.01/1k for passages"
    " that are fetched, store=0.01/1k for KiB that are kept and relay=0.01/1m for KiB that are"
    " passed on to a peer behind a router. May be given several times."
    " Default: free.",
)
@click.option("--price-check", help="What others pay, in credits, for each verdict. Default: free.")
@gateway_pay_options
@heading("Credits for newcomers")
@click.option(
    "--sponsor",
    help="Give newcomers that ask (`wallet faucet`) so many credits in each epoch, out of this"
    " peer's account. Default: none.",
)
@click.option(
    "--sponsor-each",
    help=f"What each of their keys is given, once. Default: {SPONSOR_EACH_DEFAULT}.",
)
@click.option(
    "--sponsor-puzzle",
    is_flag=True,
    help="Give it to whoever does some work for it, not to four keys of each address prefix.",
)
@heading("Also")
@click.option(
    "--log",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Write what happens as lines for people, or as JSON objects, one a line.",
)
@json_option
@click.option("--with-parent", type=int, hidden=True, help="End when this parent process does.")
@click.pass_context
def join_command(
    context: click.Context,
    /,
    *,
    log: str,
    as_json: bool,
    with_parent: int | None,
    **typed: Any,
) -> None:
    """Run a peer until it is told to leave (Ctrl-C).

    BOOTSTRAP is the address of a peer in the network, as its own `join` printed it, or an invite.
    Without one, peers that are known, in the local network or named by --seed-dns are met; where
    there are none a new network starts. The command with which others join is printed.
    """
    from node.commands.join import join
    from node.commands.join_typed import config_typed

    assembly: Assembly = context.obj
    if log == "json" and as_json:
        raise InputError(
            "--json prints one document, and --log json a line for each thing that happens",
            todo="give one of them",
        )
    if log == "json":
        run_log.wall_s = assembly.wall_s
    config = config_typed(join_command, typed, assembly.credentials)
    run(lambda: join(config, assembly.runtime(), as_json=as_json, with_parent=with_parent))


@click.command(
    "status",
    cls=Command,
    examples=("status", "status --all", "status --state ~/second-peer --json"),
)
@click.option("--all", "whole", is_flag=True, help="All that the peer tells of itself.")
@state_option
@json_option
def status_command(*, whole: bool, state: Path, as_json: bool) -> None:
    """Show whether the running peer serves, and what is wrong.

    One screen: who it is, how it is reached, its models, its work. With --all also its addresses,
    traffic, store, ledger, gateway and standing orders.
    """
    from node.commands.status import look

    run(lambda: look(state.expanduser(), "status", as_json=as_json, whole=whole))


@click.command("peers", cls=Command, examples=("peers", "peers --state ~/second-peer"))
@state_option
@json_option
def peers_command(*, state: Path, as_json: bool) -> None:
    """List the peers that the running peer knows."""
    from node.commands.status import look

    run(lambda: look(state.expanduser(), "peers", as_json=as_json))
