"""Measuring honest noise: engines beside each other, a file that goes on, tables that are kept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from node.commands.join import _calibrations
from node.config import NodeConfig
from node.engines.calibrating import HonestAnswer, calibration_of
from node.engines.hash_engine import HashEngine
from node.engines.hash_model import hash_manifest
from node.engines.interface import REPLAY, Emit, Job, Output
from node.engines.replay import JudgedAnswer
from node.models.calibrate import (
    AT_ONCE,
    Pair,
    job_of,
    measure,
    read_measured,
    tokens_each,
    write_measured,
)
from node.models.calibrations import FOLDER, keep_calibration, kept_calibrations
from store import open_store
from wire.calibration import BUILT_IN, Calibration
from wire.errors import InputError, Refused

MODEL = hash_manifest()
TEXTS = ["one two three four five six seven eight nine ten " * 20, "and so on and on " * 40]


class Noisy(HashEngine):
    """Judges as a device does whose numbers are a little others."""

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        output = await super().infer(job, emit)
        if job.operation != REPLAY:
            return output
        told = JudgedAnswer.from_bytes(output.data)
        margins = np.array(told.each, "<f4")
        margins[5] = 0.01
        return replace(output, data=replace(told, margins=margins.tobytes()).to_bytes())


async def pair(verifier: HashEngine | None = None, provider: HashEngine | None = None) -> Pair:
    found = Pair(
        provider=provider or HashEngine(), verifier=verifier or HashEngine(), manifest=MODEL
    )
    for engine in (found.provider, found.verifier):
        await engine.load(MODEL, {})
    return found


async def measured(which: Pair, numbers: list[int]) -> list[HonestAnswer]:
    found: list[HonestAnswer] = []
    await measure(which, TEXTS, numbers, found.extend)
    return found


async def test_each_question_is_answered_by_one_and_judged_by_the_other(
    autojump_clock: trio.abc.Clock,
) -> None:
    numbers = list(range(AT_ONCE + 3))
    found = await measured(await pair(verifier=Noisy()), numbers)
    assert [it.number for it in found] == numbers
    assert {it.tokens for it in found} == {tokens_each(MODEL)}
    for answer in found:
        assert answer.margins == {5: pytest.approx(0.01)}
        assert answer.otherwise == ""
    assert all(not it.margins for it in await measured(await pair(), numbers))


async def test_who_gives_other_answers_is_seen(autojump_clock: trio.abc.Clock) -> None:
    class Other(HashEngine):
        async def infer(self, job: Job, emit: Emit | None = None) -> Output:
            if job.operation != REPLAY:
                job = replace(job, parameters=dict(job.parameters) | {"tokens": 9})
            return await super().infer(job, emit)

    found = await measured(await pair(provider=Other()), [0, 1])
    assert all(it.otherwise for it in found)


async def test_an_engine_that_fails_ends_the_measurement_and_what_was_heard_is_kept(
    autojump_clock: trio.abc.Clock, tmp_path: Path
) -> None:
    class Failing(HashEngine):
        calls = 0

        async def infer(self, job: Job, emit: Emit | None = None) -> Output:
            self.calls += 1
            if self.calls > 2 * AT_ONCE:
                raise Refused("no more")
            return await super().infer(job, emit)

    path = tmp_path / "folder" / "measured"

    def heard(found: list[HonestAnswer]) -> None:
        write_measured(path, MODEL.id, found)

    with pytest.RaisesGroup(Refused, flatten_subgroups=True):
        await measure(await pair(provider=Failing()), TEXTS, list(range(40)), heard)
    kept = read_measured(path, MODEL.id)
    assert [it.number for it in kept] == list(range(len(kept)))
    assert len(kept) >= AT_ONCE
    # A line that was being written when the power went is measured again.
    path.write_text(path.read_text()[:-9])
    assert read_measured(path, MODEL.id) == kept[:-1]
    assert read_measured(path, BUILT_IN.id) == []


MODEL_ALONE = f'{{"model": "{BUILT_IN.id}"}}\n'


@pytest.mark.parametrize("text", ["no json\n", "[]\n", MODEL_ALONE, "1\n", "\xff\n"])
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "measured"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="no file of measured answers"):
        read_measured(path, BUILT_IN.id)


def test_questions_differ_and_fit_the_model() -> None:
    jobs = [job_of(MODEL, TEXTS, number) for number in range(48)]
    assert len({(it.input, str(it.parameters)) for it in jobs}) == 48
    assert {it.parameters["temperature"] for it in jobs} == {0.0, 0.7, 1.0}
    small = replace(MODEL, parameters={**MODEL.parameters, "context": 64})
    assert tokens_each(small) == 32
    assert tokens_each(replace(MODEL, parameters={**MODEL.parameters, "context": 1})) == 1


def table(**changes: Any) -> Calibration:
    answer = HonestAnswer(number=0, provider="a", verifier="b", tokens=9, margins={})
    return replace(calibration_of(MODEL.id, [answer], 5), **changes)


def test_the_latest_table_of_a_model_is_used_and_what_is_none_is_told(tmp_path: Path) -> None:
    assert kept_calibrations(tmp_path) == ({}, [])
    keep_calibration(tmp_path, table())
    path = keep_calibration(tmp_path, table(made_at_ms=7))
    keep_calibration(tmp_path, table(made_at_ms=6))
    assert kept_calibrations(tmp_path) == ({MODEL.id: table(made_at_ms=7)}, [])
    folder = tmp_path / FOLDER
    (folder / f"{BUILT_IN.id}.calibration").write_bytes(BUILT_IN.to_bytes())
    (folder / f"{MODEL.id}.calibration").write_bytes(table(made_at_ms=9).to_bytes())
    (folder / "long.calibration").write_bytes(bytes(1 << 20))
    (folder / "short.calibration").write_bytes(b"")
    (folder / "folder.calibration").mkdir()
    path.chmod(0o666)
    found, problems = kept_calibrations(tmp_path)
    assert found == {MODEL.id: table(made_at_ms=6)}
    assert len(problems) == 6
    assert any("others may use it" in it for it in problems)


async def test_a_peer_takes_up_what_its_owner_keeps_and_gives_it_to_who_is_judged_by_it(
    tmp_path: Path,
) -> None:
    kept = table()
    keep_calibration(tmp_path, kept)
    (tmp_path / FOLDER / "other.calibration").write_bytes(b"")
    async with open_store(tmp_path / "store", quota_bytes=1 << 24) as store:
        found, problems = await _calibrations(NodeConfig(state=tmp_path), store)
        assert found == {MODEL.id: kept}
        assert len(problems) == 1
        assert await store.get(kept.id) == kept.to_bytes()
