"""What makes and checks proofs, as peers use it: the fake on every run, ezkl with `--soak`."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import trio

from node.commands.verify_proof import _rejected
from node.engines.proving.circuit import ROWS_MAX, SCALE_BITS
from node.engines.proving.process import asked_of_worker, library_version
from node.engines.proving.prover import CIRCUITS, WAITING_MAX, EzklProofs, open_proofs
from tests.engines.proving.fake_library import FakeLibrary
from tests.engines.proving.samples import DIGITS, another, digit, srs_file
from wire.errors import (
    EngineFailed,
    EngineMissing,
    Malformed,
    ModelRefused,
    Oversize,
    Refused,
    WireError,
)
from wire.tensors import CircuitProof, Tensors

DEADLINE_S = 3000.0
FAKE, EZKL = "fake", "ezkl"


@asynccontextmanager
async def opened(state: Path, srs: Path, which: str = FAKE) -> AsyncIterator[EzklProofs]:
    async with open_proofs(state, srs) as proofs:
        assert proofs is not None
        if which == FAKE:
            proofs.library, proofs.ask = "23.0.5", FakeLibrary().ask
        yield proofs


def fake_of(proofs: EzklProofs) -> FakeLibrary:
    """The fake that answers from now on, for its faults."""
    fake = FakeLibrary()
    proofs.ask = fake.ask
    return fake


def altered(output: bytes, **changes: object) -> bytes:
    """An output whose proof has other fields."""
    found = Tensors.from_bytes(output)
    proof = replace(found.proofs[0], **changes)  # type: ignore[arg-type]
    return replace(found, proofs=(proof,)).to_bytes()


def one_step_more(output: bytes) -> bytes:
    """An output with one number that is one step of the circuit larger."""
    found = Tensors.from_bytes(output)
    *others, last = found.tensors
    numbers = np.frombuffer(last.data, "<f4").copy()
    numbers[0] += 1 / (1 << SCALE_BITS)
    moved = replace(last, data=numbers.astype("<f4").tobytes())
    return replace(found, tensors=(*others, moved)).to_bytes()


async def check_promises(proofs: EzklProofs) -> None:
    """All that a verifier relies on, with one key and one proof."""
    source = digit()
    output = await proofs.prove(DIGITS, source, DEADLINE_S)
    proof = Tensors.from_bytes(output).proofs[0].proof

    async def rejected(output: bytes, source: bytes = source) -> str:
        return await proofs.rejected(DIGITS, source, output, DEADLINE_S)

    assert await rejected(output) == ""
    bare = replace(Tensors.from_bytes(output), proofs=()).to_bytes()
    assert "has no proof" in await rejected(bare)
    assert "cannot be read" in await rejected(b"no tensors")
    # Of another input, and another output of the same one.
    assert "does not hold" in await rejected(output, digit(1))
    assert "does not hold" in await rejected(one_step_more(output))
    # Altered, cut short, with bytes behind it, of random bytes.
    chance = Random(1)
    for at in (0, len(proof) // 2, len(proof) - 1):
        wrong = bytearray(proof)
        wrong[at] ^= 1 << chance.randrange(8)
        assert await rejected(altered(output, proof=bytes(wrong)))
    for wrong_proof in (proof[:-1], proof[:1], proof + b"\0", chance.randbytes(len(proof))):
        assert await rejected(altered(output, proof=wrong_proof))
    # What the prover says of its key is compared, not used.
    assert "another circuit" in await rejected(altered(output, key=bytes(32)))
    # What stands where the SRS was says nothing against a proof.
    srs = proofs.srs.path
    kept = srs.rename(srs.with_name("kept"))
    try:
        srs.write_bytes(b"another")
        with pytest.raises(EngineMissing, match="not the file any more"):
            await rejected(output)
    finally:
        kept.replace(srs)


async def test_the_fake_keeps_the_promises(tmp_path: Path) -> None:
    async with opened(tmp_path, srs_file(tmp_path)) as proofs:
        await check_promises(proofs)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_ezkl_keeps_the_promises_and_two_peers_make_the_same_key(tmp_path: Path) -> None:
    if library_version() is None:
        pytest.skip("ezkl is not installed: pip install 'baton[zk]'")
    srs = tmp_path / "srs"
    await asked_of_worker({"do": "srs", "path": str(srs)}, tmp_path, timeout_s=DEADLINE_S)
    async with opened(tmp_path / "one", srs, EZKL) as proofs:
        await check_promises(proofs)
        output = await proofs.prove(DIGITS, digit(2), DEADLINE_S)
    async with open_proofs(tmp_path / "two", srs, proves=False) as other:
        assert other is not None
        assert await other.rejected(DIGITS, digit(2), output, DEADLINE_S) == ""
    one, two = (next(tmp_path.glob(f"{it}/*/*/verifying.key")) for it in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    # Who only checks keeps nothing of 200 MB.
    assert not list((tmp_path / "two").glob("circuits/*/proving.key"))


async def test_a_proof_of_another_circuit_is_rejected(tmp_path: Path) -> None:
    async with opened(tmp_path, srs_file(tmp_path)) as proofs:
        output = await proofs.prove(DIGITS, digit(), DEADLINE_S)
        forged = await proofs.prove(another(), digit(), DEADLINE_S)
        assert "another circuit" in await proofs.rejected(DIGITS, digit(), forged, DEADLINE_S)
        key = Tensors.from_bytes(output).proofs[0].key
        dressed = altered(forged, key=key)
        assert "does not hold" in await proofs.rejected(DIGITS, digit(), dressed, DEADLINE_S)


async def test_a_proof_with_another_srs_or_version_says_nothing_against_its_prover(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, srs_file(tmp_path)) as proofs:
        output = await proofs.prove(DIGITS, digit(), DEADLINE_S)
        for changes in ({"srs": bytes(32)}, {"system": "ezkl 99.0.0"}):
            with pytest.raises(Refused, match="and here are"):
                await proofs.rejected(DIGITS, digit(), altered(output, **changes), DEADLINE_S)


async def test_a_key_is_made_once_for_a_model_and_a_number_of_rows(tmp_path: Path) -> None:
    folder, srs = tmp_path / CIRCUITS, srs_file(tmp_path)
    async with opened(tmp_path, srs) as proofs:
        fake = fake_of(proofs)
        await proofs.prepare(DIGITS)
        for rows in (1, 1, 2, 2):
            await proofs.prove(DIGITS, digit(0, rows), DEADLINE_S)
        assert fake.asked.count("key") == 2
    # Also over a restart; and what was left half made goes.
    (folder / "work-left").mkdir()
    async with opened(tmp_path, srs) as proofs:
        fake = fake_of(proofs)
        await proofs.prove(DIGITS, digit(), DEADLINE_S)
        assert "key" not in fake.asked
        assert not list(folder.glob("work-*"))
        # A key whose files are gone is made again.
        for left in folder.iterdir():
            shutil.rmtree(left)
        await proofs.prove(DIGITS, digit(), DEADLINE_S)
        assert fake.asked.count("key") == 1


async def test_circuits_are_bounded_and_the_latest_used_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.engines.proving.prover.FOLDERS_MAX", 3)
    async with opened(tmp_path, srs_file(tmp_path)) as proofs:
        for rows in range(1, 6):
            await proofs.prove(DIGITS, digit(0, rows), DEADLINE_S)
        assert len(list((tmp_path / CIRCUITS).iterdir())) == 3


async def test_models_and_inputs_that_cannot_be_proved_are_refused_in_words(tmp_path: Path) -> None:
    async with opened(tmp_path, srs_file(tmp_path)) as proofs:
        with pytest.raises(Malformed, match=f"one proof is of 1 to {ROWS_MAX}"):
            await proofs.prove(DIGITS, digit(0, ROWS_MAX + 1), DEADLINE_S)
        with pytest.raises(Malformed, match="the circuit reads X, and Y came"):
            await proofs.prove(DIGITS, digit().replace(b"\xa1X", b"\xa1Y"), DEADLINE_S)
        with pytest.raises(ModelRefused, match="models of up to"):
            await proofs.prove(replace(DIGITS, data=bytes(2 << 20)), digit(), DEADLINE_S)
        with pytest.raises(ModelRefused):
            await proofs.prove(replace(DIGITS, data=b"no model"), digit(), DEADLINE_S)


async def test_a_prover_that_dies_is_an_error_of_that_task_alone(tmp_path: Path) -> None:
    async with opened(tmp_path, srs_file(tmp_path)) as proofs:
        fake = fake_of(proofs)
        fake.raises["prove"] = EngineFailed("the worker ran out of memory")
        with pytest.raises(EngineFailed, match="out of memory"):
            await proofs.prove(DIGITS, digit(), DEADLINE_S)
        fake.raises.clear()
        assert Tensors.from_bytes(await proofs.prove(DIGITS, digit(), DEADLINE_S)).proofs


async def test_a_proof_that_ends_its_checker_is_rejected(tmp_path: Path) -> None:
    async with opened(tmp_path, srs_file(tmp_path)) as proofs:
        output = await proofs.prove(DIGITS, digit(), DEADLINE_S)
        fake_of(proofs).raises["check"] = EngineFailed("the worker ended (signal 6)")
        found = await proofs.rejected(DIGITS, digit(), output, DEADLINE_S)
        assert found == "checking the proof failed: the worker ended (signal 6)"
        # That no process can be started is this machine's own fault.
        fake_of(proofs).raises["check"] = EngineMissing("no worker process can be started")
        with pytest.raises(EngineMissing):
            await proofs.rejected(DIGITS, digit(), output, DEADLINE_S)


async def test_a_flood_of_proofs_is_refused_beyond_a_limit(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with opened(tmp_path, srs_file(tmp_path)) as proofs:
        await proofs.prepare(DIGITS)
        fake_of(proofs).takes_s = 60.0
        refused = []

        async def one() -> None:
            try:
                await proofs.prove(DIGITS, digit(), DEADLINE_S)
            except Refused as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(WAITING_MAX + 3):
                nursery.start_soon(one)
        assert len(refused) == 3
        assert all(it.retry_after_s for it in refused)


async def test_who_cannot_wait_for_a_key_is_told_and_finds_it_later(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with opened(tmp_path, srs_file(tmp_path)) as proofs:
        fake = fake_of(proofs)
        fake.takes_s = 60.0
        with pytest.raises(Refused, match="the key of digits is still being made"):
            await proofs.prove(DIGITS, digit(), 5.0)
        await trio.sleep(100.0)
        await proofs.prove(DIGITS, digit(), DEADLINE_S)
        assert fake.asked.count("key") == 1


async def test_without_ezkl_or_an_srs_nothing_is_pretended(tmp_path: Path) -> None:
    async with open_proofs(tmp_path, None) as none:
        assert none is None
    async with opened(tmp_path, srs_file(tmp_path)) as proofs:
        proofs.library = None
        assert "ezkl is not installed" in proofs.refusal()
        with pytest.raises(EngineMissing, match="pip install"):
            await proofs.prove(DIGITS, digit(), DEADLINE_S)


def test_a_proof_has_bounds_before_anybody_reads_it() -> None:
    with pytest.raises(Oversize):
        CircuitProof(system="ezkl 23.0.5", srs=bytes(32), key=bytes(32), proof=bytes(70_000))
    with pytest.raises(WireError):
        CircuitProof(system="ezkl 23.0.5", srs=bytes(32), key=bytes(31), proof=b"1")


@pytest.mark.parametrize("file", ["verifying.key", "circuit.public"])
async def test_files_that_a_crash_damaged_are_made_again_and_blame_no_prover(
    tmp_path: Path, file: str
) -> None:
    async with opened(tmp_path, srs_file(tmp_path)) as proofs:
        fake = fake_of(proofs)
        output = await proofs.prove(DIGITS, digit(), DEADLINE_S)
        (folder,) = (tmp_path / CIRCUITS).iterdir()
        (folder / file).write_bytes(b"\xc1")
        assert await proofs.rejected(DIGITS, digit(), output, DEADLINE_S) == ""
        assert fake.asked.count("key") == 2


async def test_a_checker_that_this_machine_ended_once_is_asked_again(tmp_path: Path) -> None:
    async with opened(tmp_path, srs_file(tmp_path)) as proofs:
        output = await proofs.prove(DIGITS, digit(), DEADLINE_S)
        fake, deaths = fake_of(proofs), iter([EngineFailed("the worker ended (signal 9)")])

        async def ended_once(*arguments: Any, **options: Any) -> dict[str, Any]:
            for death in deaths:
                raise death
            return await fake.ask(*arguments, **options)

        proofs.ask = ended_once
        assert await proofs.rejected(DIGITS, digit(), output, DEADLINE_S) == ""


async def test_verifying_offline_leaves_the_work_of_the_peer_of_that_state(tmp_path: Path) -> None:
    srs = srs_file(tmp_path)
    async with opened(tmp_path, srs):
        at_work = tmp_path / CIRCUITS / "work-of-the-peer"
        at_work.mkdir()
        # With ezkl or without it.
        with suppress(EngineMissing):
            assert await _rejected(tmp_path, srs, DIGITS, digit(), b"no output")
        assert at_work.exists()
