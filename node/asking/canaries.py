"""Canaries: receipts that are wrong on purpose, to find verifiers that say yes without looking.

One is made of an answer whose checks held: its input, and its output with one row another, as a
task of its own, signed by this peer, and a receipt under a key that is used once. One verifier is
drawn and asked as for any other check, for one part of the rows, and the wrong row is in it. An
honest one says no; who agrees has not looked. One of an old version recomputes some rows: only if
the wrong one is among them it should have said no. Views are samples, so a signer that a verifier
never heard of is nothing odd; one that knows every peer of a small network can tell.
"""

import struct
from dataclasses import dataclass, replace
from random import Random

import trio

from node.checking.check_request import CheckRequest
from node.checking.quorum import Checking
from node.task.events import ignore_event
from p2p.score import Offence
from p2p.timeouts import stretched
from wire.content import PeerId
from wire.errors import WireError
from wire.kinds import Level
from wire.lottery import rows_of_part, secret_hash_of, secret_of
from wire.operations import by_rows
from wire.payload import Vectors
from wire.signed import sign
from wire.signing import SigningKey
from wire.task import CheckPolicy
from wire.tree import name_of

CANARY_DEADLINE_S = 60.0
# Most checks are by two verifiers, of a part of the rows each.
PARTS = 2
# So many copies are made at most until the wrong row is in the first part: half of them are.
TRIES_MAX = 16
# With fewer numbers than this another order may be the same again.
SHUFFLED_FROM = 8


@dataclass(slots=True)
class Canaries:
    """Sends canaries for one peer; who agrees with one loses its standing."""

    checking: Checking
    sent: int = 0
    # Verdicts that agreed with what is wrong on purpose.
    fooled: int = 0

    async def send(self, held: CheckRequest) -> PeerId | None:
        """Have a wrong copy of an answer that held checked; who agreed with it, if anybody."""
        environment = self.checking.peers.environment
        for _ in range(TRIES_MAX):
            altered = None if held.output is None else altered_row(held.output, environment.random)
            made = None if altered is None else self._made(held, altered.output)
            if altered is None or made is None:
                return None
            rows = made.receipt.record.units
            if altered.row in rows_of_part(made.secret, made.receipt.id, rows, 1, PARTS):
                break
        else:
            return None
        self.sent += 1
        terms = CheckPolicy(
            level=Level.REPLAYED,
            verifiers=1,
            needed=1,
            secret_hash=made.task.record.checking.secret_hash,
        )
        deadline_at_s = trio.current_time() + stretched(CANARY_DEADLINE_S)
        tally = await self.checking.check(
            made, ignore_event, deadline_at_s=deadline_at_s, terms=terms, parts=PARTS
        )
        for verdict in tally.verdicts:
            if verdict.record.agrees and altered.row in verdict.record.sampled:
                self.fooled += 1
                peers = self.checking.peers
                peers.offended(verdict.signer, Offence.WRONG_ANSWER)
                words = "it agreed with a receipt that is wrong on purpose"
                peers.note_problem(f"verdict of {verdict.signer}", words)
                return verdict.signer
        return None

    def _made(self, held: CheckRequest, output: bytes) -> CheckRequest | None:
        """The wrong copy; None of what is not made of rows, or not at hand."""
        leg, stage = held.receipt.record, held.task.record.stages[0]
        if leg.stage or held.input is None or not by_rows(leg.operation):
            return None
        environment = self.checking.peers.environment
        seed = environment.entropy(32)
        took_ms = held.task.record.issued_at_ms - leg.started_at_ms
        now_ms = int(environment.wall_s() * 1000)
        policy = replace(held.task.record.checking, secret_hash=secret_hash_of(seed))
        task = sign(
            replace(
                held.task.record,
                stages=(stage,),
                checking=policy,
                nonce=environment.entropy(16),
                issued_at_ms=now_ms,
            ),
            self.checking.peers.key,
        )
        receipt = sign(
            replace(
                leg,
                task=task.id,
                output=name_of(output),
                output_size_bytes=len(output),
                started_at_ms=max(0, now_ms - took_ms),
            ),
            SigningKey(environment.entropy(32)),
        )
        return CheckRequest(
            task=task,
            receipts=(receipt,),
            secret=secret_of(seed, 1),
            input=held.input,
            output=output,
        )


@dataclass(frozen=True, slots=True)
class Altered:
    """An output of which the numbers of one row are others."""

    output: bytes
    row: int


def altered_row(output: bytes, chance: Random) -> Altered | None:
    """The output with one row altered; None if it has no rows, or that row is zero.

    What it is altered to is drawn, and is true of no output: the one that it is made of may be a
    lie that others confirmed, and whoever finds out the truth must not be taken for a liar.
    """
    try:
        vectors = Vectors.from_bytes(output)
    except WireError:
        return None
    row, size = chance.randrange(vectors.rows), 4 * vectors.dimensions
    before = vectors.data[row * size : (row + 1) * size]
    numbers = struct.unpack(f"<{vectors.dimensions}f", before)
    if not any(numbers):
        return None
    after = struct.pack(f"<{vectors.dimensions}f", *_others(numbers, chance))
    if after == before:
        return None
    data = vectors.data[: row * size] + after + vectors.data[(row + 1) * size :]
    return Altered(replace(vectors, data=data).to_bytes(), row)


def _others(numbers: tuple[float, ...], chance: Random) -> list[float]:
    """Other numbers that look alike: of many the same ones in another order, with other signs."""
    if len(numbers) < SHUFFLED_FROM:
        times = chance.uniform(1.5, 2.5)
        return [-times * it for it in numbers]
    return [it * chance.choice((-1, 1)) for it in chance.sample(numbers, len(numbers))]
