"""What `join` prints while its peer runs: one line for each change."""

import trio

from node.commands.output import (
    clock_words,
    console,
    progress_line,
    safe,
)
from node.commands.run_log import run_log
from node.health.reach_words import seed_words
from node.peer import Node

# Only a number of peers that stands so long is told after the first one.
STANDS_S = 2.0


async def narrate(node: Node) -> None:
    """Print one line for each change, and nothing else: a log that stays short for months."""
    said: dict[str, str] = {"pause": "not paused"}
    # Who has just come is given the time to answer.
    heard_at_s = counted_at_s = trio.current_time()
    counted = ""

    def say(about: str, line: str) -> None:
        if said.get(about) != line:
            said[about] = line
            if run_log.is_json:
                run_log.write(about, line)
            else:
                # A model's name is whatever the stranger who made it wrote there.
                console.print(safe(line))

    while True:
        answered, connected = node.peers.answered_last_minute()
        if (now := f"peers: {connected} connected, {len(node.peers.view)} known") != counted:
            counted, counted_at_s = now, trio.current_time()
        # Who calls and is refused is gone at once; that may go on for as long as it runs.
        if "peers" not in said or trio.current_time() >= counted_at_s + STANDS_S:
            say("peers", counted)
        for progress in node.models.on_their_way():
            done = (progress.done_bytes, progress.size_bytes)
            say(f"model {progress.name}", progress_line(progress.name, progress.step, *done))
        say(
            "pause", f"paused: {node.leg_server.paused}" if node.leg_server.paused else "not paused"
        )
        for name, problem in node.model_problems.items():
            say(f"problem {name}", f"model {name}: {problem}")
        if node.peers.handshake_log.same_key:
            say("key", "another machine uses this peer's key: its state folder was copied")
        if node.peers.neighbours.unmet:
            say("unmet", node.peers.neighbours.unmet)
        else:
            said.pop("unmet", None)
        for name, told in (node.peers.seeds.as_map() if node.peers.seeds else {}).items():
            if not connected and told["asked"]:
                say(f"seeds {name}", seed_words(name, told))
        stands = node.peers.members.as_map() if node.peers.members else {"problem": ""}
        if stands["problem"] and not stands["member"]:
            say("member", f"no member of {stands['name']}: {stands['problem']}")
        else:
            said.pop("member", None)
        if (skew_s := node.peers.handshake_log.clock_wrong_s()) is not None:
            say("clock", f"this machine's clock is {clock_words(skew_s)} most others': set it")
        if answered or not connected:
            heard_at_s = trio.current_time()
        if trio.current_time() - heard_at_s > 60:
            say("heard", "no peer answered in the last minute: check this machine's network")
        else:
            said.pop("heard", None)
        await trio.sleep(0.5)
