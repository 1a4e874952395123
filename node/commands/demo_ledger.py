"""The demo's credits: a network with a ledger of its own, and who earned what in it.

The data peer is the only member. The asker begins with all that was granted, and pays whoever asks
for credits; the ledger's file is checked at the end as anybody would check it, offline.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from node.commands.demo_peers import DemoPeer
from node.commands.genesis import GenesisRequest, make_genesis
from node.commands.ledger_file import replay_file
from node.local.control import call, unheard
from store import key_seed
from wire.content import PeerId
from wire.errors import BatonError
from wire.signing import SigningKey

GRANTED = "100"
# Of one task, in millionths: the demo stops before a mistake in a price is dear.
PRICE_MAX = 5_000_000
EPOCH = "10s"
PRICE, PRICE_OF_WORDS = "0.01/1k:0/1k+0.001", "0.3/1k:0.6/1k"
PRICE_CHECK = "0.0005"
EPOCH_WAIT_S = 45.0
CALL_DEADLINE_S = 30.0
Narrate = Callable[[str], None]


@dataclass(slots=True)
class DemoLedger:
    """What was agreed on at the beginning, and what the file says at the end; in millionths."""

    genesis: Path
    file: Path
    supply: int
    supply_after: int = 0
    paid: int = 0
    epochs: int = 0
    problem: str = ""

    @property
    def holds(self) -> bool:
        """Whether the file was read from genesis on, and no credit came or went."""
        return not self.problem and self.supply_after == self.supply

    def to_map(self) -> dict[str, Any]:
        """As `demo --json` shows it."""
        return {
            "genesis": str(self.genesis),
            "file": str(self.file),
            "epochs": self.epochs,
            "supply": self.supply,
            "supply_after": self.supply_after,
            "paid": self.paid,
            "holds": self.holds,
            "problem": self.problem,
        }


def begin_ledger(
    folder: Path, peers: list[DemoPeer], entropy: Callable[[int], bytes]
) -> DemoLedger:
    """Write the genesis, and have every peer start with it; who works asks for credits."""
    member, asker = peers[0], peers[-1]
    wanted = GenesisRequest(
        name="demo",
        members=(),
        grants=(f"{_key(asker, entropy)}={GRANTED}",),
        supply="1000",
        epoch=EPOCH,
        own=_key(member, entropy),
    )
    genesis = make_genesis(wanted, entropy)
    path = folder / "demo.genesis"
    path.write_bytes(genesis.to_bytes())
    member.roles += ("ledger",)
    for peer in peers:
        peer.extra += ("--genesis", str(path))
        if "infer" in peer.roles:
            peer.extra += ("--price", f"{peer.model}={PRICE}")
            peer.extra += ("--price", f"{peer.writer}={PRICE_OF_WORDS}")
        if "verify" in peer.roles:
            peer.extra += ("--price-check", PRICE_CHECK)
    return DemoLedger(path, folder / "demo.ledger", genesis.supply)


def _key(peer: DemoPeer, entropy: Callable[[int], bytes]) -> PeerId:
    return SigningKey(key_seed(peer.state, lambda: entropy(32))).peer


async def settle(ledger: DemoLedger, peers: list[DemoPeer], narrate: Narrate) -> None:
    """Have what was promised redeemed, wait for a checkpoint after it, and check the whole ledger.

    What a peer that was killed had not redeemed is still its own: it may come back for it.
    """
    living = [it for it in peers if not it.killed]
    for peer in living:
        if "infer" in peer.roles or "verify" in peer.roles:
            await _redeemed(peer)
    try:
        await _checked(ledger, living, [it for it in peers if it.killed])
    except BatonError as error:
        ledger.problem = error.message
    narrate("the ledger holds" if ledger.holds else f"the ledger does not hold: {ledger.problem}")


async def _redeemed(peer: DemoPeer) -> None:
    try:
        found = await _called(peer, "earnings", {"redeem": True})
    except BatonError:
        # It is asked once more by itself before its channels end.
        found = await _called(peer, "earnings", {})
    peer.earned = int(found["charged"])


async def _checked(ledger: DemoLedger, living: list[DemoPeer], killed: list[DemoPeer]) -> None:
    asker = living[-1]
    wallet = await _called(asker, "wallet", {})
    ledger.paid = sum(int(it["charged"]) for it in wallet["paying"])
    for row in wallet["paying"]:
        # Who was killed cannot say what it earned; who paid it can.
        for peer in killed:
            peer.earned += int(row["charged"]) if row["peer"] == peer.id else 0
    with trio.move_on_after(EPOCH_WAIT_S):
        # The epoch in which all was redeemed has to end.
        while int((await _called(asker, "wallet", {}))["epoch"]) <= int(wallet["epoch"]):
            await trio.sleep(0.5)
    await _called(asker, "ledger_export", {"path": str(ledger.file)})
    found = await trio.to_thread.run_sync(replay_file, ledger.file)
    ledger.supply_after = found.books.supply
    ledger.epochs = found.epochs


async def _called(peer: DemoPeer, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return await call(peer.socket, command, arguments, unheard, deadline_s=CALL_DEADLINE_S)
