"""`service`, `dashboard`: the peer as a service that starts with the machine, and is watched."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from node.commands.cli_peer import join_command
from node.commands.command import Command, Group, run
from node.commands.options import json_option

F = TypeVar("F", bound=Callable[..., Any])
LINES_MAX = 10_000


def _user_option(function: F) -> F:
    return click.option(
        "--user", is_flag=True, help="Of this user alone, which needs no root; else the machine's."
    )(function)


@click.group(
    "service", cls=Group, examples=("service install --role infer --model smollm2", "service logs")
)
def service_group() -> None:
    """Have systemd run the peer and start it with the machine.

    Once it is installed, `status`, `doctor` and the other commands take --state /var/lib/baton.
    """


@service_group.command(
    "install",
    cls=Command,
    examples=("service install --user", "service install --print --model smollm2"),
    context_settings={"ignore_unknown_options": True},
)
@_user_option
@click.option("--print", "shown_only", is_flag=True, help="Only show the unit.")
@click.argument("join_options", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def install_command(
    context: click.Context, /, *, user: bool, shown_only: bool, join_options: tuple[str, ...]
) -> None:
    """Install the service and start it.

    JOIN_OPTIONS are those of `join`.
    """
    from node.commands.join_typed import config_typed
    from node.commands.service import Service, install

    # What `join` would not take is said now, and not by a service that never starts.
    parsed = join_command.make_context("join", list(join_options), parent=context.find_root())
    if not shown_only:
        config_typed(join_command, parsed.params, None)
    run(lambda: install(Service(user), join_options, shown_only=shown_only))


@service_group.command("status", cls=Command, examples=("service status", "service status --user"))
@_user_option
@json_option
def status_command(*, user: bool, as_json: bool) -> int:
    """Show whether the service runs, and how it ended last.

    Exits 0 only if it runs.
    """
    from node.commands.service import Service, show

    code: int = run(lambda: show(Service(user), as_json=as_json))
    return code


@service_group.command("logs", cls=Command, examples=("service logs --lines 200",))
@_user_option
@click.option(
    "--lines", default=50, show_default=True, type=click.IntRange(1, LINES_MAX), help="How many."
)
def logs_command(*, user: bool, lines: int) -> None:
    """Show what the service wrote last."""
    from node.commands.service import Service, logs

    run(lambda: logs(Service(user), lines))


@service_group.command("remove", cls=Command, examples=("service remove",))
@_user_option
def remove_command(*, user: bool) -> None:
    """Stop the service and remove it; the state folder stays."""
    from node.commands.service import Service, remove

    run(lambda: remove(Service(user)))


@click.command("dashboard", cls=Command, examples=("dashboard", "dashboard --alerts"))
@click.option("--alerts", "only_alerts", is_flag=True, help="Print alerts for Prometheus instead.")
def dashboard_command(*, only_alerts: bool) -> None:
    """Print a dashboard for Grafana, over a gateway's /metrics.

    Have Prometheus read http://ADDRESS:PORT/metrics, with an API key if there are any.
    """
    from node.commands.dashboard import show

    show(only_alerts=only_alerts)
