"""Which models are left alone and for how long; what that means for memory and for devices."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.engines.host.quarantine import FAILURES_MAX, PAUSE_S_MAX, PAUSE_S_MIN, WELL_S, Quarantine
from node.models.devices import Devices
from node.models.on_demand import open_on_demand
from tests.engines.conftest import OpenEngine
from tests.engines.fake_worker import FakeWorker, Message, asking, take_over, write_model
from wire.content import ContentId
from wire.errors import EngineFailed, ModelRefused
from wire.model import Manifest

MODEL = ContentId.of(b"a model")


def test_jobs_are_blamed_before_a_model_that_was_well_within_the_hour() -> None:
    quarantine = Quarantine()
    quarantine.job_went_well(MODEL, 0.0)
    assert not any(quarantine.job_failed(MODEL, now_at_s) for now_at_s in range(int(WELL_S) + 1))
    later_s = WELL_S + 1
    assert [quarantine.job_failed(MODEL, later_s) for _ in range(FAILURES_MAX)] == [
        False,
        False,
        True,
    ]
    # A load has no job to blame.
    quarantine.job_went_well(MODEL, later_s)
    assert [quarantine.load_failed(MODEL) for _ in range(FAILURES_MAX)] == [False, False, True]


def test_failures_are_counted_from_the_last_job_that_went_well() -> None:
    quarantine = Quarantine()
    for now_at_s in (0.0, 10.0):
        for _ in range(FAILURES_MAX - 1):
            assert not quarantine.load_failed(MODEL)
        quarantine.job_went_well(MODEL, now_at_s)


def test_pauses_double_up_to_a_day_and_are_short_again_once_it_is_well() -> None:
    quarantine, now_at_s, pauses = Quarantine(), 0.0, []
    for _ in range(10):
        quarantine.put(MODEL, "it died", again=False, now_at_s=now_at_s)
        until_at_s = next(at for at in range(10**6) if not quarantine.refusal(MODEL, now_at_s + at))
        pauses.append(until_at_s)
        now_at_s += until_at_s
        quarantine.loaded(MODEL)
        # On trial: its first failure is one too many.
        assert quarantine.job_failed(MODEL, now_at_s)
    assert pauses[:3] == [PAUSE_S_MIN, 2 * PAUSE_S_MIN, 4 * PAUSE_S_MIN]
    assert pauses[-2:] == [PAUSE_S_MAX, PAUSE_S_MAX]
    quarantine.job_went_well(MODEL, now_at_s)
    quarantine.put(MODEL, "it died", again=False, now_at_s=now_at_s)
    assert quarantine.refusal(MODEL, now_at_s) == "it died; tried again in 10 min"


@pytest.mark.parametrize(
    ("pauses", "words"), [(1, "in 10 min"), (3, "in 40 min"), (5, "in 3 hours"), (9, "in 24 hours")]
)
def test_it_says_in_words_when_it_is_tried_again(pauses: int, words: str) -> None:
    quarantine = Quarantine()
    for _ in range(pauses):
        quarantine.put(MODEL, "it died", again=False, now_at_s=5.0)
    assert quarantine.told(5.0) == {MODEL: f"it died; tried again {words}"}


def deadly(manifest: Manifest, lives: set[int]):
    """Workers of these lives die of loading a model."""

    def before(worker: FakeWorker, message: Message) -> None:
        loads = message["do"] == "load" and message["manifest"] == manifest.to_bytes()
        if loads and worker.id in lives:
            raise EngineFailed("the worker ended (signal 11): it said nothing")

    return before


async def test_a_model_put_aside_is_not_on_offer_keeps_its_room_and_comes_back(
    open_engine: OpenEngine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    scene = take_over(monkeypatch)
    one, two, three = (write_model(tmp_path, name) for name in ("one", "two", "three"))
    async with (
        open_engine() as engine,
        open_on_demand(engine, 100, lambda _manifest, _files: 40) as models,
    ):
        # The first of them is let go again for the last. All before the clock has far to jump:
        # it does so also while a thread looks at the files.
        for manifest, files in (three, one, two):
            await models.load(manifest, files)
        scene.before = deadly(one[0], {4, 5, 6})
        scene.lives[1].kill()
        await trio.sleep(5)
        assert set(models.loaded()) == {two[0].id, three[0].id}
        assert "tried again in 10 min" in models.statistics().quarantined[one[0].id]
        with pytest.raises(ModelRefused, match="put aside"):
            await models.infer(asking(one[0].id, "a"))
        await trio.sleep(PAUSE_S_MIN)
        assert set(engine.loaded()) == {one[0].id, two[0].id}
        assert not models.statistics().quarantined
        assert (await models.infer(asking(one[0].id, "a"))).units == 4
        # Put aside once more; a third model takes its room, so it comes back when it is asked for.
        scene.before = deadly(one[0], {8, 9, 10})
        await models.infer(asking(two[0].id, "b"))
        scene.lives[-1].kill()
        await trio.sleep(5)
        assert len(scene.lives) == 10
        assert (await models.infer(asking(three[0].id, "c"))).units == 4
        assert set(engine.loaded()) == {two[0].id, three[0].id}
        with pytest.raises(ModelRefused, match="put aside"):
            await models.infer(asking(one[0].id, "a"))
        assert set(engine.loaded()) == {two[0].id, three[0].id}
        await trio.sleep(PAUSE_S_MIN)
        assert set(engine.loaded()) == {two[0].id, three[0].id}
        assert models.statistics().resting == {one[0].id}
        assert (await models.infer(asking(one[0].id, "a"))).units == 4
        assert len(engine.loaded()) == 2


async def test_a_model_that_failed_when_it_was_first_loaded_is_there_once_it_loads(
    open_engine: OpenEngine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    scene = take_over(monkeypatch)
    manifest, files = write_model(tmp_path)
    scene.before = deadly(manifest, {1, 2, 3})
    async with (
        open_engine() as engine,
        open_on_demand(engine, 100, lambda _manifest, _files: 40) as models,
    ):
        for _ in range(FAILURES_MAX - 1):
            with pytest.raises(EngineFailed):
                await models.load(manifest, files)
            assert not models.statistics().quarantined
        with pytest.raises(ModelRefused, match="tried again in 10 min"):
            await models.load(manifest, files)
        assert not models.loaded()
        await trio.sleep(PAUSE_S_MIN + 1)
        assert set(models.loaded()) == {manifest.id}
        assert (await models.infer(asking(manifest.id, "a"))).units == 4


async def test_what_one_device_put_aside_another_does_until_it_is_back(
    open_engine: OpenEngine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    scene = take_over(monkeypatch)
    manifest, files = write_model(tmp_path)
    other = write_model(tmp_path, "other")
    async with open_engine() as first, open_engine() as second:
        devices = Devices([first, second])
        await devices.load(manifest, files)
        scene.before = deadly(manifest, {3, 4, 5})
        scene.lives[1].kill()
        await trio.sleep(5)
        assert manifest.id not in second.loaded()
        assert not devices.statistics().quarantined
        assert (await devices.infer(asking(manifest.id, "a"))).units == 4
        # Let go and loaded again, as where memory is short: the one that can has it at once.
        await devices.unload(manifest.id)
        await second.load(*other)
        assert (await second.infer(asking(other[0].id, "b"))).units == 4
        assert (await devices.load(manifest, files)).model == manifest.id
        assert manifest.id not in second.loaded()
        await trio.sleep(PAUSE_S_MIN)
        assert manifest.id in second.loaded()
