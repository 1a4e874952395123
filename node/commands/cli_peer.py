"""`join`, `status`, `peers`: a peer, and what it says of itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from node.commands.command import Assembly, Command, run
from node.commands.gateway_options import gateway_pay_options, http_pay_of
from node.commands.guest_options import guest_of, guest_options
from node.commands.options import (
    bytes_of,
    console_of,
    gateway_of,
    json_option,
    layers_of,
    network_option,
    roles_of,
    seed_options,
    state_option,
)
from node.console_config import CONSOLE_DEFAULT
from node.paying_config import (
    SERVICES,
    SPONSOR_EACH_DEFAULT,
    TypedPrices,
    read_prices,
    read_relay_pay_max,
    read_sponsoring,
)
from wire.errors import InputError
from wire.kinds import Role

PORT_DEFAULT = 4747
# How an invite begins, and what a service manager calls the file with one.
INVITE_PREFIX, CREDENTIAL = "baton1", "baton-invite"
ADDRESS = "/ip4/192.0.2.7/tcp/4747/p2p/12D3KooWAU1jyZ5Bs2ypJWmVvWYRYrJyjDVGWDcrnxiwGy1PP8iS"


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
    "--port",
    type=click.IntRange(0, 65535),
    help="The TCP port to listen on. Default: the one of its earlier starts, and at first"
    f" {PORT_DEFAULT} for the first peer of a network; else, or if that is taken, any free port.",
)
@click.option("--listen", multiple=True, help="A multiaddr to listen on, instead of --port.")
@click.option(
    "--no-lan",
    is_flag=True,
    help="Do not look for peers in the local network (mDNS), and do not be found there.",
)
@click.option(
    "--no-map-port",
    is_flag=True,
    help="Do not ask the router (PCP, NAT-PMP, UPnP) to pass a port on to this peer.",
)
@seed_options
@network_option
@click.option(
    "--genesis",
    type=click.Path(path_type=Path),
    help="The genesis file of a network with a ledger, as `network new` wrote it. A state folder"
    " that has joined it once needs it no more.",
)
@click.option(
    "--invite-file",
    type=click.Path(path_type=Path),
    envvar="BATON_INVITE_FILE",
    help="A file with the line that `invite` printed, to join a private network; also"
    " BATON_INVITE_FILE, or the credential baton-invite of a systemd unit. A state folder that has"
    " joined once needs it no more.",
)
@click.option(
    "--quota", default="20GB", show_default=True, help="How much disk the store may take at most."
)
@click.option(
    "--http",
    help="Serve OpenAI clients at this ADDRESS:PORT. The role gateway alone serves them at"
    " 127.0.0.1:8000.",
)
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
@click.option(
    "--owner",
    metavar="LINE|FILE",
    help="Show whose peer this is, by the line that `owner sign` printed, or a file with it: peers"
    " of one owner never check each other, and of them one checks an answer at most.",
)
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
@click.option(
    "--relay-pay-max",
    metavar="CREDITS",
    help="What this peer pays others for a million KiB (about 1 GB) that they pass on for it, at"
    " most. Of relays that ask for more only what is free is used. Default: nothing.",
)
@click.option("--price-check", help="What others pay, in credits, for each verdict. Default: free.")
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
@click.option(
    "--console",
    is_flag=True,
    help=f"Serve a page about this peer at http://{CONSOLE_DEFAULT}/; `open` prints the link.",
)
@click.option(
    "--console-at",
    help="Serve that page at this ADDRESS:PORT; from other machines only with an API key.",
)
@gateway_pay_options
@guest_options
@click.option("--with-parent", type=int, hidden=True, help="End when this parent process does.")
@state_option
@json_option
@click.pass_obj
def join_command(
    assembly: Assembly, /, *, with_parent: int | None, as_json: bool, **options: Any
) -> None:
    """Run a peer until it is told to leave (Ctrl-C).

    BOOTSTRAP is the address of a peer in the network, as its own `join` printed it, or an invite.
    Without one, peers that are known, in the local network or named by --seed-dns are met; where
    there are none a new network starts. The command with which others join is printed.
    """
    from node.commands.join import join

    config = config_of(assembly, options)
    run(lambda: join(config, assembly.runtime(), as_json=as_json, with_parent=with_parent))


def config_of(assembly: Assembly, options: Mapping[str, Any]) -> Any:
    """The NodeConfig that the options of `join` say; InputError names one that makes no sense."""
    from node.commands.genesis import read_genesis
    from node.commands.models import meant
    from node.config import ROLES_DEFAULT, NodeConfig
    from p2p.peers import PeersConfig

    more = dict(options)
    take = more.pop
    bootstrap, invited = _invited(assembly, take("bootstrap"), more)
    chosen = roles_of(take("roles")) or ROLES_DEFAULT
    price, apps, pay, gateway = more["http_price"], take("http_apps"), http_pay_of(more), None
    http, at = take("http"), (take("http_names"), take("http_origins"), take("http_verdicts"))
    if http is not None or Role.GATEWAY in chosen:
        chosen |= {Role.GATEWAY}
        gateway = gateway_of(http, *at, pay, price, apps=apps)
    elif pay is not None or apps:
        _refuse_without_gateway(apps=apps)
    listen, port, layers = take("listen"), take("port"), take("layers")
    console, console_at, genesis, names = (
        take(it) for it in ("console", "console_at", "genesis", "names")
    )
    return NodeConfig(
        state=take("state").expanduser(),
        peers=PeersConfig(**_placed(take("network"), bootstrap, listen, port, more)),
        port_named=bool(listen) or port is not None,
        roles=chosen,
        models=tuple(map(meant, names)) if {Role.INFER, Role.VERIFY} & chosen else (),
        layers=None if layers is None else layers_of(layers),
        files=take("files"),
        quota_bytes=bytes_of(take("quota")),
        gateway=gateway,
        console=console_of(console_at) if console or console_at else None,
        genesis=None if genesis is None else read_genesis(genesis),
        background_checks=take("background_checks"),
        prices=_priced(take("prices"), take("price_check"), names),
        guest=guest_of(**more),
        **invited,
    )


def _refuse_without_gateway(*, apps: bool) -> None:
    """InputError: what was typed is for a gateway."""
    option = "--http-apps" if apps else "--http-pay"
    raise InputError(f"{option} is for a gateway", todo="add --role gateway, or --http")


def _invited(
    assembly: Assembly, typed: tuple[str, ...], more: dict[str, Any]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The addresses of what was typed; and the invite, the LAN, the SRS, the owner, credits."""
    from node.commands.members import read_invite
    from node.commands.ownership import read_owner

    lines = tuple(it for it in typed if it.lower().startswith(INVITE_PREFIX))
    folder = assembly.credentials
    invite, private = read_invite(lines, more.pop("invite_file"), folder and folder / CREDENTIAL)
    addresses = tuple(it for it in typed if it not in lines)
    relay_pay_max = read_relay_pay_max(more.pop("relay_pay_max"))
    sponsoring = read_sponsoring(
        more.pop("sponsor"), more.pop("sponsor_each"), puzzle=more.pop("sponsor_puzzle")
    )
    found: dict[str, Any] = {"invite": invite, "private": private, "lan": not more.pop("no_lan")}
    found["map_port"] = not more.pop("no_map_port")
    srs = more.pop("srs")
    found |= {"srs": None if srs is None else srs.expanduser()}
    found["owner_line"] = read_owner(more.pop("owner"))
    return addresses, found | {"sponsoring": sponsoring, "relay_pay_max": relay_pay_max}


