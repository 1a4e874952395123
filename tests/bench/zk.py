"""What the level zk costs on the digits' MLP, and which cheats its checking rejects.

A key and two proofs are made by ezkl, and each cheat is checked as a verifier checks it. The SRS is
made here, so these proofs prove nothing to anybody. Needs ezkl (`pip install 'baton[zk]'`), and
minutes of the processor.

`python -m tests.bench zk`
"""

import resource
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import trio

from node.engines.proving.circuit import LOGROWS, SCALE_BITS
from node.engines.proving.process import asked_of_worker, library_version
from node.engines.proving.prover import CIRCUITS, EzklProofs, open_proofs
from tests.engines.proving.samples import DIGITS, another, digit
from tests.engines.proving.test_proofs_contract import altered, one_step_more
from wire.tensors import Tensors

DEADLINE_S = 3000.0
TRIES = 8
T = TypeVar("T")


def children_cpu_s() -> float:
    """What the processes that have ended took of the processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def measured(work: Awaitable[T], costs: dict[str, Any], name: str) -> T:
    """What `work` gives; its seconds, and those of the processor, are added to `costs`."""
    wall_s, cpu_s = time.perf_counter(), children_cpu_s()
    found = await work
    costs[f"{name}_wall_s"] = round(time.perf_counter() - wall_s, 2)
    costs[f"{name}_cpu_s"] = round(children_cpu_s() - cpu_s, 2)
    return found


def cheats(honest: bytes, other: bytes, forged: bytes) -> dict[str, list[tuple[bytes, bytes]]]:
    """Answers that are not the model's, with the input that each is said to be for."""
    source, chance = digit(), Random(1)
    proof = Tensors.from_bytes(honest).proofs[0].proof

    def flipped() -> bytes:
        wrong = bytearray(proof)
        wrong[chance.randrange(len(wrong))] ^= 1 << chance.randrange(8)
        return bytes(wrong)

    key = Tensors.from_bytes(honest).proofs[0].key
    return {
        "one bit of the proof": [(source, altered(honest, proof=flipped())) for _ in range(TRIES)],
        "one step of the output": [(source, one_step_more(honest))],
        "a proof for another input": [(source, other)],
        "a proof of another model": [(source, forged), (source, altered(forged, key=key))],
        "a proof cut short, or with a byte behind it": [
            (source, altered(honest, proof=proof[:-1])),
            (source, altered(honest, proof=proof + b"\0")),
        ],
        "no proof": [(source, replace(Tensors.from_bytes(honest), proofs=()).to_bytes())],
    }


async def _measure(folder: Path) -> dict[str, Any]:
    srs, costs = folder / "srs", {}
    await asked_of_worker({"do": "srs", "path": str(srs)}, folder, timeout_s=DEADLINE_S)
    async with open_proofs(folder, srs) as proofs:
        assert isinstance(proofs, EzklProofs)
        await measured(proofs.prepare(DIGITS), costs, "key")
        honest = await measured(proofs.prove(DIGITS, digit(), DEADLINE_S), costs, "prove")
        check = proofs.rejected(DIGITS, digit(), honest, DEADLINE_S)
        held = await measured(check, costs, "check") == ""
        other = await proofs.prove(DIGITS, digit(1), DEADLINE_S)
        forged = await proofs.prove(another(), digit(), DEADLINE_S)
        found: dict[str, dict[str, int]] = {}
        for name, tried in cheats(honest, other, forged).items():
            why = [await proofs.rejected(DIGITS, *it, DEADLINE_S) for it in tried]
            found[name] = {"tried": len(tried), "caught": sum(map(bool, why))}
        (keys, *_) = sorted((folder / CIRCUITS).glob("*/proving.key"))
        sizes = {
            "proof_bytes": len(Tensors.from_bytes(honest).proofs[0].proof),
            "answer_bytes": len(honest),
            "proving_key_bytes": keys.stat().st_size,
            "verifying_key_bytes": (keys.parent / "verifying.key").stat().st_size,
            "srs_bytes": srs.stat().st_size,
        }
    caught = all(it["tried"] == it["caught"] for it in found.values())
    return {
        "system": proofs.system,
        "rows_of_the_circuit": 1 << LOGROWS,
        "steps_of_a_number": 1 << SCALE_BITS,
        **costs,
        **sizes,
        "honest_holds": held,
        "cheats": found,
        "held": held and caught,
    }


def run() -> dict[str, Any]:
    if library_version() is None:
        return {"skipped": "ezkl is not installed: pip install 'baton[zk]'", "held": False}
    with tempfile.TemporaryDirectory() as folder:
        return trio.run(_measure, Path(folder))
