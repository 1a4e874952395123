"""A small answer that holds, made without a network: what was asked, done, checked and signed."""

import hashlib
from dataclasses import replace
from typing import Any

from tests.node.asking import EMBED, SECRET, TEXTS, VECTORS, receipt_of, task_of
from tests.p2p.transports import key_of
from wire.commitment import commitment_to, opened, shown_hash
from wire.content import ContentId
from wire.kinds import Level
from wire.lottery import Share, draw
from wire.receipt import Answer, Receipt, Verdict, VerdictCommitment
from wire.signed import Signed, open_signed, sign
from wire.signing import SigningKey
from wire.task import CheckPolicy, Stage, Task
from wire.tree import name_of

NOW_S = 1_800_000_000.0
NOW_MS = int(NOW_S * 1000)
ASKER, WORKER = key_of("asker"), key_of("worker")
VERIFIERS = {it.peer: it for it in map(key_of, ("verifier 1", "verifier 2", "verifier 3"))}
CONTENT = {name_of(it): it for it in (TEXTS, VECTORS)}


def have(content_id: ContentId) -> bytes | None:
    """The input and the output of such an answer."""
    return CONTENT.get(content_id)


def policy(level: Level = Level.REPLAYED, needed: int = 2, verifiers: int = 3) -> CheckPolicy:
    secret_hash = hashlib.sha256(SECRET).digest()
    return CheckPolicy(level=level, verifiers=verifiers, needed=needed, secret_hash=secret_hash)


SIGNED_ONLY = policy(Level.SIGNED, 0, 0)


def verdict_on(
    receipt: Signed[Receipt], key: SigningKey, part: int, parts: int = 2, **changes: Any
) -> Signed[Verdict]:
    """A verdict that agrees, on one part of the rows."""
    units = receipt.record.units
    sampled = Share(part, parts, frozenset()).due(SECRET, receipt.id, key.peer, units)
    fields: dict[str, Any] = {
        "receipt": receipt.id,
        "secret": SECRET,
        "agrees": True,
        "could_check": True,
        "rows": units,
        "sampled": sampled,
        "worst_ppb": (7,) * len(sampled),
        "profile": "hash-1 exact",
        "reason": "",
        "checked_at_ms": NOW_MS + 400,
        "duration_ms": 1,
    }
    return sign(Verdict(**(fields | changes)), key)


def answer_to(
    *stages: Stage,
    checking: CheckPolicy | None = None,
    source: bytes = TEXTS,
    output: bytes = VECTORS,
    **changes: Any,
) -> Signed[Answer]:
    """An answer of one leg, checked by as many verifiers as it needs."""
    checking = checking or policy()
    stage = stages or (EMBED,)
    task: Signed[Task] = task_of(ASKER, NOW_S, *stage, source=name_of(source), checking=checking)
    receipt = receipt_of(task, WORKER, output)
    drawn = draw(SECRET, receipt.id, VERIFIERS)[: checking.needed]
    verdicts = [
        verdict_on(receipt, VERIFIERS[peer], part, checking.needed)
        for part, peer in enumerate(drawn, 1)
    ]
    fields: dict[str, Any] = {
        "task": task.raw,
        "receipts": (receipt.raw,),
        "secret": SECRET,
        "candidates": tuple(sorted(VERIFIERS)),
        "verdicts": tuple(it.raw for it in verdicts),
        "attempts": 1,
        "answered_at_ms": NOW_MS + 1000,
        "duration_ms": 1000,
    }
    return sign(Answer(**(fields | changes)), ASKER)


def changed(answer: Signed[Answer], **changes: Any) -> Signed[Answer]:
    """The answer as its asker signs it anew, with some fields changed."""
    return sign(replace(answer.record, **changes), ASKER)


def committed_answer(
    shown_to: tuple[int, int] = (2, 2), salts: tuple[bytes, bytes] = (b"1" * 32, b"2" * 32)
) -> Signed[Answer]:
    """An answer with two verdicts; `shown_to` says how many commitments each was shown."""
    plain = answer_to()
    bare = [open_signed(it, Verdict) for it in plain.record.verdicts]
    made = [
        VerdictCommitment(
            stage=0, verifier=it.signer, commitment=commitment_to(it.record, salt, it.signer)
        )
        for it, salt in zip(bare, salts, strict=True)
    ]
    hashes = [it.commitment for it in made]
    verdicts = [
        sign(
            opened(it.record, salt, shown_hash(hashes[: shown_to[at]]), shown_to[at]),
            VERIFIERS[it.signer],
        )
        for at, (it, salt) in enumerate(zip(bare, salts, strict=True))
    ]
    return changed(plain, verdicts=tuple(it.raw for it in verdicts), commitments=tuple(made))


def parts_of(answer: Signed[Answer]) -> dict[str, bytes]:
    """The signed records inside an answer, by what they are called."""
    record = answer.record
    return {
        "the task": record.task,
        **{f"the receipt of leg {at}": raw for at, raw in enumerate(record.receipts, 1)},
        **{
            f"the verdict of {open_signed(raw, Verdict).signer.short}": raw
            for raw in record.verdicts
        },
    }
