"""Crimes as they are committed, with the evidence of them, and honest work beside them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from node.engines.hash_model import hash_manifest
from node.engines.hash_vector import hash_vector
from node.evidence.offences import forked_log
from wire.evidence import Evidence, OffenceKind
from wire.kinds import Level, Role
from wire.log import FIRST, LogFork, LogHead
from wire.lottery import secret_hash_of
from wire.operations import EMBED
from wire.payload import Texts, Vectors
from wire.receipt import Receipt, Verdict
from wire.signed import Signed, sign
from wire.signing import SigningKey
from wire.task import CheckPolicy, Stage, Task
from wire.tree import name_of

ASKER, WORKER, ONE, TWO, THREE = (SigningKey(bytes((70 + at,)) * 32) for at in range(5))
MANIFEST = hash_manifest()
SECRET = bytes(32)
PPB = 1_000_000_000
ROWS = 8


def texts(count: int = ROWS) -> Texts:
    return Texts(texts=tuple(f"text {number}" for number in range(count)))


def vectors(asked: Texts, wrong: Sequence[int] = ()) -> Vectors:
    """What a hash model answers; the rows `wrong` are of other texts."""
    rows = [
        hash_vector(MANIFEST.id, text + "!" * (row in wrong), 64)
        for row, text in enumerate(asked.texts)
    ]
    return Vectors(dimensions=64, rows=len(rows), data=b"".join(rows))


@dataclass
class Leg:
    """One embedding by a hash model, right but for the rows `wrong`."""

    worker: SigningKey = WORKER
    wrong: Sequence[int] = ()
    nonce: int = 0
    rows: int = ROWS

    def __post_init__(self) -> None:
        asked = texts(self.rows)
        self.source = asked.to_bytes()
        self.output = vectors(asked, self.wrong).to_bytes()
        stage = Stage(role=Role.INFER, operation=EMBED, model=MANIFEST.id, parameters={})
        policy = CheckPolicy(
            needed=2, verifiers=3, secret_hash=secret_hash_of(SECRET), level=Level.REPLAYED
        )
        self.task = sign(
            Task(
                version=1,
                stages=(stage,),
                input=name_of(self.source),
                checking=policy,
                issued_at_ms=1,
                deadline_s=60,
                price_max=0,
                nonce=self.nonce.to_bytes(16, "big"),
            ),
            ASKER,
        )
        self.receipt = self.signed()

    def signed(self, **changes: Any) -> Signed[Receipt]:
        fields: dict[str, Any] = {
            "task": self.task.id,
            "stage": 0,
            "role": Role.INFER,
            "operation": EMBED,
            "model": MANIFEST.id,
            "input": name_of(self.source),
            "output": name_of(self.output),
            "output_size_bytes": len(self.output),
            "units": self.rows,
            "started_at_ms": 1,
            "duration_ms": 1,
            "profile": "",
            "previous": None,
            "reused": False,
        }
        return sign(Receipt(**(fields | changes)), self.worker)

    def verdict(
        self, verifier: SigningKey, sampled: Sequence[int], *, agrees: bool = True, **changes: Any
    ) -> Signed[Verdict]:
        """A verdict, true or not."""
        worst = tuple(0 if agrees else PPB for _ in sampled)
        said = Verdict(
            receipt=self.receipt.id,
            secret=SECRET,
            agrees=agrees,
            could_check=True,
            rows=self.rows,
            sampled=tuple(sampled),
            worst_ppb=worst,
            profile="",
            reason="",
            checked_at_ms=1,
            duration_ms=1,
        )
        return sign(replace(said, **changes), verifier)

    @property
    def content(self) -> tuple[bytes, ...]:
        return MANIFEST.to_bytes(), self.source, self.output

    def against_worker(self) -> Evidence:
        records = (self.task.raw, self.receipt.raw)
        return Evidence(offence=OffenceKind.WRONG_ANSWER, records=records, content=self.content)

    def against(self, verdict: Signed[Verdict]) -> Evidence:
        records = (self.task.raw, self.receipt.raw, verdict.raw)
        return Evidence(offence=OffenceKind.UNTRUE_VERDICT, records=records, content=self.content)


def fork_of(key: SigningKey, number: int = 5, began_at_ms: int = 1000) -> LogFork:
    """Two heads of one log that contradict each other."""
    heads = [
        LogHead(
            began_at_ms=began_at_ms,
            number=number,
            size=9,
            root=bytes([side]) * 32,
            previous=bytes([7]) * 32 if number > 1 else FIRST,
            signed_at_ms=2000,
        )
        for side in (1, 2)
    ]
    first, second = (sign(it, key).raw for it in heads)
    return LogFork(first=first, second=second)


def forked(key: SigningKey, number: int = 5, began_at_ms: int = 1000) -> Evidence:
    return forked_log(fork_of(key, number, began_at_ms))
