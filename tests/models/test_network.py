"""Models between peers: added to a running peer, pulled by content from several, taken out."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.commands.join import announce
from node.engines.by_format import EnginesByFormat
from node.engines.hash_engine import HashEngine, hash_manifest
from node.engines.interface import EngineStatistics
from node.local.commands import LocalCommands
from node.local.model_commands import ModelCommands
from node.models.on_demand import open_on_demand
from node.peer import Node
from tests.node.network import I, Network, S, open_network
from wire.content import ContentId
from wire.errors import BatonError, InputError, Missing, ModelRefused
from wire.model import Manifest, ModelFile

ONNX = Path(__file__).parents[1] / "engines" / "models" / "torch_mlp.onnx"


def unheard(_event: Mapping[str, Any]) -> None:
    """Not what the test is about."""


async def call(node: Node, command: str, **arguments: Any) -> Mapping[str, Any]:
    return await ModelCommands(node).commands()[command](arguments, unheard)


async def large_model(node: Node, path: Path) -> Manifest:
    """A model of a few hundred blocks that no engine would run, kept by a peer."""
    path.write_bytes(Random(1).randbytes(20 << 20))
    content = await node.dependencies.store.put_file(path, pin="model")
    manifest = Manifest(
        name="large",
        format="of-another-time",
        profile="f32",
        operations=("embed",),
        files=(ModelFile(name="weights", content=content, size_bytes=20 << 20),),
        parameters={},
        tolerance=0.0,
    )
    await node.models.keep(manifest)
    return manifest


async def copied(manifest: Manifest, source: Node, target: Node) -> None:
    """As if the target had pulled it before."""
    await target.models.keep(manifest)
    for file in manifest.files:
        data = await source.dependencies.store.get(file.content)
        await target.dependencies.store.put(data, pin="model")


async def test_a_pull_asks_several_peers_and_goes_on_where_it_broke(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        first, second, puller = [await network.add(S) for _ in range(3)]
        await network.settled()
        manifest = await large_model(first, tmp_path / "weights")
        await copied(manifest, first, second)
        seen: list[int] = []

        def watch(event: Mapping[str, Any]) -> None:
            seen.append(event["done_bytes"])
            if len(seen) == 20:
                scope.cancel()

        pull = ModelCommands(puller).pull
        with trio.CancelScope() as scope:
            await pull({"what": str(manifest.id)}, watch)
        assert scope.cancelled_caught
        assert not puller.models.progress
        served_before = first.blobs.served + second.blobs.served

        found = await pull({"what": str(manifest.id)}, watch)
        assert found["name"] == "large"
        assert first.blobs.served
        assert second.blobs.served
        # Of 81 blocks twenty and more were there already.
        assert first.blobs.served + second.blobs.served - served_before < 70
        (row,) = await puller.models.shelf.rows()
        assert row["whole"]
        assert not puller.models.progress
        _, files = await puller.models.bring(manifest.id)
        assert files["weights"].read_bytes() == (tmp_path / "weights").read_bytes()


async def test_what_nobody_has_and_what_is_no_model_is_said_in_words(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        holder, puller = await network.add(S), await network.add(S)
        await network.settled()
        with pytest.raises(Missing):
            await call(puller, "models-pull", what=str(ContentId.of(b"nowhere")))
        words = await holder.dependencies.store.put(b"no manifest at all")
        with pytest.raises(ModelRefused, match="not a model's manifest"):
            await call(puller, "models-pull", what=str(words))
        # It says that it is an ONNX model, and its file is none.
        content = await holder.dependencies.store.put(b"\xff" * 100)
        liar = Manifest(
            name="liar",
            format="onnx",
            profile="f32",
            operations=("call",),
            files=(ModelFile(name="model.onnx", content=content, size_bytes=100),),
            parameters={},
            tolerance=0.0,
        )
        await holder.models.keep(liar)
        with pytest.raises(ModelRefused):
            await call(puller, "models-add", what=str(liar.id))
        for what in (None, "", 1, "\0", "a" * 5000, "/nowhere/at/all.gguf"):
            for command in ("models-add", "models-pull", "models-rm"):
                with pytest.raises(BatonError):
                    await call(puller, command, what=what)


async def test_a_model_added_to_a_running_peer_is_served_and_taken_out(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        holder, server = await network.add(S), await network.add(I, models=())
        await network.settled()
        manifest = hash_manifest("another")
        await holder.models.keep(manifest)
        found = await call(server, "models-add", what=str(manifest.id))
        assert found["served"]
        await offered(network, holder, server, manifest.id, there=True)
        listed = await call(server, "models")
        assert [(it["name"], it["state"]) for it in listed["here"]] == [("another", "ready")]
        assert [it["name"] for it in (await call(holder, "models"))["network"]] == ["another"]

        await call(server, "models-rm", what="another")
        await offered(network, holder, server, manifest.id, there=False)
        assert not (await call(server, "models"))["kept"]
        with pytest.raises(InputError):
            await call(server, "models-rm", what="another")


async def offered(
    network: Network, seer: Node, server: Node, model: ContentId, *, there: bool
) -> None:
    with trio.fail_after(60):
        while True:
            advert = seer.peers.view.advert_of(server.peers.me)
            if advert is not None and (advert.record.offer_of(model) is not None) is there:
                return
            await trio.sleep(0.1)


class PuttingAside(HashEngine):
    """As an engine does whose worker died three times of one model."""

    why: str = ""

    def statistics(self) -> EngineStatistics:
        quarantined = {hash_manifest().id: self.why} if self.why else {}
        return replace(super().statistics(), quarantined=quarantined)


async def test_a_model_that_was_put_aside_says_why(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        engine = PuttingAside()
        seer, server = await network.add(S), await network.add(I, engine=engine)
        await offered(network, seer, server, hash_manifest().id, there=True)
        await engine.unload(hash_manifest().id)
        engine.why = "it failed 3 times in a row here: signal 11"
        found = await LocalCommands(server).status({}, unheard)
        (row,) = found["models"]
        assert (row["name"], row["state"], row["problem"]) == ("hash", "set aside", engine.why)
        # Others hear of it at once, and not with the next advert that is due.
        with trio.fail_after(5):
            await offered(network, seer, server, hash_manifest().id, there=False)


async def test_a_fault_of_an_added_model_does_not_end_the_peer(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        server = await network.add(I, models=())
        # The hash engine runs no ONNX.
        found = await call(server, "models-add", what=str(ONNX), name="mine")
        with trio.fail_after(30):
            while found["id"] not in server.model_problems:
                await trio.sleep(0.1)
        assert (await LocalCommands(server).status({}, unheard))["models"]
        rows = (await call(server, "models"))["here"]
        # It was asked for by its id; people know it by its name.
        assert [(it["name"], it["state"], it["id"]) for it in rows] == [
            ("mine", "failing", found["id"])
        ]
        with pytest.raises(InputError, match="absolute path"):
            await call(server, "models-add", what="./relative.onnx")


async def test_a_model_without_an_engine_here_is_kept_and_not_said_to_be_served(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with (
        open_on_demand(EnginesByFormat({"hash": HashEngine()}), 1 << 30) as engine,
        open_network(tmp_path) as network,
    ):
        server = await network.add(I, models=("hash",), engine=engine)
        found = await call(server, "models-add", what=str(ONNX), name="mine")
        assert not found["served"]
        assert "without an engine for onnx (it runs hash)" in found["why_not"]
        await trio.sleep(5)
        listed = await call(server, "models")
        assert [it["name"] for it in listed["here"]] == ["hash"]
        kept = [(it["name"], it["id"]) for it in listed["kept"] if it["name"] != "hash"]
        assert kept == [("mine", found["id"])]


async def test_a_name_that_one_model_has_in_the_network_is_enough_to_pull_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        puller = await network.add(S)
        first, second = [await network.add(I, models=()) for _ in range(2)]
        await network.settled()
        models = [hash_manifest("another"), hash_manifest("another", dimensions=32)]
        for node, manifest in zip((first, second), models, strict=True):
            with pytest.raises(InputError, match="nobody offers"):
                await call(puller, "models-pull", what="yet-another")
            await node.models.keep(manifest)
            await call(node, "models-add", what=str(manifest.id))
            await offered(network, puller, node, manifest.id, there=True)
            if node is first:
                found = await call(puller, "models-pull", what="another")
                assert found["id"] == str(manifest.id)
                await call(puller, "models-rm", what="another")
        with pytest.raises(InputError, match="2 models in the network") as raised:
            await call(puller, "models-pull", what="another")
        assert all(str(it.id) in raised.value.todo for it in models)


async def test_a_peer_that_serves_nothing_yet_says_so(
    autojump_clock: MockClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_network(tmp_path) as network:
        for roles, models, said in ((I, (), True), (I, ("hash",), False), (S, (), False)):
            announce(await network.add(roles, models=models), as_json=False)
            assert ("runs no model yet: give --model" in capsys.readouterr().out) is said
