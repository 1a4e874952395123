"""A language model's answer is judged by margins: on any device, and no liar passes by another."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trio.testing import MockClock

from node.asking.rechecking import _guilty
from node.checking.audit import audit
from node.checking.check_request import CheckRequest
from node.checking.tally import Tally
from node.engines import replay
from node.engines.hash_engine import HashEngine, hash_token
from node.engines.interface import REPLAY, Emit, Job, Loaded, Output
from node.engines.margins import statistics_of
from node.engines.replay import JudgedAnswer, ReplayRequest
from node.serving import replayed_leg
from p2p.score import Standing
from tests.checking.test_verifiers import checked_by, verdict_of
from tests.node.asking import MODEL, SECRET, asked, receipt_of, request, signers, task_of
from tests.node.engines import Counted, Liar
from tests.node.network import I, Network, Outsider, S, V, open_network
from tests.p2p.transports import key_of
from wire import limits
from wire.calibration import BUILT_IN
from wire.content import ContentId, PeerId
from wire.generation import Generation, read_frames, to_frame
from wire.kinds import Role
from wire.message import VerdictReply
from wire.receipt import Receipt, Verdict
from wire.signed import Signed, open_signed
from wire.task import Stage
from wire.tree import name_of

TOKENS = 40
GENERATE = Stage(role=Role.INFER, operation="generate", model=MODEL, parameters={"tokens": TOKENS})
ASKED = Generation(prompt="Once upon", messages="", tools="", schema="", stop=()).to_bytes()
HONEST = b"".join(hash_token(MODEL, ASKED, at, TOKENS) for at in range(TOKENS))
OTHER = "tinygrad f32 ANOTHER"


@dataclass(slots=True, eq=False)
class OtherDevice(HashEngine):
    """Its numbers are a little others: tokens at some places miss by some of a logit."""

    margins: Mapping[int, float] = ()  # type: ignore[assignment]
    profile: str = OTHER

    def ready(self, model: ContentId) -> Loaded | None:
        found = HashEngine.ready(self, model)
        return None if found is None else replace(found, profile=self.profile)

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        output = await HashEngine.infer(self, job, emit)
        if job.operation != REPLAY:
            return output
        told = JudgedAnswer.from_bytes(output.data)
        margins = np.array(told.each, "<f4")
        for at, margin in dict(self.margins).items():
            margins[at] = max(margins[at], margin)
        return replace(output, data=replace(told, margins=margins.tobytes()).to_bytes())


async def verdict_on(
    network: Network, asker: Outsider, output: bytes = HONEST, **changes: Any
) -> Signed[Verdict]:
    """The verdict of the only verifier on this output of a generation."""
    claim = {"units": TOKENS} | changes.pop("claim", {})
    wall_s = asker.peers.environment.wall_s()
    task = task_of(asker.key, wall_s, GENERATE, source=name_of(ASKED))
    receipt = receipt_of(task, key_of("worker"), output, **claim)
    fields = {"statistics": True} | changes
    found, _ = await checked_by(
        network, asker, task=task, receipt=receipt, input=ASKED, output=output, **fields
    )
    assert isinstance(found, VerdictReply)
    return open_signed(found.verdict, Verdict)


def altered(at: int, **changes: Any) -> bytes:
    """The honest answer with another token at this place, or another ending at -1."""
    pieces = list(read_frames(HONEST))
    pieces[at] = replace(pieces[at], **changes)
    return b"".join(map(to_frame, pieces))


@pytest.mark.parametrize(
    ("output", "claim", "reason"),
    [
        (HONEST, {}, ""),
        (altered(7, id=3), {}, "missed by"),
        (altered(7, text=b"other"), {}, "token 7: its text"),
        (altered(-1, tokens=3), {}, "does not end there"),
        (altered(-1, text_bytes=3), {}, "does not end there"),
        (HONEST, {"units": 2}, "the work was 40 units"),
        (HONEST, {"output_size_bytes": 9}, "bytes, not 9"),
        (HONEST[:-3], {}, "in the middle of a token"),
        (b"", {}, "no ending"),
    ],
    ids=["honest", "token", "text", "ending", "cut", "units", "size", "torn", "nothing"],
)
async def test_tokens_texts_and_endings_are_all_judged(
    autojump_clock: MockClock, tmp_path: Path, output: bytes, claim: dict[str, Any], reason: str
) -> None:
    async with open_network(tmp_path) as network:
        await network.start(V, S)
        await network.settled()
        async with network.outsider() as asker:
            verdict = (await verdict_on(network, asker, output, claim=claim)).record
            assert verdict.could_check
            assert verdict.agrees is not bool(reason)
            assert reason in verdict.reason


@pytest.mark.parametrize(
    ("margins", "profile", "agrees"),
    [
        ({}, OTHER, True),
        ({5: 0.01}, OTHER, True),
        ({5: 0.01, 30: 0.02}, OTHER, True),
        # One altered token is far off; many small ones are together.
        ({5: 0.3}, OTHER, False),
        (dict.fromkeys(range(TOKENS), 0.03), OTHER, False),
        # Between equal devices every token is the same.
        ({5: 0.0001}, "hash-1 exact", False),
        ({}, "hash-1 exact", True),
    ],
)
async def test_another_device_may_miss_a_token_by_little_and_an_equal_one_by_nothing(
    autojump_clock: MockClock,
    tmp_path: Path,
    margins: dict[int, float],
    profile: str,
    agrees: bool,
) -> None:
    async with open_network(tmp_path) as network:
        await network.start(V, S, engine=OtherDevice(margins=margins, profile=profile))
        await network.settled()
        async with network.outsider() as asker:
            verdict = (await verdict_on(network, asker)).record
            assert verdict.agrees is agrees
            assert (verdict.reason == "") is agrees
            (told,) = verdict.replay
            assert (told.positions, told.mismatches) == (TOKENS, len(margins))
            assert told.first == min(margins, default=0)
            assert told.greatest_millionths == pytest.approx(
                1e6 * max(margins.values(), default=0), abs=1
            )
            assert told.table == BUILT_IN.id


async def test_an_answer_of_more_pieces_than_any_model_gives_is_wrong_and_read_beside_the_loop(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Megabytes of tokens take seconds to read; a peer that reads them on its loop seems dead."""

    def reading(*claim: Any) -> ReplayRequest:
        assert threading.current_thread() is not threading.main_thread()
        return replay.request(*claim)

    monkeypatch.setattr(replayed_leg, "request", reading)
    monkeypatch.setattr(replay, "FRAMES_MAX", len(list(read_frames(HONEST))))
    assert [replay.frames_max(it) for it in (7, 0, True, None)] == [8, 41, 41, 41]
    async with open_network(tmp_path) as network:
        await network.start(V, S)
        await network.settled()
        async with network.outsider() as asker:
            assert (await verdict_on(network, asker)).record.agrees
            found = (await verdict_on(network, asker, HONEST + HONEST)).record
            assert not found.agrees
            assert "pieces" in found.reason


