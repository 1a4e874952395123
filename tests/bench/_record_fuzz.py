"""Every parser of what proves something, given bytes that were altered, for as long as is asked.

Each kind of record has seeds that hold, and a judge: it returns whether what it was given holds, or
raises an error of Baton's own. Anything else is a crash; so are a judge that takes too long, memory
beyond a bound, and altered bytes that hold. Half of the time a body is altered and then truly
signed again, so that what lies behind the signatures is reached.
"""

import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import trio

from node.checking.audit import audit
from node.checking.audit_log import log_of, read_place
from node.engines.exact.file import read_bytes
from node.evidence.disputes import judge as judge_dispute
from node.evidence.offences import judge as judge_evidence
from node.local.bundles import open_bundle
from store.car_file import write_car
from tests.bench._economy_fuzz import parsers
from tests.checking.answers import (
    ASKER,
    CONTENT,
    VERIFIERS,
    WORKER,
    answer_to,
    committed_answer,
    have,
)
from tests.checking.played_disputes import CHALLENGER, PROVER, REFEREE, Stage
from tests.checking.test_exact_disputes import MODEL, ROWS, WRONG
from tests.evidence.crimes import ONE as THIEF
from tests.evidence.crimes import Leg, forked
from tests.wire.samples import BY_NAME
from wire.codec import pack, unpack
from wire.content import ContentId, PeerId
from wire.dispute import Dispute
from wire.errors import BatonError
from wire.evidence import Evidence
from wire.kinds import Kind
from wire.log import FIRST, LogFork, LogHead, LogPlace, LogPlaces, judge, leaf_of
from wire.merkle import levels_of, path_of
from wire.message import encode
from wire.proof import prove
from wire.receipt import Receipt, Verdict
from wire.rows import RowBundle
from wire.signed import open_signed, sign

# The processor's, so that a busy machine finds nothing that is not there.
SECONDS_MAX = 5.0
MEMORY_BYTES_MAX = 512 << 20
SHOWN = 8
KEYS = {it.peer: it for it in (ASKER, WORKER, PROVER, CHALLENGER, REFEREE, *VERIFIERS.values())}
SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**62, 2**63, 2**64 - 1, 0.0, 1e300, b"", "", [], {}),
    *(bytes(32), bytes(36), b"\x94" * 5, "x" * 500, [0] * 300, {"a": 1}),
)


@dataclass(frozen=True, slots=True)
class Target:
    """One parser: bytes that hold, and what judges others."""

    seeds: tuple[bytes, ...]
    # Whether the bytes hold; a BatonError says that they do not.
    holds: Callable[[bytes], bool]
    # Whether bytes of another value are as good: a table, or a record that nobody signed.
    any_value_holds: bool = False


@dataclass(slots=True)
class Found:
    """What a run came to."""

    tried: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: str = ""