def _placed(
    network: str,
    bootstrap: tuple[str, ...],
    listen: tuple[str, ...],
    port: int | None,
    more: dict[str, Any],
) -> dict[str, Any]:
    """How the peer takes its place in the network, as settings of `PeersConfig`."""
    from p2p.seed_records import checked_names

    seeds, private_seeds = checked_names(more.pop("seed_names")), more.pop("private_seeds")
    if private_seeds and not seeds:
        raise InputError(
            "--seed-dns-private says nothing without --seed-dns", todo="name one: --seed-dns NAME"
        )
    return {
        "network": network,
        "bootstraps": bootstrap,
        "seed_names": seeds,
        "private_seeds": private_seeds,
        "listen": listen or (_listening(port, bootstrap or seeds),),
        "keep_calling": True,
    }


def _listening(port: int | None, others: tuple[str, ...]) -> str:
    """The address to listen on if none was named; a kept port, or one that is free, goes before."""
    if port is None:
        port = 0 if others else PORT_DEFAULT
    return f"/ip4/0.0.0.0/tcp/{port}"


def _priced(typed: tuple[str, ...], check: str | None, served: tuple[str, ...]) -> TypedPrices:
    """The prices of models, by the names under which they are served."""
    from node.commands.models import meant_among

    found = read_prices(typed, check)
    models = {
        name if name in SERVICES else meant_among(name, served): it
        for name, it in found.models.items()
    }
    return TypedPrices(models, found.check)


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
