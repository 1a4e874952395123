"""A report of use as one page of HTML: the curve drawn as SVG, nothing fetched from anywhere. Pure.

Everything that others have typed is escaped.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from wire.amount import show_credits

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 132, 16, 40
STEPS = 4
WEEKS_LABELLED = 12
COHORTS_SHOWN = 26
LATER_SHOWN = 12
# The two labels at the ends of the lines are at least so far apart.
LABEL_GAP = 17
_STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1d2329; --quiet: #5b6570; --rule: #d9dee3;
  --raw: #a8481f; --less: #0b6e4f; --heat: 11, 110, 79; }
@media (prefers-color-scheme: dark) { :root { --page: #14181c; --text: #e4e8ec; --quiet: #9aa5b0;
  --rule: #323a42; --raw: #f0986a; --less: #55c49b; --heat: 85, 196, 155; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px 20px 64px; max-width: 860px; background: var(--page);
  color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; }
p { margin: .3rem 0 .8rem; } .quiet { color: var(--quiet); overflow-wrap: anywhere; }
svg { width: 100%; height: auto; display: block; }
svg text { font: 13px system-ui, sans-serif; fill: var(--quiet); }
.rule { stroke: var(--rule); } .raw { stroke: var(--raw); } .less { stroke: var(--less); }
path { fill: none; stroke-width: 2.5; stroke-linejoin: round; } path.raw { stroke-dasharray: 6 4; }
circle.raw { fill: var(--raw); } circle.less { fill: var(--less); }
svg text.raw { fill: var(--raw); stroke: none; } svg text.less { fill: var(--less); stroke: none; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px; text-align: right; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th { color: var(--quiet); font-weight: 500; } th:first-child, td:first-child { text-align: left; }
"""


def page_of(report: Mapping[str, Any]) -> str:
    """The whole page."""
    name = escape(str(report["name"]))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Use of {name}</title><style>{_STYLE}</style><body>"
        f"<h1>Do people come back to {name}?</h1>"
        f'<p class="quiet">{_count(report["epochs"], "epoch")} of {escape(str(report["network"]))}'
        f"; a week is {_count(report['week_epochs'], 'epoch')}.</p>"
        f"{_curve(report['curve'])}{_meaning(report)}{_cohorts(report)}{_weeks(report)}"
        "</body></html>\n"
    )


def _count(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def _curve(curve: Mapping[str, Sequence[float]]) -> str:
    raw, less = curve["raw"], curve["discounted"]
    weeks = max(len(raw), len(less))
    if weeks < 2:
        return "<p>No week has ended after the first: there is nothing to draw yet.</p>"
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(week: int) -> float:
        return LEFT + week / (weeks - 1) * (right - LEFT)

    def y(share: float) -> float:
        return TOP + (1 - share) * (bottom - TOP)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Share that came back, by'
        ' weeks since the first paid task">'
    ]
    for step in range(STEPS + 1):
        at = y(step / STEPS)
        parts.append(
            f'<line class="rule" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{100 * step // STEPS} %'
            "</text>"
        )
    every = -(-weeks // WEEKS_LABELLED)
    parts += [
        f'<text x="{x(week):.1f}" y="{bottom + 18}" text-anchor="middle">{week}</text>'
        for week in range(0, weeks, every)
    ]
    parts.append(
        f'<text x="{(LEFT + right) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">'
        "weeks since the first paid task</text>"
    )
    ends = {kind: y(shares[-1]) for kind, shares in (("raw", raw), ("less", less)) if shares}
    if len(ends) == 2 and ends["less"] - ends["raw"] < LABEL_GAP:
        middle = (ends["raw"] + ends["less"]) / 2
        ends = {"raw": middle - LABEL_GAP / 2, "less": middle + LABEL_GAP / 2}
    for kind, word, shares in (("raw", "accounts", raw), ("less", "discounted", less)):
        if not shares:
            continue
        points = [(x(week), y(share)) for week, share in enumerate(shares)]
        path = "L".join(f"{at:.1f},{up:.1f}" for at, up in points)
        parts.append(f'<path class="{kind}" d="M{path}"/>')
        parts += [
            f'<circle class="{kind}" cx="{at:.1f}" cy="{up:.1f}" r="3.5"><title>week {week}:'
            f" {100 * shares[week]:.1f} %</title></circle>"
            for week, (at, up) in enumerate(points)
        ]
        parts.append(
            f'<text class="{kind}" x="{points[-1][0] + 10:.1f}" y="{ends[kind] + 4:.1f}">{word}'
            f" {100 * shares[-1]:.1f} %</text>"
        )
    return "".join(parts) + "</svg>"


def _meaning(report: Mapping[str, Any]) -> str:
    return (
        "<p>An <b>account</b> counts in a week in which a task that it paid for was redeemed."
        " <b>Discounted</b>: accounts between which credits went round in a circle count as one"
        " owner, and what he paid himself does not count. Credits that came back outside of this"
        " ledger are not seen; who faked use that way left at least"
        f" <b>{show_credits(report['cost'])} credits</b> in the fund of the network for all that is"
        f" shown, {show_credits(report['cost_discounted'])} for what is left discounted."
        f" {_count(report['accounts'], 'account')}, {_count(report['owners'], 'owner')},"
        f" {_count(report['tasks'], 'task')} for {show_credits(report['paid'])} credits.</p>"
    )


def _cohorts(report: Mapping[str, Any]) -> str:
    cohorts = report["cohorts"][-COHORTS_SHOWN:]
    if not cohorts:
        return "<p>Nobody has paid for a task yet.</p>"
    most = min(LATER_SHOWN, max(len(it["raw"]) for it in cohorts) - 1)
    head = "".join(f"<th>+{later}</th>" for later in range(1, most + 1))
    rows = "".join(
        f"<tr><td>{it['week']}</td><td>{it['raw'][0]}</td>"
        f"<td>{it['discounted'][0] if it['discounted'] else 0}</td>"
        f"<td>{show_credits(it['paid'])}</td><td>{show_credits(it['cost'])}</td>"
        + "".join(_cell(it["discounted"], later) for later in range(1, most + 1))
        + "</tr>"
        for it in cohorts
    )
    return (
        "<h2>By the week of the first paid task</h2>"
        '<p class="quiet">Shares are discounted; the last week may not be over.</p>'
        '<div class="wide"><table><tr><th>week</th><th>accounts</th><th>owners</th>'
        f"<th>paid</th><th>cost to fake</th>{head}</tr>{rows}</table></div>"
    )


def _cell(active: Sequence[int], later: int) -> str:
    if later >= len(active) or not active[0]:
        return "<td></td>"
    share = active[later] / active[0]
    tint = f"background: rgba(var(--heat), {0.06 + 0.34 * share:.2f})"
    return f'<td style="{tint}">{100 * share:.0f} %</td>'


def _weeks(report: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{it['week']}</td><td>{it['raw']}</td><td>{it['discounted']}</td>"
        f"<td>{it['tasks']}</td><td>{show_credits(it['paid'])}</td>"
        f"<td>{show_credits(it['paid_discounted'])}</td><td>{show_credits(it['cost'])}</td></tr>"
        for it in report["weeks"][-COHORTS_SHOWN:]
    )
    return (
        '<h2>Week by week</h2><div class="wide"><table><tr><th>week</th><th>accounts</th>'
        "<th>owners</th><th>tasks</th><th>paid</th><th>discounted</th><th>cost to fake</th></tr>"
        f"{rows}</table></div>"
    )
