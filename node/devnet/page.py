"""A run's report as one page of HTML: charts drawn as SVG, nothing fetched from anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 860, 200
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 12, 28
GRID_LINES = 4
COLOURS = ("#0b6e4f", "#c8553d", "#3d5a80", "#b8860b", "#6d597a")
HEADLINES = (
    ("tasks_accepted", "tasks accepted"),
    ("tasks_answered", "answered"),
    ("tasks_lost", "lost"),
    ("tasks_late", "late"),
    ("wrong_answers_accepted", "wrong answers"),
    ("tokens_lost", "tokens lost"),
    ("tokens_doubled", "tokens doubled"),
    ("honest_banned", "honest peers banned"),
    ("invariants_violated", "invariants violated"),
)
# These figures should be zero, and are red otherwise.
GOOD_AT_ZERO = {name for name, _ in HEADLINES} - {"tasks_accepted", "tasks_answered"}


@dataclass(frozen=True, slots=True)
class ChartLine:
    """One line of a chart; the line has a gap where a value is None."""

    label: str
    values: Sequence[float | None]


def chart(
    title: str, times_s: Sequence[float], lines: Sequence[ChartLine], marks: Mapping[float, str]
) -> str:
    """A chart of lines over time, with marks at the given times."""
    most_s = max([*times_s, 1.0])
    known = [value for line in lines for value in line.values if value is not None]
    most = _round_up(max([*known, 1e-9]))

    def x(at_s: float) -> float:
        return LEFT + at_s / most_s * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (1 - value / most) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}">'
    ]
    for step in range(GRID_LINES + 1):
        value = most * step / GRID_LINES
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}"'
            f' y2="{y(value):.1f}"/><text class="axis" x="{LEFT - 8}" y="{y(value) + 4:.1f}"'
            f' text-anchor="end">{_number(value)}</text>'
        )
    for step in range(6):
        at_s = most_s * step / 5
        parts.append(
            f'<text class="axis" x="{x(at_s):.1f}" y="{HEIGHT - 8}"'
            f' text-anchor="middle">{at_s:.0f} s</text>'
        )
    for at_s, words in marks.items():
        parts.append(
            f'<line class="mark" x1="{x(at_s):.1f}" x2="{x(at_s):.1f}" y1="{TOP}"'
            f' y2="{HEIGHT - BOTTOM}"><title>{escape(words)}</title></line>'
        )
    for line, colour in zip(lines, COLOURS, strict=False):
        path, pen = "", "M"
        for at_s, found in zip(times_s, line.values, strict=True):
            if found is None:
                pen = "M"
                continue
            path += f"{pen}{x(at_s):.1f},{y(found):.1f}"
            pen = "L"
        parts.append(f'<path d="{path}" stroke="{colour}"/>')
    legend = "".join(
        f'<span style="color:{colour}">&#9632; {escape(line.label)}</span>'
        for line, colour in zip(lines, COLOURS, strict=False)
    )
    parts.append(f"</svg><div>{legend}</div></figure>")
    return "".join(parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5, 10 in its decade: axes end at numbers that people read."""
    decade = 10.0 ** len(str(int(value))) / 10 if value >= 1 else 1.0
    while value < decade:
        decade /= 10
    return next(decade * it for it in (1, 2, 2.5, 5, 10, 20) if decade * it >= value)


