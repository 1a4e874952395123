"""An asker to be killed at any moment. Run as a program; see test_crash.py.

`crash_asker.py FOLDER ROUNDS SEED` forks one child for each round: an asker, a data peer and a peer
that runs models, in one process, with their stores on the disk. The child first waits for all that
earlier children accepted, and sees that whoever signed a receipt of an answer has it still. Then
clients ask without a pause, for one leg or for two, and the child says what was accepted and what
was answered, until it is killed.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from node.asking.following import Follower
from node.asking.run import TaskRequest
from node.peer import Node
from node.task.events import ignore_event
from p2p.adverts import Environment
from store import Store, Table, open_store
from tests.node.asking import FETCH, complete, journal_of, nothing_left, request
from tests.node.engines import Counted
from tests.node.network import D, I, S, open_network
from wire.content import ContentId
from wire.kinds import Level
from wire.receipt import Receipt
from wire.signed import open_signed

QUOTA_BYTES = 1 << 30
# Those of the asker, of the peer that runs models, and of the data peer.
STORES = ("store", "store-infer", "store-data")
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
    if number % 4 == 3:
        # A data leg, and one that differs from all others.
        stages = (FETCH, complete(1 + number % 9))
        return request(*stages, data=None, level=Level.SIGNED, deadline_s=600)
    size_bytes = SIZES[number % len(SIZES)]
    data = (b"%d " % number) * (size_bytes // 5)
    return request(complete(1), data=data, level=Level.SIGNED, deadline_s=600)


async def kept(asker: Node, others: Sequence[Node], promised: Promised) -> None:
    """Raise unless all that was accepted ends with its answer, or has its answer kept.

    A receipt is durable before anybody hears of it, so those who signed one have it.
    """
    stores = {it.peers.me: it.dependencies.store for it in others}
    with trio.fail_after(PATIENCE_S):
        for task in promised.accepted:
            if task in promised.answered:
                answered = await asker.tasks.answers.of_task(task)
            else:
                answered = await asker.tasks.watch(task, ignore_event)
            assert answered.output
            for raw in answered.answer.record.receipts:
                receipt = open_signed(raw, Receipt)
                key = task.digest + bytes((receipt.record.stage,))
                assert stores[receipt.signer].read(Table.RECEIPTS, key) == raw


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


async def life(folder: Path, stores: Sequence[Store], promised: Promised, out: int | None) -> None:
    sample = random.Random()
    async with open_network(folder) as network:
        mine, *theirs = stores
        environment = Environment(wall_s=time.time, random=sample, entropy=os.urandom)
        worker = await network.start(
            I, S, engine=Counted(unit_s=0.001), environment=environment, store=theirs[0]
        )
        data = await network.start(D, S, environment=environment, store=theirs[1])
        asker = await network.start(S, store=mine, number=77, environment=environment)
        await network.settled()
        await kept(asker, (worker, data), promised)
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
    async with AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(open_store(folder / it, quota_bytes=QUOTA_BYTES))
            for it in STORES
        ]
        await life(folder, stores, promised, out)
        for store in stores:
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
    for name in STORES:
        (folder / name).mkdir()
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
