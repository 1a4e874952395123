"""`demo`: the story of `node.commands.demo_story`, on a screen that a person can follow."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import trio
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from node.commands.demo_answer import PASSAGES
from node.commands.demo_ledger import begin_ledger
from node.commands.demo_peers import DemoPeer, planned, prepare_folder
from node.commands.demo_story import Story, tell_story
from node.commands.output import console, plain_text, safe, show_json, size
from wire.amount import show_credits
from wire.plural import plural

LOG_LINES = 9
SENTENCE_LINES = 4
ANSWER_LINES = 6
REFRESH_S = 0.25


async def demo(
    folder: Path,
    question: str,
    files: tuple[Path, ...],
    entropy: Callable[[int], bytes],
    *,
    as_json: bool,
) -> None:
    """Run the story and show it; BatonError says where it ended."""
    await trio.to_thread.run_sync(prepare_folder, folder)
    story = Story(folder, question, files, peers=planned(folder, files))
    story.ledger = await trio.to_thread.run_sync(begin_ledger, folder, story.peers, entropy)
    if as_json:
        await tell_story(story, story.say)
        show_json(story.document())
        return
    if console.is_terminal:
        await _live(story)
    else:
        await tell_story(story, console.print)
    show_end(story)


async def _live(story: Story) -> None:
    started_at_s = trio.current_time()

    def picture() -> Group:
        return _picture(story, trio.current_time() - started_at_s)

    # The last page takes its place: both together would not fit a small terminal.
    with Live(picture(), console=console, auto_refresh=False, transient=True) as live:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_refresh, live, picture)
            await tell_story(story, story.say)
            nursery.cancel_scope.cancel()
        live.update(picture(), refresh=True)


async def _refresh(live: Live, picture: Callable[[], Group]) -> None:
    while True:
        live.update(picture(), refresh=True)
        await trio.sleep(REFRESH_S)


def _picture(story: Story, now_at_s: float) -> Group:
    head = Text.assemble(
        ("Baton", "bold green"),
        f"  {now_at_s:5.0f} s   ",
        (story.chapter, "bold"),
        overflow="ellipsis",
    )
    head.no_wrap = True
    counts = (
        f"{plural(story.passages, 'passage')};"
        f" {plural(story.accepted, 'task')}, {story.answered} answered,"
        f" {story.verified} checked, {story.retried} retried"
    )
    said = textwrap.wrap(plain_text(story.sentence), max(20, console.width - 6))[-SENTENCE_LINES:]
    sentence = Text("\n".join(said), "bold", no_wrap=True)
    lines = list(story.log)[-(LOG_LINES - len(said)) :]
    log = Text("\n".join(lines), overflow="ellipsis", no_wrap=True)
    parts = [Text(counts, no_wrap=True, overflow="ellipsis"), log] + [sentence] * bool(said)
    return Group(
        head,
        Panel(_peers(story), title="peers: separate processes", title_align="left"),
        Panel(Group(*parts), title="what happens", title_align="left"),
    )


def _peers(story: Story) -> Table:
    table = Table(box=None, expand=True, pad_edge=False)
    for name, ratio in (("peer", 2), ("id", 2), ("process", 2), ("state", 6), ("work done", 4)):
        table.add_column(name, ratio=ratio, no_wrap=True, header_style="dim")
    for peer in story.peers:
        process = str(peer.process.pid) if peer.process is not None else ""
        name = f"[cyan]{peer.name}[/cyan]"
        table.add_row(
            name, "…" + peer.id[-6:] if peer.id else "", process, _state(peer), _work(peer)
        )
    return table


def _state(peer: DemoPeer) -> Text | Table:
    if peer.killed:
        return Text("killed with SIGKILL", "bold red")
    if not peer.id or not peer.status:
        return Text("starting …", "dim")
    rows = peer.status["models"]
    model = next((it for it in rows if it["state"] not in ("ready", "resting")), None)
    seen = f"seen by {peer.status['answered_last_minute']} of {peer.status['connected']}"
    if peer.ready:
        busy = peer.status["legs_under_way"]
        besides = f"; {model['name']}: {model['state']}" if model is not None else ""
        return Text((f"working on {busy}" if busy else seen) + besides, "green")
    if model is None:
        return Text("looking for the model", "yellow")
    if model["state"] == "failing":
        return Text("waiting: nobody has the model yet", "yellow")
    if model["state"] != "fetching" or not model["size_bytes"]:
        return Text(f"model: {model['state']}", "yellow")
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(
        total=model["size_bytes"], completed=model["done_bytes"], width=16, complete_style="green"
    )
    row.add_row(Text("model", "yellow"), bar, Text(size(model["done_bytes"])))
    return row


def _work(peer: DemoPeer) -> str:
    if not peer.status:
        return ""
    legs, checks = peer.status["legs_done"], peer.status["checks_done"]
    tasks = peer.status["tasks"]["answered"]
    words = [
        plural(legs, "leg") if legs else "",
        plural(checks, "check") if checks else "",
        f"{plural(tasks, 'answer')} kept" if tasks else "",
    ]
    return ", ".join(word for word in words if word)


def show_end(story: Story) -> None:
    """What stays on the screen, within 24 lines of 80: the answer, what it rests on, what next."""
    width = min(console.width, 100) - 2
    console.print(f"[bold]{safe(story.question)}[/bold]\n")
    if story.words:
        said = plain_text(story.words["result"]["text"]).splitlines()
        lines = [part for line in said for part in textwrap.wrap(line, width)]
        for line in lines[:ANSWER_LINES]:
            console.print(f"  [bold green]{safe(line)}[/bold green]")
        console.print()
    console.print("[bold]The passages it rests on[/bold]")
    passages = story.answer["result"]["passages"]
    for place, passage in enumerate(passages[:PASSAGES] if story.words else passages, 1):
        words = " ".join(plain_text(passage["text"]).split())
        first = textwrap.shorten(words, width - 12, placeholder=" …")
        console.print(f"  {place}. [green]{passage['score']:.3f}[/green]  {safe(first)}")
    console.print()
    for line in textwrap.wrap(_who(story), width):
        console.print(safe(line))
    conclusion = story.verify_text.rstrip().split("\n\n")[-1]
    colour = "green" if story.receipt_holds else "red"
    for line in textwrap.wrap(f"Checked offline: {plain_text(conclusion)}", width):
        console.print(f"[{colour}]{safe(line)}[/{colour}]")
    for line in textwrap.wrap(_earned(story), width):
        console.print(safe(line))
    console.print(
        f"[bold]{story.answered} of {plural(story.accepted, 'task')} answered[/bold],"
        f" {story.verified} checked, {plural(story.passages, 'passage')}, {story.wall_s:.0f} s\n"
    )
    console.print("[bold]Now you[/bold]        (in a checkout: . .venv/bin/activate first)")
    for what, command in (
        ("this receipt", f"python -m node verify {_home(story.receipt)}"),
        ("talk", "python -m node run smollm2"),
        ("a network", "python -m node join      # prints the line for other machines"),
    ):
        console.print(f"  {what:<13}{safe(command)}")


def _who(story: Story) -> str:
    """Who worked on the answer, in one sentence."""
    doers = list(dict.fromkeys(story.name_of(it["peer"]) for it in story.shown["route"]))
    checkers = [story.name_of(it["peer"]) for it in story.shown["verdicts"] if it["agrees"]]
    begun = f"Begun by {story.killed}, which was killed in mid-sentence; f" if story.words else "F"
    checked = f"; checked by {', '.join(checkers)}" if checkers else ""
    return f"{begun}inished by {', '.join(doers)}{checked}."


def _earned(story: Story) -> str:
    """Who earned what, and whether the ledger adds up, in one sentence."""
    ledger = story.ledger
    if ledger is None:
        return ""
    if not ledger.holds:
        return f"The ledger does not hold: {plain_text(ledger.problem)}"
    rows = sorted(story.peers, key=lambda it: -it.earned)
    sums = ", ".join(f"{it.name} {show_credits(it.earned)}" for it in rows if it.earned)
    return (
        f"Earned, in credits: {sums or 'nothing'}. The ledger's"
        f" {plural(ledger.epochs, 'epoch')} hold: "
        f"{show_credits(ledger.supply_after)} credits, as at the beginning."
    )


def _home(path: Path | None) -> str:
    """A path as people type it."""
    text, home = str(path), str(Path.home())
    return "~" + text.removeprefix(home) if text.startswith(home + "/") else text
