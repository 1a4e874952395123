"""What members fetch from each other: lists of orders, certificates, and how epochs have ended."""

from dataclasses import dataclass

from node.ledger.committee import Committee
from p2p.peer_rpc import PeerRpc
from p2p.peers import Peers
from p2p.timeouts import stretched
from wire import limits
from wire.checkpoint import DIGEST_BYTES, Checkpoint
from wire.content import PeerId
from wire.errors import Malformed
from wire.kinds import Role
from wire.ledger_message import (
    AskBucket,
    AskCertificates,
    AskCheckpoint,
    BucketOrders,
    Certificates,
    CheckpointReply,
)

CALL_DEADLINE_S = 10.0
# So many peers that are no members are asked if no member answers.
OTHERS_MAX = 8
# After so many certificates that a member has not got, another is asked.
LACKING_MAX = 8


def digests_in(data: bytes) -> list[bytes]:
    """Digests that lie one after the other."""
    return [data[at : at + DIGEST_BYTES] for at in range(0, len(data), DIGEST_BYTES)]


def other_keepers(peers: Peers, committee: Committee) -> list[PeerId]:
    """Peers that say they keep the ledger and are none of these members.

    Whoever was away for long may know no member of today. Nobody's word is taken for how an epoch
    has ended, so anybody may be asked.
    """
    heard = peers.view.candidates(Role.LEDGER, None, peers.environment.wall_s())
    return sorted({it.signer for it in heard} - {*committee.index, peers.me})[:OTHERS_MAX]


@dataclass(frozen=True, slots=True)
class LedgerCalls:
    """Questions to members; each raises what `PeerRpc.call` does, and Refused."""

    rpc: PeerRpc

    async def bucket(
        self, member: PeerId, epoch: int, number: int, digest: bytes = b""
    ) -> list[bytes]:
        """The orders of one bucket of an epoch, if it can those that hash to `digest`."""
        async with self.rpc.call(member, deadline_s=stretched(CALL_DEADLINE_S)) as call:
            await call.send(AskBucket(epoch=epoch, bucket=number, digest=digest))
            return digests_in((await call.expect(BucketOrders)).orders)

    async def certificates(self, member: PeerId, epoch: int, orders: list[bytes]) -> list[bytes]:
        """Certificates of these orders, as many as the member has."""
        found: list[bytes] = []
        left, lacking = orders, 0
        while left and lacking < LACKING_MAX:
            asked = left[: limits.CERTIFICATES_ASKED_MAX]
            async with self.rpc.call(member, deadline_s=stretched(CALL_DEADLINE_S)) as call:
                await call.send(AskCertificates(epoch=epoch, orders=b"".join(asked)))
                told = (await call.expect(Certificates)).certificates
            if not told:
                # It has not got the first of them.
                lacking += 1
                left = left[1:]
            found += told
            # An answer has at most so many bytes: what did not fit is asked for again.
            left = left[len(told) :]
        return found

    async def checkpoint(self, member: PeerId, epoch: int) -> tuple[int, Checkpoint | None]:
        """Which epoch runs there, and how the one asked about has ended."""
        async with self.rpc.call(member, deadline_s=stretched(CALL_DEADLINE_S)) as call:
            await call.send(AskCheckpoint(epoch=epoch))
            reply = await call.expect(CheckpointReply)
        found = reply.checkpoint
        if found is None:
            return reply.epoch, None
        if reply.epoch <= epoch:
            raise Malformed("a checkpoint of an epoch that has not ended there")
        return reply.epoch, Checkpoint.from_bytes(found)
