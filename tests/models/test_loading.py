"""A model that is being loaded says so to whoever asks, and is no trouble to the others."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.engines.hash_engine import HashEngine, hash_manifest
from node.engines.interface import EngineStatistics, Job, Loaded
from node.local.commands import LocalCommands
from node.models.on_demand import open_on_demand
from node.models.probing import PROBE_DEADLINE_S
from tests.engines.onnx_models import FLOAT, helper, kept_at, made, value
from tests.node.asking import MODEL
from tests.node.network import I, S, V, open_network
from wire.content import ContentId
from wire.errors import Refused, TooSlow
from wire.kinds import Role
from wire.model import Manifest
from wire.payload import Texts
from wire.task import Stage

NAMES = ("one", "two", "three")
MANIFESTS = {name: hash_manifest(name) for name in NAMES}


class Slow(HashEngine):
    """Loads take as long as `load_s` says, and tell how far they are."""

    def __init__(self, **load_s: float) -> None:
        super().__init__()
        self.load_s = load_s
        self.began_at_s: dict[ContentId, float] = {}
        self.at_once_max = 0

    async def load(self, manifest: Manifest, files: Mapping[str, Path]) -> Loaded:
        self.began_at_s[manifest.id] = trio.current_time()
        self.at_once_max = max(self.at_once_max, len(self.began_at_s) + len(self.loaded()))
        await trio.sleep(self.load_s.get(manifest.name, 1.0))
        del self.began_at_s[manifest.id]
        return await super().load(manifest, files)

    async def until_begun(self, name: str) -> None:
        """A thread looks at a model's files first: the clock must not jump meanwhile."""
        while MANIFESTS[name].id not in self.began_at_s:
            await trio.lowlevel.checkpoint()

    def statistics(self) -> EngineStatistics:
        now_at_s = trio.current_time()
        names = {it.id: name for name, it in {**MANIFESTS, "hash": hash_manifest()}.items()}
        loading = {
            model: min(1.0, (now_at_s - began_at_s) / self.load_s.get(names[model], 1.0))
            for model, began_at_s in self.began_at_s.items()
        }
        return replace(super().statistics(), loading=loading)


def job(name: str, deadline_s: float = 30.0) -> Job:
    return Job(
        model=MANIFESTS[name].id,
        operation="embed",
        input=Texts(texts=("a text",)).to_bytes(),
        parameters={},
        deadline_s=deadline_s,
    )


async def test_while_one_model_loads_others_serve_and_load(autojump_clock: MockClock) -> None:
    engine = Slow(one=1000.0)
    async with open_on_demand(engine, 100, lambda _manifest, _files: 20) as found:
        await found.load(MANIFESTS["two"], {})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.load, MANIFESTS["one"], {})
            await engine.until_begun("one")
            await trio.sleep(600)
            began_at_s = trio.current_time()
            await found.infer(job("two"))
            assert trio.current_time() == began_at_s
            nursery.start_soon(found.load, MANIFESTS["three"], {})
            await engine.until_begun("three")
            await trio.sleep(1.5)
            assert set(found.loaded()) == {MANIFESTS[it].id for it in ("two", "three")}
            with pytest.raises(Refused, match=r"the model one is loading, 60 %") as caught:
                await found.infer(job("one"))
            assert caught.value.retry_after_s
            assert found.statistics().loading[MANIFESTS["one"].id] == pytest.approx(0.6015)
        assert not found.statistics().loading
        assert (await found.infer(job("one"))).units == 1


async def test_what_is_loaded_at_once_fits_the_budget_together(autojump_clock: MockClock) -> None:
    engine = Slow(one=10.0, two=10.0, three=10.0)
    async with open_on_demand(engine, 100, lambda _manifest, _files: 40) as found:
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                nursery.start_soon(found.load, MANIFESTS[name], {})
        # The third waited for room: one of the others was let go for it.
        assert found.loads == 3
        assert engine.at_once_max == 2
        assert len(engine.loaded()) == 2


async def test_a_job_that_gave_up_waiting_is_told_how_far_the_load_was(
    autojump_clock: MockClock,
) -> None:
    engine = Slow()
    async with open_on_demand(engine, 50, lambda _manifest, _files: 40) as found:
        await found.load(MANIFESTS["one"], {})
        await found.load(MANIFESTS["two"], {})
        engine.load_s["one"] = 100.0
        with pytest.raises(TooSlow, match=r"one was not loaded in time: loading, 25 %"):
            await found.infer(job("one", deadline_s=25.0))


EMBED = Stage(role=Role.INFER, operation="embed", model=MODEL, parameters={})


async def test_a_probe_waits_for_a_load_and_legs_are_told_of_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    engine = Slow(hash=20 * PROBE_DEADLINE_S)
    async with open_network(tmp_path) as network:
        worker = await network.start(I, V, S, engine=engine)
        await trio.sleep(10 * PROBE_DEADLINE_S)
        (row,) = (await LocalCommands(worker).status({}, [].append))["models"]
        assert (row["state"], row["problem"]) == ("loading", "")
        assert row["loaded_share"] == pytest.approx(0.5, abs=0.05)
        (progress,) = worker.models.on_their_way()
        assert progress.step == "loading"
        with pytest.raises(Refused, match=r"is loading, 5\d % here") as caught:
            worker.probing.infer_role.check_able(EMBED)
        assert caught.value.retry_after_s
        # Loaded before and let go: to be probed it is loaded again, and that is no failure.
        loaded = HashEngine()
        await loaded.load(hash_manifest(), {})
        probing = worker.probing
        probing.probes.saw([MODEL], (0, ""), trio.current_time())
        engine.loaded = loaded.loaded  # type: ignore[method-assign]
        await probing._try(MODEL)
        assert probing.probes.problem(MODEL) == ""
        assert not probing.probes.passed(MODEL)


def broken(folder: Path) -> Path:
    """A model that nobody can run."""
    node = helper.make_node("Loop", ["x"], ["y"])
    return kept_at(folder, made([node], [value("x", FLOAT, 1)], [value("y", FLOAT, 1)]), "broken")


async def test_a_peer_starts_with_what_can_be_served_and_names_what_cannot(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    engine = Slow()
    async with open_network(tmp_path) as network:
        path = str(broken(tmp_path))
        worker = await network.start(I, V, S, engine=engine, models=("hash", path))
        await trio.sleep(60)
        assert set(engine.loaded()) == {MODEL}
        assert "Loop" in worker.model_problems[path]
        rows = (await LocalCommands(worker).status({}, [].append))["models"]
        assert {it["name"]: it["state"] for it in rows} == {"hash": "ready", path: "failing"}
