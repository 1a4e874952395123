"""Integer models by their id, read from here or from whoever has them, for checks and disputes."""

from dataclasses import dataclass, field

import trio

from node.engines.exact import text_file
from node.engines.exact.file import read_bytes
from node.engines.exact.model import FILE, FORMAT, MODEL_BYTES_MAX, ExactModel
from node.engines.interface import EXACT_FORMATS
from node.engines.worker.exact_claims import ExactClaims
from node.models.collection import Models
from p2p.timeouts import stretched
from wire.content import ContentId
from wire.errors import BatonError
from wire.latest import Latest
from wire.model import Manifest

# A dispute waits for the model no longer than this; a peer that runs it has it anyway.
FETCH_S = 15.0
MODELS_KEPT = 4


@dataclass(frozen=True, slots=True)
class ExactFile:
    """An integer model: its manifest, its file's bytes, and what they say."""

    manifest: Manifest
    data: bytes = field(repr=False)
    model: ExactModel = field(repr=False)


@dataclass(slots=True)
class ExactFiles:
    """Reads integer models; the latest few stay read."""

    models: Models
    _latest: Latest[ContentId, ExactFile] = field(default_factory=lambda: Latest(MODELS_KEPT))

    async def here(self, model: ContentId) -> ExactFile | None:
        """As `get`, of a model that this peer has: a stranger's word makes it fetch none."""
        manifest = self.models.manifest_of(model)
        if manifest is None or manifest.format != FORMAT:
            return None
        content = manifest.file(FILE).content
        if model not in self._latest and await self.models.blobs.store.missing(content, limit=1):
            return None
        return await self.get(model)

    async def claims(self, model: ContentId) -> ExactClaims | None:
        """What judges answers of an exact transformer; None unless it is one, and is here.

        Nothing is fetched for it: such a file is large. ModelRefused.
        """
        manifest = self.models.manifest_of(model)
        if manifest is None or manifest.format != text_file.FORMAT:
            return None
        content = manifest.file(text_file.FILE).content
        if await self.models.blobs.store.missing(content, limit=1):
            return None
        _, files = await self.models.bring(model)
        return await trio.to_thread.run_sync(ExactClaims.of, files[text_file.FILE], model)

    async def is_exact(self, model: ContentId) -> bool:
        """Whether a model computes in whole numbers, as far as can be known here."""
        manifest = await self.models.learn(model)
        return manifest is not None and manifest.format in EXACT_FORMATS

    async def get(self, model: ContentId) -> ExactFile | None:
        """The model of this id; None if it is no integer model, or cannot be had in time."""
        if (found := self._latest.get(model)) is not None:
            return found
        manifest = await self.models.learn(model)
        if manifest is None or manifest.format != FORMAT:
            return None
        try:
            data = await self.models.blobs.get(
                manifest.file(FILE).content,
                self.models.holders(model),
                deadline_s=stretched(FETCH_S),
                size_bytes_max=MODEL_BYTES_MAX,
            )
            read = await trio.to_thread.run_sync(read_bytes, data, manifest.name)
        except BatonError:
            return None
        self._latest[model] = ExactFile(manifest, data, read)
        return self._latest[model]
