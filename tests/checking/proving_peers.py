"""Peers that make and check proofs of the digits' MLP, with the fake in place of ezkl."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from node.engines.hash_engine import HashEngine
from node.engines.interface import Emit, Found, Job, Loaded, Output
from node.engines.proving.interface import Proofs, ProvableModel
from node.engines.proving.prover import EzklProofs
from node.engines.proving.srs import read_srs
from node.models.inspect import describe
from node.peer import Dependencies, Node
from node.task.levels import PROVE
from tests.engines.onnx_models import FOLDER, manifest_of
from tests.engines.proving.fake_library import FakeLibrary
from tests.engines.proving.samples import MLP, digit, srs_file
from tests.node.network import Network, open_network
from wire.content import ContentId
from wire.kinds import Role
from wire.model import Manifest
from wire.operations import CALL
from wire.task import Stage

FILE = FOLDER / f"{MLP}.onnx"
Lie = Callable[[bytes], bytes]


class CallEngine(HashEngine):
    """Says that it has loaded an ONNX model; a call of it without a proof gives its input back."""

    async def load(self, manifest: Manifest, files: Mapping[str, Path]) -> Loaded:
        if manifest.format != "onnx":
            return await super().load(manifest, files)
        ready = Loaded(
            model=manifest.id,
            manifest=manifest,
            profile="none",
            units_per_s=1 / self.unit_s,
            memory_bytes=0,
        )
        return self._loaded.setdefault(ready.model, ready)

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        if job.operation != CALL:
            return await super().infer(job, emit)
        return Output(data=job.input, units=1)

    async def infer_many(self, jobs: Sequence[Job]) -> list[Found]:
        return [await self.infer(it) for it in jobs]


@dataclass(slots=True)
class LyingProofs:
    """Alters what an honest prover gives, and checks honestly."""

    proofs: Proofs
    lie: Lie

    @property
    def system(self) -> str:
        return self.proofs.system

    def refusal(self) -> str:
        return ""

    async def prepare(self, model: ProvableModel) -> None:
        await self.proofs.prepare(model)

    async def prove(self, model: ProvableModel, source: bytes, deadline_s: float) -> bytes:
        return self.lie(await self.proofs.prove(model, source, deadline_s))

    async def rejected(
        self, model: ProvableModel, source: bytes, output: bytes, deadline_s: float
    ) -> str:
        return await self.proofs.rejected(model, source, output, deadline_s)


@dataclass(slots=True)
class Provers:
    """Opens peers that have the model and an SRS."""

    network: Network
    folder: Path
    nursery: trio.Nursery
    libraries: list[FakeLibrary] = field(default_factory=list)

    async def add(self, *roles: Role, lie: Lie | None = None, proves: bool = True) -> Node:
        """A peer; a liar says that it is fast, and is asked first."""
        library = FakeLibrary()
        proofs: Proofs | None = None
        if proves:
            circuits = self.folder / f"circuits {len(self.libraries)}"
            circuits.mkdir()
            honest = EzklProofs(circuits, read_srs(srs_file(self.folder)), self.nursery)
            honest.library, honest.ask = "23.0.5", library.ask
            proofs = honest if lie is None else LyingProofs(honest, lie)
        self.libraries.append(library)

        def with_proofs(dependencies: Dependencies) -> Dependencies:
            return replace(dependencies, proofs=proofs)

        engine = CallEngine(0.05 if lie is None and proves else 0.001)
        return await self.network.start(
            *roles, Role.STORE, engine=engine, models=(str(FILE),), alter=with_proofs
        )


@asynccontextmanager
async def provers(folder: Path) -> AsyncIterator[tuple[Node, Provers]]:
    """An asker without a model, and what opens the others."""
    async with trio.open_nursery() as nursery:
        async with open_network(folder) as network:
            yield await network.start(Role.STORE), Provers(network, folder, nursery)
        nursery.cancel_scope.cancel()


def call() -> Stage:
    """A call of the digits' MLP that asks for a proof."""
    return Stage(role=Role.INFER, operation=CALL, model=model_id(), parameters={PROVE: 1})


def model_id() -> ContentId:
    """The id under which peers serve it."""
    (file,) = manifest_of(FILE)[0].files
    return describe(FILE).manifest({file.name: file}).id


DATA = digit()
