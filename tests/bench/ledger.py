"""What a transfer costs a member of the ledger, beside the signatures and checks that it has to do.

Processor time of one member, which votes for every order and applies every certificate, at 4, 10
and 31 members. `bare` signs and checks the same words and does nothing else. `together`: votes and
acknowledgements of 64 orders at once share a signature. `clients`: 32 owners at once on a disk,
through the member's own signing.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from node.ledger.books import Books
from node.ledger.committee import collected, proof_of
from node.ledger.group_signing import GroupSigning
from node.ledger.replica import Replica
from store import open_store
from tests.ledger.simulation import KEYS
from wire.ledger import (
    AccountOrder,
    Certificate,
    Genesis,
    Grant,
    Member,
    Payment,
    Vote,
)
from wire.signed import Envelope, Signed, sign, sign_many
from wire.signing import SigningKey, check_signature

TRANSFERS = 256
GROUP = 64
CLIENTS = 32
OWNERS = [SigningKey(number.to_bytes(32, "big")) for number in range(1, TRANSFERS + 1)]


def run() -> dict[str, Any]:
    """Microseconds and transfers a second of one core, and the ratios that have to hold."""
    found = {str(members): _measured(members) for members in (4, 10, 31)}
    clients = trio.run(_with_clients)
    held = (
        all(it["ratio"] <= 1.5 for it in found.values())
        and found["10"]["together_ratio"] >= 2.5
        and found["10"]["certificate_bytes"] <= 800
        and clients["commits_per_transfer"] <= 0.1
    )
    return {"transfers": TRANSFERS, "members": found, "clients": clients, "held": held}


class _Network:
    """Owners with credits, and members of the same weight."""

    def __init__(self, members: int) -> None:
        keys = sorted(KEYS[:members], key=lambda it: it.peer)
        self.keys = keys
        self.genesis = Genesis(
            version=1,
            name="bench",
            nonce=bytes(16),
            epoch_s=3600,
            account_min=1000,
            fund=0,
            grants=tuple(
                Grant(account=it, amount=10**9) for it in sorted(key.peer for key in OWNERS)
            ),
            members=tuple(Member(key=it.peer, weight=1) for it in keys),
        )
        self.quorum = 2 * members // 3 + 1

    def replica(self) -> Replica:
        found = Replica(self.genesis, self.keys[0], Books.of(self.genesis))
        found.sure = True
        return found

    def orders(self) -> list[Signed[AccountOrder]]:
        return [
            sign(
                AccountOrder(
                    network=self.genesis.id,
                    epoch=0,
                    sequence=0,
                    pay=(Payment(to=OWNERS[at - 1].peer, amount=1000 + at),),
                ),
                key,
            )
            for at, key in enumerate(OWNERS)
        ]

    def vote(self, order: Signed[AccountOrder]) -> Vote:
        return Vote.of(order)

    def certificates(
        self, orders: Sequence[Signed[AccountOrder]], group: int
    ) -> tuple[list[bytes], list[list[bytes]]]:
        """The certificates, and the votes' proofs, of votes that were signed by the group."""
        proofs: list[dict[int, bytes]] = [{} for _ in orders]
        for place in range(self.quorum):
            for start in range(0, len(orders), group):
                some = [self.vote(it) for it in orders[start : start + group]]
                for at, signed in enumerate(sign_many(some, self.keys[place])):
                    proofs[start + at][place] = proof_of(Vote, signed.raw)
        raws = [
            Certificate(order=order.raw, votes=collected(found)).to_bytes()
            for order, found in zip(orders, proofs, strict=True)
        ]
        return raws, [list(it.values()) for it in proofs]


