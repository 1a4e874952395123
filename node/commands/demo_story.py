"""A whole small network on this machine: real processes, real data, a real model, real checks.

This file runs the story and keeps its state; `node.commands.demo` shows it. Nothing here does a
peer's work: every peer is a process of its own, spoken to through its control socket like any
other.
"""

import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from node.commands.demo_ledger import PRICE_MAX, DemoLedger, settle
from node.commands.demo_peers import WRITER, DemoPeer, last_line, open_peers, pids_of
from node.commands.streamed import WAITING
from node.local.control import call, unheard
from p2p import timeouts
from p2p.timeouts import Processes
from wire import limits
from wire.errors import BatonError, TaskFailed, TooSlow
from wire.plural import plural

# All of these are of the peers' own time: what they could have run and were not let run is none.
SOURCES_DEADLINE_S = 60.0
MODEL_DEADLINE_S = 240.0
WORK_DEADLINE_S = 600.0
QUESTION_DEADLINE_S = 120.0
STATUS_DEADLINE_S = 10.0
LOGGED_MAX = 200
# The statements of the language, and what goes wrong in them: what the question is about.
TOPICS = frozenset(
    (
        *("try", "with", "exceptions", "raise", "assert", "while", "for", "if", "import"),
        *("return", "yield", "break", "continue", "pass", "del", "function", "class", "lambda"),
        *("global", "nonlocal", "assignment", "calls", "comparisons", "execmodel", "async"),
    )
)


@dataclass(slots=True)
class Story:
    """Everything a screen shows, and at the end everything `--json` prints."""

    folder: Path
    question: str
    files: tuple[Path, ...]
    peers: list[DemoPeer] = field(default_factory=list)
    model: str = "minilm"
    writer: str = WRITER
    model_deadline_s: float = MODEL_DEADLINE_S
    chapter: str = "starting"
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LOGGED_MAX))
    sources: list[str] = field(default_factory=list)
    passages: int = 0
    accepted: int = 0
    answered: int = 0
    verified: int = 0
    killed: str = ""
    answer: dict[str, Any] = field(default_factory=dict)
    # The answer in words: what is on the screen of it, and in the end all about it.
    sentence: str = ""
    words: dict[str, Any] = field(default_factory=dict)
    # None: this network is free.
    ledger: DemoLedger | None = None
    receipt: Path | None = None
    verify_text: str = ""
    receipt_holds: bool = False
    wall_s: float = 0.0

    def say(self, line: str) -> None:
        self.log.append(line)

    def peer(self, name: str) -> DemoPeer:
        return next(it for it in self.peers if it.name == name)

    def writers(self, role: str = "") -> list[DemoPeer]:
        """The living peers that run the language model, or those of one role."""
        return [
            it
            for it in self.peers
            if it.writer and not it.killed and (not role or role in it.roles)
        ]

    def name_of(self, peer_id: str) -> str:
        """What the demo calls a peer; the end of its id for a stranger."""
        found = next((it.name for it in self.peers if it.id == peer_id), "")
        return found or "…" + peer_id[-6:]

    @property
    def price_max(self) -> int:
        """What one task may cost, in millionths; 0 where nothing costs anything."""
        return 0 if self.ledger is None else PRICE_MAX

    @property
    def retried(self) -> int:
        """Legs and answers that went to a second peer."""
        rows = [it.status for it in self.peers if it.status]
        return sum(row["failed_over"] + row["tasks"]["retried"] for row in rows)

    @property
    def shown(self) -> dict[str, Any]:
        """The answer that the demo ends with: in words, else the passages."""
        return self.words or self.answer

    def document(self) -> dict[str, Any]:
        """What `demo --json` prints; README.md documents the keys."""
        return {
            "peers": [
                {
                    "name": it.name,
                    "peer": it.id,
                    "roles": list(it.roles),
                    "killed": it.killed,
                    "earned": it.earned,
                }
                for it in self.peers
            ],
            "ledger": None if self.ledger is None else self.ledger.to_map(),
            "passages": self.passages,
            "tasks_accepted": self.accepted,
            "tasks_answered": self.answered,
            "tasks_verified": self.verified,
            "tasks_retried": self.retried,
            "killed": self.killed,
            "receipts": self.answered,
            "answer": self.answer["result"]["passages"],
            "words": self.words["result"]["text"] if self.words else "",
            "route": self.shown["route"],
            "verdicts": self.shown["verdicts"],
            "receipt": str(self.receipt),
            "receipt_holds": self.receipt_holds,
            "folder": str(self.folder),
            "wall_s": round(self.wall_s, 1),
        }