def fuzz_records(seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Try altered bytes at each parser in turn; what came of it, and whether nothing broke."""
    targets, chance, found = targets_in(folder), Random(seed), Found()
    before_bytes = _memory_bytes()
    for name, target in targets.items():
        for raw in target.seeds:
            assert target.holds(raw), f"the seed of {name} does not hold"
    end_s = time.process_time() + seconds
    names = sorted(targets)
    while time.process_time() < end_s and len(found.wrong) < SHOWN:
        name = names[found.tried.total() % len(names)]
        _try(name, targets[name], chance, found)
    grown_bytes = _memory_bytes() - before_bytes
    return {
        "tried": dict(found.tried),
        "held_again": dict(found.held),
        "wrong": found.wrong,
        "slowest_s": round(found.slowest_s, 3),
        "slowest": found.slowest,
        "memory_grown_mib": round(grown_bytes / 2**20, 1),
        "held": not found.wrong and grown_bytes < MEMORY_BYTES_MAX,
    }


def _try(name: str, target: Target, chance: Random, found: Found) -> None:
    original = chance.choice(target.seeds)
    is_signed_again = chance.random() < 0.5
    raw = signed_again(original, chance) if is_signed_again else altered(original, chance)
    found.tried[name] += 1
    began_s = time.process_time()
    try:
        holds = target.holds(raw)
    except BatonError:
        holds = False
    except (Exception, RecursionError) as error:  # noqa: BLE001
        # Whatever else it is, it is what is looked for.
        found.wrong.append(f"{name}: {type(error).__name__}: {error}: {raw[:200].hex()}")
        return
    took_s = time.process_time() - began_s
    if took_s > found.slowest_s:
        found.slowest_s, found.slowest = took_s, name
    if took_s > SECONDS_MAX:
        found.wrong.append(f"{name}: {took_s:.1f} s: {raw[:200].hex()}")
    if holds and raw not in target.seeds:
        found.held[name] += 1
        # What is truly signed again may hold: there only crashes are looked for.
        if not target.any_value_holds and not is_signed_again:
            found.wrong.append(f"{name}: altered, and it holds: {raw.hex()[:400]}")


def altered(raw: bytes, chance: Random) -> bytes:
    """Bytes with a few bits flipped, pieces cut, doubled or moved."""
    data = bytearray(raw)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(data) + 1)
        size = chance.choice((1, 1, 2, 4, 32, 300))
        match chance.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(data):
                data[at] = chance.randrange(256)
            case 2:
                del data[at : at + size]
            case 3:
                data[at:at] = data[at : at + size]
            case 4:
                data[at:at] = chance.randbytes(size)
            case _:
                data[at : at + size] = chance.choice((b"\xff", b"\0", b"\xdd\xff")) * size
    return bytes(data)


def signed_again(raw: bytes, chance: Random) -> bytes:
    """The record with one value of its body changed, signed anew by whoever signed it.

    What is no signed record of a key that is known here is altered as a value, unsigned.
    """
    try:
        value = unpack(raw)
    except BatonError:
        return altered(raw, chance)
    match value:
        case [int() as kind, bytes() as body, bytes() as key, bytes()] if key in KEYS:
            changed = packed(mutated(unpack(body), chance), body, chance)
            domain = Kind(kind).name.lower()
            (proof,) = prove([(domain, changed)], KEYS[PeerId(key)])
            return pack([kind, changed, key, proof])
    return packed(mutated(value, chance), raw, chance)


def packed(value: Any, before: bytes, chance: Random) -> bytes:
    """The encoding of a value; where it has none, what was there, altered."""
    try:
        return pack(value)
    except BatonError:
        return altered(before, chance)


def mutated(value: Any, chance: Random) -> Any:
    """A value with one part of it another; inner signed records may be signed again."""
    if isinstance(value, dict) and value:
        key = chance.choice(list(value))
        if chance.random() < 0.05:
            return {it: value[it] for it in value if it != key}
        return value | {key: mutated(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        if chance.random() < 0.2:
            return value[:at] + value[at : at + 1] * chance.randrange(4) + value[at + 1 :]
        return [*value[:at], mutated(value[at], chance), *value[at + 1 :]]
    if isinstance(value, bytes) and value and chance.random() < 0.7:
        is_record = value[:1] == b"\x94" and chance.random() < 0.7
        return signed_again(value, chance) if is_record else altered(value, chance)
    if isinstance(value, int) and not isinstance(value, bool) and chance.random() < 0.6:
        return value + chance.choice((-1, 1, 7, 256, 2**31, -(2**31)))
    return chance.choice(SCALARS)


def _memory_bytes() -> int:
    """The most that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# The parsers


def targets_in(folder: Path) -> Mapping[str, Target]:
    """Each parser, with what it reads that holds."""
    answer = answer_to()
    heads, places = _log_of(answer.record.receipts[0])
    unchecked = {
        name: Target((BY_NAME[name].to_bytes(),), _reads(name), any_value_holds=True)
        for name in ("Calibration", "LogPlaces", "AttestedFetch", "Manifest", "ReplayStatistics")
    }
    verdict = open_signed(answer.record.verdicts[0], Verdict)
    receipt = open_signed(answer.record.receipts[0], Receipt)
    fork = sign(LogFork(first=heads[0], second=heads[1]), ASKER)
    rows = sign(_sample(RowBundle), ASKER)
    return {
        **unchecked,
        "receipt": Target((answer.raw, committed_answer().raw), _audited),
        "leg": Target((receipt.raw,), lambda raw: bool(open_signed(raw, Receipt))),
        "verdict": Target((verdict.raw,), lambda raw: bool(open_signed(raw, Verdict))),
        "rows": Target((rows.raw,), lambda raw: bool(open_signed(raw, RowBundle))),
        "head": Target(heads, lambda raw: bool(open_signed(raw, LogHead))),
        "fork": Target((fork.raw,), _judged_fork),
        "log": Target((places,), lambda raw: _log_holds(answer.raw, raw)),
        "place": Target(
            (LogPlaces.from_bytes(places).places[0],),
            lambda raw: bool(read_place(raw, receipt)),
        ),
        "bundle": _bundle(folder / "fuzzed.car", answer.raw),
        "dispute": _dispute(),
        "exact model": Target(
            (MODEL.to_bytes(),), lambda raw: bool(read_bytes(raw, "fuzzed")), any_value_holds=True
        ),
        "evidence": Target(
            _evidence(), lambda raw: bool(judge_evidence(Evidence.from_bytes(raw)).convictions)
        ),
        "stakes": Target(
            (BY_NAME["StakeRow"].to_bytes(),), _reads("StakeRow"), any_value_holds=True
        ),
        **{
            name: Target((raw,), holds, any_value_holds=not name.startswith("signed "))
            for name, (raw, holds) in parsers(folder).items()
        },
    }


def _evidence() -> tuple[bytes, ...]:
    """Evidence of each kind that needs no dispute."""
    leg = Leg(wrong=(5,))
    found = (forked(THIEF), leg.against_worker(), leg.against(leg.verdict(THIEF, (5,))))
    return tuple(it.to_bytes() for it in found)


def _sample(kind: type[Any]) -> Any:
    return BY_NAME[kind.__name__]


def _reads(name: str) -> Callable[[bytes], bool]:
    kind = type(BY_NAME[name])
    return lambda raw: kind.from_bytes(raw).to_bytes() == raw


def _audited(raw: bytes) -> bool:
    return audit(raw, have).holds


def _judged_fork(raw: bytes) -> bool:
    return bool(judge(open_signed(raw, LogFork).record).why)


def _log_of(raw: bytes) -> tuple[tuple[bytes, ...], bytes]:
    """Two heads of the worker's that contradict each other, and a receipt's place under one."""
    receipt = open_signed(raw, Receipt)
    leaves = [leaf_of(it) for it in (receipt.id, ContentId.of(b"one"), ContentId.of(b"two"))]
    levels = levels_of(leaves)
    fields: dict[str, Any] = {"began_at_ms": 1, "number": 1, "size": 3, "previous": FIRST}
    at_ms = receipt.record.started_at_ms
    heads = [
        sign(LogHead(**fields, root=root, signed_at_ms=at_ms), WORKER)
        for root in (levels[-1][0], bytes(32))
    ]
    place = LogPlace(head=heads[0].raw, index=0, path=path_of(levels, 0))
    return tuple(it.raw for it in heads), LogPlaces(places=(encode(place),)).to_bytes()


def _log_holds(answer: bytes, raw: bytes) -> bool:
    report = audit(answer, have, check_log=log_of(raw))
    return any(
        it.part == "log" and it.status.value == "holds" and not it.is_limit for it in report.points
    )


def _bundle(path: Path, answer: bytes) -> Target:
    blocks = {**CONTENT, ContentId.of(answer): answer}
    root = ContentId.of(answer)
    write_car(path, root, list(blocks), blocks.__getitem__)

    def holds(raw: bytes) -> bool:
        path.write_bytes(raw)
        found = open_bundle(path)
        return audit(found.answer, found.have, check_log=log_of(found.log)).holds

    # Blocks in another order are the same bundle.
    return Target((path.read_bytes(),), holds, any_value_holds=True)


def _dispute() -> Target:
    stage = Stage(MODEL, WRONG, MODEL, [ROWS])
    record = trio.run(stage.play)
    model, source, output = MODEL.to_bytes(), stage.source, stage.output

    def holds(raw: bytes) -> bool:
        _, found = judge_dispute(open_signed(raw, Dispute), model, source, output)
        # Who is honest is never convicted, whatever is signed by the referee.
        assert not (found.proven and CHALLENGER.peer in found.lost), "an honest peer is convicted"
        return True

    return Target((record.raw,), holds)
