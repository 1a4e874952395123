"""How often an answer with a few wrong rows is accepted, and what verifiers spend to find it.

Honest verifiers check answers of 256 rows, of which some are wrong; each answer is another task, so
another draw. Time is simulated: a row takes a verifier a millisecond.

`python -m tests.bench wrong_rows [ANSWERS] [--verifiers 3] [--lying 0]`; of the verifiers so many
say yes to everything, and look at nothing.
"""

import argparse
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import trio

from node.checking.check_request import CheckRequest
from node.devnet.adversary import misbehave
from node.devnet.virtual_time import virtual_time
from node.engines.hash_engine import hash_manifest
from node.engines.hash_vector import hash_vector
from node.engines.interface import Emit, Job, Output
from node.peer import Node
from node.task.events import ignore_event
from tests.node.asking import receipt_of, task_of
from tests.node.engines import PROBE, Counted
from tests.node.network import S, V, open_network
from tests.p2p.transports import key_of
from wire.kinds import Level
from wire.payload import Texts, Vectors
from wire.task import CheckPolicy
from wire.tree import name_of

ROWS = 256
WRONG = (0, 1, 4, 8, 16)
UNIT_S = 0.001
DEADLINE_S = 60.0


class Verifier(Counted):
    """An honest engine that counts the rows it was given."""

    def __init__(self) -> None:
        super().__init__(unit_s=UNIT_S)
        self.rows = 0

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        output = await super().infer(job, emit)
        self.rows += 0 if job.input == PROBE else output.units
        return output


@dataclass(frozen=True, slots=True)
class Found:
    """What became of the answers with so many wrong rows."""

    answers: int
    accepted: int
    # Of the accepted, those of which a verdict had proved a row wrong.
    though_proved: int
    rejected: int
    # Rows that all verifiers recomputed, by rows of the answers; and the same for time.
    work_share: float
    time_share: float

    def to_document(self) -> dict[str, Any]:
        """As the report shows it."""
        return {
            "accepted": f"{self.accepted} of {self.answers}",
            "accepted_though_proved_wrong": self.though_proved,
            "rejected": self.rejected,
            "verifiers_rows_of_the_answers": round(self.work_share, 3),
            "seconds_of_the_legs": round(self.time_share, 3),
        }


async def found_of(asker: Node, wrong: int, answers: int, engines: list[Verifier]) -> Found:
    """Have answers with `wrong` wrong rows checked by whoever the asker knows."""
    random = Random(f"wrong:{wrong}")
    texts = tuple(f"text {number}" for number in range(ROWS))
    source = Texts(texts=texts).to_bytes()
    model = hash_manifest().id
    true = np.frombuffer(b"".join(hash_vector(model, it, 64) for it in texts), "<f4")
    accepted = proved = rejected = 0
    began_at_s, before = trio.current_time(), sum(it.rows for it in engines)
    for number in range(answers):
        rows = true.reshape(ROWS, 64).copy()
        rows[random.sample(range(ROWS), wrong)] *= -1.0
        output = Vectors(dimensions=64, rows=ROWS, data=rows.tobytes()).to_bytes()
        secret = random.randbytes(32)
        terms = CheckPolicy(
            level=Level.REPLAYED,
            verifiers=3,
            needed=2,
            secret_hash=hashlib.sha256(secret).digest(),
        )
        wall_s = asker.dependencies.environment.wall_s()
        nonce = number.to_bytes(16, "big")
        key = asker.dependencies.key
        task = task_of(key, wall_s, source=name_of(source), checking=terms, nonce=nonce)
        receipt = receipt_of(task, key_of("worker"), output, units=ROWS)
        await asker.dependencies.store.put(source)
        await asker.dependencies.store.put(output)
        claimed = CheckRequest(
            task=task, receipts=(receipt,), secret=secret, input=source, output=None
        )
        tally = await asker.tasks.checking.check(
            claimed, ignore_event, deadline_at_s=trio.current_time() + DEADLINE_S
        )
        accepted += tally.agreed is True
        rejected += tally.agreed is False
        proves = any(it.record.could_check and not it.record.agrees for it in tally.verdicts)
        proved += tally.agreed is True and proves
    work = sum(it.rows for it in engines) - before
    took_s = trio.current_time() - began_at_s
    whole = answers * ROWS
    return Found(answers, accepted, proved, rejected, work / whole, took_s / (whole * UNIT_S))


async def measure(
    folder: Path, answers: int, wrong: tuple[int, ...] = WRONG, verifiers: int = 3, lying: int = 0
) -> dict[int, Found]:
    """What became of answers, by how many rows of each are wrong."""
    engines = [Verifier() for _ in range(verifiers)]
    async with open_network(folder) as network:
        asker = await network.start(S)
        nodes = [await network.start(V, S, engine=it) for it in engines]
        await network.settled()
        for node in nodes[:lying]:
            misbehave(node, "lazy_verifier", Random(1))
        return {count: await found_of(asker, count, answers, engines) for count in wrong}


def run(arguments: list[str]) -> dict[str, Any]:
    """Accepted answers by wrong rows; `held` if none is that a verdict had proved wrong."""
    parser = argparse.ArgumentParser(prog="wrong_rows")
    parser.add_argument("answers", type=int, nargs="?", default=60)
    parser.add_argument("--verifiers", type=int, default=3)
    parser.add_argument("--lying", type=int, default=0)
    options = parser.parse_args(arguments)

    async def measured() -> dict[int, Found]:
        with tempfile.TemporaryDirectory() as folder:
            return await measure(
                Path(folder), options.answers, WRONG, options.verifiers, options.lying
            )

    with virtual_time() as clock:
        found = trio.run(measured, clock=clock)
    return {
        "wrong_rows_of_256": {str(it): one.to_document() for it, one in found.items()},
        "held": all(not one.though_proved for it, one in found.items() if it),
    }
