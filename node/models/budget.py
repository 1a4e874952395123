"""Which models have to be unloaded from memory so that another fits. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from wire.content import ContentId


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidentModel:
    """A model in memory, when it was last used, and whether it is in use now."""

    model: ContentId
    memory_bytes: int
    used_at_s: float
    busy: bool


def to_let_go(
    held: Iterable[ResidentModel], wanted_bytes: int, budget_bytes: int
) -> tuple[ContentId, ...] | None:
    """The models to unload for one of `wanted_bytes`: least recently used first, none in use.

    None if it does not fit yet: the caller has to wait for models in use.
    """
    there = sorted(held, key=lambda it: it.used_at_s)
    over_bytes = sum(it.memory_bytes for it in there) + wanted_bytes - budget_bytes
    gone: list[ResidentModel] = []
    for resident in there:
        if over_bytes <= 0:
            break
        if not resident.busy and resident.memory_bytes:
            gone.append(resident)
            over_bytes -= resident.memory_bytes
    if over_bytes > 0:
        return None
    # A model chosen earlier may be too small to matter, once a larger one is unloaded as well.
    for resident in reversed(list(gone)):
        if over_bytes + resident.memory_bytes <= 0:
            gone.remove(resident)
            over_bytes += resident.memory_bytes
    return tuple(it.model for it in gone)
