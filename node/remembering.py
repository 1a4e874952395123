"""The peers that a peer has met, kept for its next start."""

from collections.abc import Callable

import trio

from p2p.dialing import Dialing
from store import Row, Store, Table, Write
from wire.codec import pack, unpack
from wire.content import PeerId
from wire.errors import StoreError

KNOWN_PEERS_KEPT = 256
SAVE_PEERS_EVERY_S = 1.0


def remembered(store: Store) -> list[tuple[PeerId, tuple[str, ...]]]:
    """Known peers and their addresses, as they were stored."""
    rows = store.scan(Table.PEERS, limit=KNOWN_PEERS_KEPT)
    return [(PeerId(key), tuple(unpack(value))) for key, value in rows]


async def remember_forever(store: Store, dialing: Dialing, note: Callable[[str], None]) -> None:
    """Store known peers and their addresses, so that a restart needs no bootstrap peer.

    A peer is stored soon after it was met, so that it is still known after a power cut.
    """
    kept: dict[PeerId, tuple[str, ...]] = dict(remembered(store))
    while True:
        await trio.sleep(SAVE_PEERS_EVERY_S)
        met = dict(list(dialing.met().items())[-KNOWN_PEERS_KEPT:])
        gone = [Row(Table.PEERS, peer, None) for peer in kept.keys() - met.keys()]
        new = [
            Row(Table.PEERS, peer, pack(list(addresses)))
            for peer, addresses in met.items()
            if kept.get(peer) != addresses
        ]
        if not gone and not new:
            continue
        try:
            await store.commit(Write(rows=(*gone, *new)))
        except StoreError as error:
            # The next round tries again, with later changes included.
            note(f"known peers could not be stored: {error.message}")
        else:
            kept = met
