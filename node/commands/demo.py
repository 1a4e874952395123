"""`demo`: the story of `node.commands.demo_story`, on a screen that a person can follow."""

from collections.abc import Callable
from pathlib import Path

import trio
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from node.commands.ask import show_passages, show_route
from node.commands.demo_peers import DemoPeer
from node.commands.demo_story import Story, planned, prepare_folder, tell_story
from node.commands.output import console, safe, show_json, size

LOG_LINES = 9
REFRESH_S = 0.25


async def demo(folder: Path, question: str, files: tuple[Path, ...], *, as_json: bool) -> None:
    """Run the story and show it; BatonError says where it ended."""
    await trio.to_thread.run_sync(prepare_folder, folder)
    story = Story(folder, question, files, peers=planned(folder, files))
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

    with Live(picture(), console=console, auto_refresh=False) as live:
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
        f"{story.passages} passages   {story.accepted} tasks accepted   {story.answered} answered"
        f"   {story.verified} checked   {story.retried} retried"
    )
    log = Text("\n".join(list(story.log)[-LOG_LINES:]), overflow="ellipsis", no_wrap=True)
    return Group(
        head,
        Panel(_peers(story), title="peers: separate processes", title_align="left"),
        Panel(Group(Text(counts), log), title="what happens", title_align="left"),
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
    model = next(iter(peer.status["models"]), None)
    seen = f"seen by {peer.status['answered_last_minute']} of {peer.status['connected']}"
    if peer.model is None or (model is not None and model["state"] == "ready"):
        busy = peer.status["legs_under_way"]
        return Text(f"working on {busy}" if busy else seen, "green")
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
        f"{legs} legs" if legs else "",
        f"{checks} checks" if checks else "",
        f"{tasks} answers kept" if tasks else "",
    ]
    return ", ".join(word for word in words if word)


def show_end(story: Story) -> None:
    """What stays on the screen: the answer, its route, the check, and what to type next."""
    console.print(f"\n[bold]Question:[/bold] {story.question}")
    show_passages(story.answer["result"]["passages"])
    show_route(story.answer, story.name_of)
    console.print("\n[bold]The receipt, checked offline[/bold]  python -m node verify RECEIPT")
    colours = {" ✓": "green", " ✗": "red", " ?": "yellow"}
    for line in safe(story.verify_text.rstrip()).splitlines():
        mark, rest = line[:2], line[2:]
        colour = colours.get(mark)
        console.print(f"[{colour}]{mark}[/{colour}]{rest}" if colour else line)
    console.print(
        f"\n[bold green]{story.answered} of {story.accepted} tasks answered[/bold green],"
        f" {story.verified} checked, {story.retried} retried after"
        f" {story.killed or 'nobody'} was killed, {story.passages} passages, {story.wall_s:.0f} s"
    )
    console.print(
        "\n[bold]The same on several machines[/bold]  (in a checkout: . .venv/bin/activate first)\n"
        "  python -m node join                       # the first: prints the line for the others\n"
        "  python -m node join ADDRESS --role infer --model minilm\n"
        "  python -m node join ADDRESS --role verify --model minilm     # two or three of these\n"
        "  python -m node join ADDRESS               # a peer of your own, to ask from\n"
        "  python -m node ask minilm --source pydoc:try                 # prints an INDEX\n"
        '  python -m node ask minilm --index INDEX --text "…"\n'
        f"\nEverything is kept in {story.folder}\n"
        f"  python -m node verify {story.receipt}"
    )
