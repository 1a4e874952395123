"""The command line: the commands there are.

Nothing here or in the files `cli_*.py` imports the network, an engine or a web library before
a command runs, so that `--help`, `--version` and a misspelt word are answered at once.
"""

import click

from node.commands.cli_app import app_group
from node.commands.cli_archives import export_command, import_command
from node.commands.cli_chat import run_command
from node.commands.cli_console import (
    leave_command,
    open_command,
    pause_command,
    resume_command,
)
from node.commands.cli_doctor import doctor_command
from node.commands.cli_govern import fund_group, govern_group
from node.commands.cli_jury import jury_group
from node.commands.cli_keys import keys
from node.commands.cli_ledger import (
    earnings_command,
    ledger_group,
    network_group,
    wallet_group,
)
from node.commands.cli_members import invite_group, members_group, owner_group
from node.commands.cli_models import bench_command, models
from node.commands.cli_networks import demo_command, devnet_command, load_command
from node.commands.cli_owner import (
    completion_command,
    config_group,
    logs_command,
    top_command,
)
from node.commands.cli_peer import join_command, peers_command, status_command
from node.commands.cli_receipts import audit_command, receipts_group
from node.commands.cli_service import dashboard_command, service_group
from node.commands.cli_sources import sources
from node.commands.cli_stake import evidence_command, slash_command, stake_group
from node.commands.cli_tasks import ask_command, get_command, put_command, remove_command
from node.commands.cli_upgrade import upgrade_command
from node.commands.cli_usage import usage_command
from node.commands.cli_verify import verify_command
from node.commands.cli_versions import versions_command
from node.commands.cli_workflows import workflows
from node.commands.command import Group

# The version of pyproject.toml; a test holds the two together.
VERSION = "0.1.0"
COMMANDS: tuple[click.Command, ...] = (
    join_command,
    demo_command,
    run_command,
    ask_command,
    verify_command,
    put_command,
    get_command,
    remove_command,
    export_command,
    import_command,
    status_command,
    peers_command,
    open_command,
    pause_command,
    resume_command,
    leave_command,
    doctor_command,
    service_group,
    upgrade_command,
    dashboard_command,
    receipts_group,
    audit_command,
    top_command,
    logs_command,
    config_group,
    models,
    sources,
    workflows,
    bench_command,
    keys,
    app_group,
    network_group,
    invite_group,
    members_group,
    owner_group,
    wallet_group,
    earnings_command,
    ledger_group,
    stake_group,
    jury_group,
    evidence_command,
    slash_command,
    usage_command,
    govern_group,
    fund_group,
    devnet_command,
    load_command,
    completion_command,
    versions_command,
)


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    examples=("demo", "run smollm2", "join"),
)
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
@click.version_option(VERSION, prog_name="baton", message="%(prog)s %(version)s")
def cli(*, debug: bool) -> None:
    """Run AI models on a network of machines that nobody has to trust.

    Every answer comes with a receipt that can be checked later, offline.
    """
    del debug  # Read by `node.__main__`, which is where errors end.


for command in COMMANDS:
    cli.add_command(command)