def page_of(report: Mapping[str, Any]) -> str:
    """The whole page as HTML."""
    series = report["series"]
    times_s = [it["at_s"] for it in series]
    marks: dict[float, str] = {}
    for fault in report["faults"]:
        if len(fault["peers"]) > 1:
            words = f"{fault['name']}: {len(fault['peers'])} peers"
            marks[fault["at_s"]] = "; ".join(filter(None, (marks.get(fault["at_s"]), words)))

    def line(label: str, name: str, scale: float = 1.0) -> ChartLine:
        values = [None if it[name] is None else it[name] * scale for it in series]
        return ChartLine(label, values)

    charts = [
        chart("Peers that are up", times_s, [line("peers", "living")], marks),
        chart(
            "Tasks",
            times_s,
            [
                line("accepted", "accepted"),
                line("answered", "answered"),
                line("retries", "retries"),
            ],
            marks,
        ),
        chart("In flight", times_s, [line("tasks", "in_flight")], marks),
        chart(
            "Latency of the answers of the last ten seconds, from when each task was due (seconds)",
            times_s,
            [line("half took no longer", "p50_s"), line("99 of 100 took no longer", "p99_s")],
            marks,
        ),
        chart(
            "Views that know enough living peers for every role and model (%)",
            times_s,
            [line("views", "views_complete_ratio", 100.0)],
            marks,
        ),
        chart(
            "Gossip per peer (bytes a second)",
            times_s,
            [line("bytes", "gossip_bytes_per_peer_s")],
            marks,
        ),
    ]
    charts += _how_reached(series, times_s, marks)
    charts += _found_out(series, times_s, marks)
    cards = "".join(_card(name, words, report[name]) for name, words in HEADLINES)
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{_shown(value)}</td></tr>"
        for name, value in report.items()
        if value is None or isinstance(value, int | float | str)
    )
    faults = ", ".join(sorted(set(marks.values()))) or "none"
    troubles = "".join(f"<li>{escape(it)}</li>" for it in report["violations"][:20])
    return _PAGE.format(
        peers=report["peers"],
        seed=report["seed"],
        replay=escape(report["replay"]),
        cards=cards,
        charts="".join(charts),
        rows=rows,
        faults=escape(faults),
        troubles=f"<h2>Violated</h2><ul>{troubles}</ul>" if troubles else "",
    )


def _how_reached(
    series: Sequence[Mapping[str, Any]], times_s: Sequence[float], marks: Mapping[float, str]
) -> list[str]:
    """A chart where some peers are behind routers, else none."""
    ways = sorted(set[str]().union(*(it["reached"] for it in series)))
    lines = [ChartLine(it, [one["reached"].get(it, 0) for one in series]) for it in ways]
    return [chart("How peers are reached", times_s, lines, marks)] * bool(ways)


def _found_out(
    series: Sequence[Mapping[str, Any]], times_s: Sequence[float], marks: Mapping[float, str]
) -> list[str]:
    """A chart where somebody misbehaves that checks are there to find, else none."""
    names = sorted(set[str]().union(*(it["caught"] for it in series)))
    lines = [ChartLine(it, [100 * one["caught"].get(it, 0.0) for one in series]) for it in names]
    title = "Found out so far, of those that do it (%)"
    return [chart(title, times_s, lines, marks)] * bool(names)


def _card(name: str, words: str, value: int) -> str:
    good = "bad" if name in GOOD_AT_ZERO and value else "good"
    return f'<div class="card {good}"><b>{value}</b><span>{escape(words)}</span></div>'


def _shown(value: object) -> str:
    return f"{value:,.6g}" if isinstance(value, float) else escape(str(value))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Baton devnet: {peers} peers, seed {seed}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em;
  color: #1c2321; background: #fbfaf7; }}
h1 {{ font-size: 1.5em; margin-bottom: 0; }} code {{ background: #eeece4; padding: 2px 5px; }}
.cards {{ display: grid; grid-template-columns: repeat(4, 1fr); gap: 10px; margin: 1.5em 0; }}
.card {{ background: #fff; border: 1px solid #e3e0d5; border-radius: 8px; padding: 10px 14px; }}
.card b {{ display: block; font-size: 1.6em; }} .card span {{ color: #667; }}
.good b {{ color: #0b6e4f; }} .bad b {{ color: #c8553d; }}
figure {{ background: #fff; border: 1px solid #e3e0d5; border-radius: 8px; margin: 0 0 14px;
  padding: 12px 14px; }}
figcaption {{ font-weight: 600; }} figure div span {{ margin-right: 1.2em; font-size: 13px; }}
svg {{ width: 100%; height: auto; }} path {{ fill: none; stroke-width: 2; }}
.grid {{ stroke: #eeece4; }} .mark {{ stroke: #c8553d; stroke-dasharray: 4 4; }}
.axis {{ font-size: 11px; fill: #667; }}
table {{ border-collapse: collapse; width: 100%; }} td {{ border-bottom: 1px solid #e3e0d5;
  padding: 3px 6px; word-break: break-word; }}
</style></head><body>
<h1>{peers} peers, seed {seed}</h1>
<p><code>{replay}</code></p>
<p>Faults: {faults}. A dashed line marks each fault.</p>
<div class="cards">{cards}</div>
{troubles}
{charts}
<h2>All figures</h2><table>{rows}</table>
</body></html>
"""
