"""The level zk over whole peers: proved, checked with keys of their own, and lied about."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from trio.testing import MockClock

from node.asking.answers import Answered
from node.checking.audit import audit
from node.checking.report import ReceiptPart, Status
from node.engines.proving.interface import ProvableModel
from node.engines.proving.prover import EzklProofs
from node.task.levels import PROVE, levels_of_model
from p2p.score import Standing
from tests.checking.proving_peers import DATA, FILE, LyingProofs, Provers, call, provers
from tests.dispatch.test_orders import all_asked
from tests.engines.onnx_models import manifest_of
from tests.engines.proving.samples import digit
from tests.engines.proving.test_proofs_contract import altered, one_step_more
from tests.node.asking import asked, failures, request, signers
from tests.node.network import I, V
from wire import limits
from wire.errors import EngineFailed, InputError, TaskFailed
from wire.kinds import Level
from wire.receipt import Verdict
from wire.signed import open_signed
from wire.tensors import Tensors
from wire.tree import name_of

WANTED = request(call(), data=DATA, level=Level.ZERO_KNOWLEDGE)


class Unbelieving(LyingProofs):
    """Finds every output wrong."""

    async def rejected(
        self, model: ProvableModel, source: bytes, output: bytes, deadline_s: float
    ) -> str:
        return "the output differs"


async def verifiers(opened: Provers, count: int = 3) -> None:
    for _ in range(count):
        await opened.add(V)
    await opened.network.settled()


async def test_an_answer_is_proved_and_checked_without_computing_it_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with provers(tmp_path) as (asker, opened):
        prover = await opened.add(I)
        await verifiers(opened)
        found, _ = await asked(asker, WANTED)
        assert signers(found) == [prover.peers.me]
        output = Tensors.from_bytes(found.output)
        assert [it.name for it in output.tensors] == ["label", "probabilities"]
        assert len(output.proofs) == 1
        # Each made its key of the model it has; only one proved, the others checked.
        asked_for = [it.asked for it in opened.libraries]
        assert all("key" in it for it in asked_for)
        assert [it.count("prove") for it in asked_for] == [1, 0, 0, 0]
        verdicts = [open_signed(it, Verdict).record for it in found.answer.record.verdicts]
        assert [it.worst_ppb for it in verdicts if it.agrees] == [(0,)] * len(verdicts)

        kept = {name_of(it): it for it in (DATA, found.output)}
        report = audit(found.answer.raw, kept.get)
        assert report.holds
        assert report.level is Level.ZERO_KNOWLEDGE
        assert any("comes with a proof" in it.what for it in report.points)


LIES: dict[str, Callable[[bytes], bytes]] = {
    "another output": one_step_more,
    "an altered proof": lambda it: altered(it, proof=b"\1" * 64),
    "another key": lambda it: altered(it, key=bytes(32)),
    "no proof": lambda it: replace(Tensors.from_bytes(it), proofs=()).to_bytes(),
    "no tensors": lambda _: b"\xc0",
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_who_lies_is_doubted_and_another_is_asked(
    autojump_clock: MockClock, tmp_path: Path, lie: Callable[[bytes], bytes]
) -> None:
    async with provers(tmp_path) as (asker, opened):
        liar = await opened.add(I, lie=lie)
        honest = await opened.add(I)
        await verifiers(opened)
        found, events = await asked(asker, WANTED)
        assert signers(found) == [honest.peers.me]
        assert {it.peer for it in failures(events, "answer rejected")} == {liar.peers.me}
        # Who asked has not the model, and bans nobody on the word of strangers.
        assert asker.peers.standing_at_work(liar.peers.me) is Standing.UNWELCOME
        assert asker.peers.standing_at_work(honest.peers.me) is Standing.GOOD
        assert asker.peers.standing(honest.peers.me) is Standing.GOOD


async def test_a_proof_for_another_input_is_rejected(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with provers(tmp_path) as (asker, opened):
        stale: list[bytes] = []
        liar = await opened.add(I, lie=lambda it: stale.append(it) or stale[0])  # type: ignore[func-returns-value]
        await verifiers(opened)
        first, _ = await asked(asker, WANTED)
        assert signers(first) == [liar.peers.me]
        honest = await opened.add(I)
        await opened.network.settled()
        second, _ = await asked(asker, replace(WANTED, input=digit(1)))
        assert signers(second) == [honest.peers.me]


async def test_who_makes_no_proofs_refuses_and_another_is_asked(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with provers(tmp_path) as (asker, opened):
        without = await opened.add(I, proves=False)
        prover = await opened.add(I)
        await opened.add(V, proves=False)
        await verifiers(opened)
        found, events = await asked(asker, WANTED)
        assert signers(found) == [prover.peers.me]
        said = [it.why for it in failures(events) if it.peer == without.peers.me]
        assert any("this peer makes no proofs" in it for it in said)
        assert asker.peers.standing(without.peers.me) is Standing.GOOD


async def test_a_prover_out_of_memory_fails_that_task_alone(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with provers(tmp_path) as (asker, opened):
        await opened.add(I)
        await verifiers(opened)
        library = opened.libraries[0]
        library.raises["prove"] = EngineFailed("the worker ran out of memory")
        with pytest.raises(TaskFailed, match="ran out of memory"):
            await asked(asker, replace(WANTED, deadline_s=30))
        library.raises.clear()
        found, _ = await asked(asker, replace(WANTED, input=digit(2)))
        assert Tensors.from_bytes(found.output).proofs


async def test_the_level_zk_is_for_small_onnx_models_and_says_so(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with provers(tmp_path) as (asker, opened):
        await opened.add(I)
        await verifiers(opened)
        with pytest.raises(InputError, match="the level zk is for calls of ONNX models"):
            await asked(asker, request(level=Level.ZERO_KNOWLEDGE))
        # A call that asks for no proof is not checked at this level.
        bare = replace(WANTED, stages=(replace(call(), parameters={}),))
        with pytest.raises(InputError, match="the level zk"):
            await asked(asker, bare)
    manifest = manifest_of(FILE)[0]
    assert levels_of_model(manifest)[-1] == "zk"
    (file,) = manifest.files
    large = replace(manifest, files=(replace(file, size_bytes=2 << 20),))
    assert "zk" not in levels_of_model(large)
    assert PROVE in call().parameters


async def test_an_answer_at_zk_without_a_proof_does_not_hold_offline(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with provers(tmp_path) as (asker, opened):
        await opened.add(I)
        await verifiers(opened)
        plain = replace(WANTED, level=Level.REPLAYED)
        found, _ = await asked(asker, plain)
        assert audit(found.answer.raw, lambda _: None).level is Level.REPLAYED
        found, _ = await asked(asker, WANTED)
        # An output that is not the signed one proves nothing, whatever proof it has.
        lie = one_step_more(found.output)
        report = audit(found.answer.raw, {name_of(found.output): lie}.get)
        assert report.of_part(ReceiptPart.OUTPUT).status is Status.FAILS
        assert not report.holds


async def test_peers_that_know_no_proofs_are_not_asked_for_any_nor_to_judge_one(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with provers(tmp_path) as (asker, opened):
        older = [
            await opened.add(
                I, lie=lambda it: replace(Tensors.from_bytes(it), proofs=()).to_bytes()
            )
        ]
        prover = await opened.add(I)
        await verifiers(opened)
        for _ in range(3):
            verifier = await opened.add(V)
            proofs = verifier.verify_role.infer_role.proofs
            assert isinstance(proofs, EzklProofs)
            # As one that compares the bytes with its own would.
            verifier.verify_role.infer_role.proofs = Unbelieving(proofs, lambda it: it)
            older.append(verifier)
        await opened.network.settled()
        for node in older:
            node.peers.neighbours.speaks = limits.PROOFS_VERSION - 1
            asker.peers.neighbours._versions.pop(node.peers.me, None)
        numbers = iter(range(6))
        for _ in range(2):
            # Together, so that orders stand at verifiers.
            wanted = [replace(WANTED, input=digit(next(numbers))) for _ in range(3)]
            answers = [it for it in await all_asked(asker, wanted) if isinstance(it, Answered)]
            assert len(answers) == 3
            for found in answers:
                assert signers(found) == [prover.peers.me]
                heard = {open_signed(it, Verdict).signer for it in found.answer.record.verdicts}
                assert heard.isdisjoint(it.peers.me for it in older)
        assert not any("prove" in library.asked for library in opened.libraries[:1])
        assert all(asker.peers.standing_at_work(it.peers.me) is Standing.GOOD for it in older)
