"""Bringing the whole ledger into a file: from this member's disk, or from members that have it."""

from dataclasses import dataclass

import trio

from node.ledger.chain_file import MAGIC, follower, framed
from node.ledger.sync import LedgerCalls
from p2p.peers import Peers
from wire.checkpoint import ORDER_BUCKETS
from wire.content import PeerId
from wire.errors import BatonError, InputError, Malformed, Unreachable
from wire.ledger import Genesis


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    epochs: int
    orders: int


async def export_ledger(peers: Peers, genesis: Genesis, path: trio.Path) -> Exported:
    """Write the ledger from genesis to the last checkpoint, as one member after the other gives it.

    Everything is checked on the way, as `replay` does. InputError if the file cannot be written;
    Unreachable if no member gives the whole.
    """
    problems = []
    for member in _nearest_first(peers, genesis):
        try:
            return await _export_from(peers, genesis, member, path)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written: {error.strerror}", todo="name another file"
            ) from error
        except BatonError as error:
            problems.append(f"{member.short}: {error}")
    raise Unreachable(f"no member gave the whole ledger ({'; '.join(problems)})")


def _nearest_first(peers: Peers, genesis: Genesis) -> list[PeerId]:
    members = [it.key for it in genesis.members]
    return sorted(members, key=lambda it: it != peers.me)


async def _export_from(peers: Peers, genesis: Genesis, member: PeerId, path: trio.Path) -> Exported:
    calls, replica = LedgerCalls(peers), follower(genesis)
    orders = 0
    async with await path.open("wb") as out:
        await out.write(MAGIC)
        await out.write(framed(genesis.to_bytes()))
        while True:
            _, checkpoint = await calls.checkpoint(member, replica.epoch)
            if checkpoint is None:
                break
            header = replica.check_checkpoint(checkpoint)
            await out.write(framed(checkpoint.to_bytes()))
            listed: list[bytes] = []
            for number in range(ORDER_BUCKETS if header.count else 0):
                listed += await calls.bucket(member, header.epoch, number)
            found = []
            for raw in await calls.certificates(member, header.epoch, listed):
                found.append(replica.learn(raw))
                await out.write(framed(raw))
            if len(found) != header.count:
                raise Malformed(f"{len(found)} of {header.count} orders of epoch {header.epoch}")
            replica.turn(checkpoint, found)
            orders += header.count
    return Exported(replica.epoch, orders)
