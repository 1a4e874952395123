"""What the tests ask for, and how they hear what became of it."""

import hashlib
from collections.abc import Sequence
from typing import Any

import trio

from node.asking.answers import Answered
from node.asking.journal import JournalEntry, entries_of
from node.asking.run import TaskRequest
from node.engines.hash_engine import hash_manifest
from node.engines.hash_vector import hash_vector
from node.peer import Node
from node.task.events import Event, Failed
from store import Table
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import StoreError
from wire.kinds import Level, Role
from wire.payload import Texts, Vectors
from wire.receipt import Receipt
from wire.signed import Signed, open_signed, sign
from wire.signing import SigningKey
from wire.task import CheckPolicy, Stage, Task
from wire.tree import name_of

MANIFEST = hash_manifest()
MODEL = MANIFEST.id
FETCH = Stage(role=Role.DATA, operation="fetch", model=None, parameters={"source": "pydoc:try"})
EMBED_PASSAGES = Stage(role=Role.INFER, operation="embed-passages", model=MODEL, parameters={})
EMBED = Stage(role=Role.INFER, operation="embed", model=MODEL, parameters={})
SECRET = bytes(range(32))


def complete(tokens: int) -> Stage:
    return Stage(role=Role.INFER, operation="complete", model=MODEL, parameters={"tokens": tokens})


def texts_of(*texts: str) -> bytes:
    return Texts(texts=texts).to_bytes()


TEXTS = texts_of("one", "two", "three")


def vectors_of(*texts: str) -> bytes:
    """What an honest peer answers."""
    rows = b"".join(hash_vector(MODEL, text, 64) for text in texts)
    return Vectors(dimensions=64, rows=len(texts), data=rows).to_bytes()


VECTORS = vectors_of("one", "two", "three")


def request(*stages: Stage, data: bytes | None = TEXTS, **terms: Any) -> TaskRequest:
    return TaskRequest(stages=stages or (EMBED,), input=data, **terms)


async def asked(asker: Node, wanted: TaskRequest) -> tuple[Answered, list[Event]]:
    """Submit and wait: the answer and everything that was told."""
    events: list[Event] = []
    task = await asker.tasks.submit(wanted)
    with trio.fail_after(wanted.deadline_s + 5):
        return await asker.tasks.watch(task, events.append), events


def signers(answered: Answered) -> list[PeerId]:
    return [open_signed(raw, Receipt).signer for raw in answered.answer.record.receipts]


def failures(events: Sequence[Event], what: str = "") -> list[Failed]:
    return [it for it in events if isinstance(it, Failed) and what in ("", it.what)]


def journal_of(node: Node) -> list[JournalEntry]:
    """The tasks that the journal has, of all of its rows."""
    rows = node.dependencies.store.scan(Table.JOURNAL)
    return [entry for _, row in rows for entry in entries_of(row)]


def nothing_left(node: Node) -> bool:
    """Whether every task was forgotten that has ended, with what was kept for its sake."""
    pins = [it for it in node.dependencies.store.pins() if it.why == "journal"]
    return not journal_of(node) and not pins and not node.tasks.statistics().under_way


def task_of(
    key: SigningKey,
    wall_s: float,
    *stages: Stage,
    source: ContentId | None = None,
    **changes: Any,
) -> Signed[Task]:
    """A task signed by `key`, as its own path would sign it."""
    fields: dict[str, Any] = {
        "version": limits.TASK_VERSION,
        "stages": stages or (EMBED,),
        "input": source or name_of(TEXTS),
        "checking": CheckPolicy(
            level=Level.REPLAYED,
            verifiers=3,
            needed=2,
            secret_hash=hashlib.sha256(SECRET).digest(),
        ),
        "issued_at_ms": int(wall_s * 1000),
        "deadline_s": 60,
        "price_max": 0,
        "nonce": bytes(16),
    }
    return sign(Task(**(fields | changes)), key)


def receipt_of(
    task: Signed[Task], key: SigningKey, output: bytes, /, **changes: Any
) -> Signed[Receipt]:
    """The receipt of a task's first leg, signed by `key`."""
    stage = task.record.stages[0]
    fields: dict[str, Any] = {
        "task": task.id,
        "stage": 0,
        "role": stage.role,
        "operation": stage.operation,
        "model": stage.model,
        "input": task.record.input,
        "output": name_of(output),
        "output_size_bytes": len(output),
        "units": 3,
        "started_at_ms": task.record.issued_at_ms,
        "duration_ms": 1,
        "profile": "hash-1 exact",
        "previous": None,
        "reused": False,
    }
    return sign(Receipt(**(fields | changes)), key)


async def kept_output(node: Node, answered: Answered) -> bytes | None:
    """The output as the asker's own store gives it back."""
    receipt = open_signed(answered.answer.record.receipts[-1], Receipt)
    try:
        return await node.dependencies.store.get(receipt.record.output)
    except StoreError:
        return None
