"""`audit`: what share of a peer's or a model's work was checked, and what was found."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node.asking.answers import Answers
from node.commands.ask import SOCKET
from node.commands.models import is_running
from node.commands.output import console, safe, short, show_json
from node.commands.receipts import open_kept
from node.local.control import call, unheard
from node.local.track_records import audit_of
from wire.plural import plural

DEADLINE_S = 60.0


async def audit(state: Path, whose: str, *, as_json: bool) -> None:
    """Show the track record of a peer or a model, by what is kept in the state folder."""
    if await is_running(state):
        arguments = {"whose": whose}
        found = await call(state / SOCKET, "audit", arguments, unheard, deadline_s=DEADLINE_S)
    else:
        async with open_kept(state) as store:
            found = await audit_of(Answers(store), whose)
    if as_json:
        show_json(found)
    else:
        for line in words(found):
            console.print(line)


def words(found: Mapping[str, Any]) -> list[str]:
    """The lines of the page."""
    whose = f"peer {found['peer']}" if "peer" in found else f"model {found['model']}"
    legs = found["legs"]
    read = plural(found["answers_read"], "answer")
    lines = [f"[bold]{whose}[/bold], by the last {read} kept here"]
    if not legs:
        lines.append("  no leg of them ran there: nothing is known of its work")
    else:
        later = found["checked_later"]
        lines.append(
            f"  {plural(legs, 'leg')}, {found['checked_share']:.0%} checked:"
            f" {found['checked']} before the answer was accepted, {later} afterwards"
        )
        wrong = found["found_wrong"]
        lines.append(
            f"  [red]{wrong} found wrong afterwards[/red]" if wrong else "  none found wrong"
        )
        if found["suspect"]:
            lines.append(f"  [yellow]doubtful, as its lies came later: {found['suspect']}[/yellow]")
    for verifier in found["verifiers"]:
        times = plural(verifier["against"], "time")
        against = f", [red]{times} not[/red]" if verifier["against"] else ""
        agreed = plural(verifier["agreed"], "time")
        lines.append(f"  checked by {short(verifier['peer'])}: agreed {agreed}{against}")
    gave = found["gave"]
    if gave["agreed"] or gave["against"]:
        lines.append(
            f"  itself it checked others: agreed {plural(gave['agreed'], 'time')},"
            f" {gave['against']} not"
        )
    if found["caught_at_ms"] is not None:
        at = datetime.fromtimestamp(found["caught_at_ms"] / 1000, UTC)
        lines.append(f"  [bold red]caught lying on {at:%Y-%m-%d %H:%M} UTC[/bold red]")
    lines += _log_lines(found.get("log"))
    lines.append("  [dim]answers that verdicts rejected are not kept; who gave one is banned[/dim]")
    return lines


def _log_lines(log: Mapping[str, Any] | None) -> list[str]:
    """What is known of the log of a peer's receipts; of a model's there is none."""
    if log is None:
        return []
    lines = []
    if log["receipts"] is not None:
        at = datetime.fromtimestamp(log["signed_at_ms"] / 1000, UTC)
        lines.append(
            f"  its log: {plural(log['receipts'], 'receipt')} under head {log['head']} of"
            f" {at:%Y-%m-%d %H:%M} UTC"
        )
    if log["not_shown"] is not None:
        lines.append(f"  [yellow]it does not show its receipt {log['not_shown']} there[/yellow]")
    if log["fork"] is not None:
        lines.append(f"  [bold red]it showed two logs[/bold red]: {safe(log['fork'])}")
    return lines
