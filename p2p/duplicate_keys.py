"""Keys that run on two machines: a neighbour of both remembers them, so that both learn of it.

Pure. A view keeps only the latest advert of each key. If two machines with one key publish in turn,
the view shows only the last one, and a machine that swaps right after its own advert would hear
nothing of the other.
"""

from dataclasses import dataclass, field

from wire.advert import Advert
from wire.content import PeerId
from wire.latest import Latest
from wire.signed import Signed

# The machine that swaps is one of the two; with more machines, each still hears of one other.
_STARTS_PER_KEY = 2


@dataclass(slots=True)
class DuplicateKeys:
    """The latest adverts of the last two starts of each key that was heard from two starts."""

    keys_max: int = 64
    _starts: Latest[PeerId, dict[bytes, Signed[Advert]]] = field(init=False)

    def __post_init__(self) -> None:
        self._starts = Latest(self.keys_max)

    def hear(self, heard: Signed[Advert], known: Signed[Advert] | None) -> None:
        """Note `heard`, which arrived while `known` was the latest advert of its key."""
        peer, instance = heard.signer, heard.record.instance
        starts = self._starts.get(peer)
        if starts is None:
            if heard.record.leaving or known is None or known.record.instance == instance:
                return
            starts = self._starts[peer] = {known.record.instance: known}
        if heard.record.leaving:
            starts.pop(instance, None)
        elif instance not in starts or starts[instance].record.seq < heard.record.seq:
            starts[instance] = heard
            while len(starts) > _STARTS_PER_KEY:
                del starts[min(starts, key=lambda it: starts[it].record.seq)]

    def knows(self, peer: PeerId, instance: bytes) -> bool:
        """Whether this start of `peer`'s key is remembered as one of two."""
        return instance in self._starts.get(peer, ())

    def other(self, peer: PeerId, instance: bytes, wall_s: float) -> Signed[Advert] | None:
        """The latest advert of another start of `peer`'s key, if that advert is still valid."""
        starts = self._starts.get(peer, {})
        others = [it for it in starts.values() if it.record.instance != instance]
        holding = [it for it in others if not it.record.expired(wall_s)]
        return max(holding, key=lambda it: it.record.seq, default=None)
