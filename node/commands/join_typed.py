"""What `join` makes of what was typed, and of nothing: a peer's configuration."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from node.commands.cli_peer import PORT_DEFAULT
from node.commands.gateway_options import http_pay_of
from node.commands.genesis import read_genesis
from node.commands.guest_options import guest_of
from node.commands.members import read_invite
from node.commands.models import meant, meant_among
from node.commands.options import bytes_of, console_of, gateway_of, layers_of, roles_of
from node.commands.ownership import read_owner
from node.config import ROLES_DEFAULT, NodeConfig
from node.gateway_config import GatewayConfig
from node.paying_config import (
    SERVICES,
    TypedPrices,
    read_prices,
    read_relay_pay_max,
    read_sponsoring,
)
from p2p.peers import PeersConfig
from p2p.seed_records import checked_names
from wire.errors import InputError
from wire.kinds import Role

# How an invite begins, and what a service manager calls the file with one.
INVITE_PREFIX, CREDENTIAL = "baton1", "baton-invite"
_OF_GUEST = (
    *("device", "gpu", "vram", "memory", "cpu", "pause_when_busy", "schedule"),
    *("on_battery", "max_temp", "metered", "up", "down", "per_month"),
)


def config_typed(
    command: click.Command, typed: Mapping[str, Any], credentials: Path | None
) -> NodeConfig:
    """The configuration, which knows what it would be of nothing typed; InputError."""
    plain = command.make_context(command.name, []).params
    # What the environment names is as good as typed.
    plain |= {"invite_file": None}
    untyped = _config_of(plain, _home(plain["state"]), None)
    return replace(
        _config_of(typed, typed["state"].expanduser(), credentials),
        untyped=untyped,
    )


def _home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        # A service's user has no home, and its folder is always named.
        return path


def _config_of(typed: Mapping[str, Any], state: Path, credentials: Path | None) -> NodeConfig:
    lines = tuple(it for it in typed["bootstrap"] if it.lower().startswith(INVITE_PREFIX))
    credential = credentials and credentials / CREDENTIAL
    invite, private = read_invite(lines, typed["invite_file"], credential)
    roles, gateway = _gateway(typed, roles_of(typed["roles"]) or ROLES_DEFAULT)
    names, layers, genesis = typed["names"], typed["layers"], typed["genesis"]
    has_console = typed["console"] or typed["console_at"]
    return NodeConfig(
        state=state,
        peers=_placed(typed, tuple(it for it in typed["bootstrap"] if it not in lines)),
        port_named=bool(typed["listen"]) or typed["port"] is not None,
        roles=roles,
        models=tuple(map(meant, names)) if {Role.INFER, Role.VERIFY} & roles else (),
        layers=None if layers is None else layers_of(layers),
        files=typed["files"],
        quota_bytes=bytes_of(typed["quota"]),
        gateway=gateway,
        console=console_of(typed["console_at"]) if has_console else None,
        guest=guest_of(**{it: typed[it] for it in _OF_GUEST}),
        genesis=None if genesis is None else read_genesis(genesis),
        background_checks=typed["background_checks"],
        srs=None if typed["srs"] is None else typed["srs"].expanduser(),
        prices=_priced(typed),
        relay_pay_max=read_relay_pay_max(typed["relay_pay_max"]),
        sponsoring=read_sponsoring(
            typed["sponsor"], typed["sponsor_each"], puzzle=typed["sponsor_puzzle"]
        ),
        invite=invite,
        private=private,
        lan=not typed["no_lan"],
        map_port=not typed["no_map_port"],
        owner_line=read_owner(typed["owner"]),
    )


def _gateway(
    typed: Mapping[str, Any], roles: frozenset[Role]
) -> tuple[frozenset[Role], GatewayConfig | None]:
    """The roles with that of a gateway, where there is one, and its settings."""
    pay, apps = http_pay_of(typed), typed["http_apps"]
    if typed["http"] is None and Role.GATEWAY not in roles:
        if pay is not None or apps:
            option = "--http-apps" if apps else "--http-pay"
            raise InputError(f"{option} is for a gateway", todo="add --role gateway, or --http")
        return roles, None
    gateway = gateway_of(
        typed["http"],
        typed["http_names"],
        typed["http_origins"],
        typed["http_verdicts"],
        pay,
        typed["http_price"],
        apps=apps,
    )
    return roles | {Role.GATEWAY}, gateway


def _placed(typed: Mapping[str, Any], bootstraps: tuple[str, ...]) -> PeersConfig:
    """How the peer takes its place in the network."""
    seeds, private_seeds = checked_names(typed["seed_names"]), typed["private_seeds"]
    if private_seeds and not seeds:
        raise InputError(
            "--seed-dns-private says nothing without --seed-dns", todo="name one: --seed-dns NAME"
        )
    port = typed["port"]
    if port is None:
        # A port that was kept, or one that is free, goes before.
        port = 0 if bootstraps or seeds else PORT_DEFAULT
    return PeersConfig(
        network=typed["network"],
        bootstraps=bootstraps,
        seed_names=seeds,
        private_seeds=private_seeds,
        listen=typed["listen"] or (f"/ip4/0.0.0.0/tcp/{port}",),
        keep_calling=True,
    )


def _priced(typed: Mapping[str, Any]) -> TypedPrices:
    """The prices of models, by the names under which they are served."""
    found = read_prices(typed["prices"], typed["price_check"])
    models = {
        name if name in SERVICES else meant_among(name, typed["names"]): it
        for name, it in found.models.items()
    }
    return TypedPrices(models, found.check)