def task_deadline_s(deadline_s: float) -> int:
    """What a task is given that takes up to `deadline_s` on a machine with time for it."""
    return min(limits.DEADLINE_S_MAX, int(timeouts.stretched(deadline_s)))


async def called(
    story: Story,
    command: str,
    arguments: Mapping[str, Any],
    tell: Callable[[Mapping[str, Any]], None],
    deadline_s: float,
) -> dict[str, Any]:
    """Have the asker do something; TooSlow once all peers had `deadline_s` for it."""
    socket = story.peer("asker").socket
    try:
        with timeouts.fail_after(deadline_s, starved=Processes(lambda: pids_of(story.peers))):
            return await call(socket, command, arguments, tell, deadline_s=limits.DEADLINE_S_MAX)
    except trio.TooSlowError as error:
        raise TooSlow(
            f"the peers did not end {command!r} within {deadline_s:.0f} s of their own time",
            todo=f"see what they say in {story.folder}",
        ) from error


async def watch(story: Story) -> None:
    """Keep every peer's status fresh; a peer that ended on its own ends the demo."""
    while True:
        for peer in story.peers:
            if peer.killed or not peer.id:
                continue
            process = peer.process
            if process is not None and process.returncode is not None:
                line = last_line(peer.state.with_suffix(".log"))
                raise BatonError(f"the {peer.name} peer ended: {line}")
            try:
                peer.status = await call(
                    peer.socket, "status", {}, unheard, deadline_s=STATUS_DEADLINE_S
                )
            except BatonError:
                # Busy or just ended; the next round tells.
                continue
        await trio.sleep(0.4)


async def tell_story(story: Story, narrate: Callable[[str], None]) -> None:
    """Run the demo from the first process to the checked receipt."""
    # Here, since the answer's file knows the story and not the other way round.
    from node.commands.demo_answer import word_answer

    started_at_s = trio.current_time()
    story.chapter = "starting seven peers: one knows the bootstrap's address, nobody the others'"
    async with open_peers(story.peers), trio.open_nursery() as nursery:
        narrate("seven processes are up, each with its own key, folder and store")
        nursery.start_soon(watch, story)
        await _models(story, narrate)
        await _embed(story, narrate)
        await _ask(story, narrate)
        if story.writers():
            await word_answer(story, narrate)
        await _verify(story, narrate)
        if story.ledger is not None:
            story.chapter = "what was promised is paid, and the whole ledger is checked offline"
            await settle(story.ledger, story.peers, narrate)
        story.wall_s = trio.current_time() - started_at_s
        nursery.cancel_scope.cancel()


async def _models(story: Story, narrate: Callable[[str], None]) -> None:
    story.chapter = "the model travels: from the first inference peer to all that run or check it"
    workers = [it for it in story.peers if it.model]
    told: set[str] = set()
    starved = Processes(lambda: pids_of(story.peers))
    with timeouts.move_on_after(story.model_deadline_s, starved=starved) as scope:
        while not all(it.ready for it in workers):
            await trio.sleep(0.2)
            for peer in workers:
                if peer.ready and peer.name not in told:
                    told.add(peer.name)
                    row = next(it for it in peer.status["models"] if it["state"] == "ready")
                    speed = f"{row['units_per_s']:.0f} texts/s"
                    narrate(f"{peer.name} has {row['name']} ready: {speed}")
    if scope.cancelled_caught:
        late = [it for it in workers if not it.ready]
        why = [row["problem"] for it in late for row in it.status.get("models", [])]
        raise TaskFailed(f"the model was not ready in time on {late[0].name}: {'; '.join(why)}")