async def test_who_does_not_ask_for_statistics_has_a_verdict_as_ever(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        await network.start(V, S)
        await network.settled()
        async with network.outsider() as asker:
            verdict = await verdict_on(network, asker, statistics=False)
            assert verdict.record.agrees
            assert verdict.record.replay == ()
            assert b"replay" not in verdict.raw


@pytest.mark.parametrize("version", [limits.REPLAY_VERSION - 1, limits.REPLAY_VERSION])
async def test_an_answer_is_checked_on_another_device_and_old_verifiers_are_asked_as_ever(
    autojump_clock: MockClock, tmp_path: Path, version: int
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        for _ in range(2):
            verifier = await network.start(V, S, engine=OtherDevice(margins={3: 0.01}))
            verifier.peers.neighbours.speaks = version
        await network.settled()
        answered, _ = await asked(asker, request(GENERATE, data=ASKED))
        verdicts = [open_signed(it, Verdict).record for it in answered.answer.record.verdicts]
        assert [it.agrees for it in verdicts] == [True, True]
        page = " ".join(it.detail for it in audit(answered.answer.raw, lambda _: None).points)
        said = f"judged {TOKENS} tokens on {OTHER}: 1 are others, by 0.01 of a logit"
        assert (said in page) is (version >= limits.REPLAY_VERSION)
        told = [bool(it.replay) for it in verdicts]
        assert told == [version >= limits.REPLAY_VERSION] * 2


async def test_a_liar_is_found_by_verifiers_of_another_device(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    def alter(output: Output) -> Output:
        return replace(output, data=altered(7, id=3))

    async with open_network(tmp_path) as network:
        asker = await network.start(S, judges=True)
        liar = await network.start(I, S, engine=Liar(alter))
        for _ in range(2):
            await network.start(V, S, engine=OtherDevice(margins={3: 0.01}))
        honest = await network.start(I, S, engine=Counted())
        await network.settled()
        answered, _ = await asked(asker, request(GENERATE, data=ASKED))
        assert answered.output == HONEST
        assert signers(answered) == [honest.peers.me]
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED


def test_margins_count_against_an_answer_from_any_device_and_bytes_only_from_its_own() -> None:
    task = task_of(key_of("asker"), 1_800_000_000.0, GENERATE)
    receipt = receipt_of(task, key_of("worker"), HONEST, profile="another device")

    def tally(**changes: Any) -> Tally:
        no = {"agrees": False, "sampled": (0,), "worst_ppb": (10**9,)} | changes
        raws = [verdict_of(receipt, SECRET, key_of(who), **no) for who in ("one", "two")]
        return Tally(
            agreed=False, verdicts=tuple(open_signed(it, Verdict) for it in raws), candidates=()
        )

    def guilty(claimed: Signed[Receipt], votes: Tally) -> frozenset[PeerId]:
        request = CheckRequest(
            task=task, receipts=(claimed,), secret=SECRET, input=None, output=None
        )
        return _guilty(request, votes)

    assert guilty(receipt, tally(replay=(statistics_of([0.0, 20.0], BUILT_IN),)))
    assert not guilty(receipt, tally())
    alike = replace(receipt, record=replace(receipt.record, profile="hash-1 exact"))
    assert guilty(alike, tally()) == {receipt.signer}


async def test_a_calibration_of_both_profiles_is_what_an_answer_is_judged_by(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    table = replace(
        BUILT_IN,
        model=MODEL,
        profiles=("hash-1 exact", OTHER),
        margins_millionths=(),
        tokens=50_000,
    )
    async with open_network(tmp_path) as network:
        verifier = await network.start(V, S, engine=OtherDevice(margins={5: 0.08}))
        await network.settled()
        async with network.outsider() as asker:
            assert (await verdict_on(network, asker)).record.agrees
            verifier.verify_role.calibrations = {MODEL: table}
            judged = (await verdict_on(network, asker, claim={"profile": "hash-1 exact"})).record
            assert not judged.agrees
            assert judged.replay[0].table == table.id
            # Who says that it is another device is judged as anybody is.
            other = (await verdict_on(network, asker, claim={"profile": "another"})).record
            assert other.agrees
            assert other.replay[0].table == BUILT_IN.id
