"""The models that clients can ask for: by content id, or by a name that means one model here."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain

import trio

from node.gateway.errors import bad, not_found
from node.models.collection import PINNED
from node.peer import Node
from p2p.timeouts import stretched
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import BatonError, Malformed
from wire.kinds import Role
from wire.latest import Latest
from wire.layers import LayerRange
from wire.model import Manifest

# How long what adverts say is used before they are read again.
FRESH_S = 0.5
MANIFESTS_MAX = 256
NAMES_FOUND_MAX = 256
MANIFEST_DEADLINE_S = 3.0


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    """A model: what it is called here, and who says that it runs it.

    `loaded_share`: how much of it this peer has loaded, from 0 to 1, where it is at that.
    """

    id: ContentId
    name: str
    holders: tuple[PeerId, ...]
    loaded_share: float | None = None


def fingerprint_of(row: CatalogueRow, manifest: Manifest | None) -> str:
    """Which numbers an answer rests on: the model's id, and the precision it is defined in."""
    return f"{row.id.short}-{manifest.profile if manifest is not None else 'unknown'}"


def meanings(
    offered: Mapping[str, Collection[ContentId]],
    own: Mapping[str, ContentId],
    before: Mapping[str, ContentId],
) -> dict[str, ContentId]:
    """Which of the models `offered` under a name it means; names that mean none are left out.

    `own` are names that are settled here, `before` is what the last call said.
    """
    found = {}
    for name, models in offered.items():
        meant = own.get(name) or before.get(name)
        if name not in own and meant not in models:
            meant = next(iter(models)) if len(models) == 1 else None
        if meant is not None and meant in models:
            found[name] = meant
    return found


@dataclass(slots=True)
class Catalogue:
    """What this peer and the adverts it knows say of models.

    A name stands for a model that this project pins or this peer keeps; else for the one model that
    peers offer under it. Where they begin to offer another, it goes on to mean the first while that
    is offered; where there were several from the start, it means none of them.
    """

    node: Node
    _rows: dict[str, CatalogueRow] = field(default_factory=dict)
    # What names were found to mean since the last reading.
    _found: Latest[str, CatalogueRow] = field(default_factory=lambda: Latest(NAMES_FOUND_MAX))
    _names: dict[str, ContentId] = field(default_factory=dict)
    _meant: Mapping[str, ContentId] = field(default_factory=dict)
    # When each model was first heard of here, by the wall clock.
    _since_wall_s: dict[ContentId, int] = field(default_factory=dict)
    _read_at_s: float = float("-inf")
    _manifests: Latest[ContentId, Manifest] = field(default_factory=lambda: Latest(MANIFESTS_MAX))

    def rows(self) -> list[CatalogueRow]:
        """The models that somebody runs now, each under what a client may call it."""
        self._read()
        return list(self._rows.values())

    def find(self, name: str) -> CatalogueRow:
        """The model a client means; HttpError that names the nearest one."""
        self._read()
        if (found := self._found.get(name)) is None:
            found = self._found[name] = self._looked_up(name)
        return found

    def _looked_up(self, name: str) -> CatalogueRow:
        # What reads as an id means that model, whatever others call theirs.
        if (model := _id_of(name)) is not None:
            found = next((it for it in self._rows.values() if it.id == model), None)
            if found is not None:
                return found
            if self.node.models.manifest_of(model) is not None:
                return CatalogueRow(model, name, ())
        elif (row := self._rows.get(name)) is not None:
            return row
        elif (model := self._names.get(name)) is not None:
            return CatalogueRow(model, name, ())
        raise not_found(self._unknown(name), param="model", code="model_not_found")

    def since_wall_s(self, row: CatalogueRow) -> int:
        """When a model was first heard of here."""
        wall_s = self.node.dependencies.environment.wall_s()
        return self._since_wall_s.get(row.id, int(wall_s))

    async def check_does(self, row: CatalogueRow, operation: str) -> None:
        """HttpError unless the model does this, as far as its manifest can be had."""
        manifest = await self.manifest(row)
        if manifest is not None and operation not in manifest.operations:
            raise bad(
                f"the model {row.name} does not do {operation!r},"
                f" only {', '.join(manifest.operations)}",
                param="model",
                code="model_does_not_do_that",
            )

    async def manifest(self, row: CatalogueRow) -> Manifest | None:
        """What a model is, from here or from who runs it; None if nobody says it in time."""
        if (kept := self._manifests.get(row.id)) is not None:
            return kept
        found = self.node.models.manifest_of(row.id)
        if found is None and row.holders:
            try:
                data = await self.node.blobs.get(
                    row.id,
                    row.holders,
                    deadline_s=stretched(MANIFEST_DEADLINE_S),
                    size_bytes_max=limits.MANIFEST_BYTES_MAX,
                )
                found = Manifest.from_bytes(data)
            except BatonError:
                return None
        if found is not None:
            self._manifests[row.id] = found
        return found

    def _read(self) -> None:
        now_at_s = trio.current_time()
        if now_at_s - self._read_at_s < FRESH_S:
            return
        self._read_at_s = now_at_s
        self._found.clear()
        node = self.node
        self._names = {name: make().id for name, make in PINNED.items()}
        for model, manifest in node.models.known().items():
            self._names.setdefault(manifest.name, model)
        holders: dict[ContentId, list[PeerId]] = {}
        offered: dict[str, set[ContentId]] = {}
        living = node.peers.view.living(node.dependencies.environment.wall_s())
        for heard in chain([node.peers.mine()], living):
            if not heard.record.plays(Role.INFER):
                continue
            for offer in heard.record.models:
                if LayerRange.read(offer.name) is not None:
                    # A part of a model answers nobody.
                    continue
                holders.setdefault(offer.model, []).append(heard.signer)
                if offer.name.isprintable() and _id_of(offer.name) is None:
                    offered.setdefault(offer.name, set()).add(offer.model)
        self._meant = meanings(offered, self._names, self._meant)
        called = {model: name for name, model in self._meant.items()}
        wall_s = int(node.dependencies.environment.wall_s())
        self._since_wall_s = {it: self._since_wall_s.get(it, wall_s) for it in holders}
        self._rows = {}
        for model, peers in holders.items():
            name = called.get(model, str(model))
            self._rows[name] = CatalogueRow(model, name, tuple(peers))
        for model, share in node.dependencies.engine.statistics().loading.items():
            kept = node.models.manifest_of(model)
            if model not in holders and kept is not None:
                self._rows[kept.name] = CatalogueRow(model, kept.name, (), share)

    def _unknown(self, name: str) -> str:
        names = sorted({*self._rows, *self._names})
        # The nearest, however far that is.
        near = get_close_matches(name[:80], names, n=1, cutoff=0.0)
        hint = f"; the nearest is {near[0]!r}" if near else ""
        return f"there is no model {name[:80]!r} here{hint}; GET /v1/models lists all"


def _id_of(name: str) -> ContentId | None:
    try:
        return ContentId.parse(name)
    except Malformed:
        return None