async def _embed(story: Story, narrate: Callable[[str], None]) -> None:
    found = await called(story, "sources", {}, unheard, SOURCES_DEADLINE_S)
    files = [it for it in found["sources"] if it.startswith("files:")]
    topics = [it for it in found["sources"] if it.partition(":")[2] in TOPICS]
    story.sources = [*files, *topics]
    story.chapter = f"{plural(len(story.sources), 'text')}: fetched, cut, embedded, checked, kept"
    narrate(
        f"the data peer offers {plural(len(found['sources']), 'source')}; taking"
        f" {len(story.sources)} of them"
    )
    async with trio.open_nursery() as nursery:

        def tell(event: Mapping[str, Any]) -> None:
            on_event(story, event, narrate)
            half = len(story.sources) // 2
            due = event["event"] == "part" and story.answered >= half
            if due and not story.killed and not story.writers():
                story.killed = kill(story, _busiest(story).id, narrate)

        arguments = {
            "model": story.model,
            "sources": story.sources,
            "deadline_s": task_deadline_s(WORK_DEADLINE_S),
            "needed": 2,
            "verifiers": 3,
            "price_max": story.price_max,
        }
        done = await called(story, "embed", arguments, tell, WORK_DEADLINE_S + 60)
        nursery.cancel_scope.cancel()
    story.passages = done["passages"]
    story.answer["index"] = done["index"]
    narrate(
        f"{plural(done['passages'], 'passage')} embedded in {plural(done['tasks'], 'task')},"
        " none lost"
    )


def on_event(story: Story, event: Mapping[str, Any], narrate: Callable[[str], None]) -> None:
    """Count and narrate what happened to a task."""
    match event["event"]:
        case "accepted":
            story.accepted += 1
        case "failed" if event["code"] in WAITING:
            # It is no failure: who loads, or waits for a promise, is asked again in a moment.
            pass
        case "failed" if not story.killed:
            narrate(f"{event['what']}: {story.name_of(event['peer'])}: {event['why']}")
        case "failed" if story.name_of(event["peer"]) == story.killed:
            narrate(f"{story.killed} is silent: the work goes to another peer")
        case "skipped":
            narrate(f"{event['source']} is left out: {event['why']}")
        case "part":
            story.answered += 1
            story.verified += bool(event["verified"])
            story.passages = event["passages"]
            leg = event["route"][-1]
            checkers = ", ".join(story.name_of(it["peer"]) for it in event["verdicts"])
            narrate(
                f"{event['source']}: {plural(leg['units'], 'passage')} by"
                f" {story.name_of(leg['peer'])}"
                f" in {leg['duration_ms'] / 1000:.1f} s; {checkers} agree"
            )


def _busiest(story: Story) -> DemoPeer:
    infers = [it for it in story.peers if "infer" in it.roles]
    return max(infers, key=lambda it: it.status.get("legs_under_way", 0))


def kill(story: Story, peer_id: str, narrate: Callable[[str], None]) -> str:
    """SIGKILL a peer in the middle of its work; its name."""
    peer = next(it for it in story.peers if it.id == peer_id)
    assert peer.process is not None
    peer.killed = True
    os.kill(peer.process.pid, signal.SIGKILL)
    narrate(f"⚡ {peer.name} is killed with SIGKILL in the middle of its work")
    return peer.name


async def _ask(story: Story, narrate: Callable[[str], None]) -> None:
    story.chapter = "a question in plain words goes the same path"
    narrate(f"asking: {story.question}")
    arguments = {
        "model": story.model,
        "text": story.question,
        "index": story.answer["index"],
        "count": 3,
        "deadline_s": task_deadline_s(QUESTION_DEADLINE_S),
        "fresh": True,
        "price_max": story.price_max,
    }

    def tell(event: Mapping[str, Any]) -> None:
        on_event(story, event, narrate)

    story.answer |= await called(story, "ask", arguments, tell, QUESTION_DEADLINE_S + 30)
    story.answered += 1
    story.verified += bool(story.answer["verified"])


async def _verify(story: Story, narrate: Callable[[str], None]) -> None:
    """A new process, told nothing but the file, checks the receipt."""
    from node.commands.ask import save_receipt

    story.chapter = "one receipt is checked offline, by a process that knows nobody"
    asker = story.peer("asker")
    saved = await trio.to_thread.run_sync(save_receipt, asker.state, story.shown)
    story.receipt = await trio.to_thread.run_sync(_beside, saved, story.folder)
    command = [sys.executable, "-m", "node", "verify", str(story.receipt)]
    done = await trio.run_process(command, capture_stdout=True, check=False)
    story.verify_text = done.stdout.decode(errors="replace")
    story.receipt_holds = done.returncode == 0
    narrate("the receipt holds" if story.receipt_holds else "the receipt does not hold")


def _beside(saved: Path, folder: Path) -> Path:
    """The receipt once more, where its path is short enough to be typed."""
    for suffix in (".receipt", ".input", ".output"):
        if saved.with_suffix(suffix).exists():
            shutil.copyfile(saved.with_suffix(suffix), folder / f"answer{suffix}")
    return folder / "answer.receipt"