def _measured(members: int) -> dict[str, Any]:
    network = _Network(members)
    orders = network.orders()
    alone, proofs = network.certificates(orders, 1)
    shared, _ = network.certificates(orders, GROUP)
    ours_us = _member_us(network, [it.raw for it in orders], alone, 1)
    together_us = _member_us(network, [it.raw for it in orders], shared, GROUP)
    bare_us = _bare_us(network, orders, proofs)
    return {
        "member_us": round(ours_us),
        "bare_us": round(bare_us),
        "ratio": round(ours_us / bare_us, 2),
        "transfers_per_s": round(1e6 / ours_us),
        "together_us": round(together_us),
        "together_transfers_per_s": round(1e6 / together_us),
        "together_ratio": round(ours_us / together_us, 2),
        "order_bytes": len(orders[0].raw),
        "certificate_bytes": len(alone[0]),
        "certificate_together_bytes": len(shared[0]),
    }


def _member_us(
    network: _Network, orders: Sequence[bytes], certificates: Sequence[bytes], group: int
) -> float:
    """One member, from the bytes of an order to the bytes of its acknowledgement."""
    replica = network.replica()
    began_s = time.process_time()
    for start in range(0, len(orders), group):
        votes = []
        for raw in orders[start : start + group]:
            envelope = Envelope.read(raw, AccountOrder)
            claimed = envelope.claimed()
            replica.consider(envelope.signer, claimed)
            votes.append(replica.vote(envelope.checked(claimed))[0])
        sign_many(votes, network.keys[0])
        words = [replica.confirm(it)[0] for it in certificates[start : start + group]]
        sign_many(words, network.keys[0])
    assert len(replica.applied) == len(orders)
    return (time.process_time() - began_s) / len(orders) * 1e6


def _bare_us(
    network: _Network, orders: Sequence[Signed[AccountOrder]], proofs: Sequence[Sequence[bytes]]
) -> float:
    """The same signatures and checks over words of the same length, and nothing else."""
    words = []
    for order, found in zip(orders, proofs, strict=True):
        signature = Envelope.read(order.raw, AccountOrder).proof
        words.append((order, order.record.to_bytes(), signature, found, network.vote(order)))
    bodies = [it[4].to_bytes() for it in words]
    began_s = time.process_time()
    for (order, body, signature, found, _), vote in zip(words, bodies, strict=True):
        check_signature(order.signer, "account_order", body, signature)
        network.keys[0].sign("vote", vote)
        for place, proof in enumerate(found):
            check_signature(network.keys[place].peer, "vote", vote, proof)
        network.keys[0].sign("acknowledgement", vote)
    return (time.process_time() - began_s) / len(orders) * 1e6


async def _with_clients() -> dict[str, Any]:
    """Many owners at once at one member with a disk: commits for each transfer, and the waits."""
    network = _Network(1)
    orders = network.orders()
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        async with (
            open_store(Path(folder), quota_bytes=1 << 30) as store,
            trio.open_nursery() as nursery,
        ):
            replica, signing = network.replica(), GroupSigning(network.keys[0], store)
            nursery.start_soon(signing.run)
            before = store.statistics().commits
            waits_s: list[float] = []
            left = list(orders)

            async def client() -> None:
                while left:
                    order = left.pop()
                    began_s = time.perf_counter()
                    vote, row = replica.vote(order)
                    raw = await signing.signed(vote, [row])
                    votes = collected({0: proof_of(Vote, raw)})
                    whole = Certificate(order=order.raw, votes=votes).to_bytes()
                    word, rows = replica.confirm(whole)
                    await signing.signed(word, rows)
                    waits_s.append(time.perf_counter() - began_s)

            began_s = time.perf_counter()
            async with trio.open_nursery() as clients:
                for _ in range(CLIENTS):
                    clients.start_soon(client)
            took_s = time.perf_counter() - began_s
            commits = store.statistics().commits - before
            nursery.cancel_scope.cancel()
    return {
        "clients": CLIENTS,
        "transfers_per_s": round(len(orders) / took_s),
        "p50_ms": round(sorted(waits_s)[len(waits_s) // 2] * 1000, 1),
        "commits_per_transfer": round(commits / len(orders), 3),
        "signatures_per_transfer": round(signing.signatures / len(orders), 3),
    }
