"""The tariffs of other peers, as far as they are known here: read once, kept by content."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from p2p.blobs import Blobs
from p2p.timeouts import stretched
from wire import limits
from wire.advert import Advert
from wire.content import ContentId, PeerId
from wire.errors import BatonError, Malformed
from wire.latest import Latest
from wire.signed import Signed, open_signed
from wire.tariff import Tariff

KEPT_MAX = 1024
FETCH_DEADLINE_S = 5.0
# So many are fetched at once.
AT_ONCE = 16
# A peer that did not give its tariff is asked for it again after so long.
AGAIN_S = 10.0


@dataclass(slots=True)
class Tariffs:
    """Tariffs by the ids that adverts name."""

    blobs: Blobs
    network: ContentId
    nursery: trio.Nursery
    _known: Latest[ContentId, Signed[Tariff]] = field(default_factory=lambda: Latest(KEPT_MAX))
    _wanted: dict[PeerId, Signed[Advert]] = field(default_factory=dict)
    _learning: bool = False
    _withheld: Latest[ContentId, float] = field(default_factory=lambda: Latest(KEPT_MAX))

    def of(self, heard: Signed[Advert]) -> Signed[Tariff] | None:
        """The tariff that an advert names; None where it is not known here."""
        named = heard.record.tariff
        found = None if named is None else self._known.get(named)
        return found if found is not None and found.signer == heard.signer else None

    def agreed(self, named: ContentId | None, peer: PeerId) -> Signed[Tariff] | None:
        """The tariff with this id, if it is a peer's, and known here."""
        found = None if named is None else self._known.get(named)
        return found if found is not None and found.signer == peer else None

    def know(self, tariff: Signed[Tariff]) -> None:
        """Keep one that was read and checked."""
        self._known[tariff.id] = tariff

    def learn_soon(self, heard: Signed[Advert]) -> None:
        """Fetch a peer's tariff in the background."""
        self._wanted[heard.signer] = heard
        if not self._learning:
            self._learning = True
            self.nursery.start_soon(self._learn_wanted)

    async def _learn_wanted(self) -> None:
        try:
            while self._wanted:
                wanted, self._wanted = list(self._wanted.values()), {}
                await self.learn(wanted)
        finally:
            self._learning = False

    async def learn(self, adverts: Sequence[Signed[Advert]]) -> None:
        """Fetch those of these peers' tariffs that are not known yet, as far as they give them."""
        now_at_s = trio.current_time()
        lacking = [
            it
            for it in adverts
            if it.record.tariff is not None
            and self.of(it) is None
            and self._withheld.get(it.record.tariff, 0.0) <= now_at_s
        ]
        if not lacking:
            return
        async with trio.open_nursery() as nursery:
            for heard in lacking[:AT_ONCE]:
                nursery.start_soon(self._fetch, heard)

    async def _fetch(self, heard: Signed[Advert]) -> None:
        named = heard.record.tariff
        assert named is not None
        try:
            raw = await self.blobs.get(
                named,
                (heard.signer,),
                deadline_s=stretched(FETCH_DEADLINE_S),
                size_bytes_max=limits.TARIFF_BYTES_MAX,
            )
            tariff = open_signed(raw, Tariff)
            if tariff.signer != heard.signer or tariff.record.network != self.network:
                raise Malformed("a tariff of another peer, or of another network")
        except BatonError as error:
            self._withheld[named] = trio.current_time() + AGAIN_S
            self.blobs.peers.note_problem(
                "tariff", f"the prices of {heard.signer.short}: {error.message}"
            )
        else:
            self.know(tariff)
