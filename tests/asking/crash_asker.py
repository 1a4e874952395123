"""An asker to be killed at any moment. Run as a program; see test_crash.py.

`crash_asker.py FOLDER ROUNDS SEED` forks one child for each round: an asker whose store is on the
disk, and a peer that works for it, in one process. The child first waits for all that earlier
children accepted. Then clients ask without a pause, and the child says what was accepted and what
was answered, until it is killed.
"""

import json
import os
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from node.asking.following import Follower
from node.asking.run import TaskRequest
from node.peer import Node
from node.task.events import ignore_event
from p2p.adverts import Environment
from store import Store, open_store
from tests.node.asking import complete, journal_of, nothing_left, request
from tests.node.engines import Counted
from tests.node.network import I, S, open_network
from wire.content import ContentId
from wire.kinds import Level

QUOTA_BYTES = 1 << 30
CLIENTS = 24
KILL_S_MAX = 0.12
PATIENCE_S = 60.0
# Some inputs travel in bundles, some are too large for the journal's row.
SIZES = (10, 10, 10, 2000, 30_000, 80_000)
ACCEPTED, ANSWERED = b"+", b"="
WORD_BYTES = 1 + len(ContentId.of(b""))


@dataclass(slots=True)
class Promised:
    """What the children said so far."""

    accepted: set[ContentId] = field(default_factory=set)
    answered: set[ContentId] = field(default_factory=set)

    def hear(self, said: bytes) -> None:
        for at in range(0, len(said) // WORD_BYTES * WORD_BYTES, WORD_BYTES):
            task = ContentId(said[at + 1 : at + WORD_BYTES])
            (self.accepted if said[at : at + 1] == ACCEPTED else self.answered).add(task)


class Speaker(Follower):
    """Says at once that its task was accepted."""

    def __init__(self, out: int) -> None:
        super().__init__()
        self.out = out
        self.task = b""

    def say(self, word: bytes) -> None:
        os.write(self.out, word + self.task)

    def accepted(self, task: ContentId) -> None:
        self.task = task
        self.say(ACCEPTED)


def asked(number: int) -> TaskRequest:
    size_bytes = SIZES[number % len(SIZES)]
    data = (b"%d " % number) * (size_bytes // 5)
    return request(complete(1), data=data, level=Level.SIGNED, deadline_s=600)


async def kept(asker: Node, promised: Promised) -> None:
    """Raise unless all that was accepted ends with its answer, or has its answer kept."""
    with trio.fail_after(PATIENCE_S):
        for task in promised.accepted:
            if task in promised.answered:
                assert (await asker.tasks.answers.of_task(task)).output
            else:
                assert (await asker.tasks.watch(task, ignore_event)).output


async def client(asker: Node, number: int, out: int) -> None:
    """Ask for ever, by one wait or by two, and say so only after the asker has said so."""

    while True:
        if number % 3:
            speaker = Speaker(out)
            await asker.tasks.ask(asked(number), speaker)
            speaker.say(ANSWERED)
        else:
            task = await asker.tasks.submit(asked(number))
            os.write(out, ACCEPTED + task)
            await asker.tasks.watch(task, ignore_event)
            os.write(out, ANSWERED + task)
        number += CLIENTS


async def life(folder: Path, store: Store, promised: Promised, out: int | None) -> None:
    sample = random.Random()
    async with open_network(folder) as network:
        environment = Environment(wall_s=time.time, random=sample, entropy=os.urandom)
        await network.start(I, S, engine=Counted(unit_s=0.001), environment=environment)
        asker = await network.start(S, store=store, number=77, environment=environment)
        await network.settled()
        await kept(asker, promised)
        if out is None:
            while asker.tasks.statistics().under_way:
                await trio.sleep(0.01)
            assert nothing_left(asker), journal_of(asker)
            return
        os.write(out, b"v" * WORD_BYTES)
        async with trio.open_nursery() as nursery:
            for offset in range(CLIENTS):
                nursery.start_soon(client, asker, sample.randrange(1 << 40) + offset, out)


async def child(folder: Path, promised: Promised, out: int | None) -> None:
    async with open_store(folder / "store", quota_bytes=QUOTA_BYTES) as store:
        await life(folder, store, promised, out)
        report = await store.check()
        assert report.healthy, report


def run_round(folder: Path, promised: Promised, seed: int) -> int:
    """Kill one child at some moment; how many tasks it had accepted and not answered."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reads)
        trio.run(child, folder, promised, writes)
        os._exit(1)
    os.close(writes)
    said = os.read(reads, WORD_BYTES)
    # The child is timed from its first promise, or a slow start would be all there is.
    first = os.read(reads, WORD_BYTES)
    time.sleep(random.Random(seed).uniform(0, KILL_S_MAX))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(reads, "rb") as file:
        rest = file.read()
    assert said == b"v" * WORD_BYTES, f"round {seed}: what was accepted was not answered"
    assert os.WIFSIGNALED(status), f"round {seed}: the child ended by itself"
    before = len(promised.accepted) - len(promised.answered)
    promised.hear(first + rest)
    return len(promised.accepted) - len(promised.answered) - before


def main() -> None:
    folder, rounds, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    (folder / "store").mkdir()
    promised = Promised()
    cut = [run_round(folder, promised, seed + number) for number in range(rounds)]
    trio.run(partial(child, folder, promised, None))
    found = {
        "rounds": rounds,
        "accepted": len(promised.accepted),
        "answered_by_the_first_asker": len(promised.answered),
        "cut_off": sum(cut),
        "rounds_with_tasks_cut_off": sum(it > 0 for it in cut),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
