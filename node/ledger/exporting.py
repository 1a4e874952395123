"""Bringing the whole ledger into a file: from this member's disk, or from members that have it."""

from dataclasses import dataclass

import trio

from node.ledger.chain_file import MAGIC, follower, framed
from node.ledger.committees import Committees
from node.ledger.following import fetch_epoch, nearest_first
from node.ledger.sync import LedgerCalls
from p2p.peers import Peers
from wire.content import PeerId
from wire.errors import BatonError, InputError, Unreachable
from wire.ledger import Genesis


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    epochs: int
    orders: int


async def export_ledger(peers: Peers, committees: Committees, path: trio.Path) -> Exported:
    """Write the ledger from genesis to the last checkpoint, as one member after the other gives it.

    Everything is checked on the way, as `replay` does. InputError if the file cannot be written;
    Unreachable if no member gives the whole.
    """
    problems = []
    for member in nearest_first(peers, committees.latest):
        try:
            return await _export_from(peers, committees.genesis, member, path)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written: {error.strerror}", todo="name another file"
            ) from error
        except BatonError as error:
            problems.append(f"{member.short}: {error}")
    raise Unreachable(f"no member gave the whole ledger ({'; '.join(problems)})")


async def _export_from(peers: Peers, genesis: Genesis, member: PeerId, path: trio.Path) -> Exported:
    calls, replica = LedgerCalls(peers), follower(genesis)
    orders = 0
    async with await path.open("wb") as out:
        await out.write(MAGIC)
        await out.write(framed(genesis.to_bytes()))
        while (found := await fetch_epoch(calls, member, replica)) is not None:
            await out.write(framed(found.checkpoint.to_bytes()))
            for raw in found.certificates:
                await out.write(framed(raw))
            replica.turn(found.checkpoint, found.orders)
            orders += len(found.orders)
    return Exported(replica.epoch, orders)
