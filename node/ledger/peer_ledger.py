"""The ledger at one peer: its wallet, and what it does for others if it is a member."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from node.ledger.accusing import Accusing
from node.ledger.books import Draft
from node.ledger.committees import SEATED, Committees
from node.ledger.faucet import Faucet
from node.ledger.following import LedgerFollower
from node.ledger.group_signing import as_write
from node.ledger.loading import first_rows, load
from node.ledger.member_role import LedgerMember, scan_all
from node.ledger.rows import BEGUN, GENESIS
from node.ledger.showing_up import show_up
from node.ledger.stake_table import StakeTable
from node.ledger.wallet import Wallet
from p2p.peers import Peers
from store import Store, Table
from wire.checkpoint import CheckpointHeader
from wire.content import ContentId
from wire.errors import BatonError, InputError
from wire.evidence import EVIDENCE_SUFFIX, Evidence
from wire.ledger import Genesis

RESUME_AGAIN_S = 10.0
# Writes a record under a name.
Write = Callable[[str, bytes], Awaitable[None]]


@dataclass(slots=True)
class PeerLedger:
    """Made by `open_ledger`. `member` is None at a peer that is none."""

    genesis: Genesis
    wallet: Wallet
    member: LedgerMember | None
    stakes: StakeTable
    # It follows once somebody here wants to know (`follow`).
    follower: LedgerFollower
    # It refuses everybody until it is started with what it gives.
    faucet: Faucet
    nursery: trio.Nursery
    accusing: Accusing = field(init=False)
    _follows: bool = False

    def __post_init__(self) -> None:
        self.accusing = Accusing(self.wallet, self.draft, self.latest_draft)

    def follow(self) -> None:
        """Have the whole ledger followed from now on."""
        if not self._follows:
            self._follows = True
            self.nursery.start_soon(self.follower.run)

    def draft(self) -> Draft:
        """The books of the last checkpoint that is known here, as a draft of what follows."""
        if self.member is not None:
            return Draft(self.member.replica.books, self.member.replica.epoch)
        self.follow()
        replica = self.follower.replica
        return Draft(replica.books, replica.epoch)

    async def latest_draft(self) -> Draft:
        """As `draft`, after members were asked for what has ended since."""
        if self.member is None:
            await self.follower.catch_up()
        return self.draft()

    def known_rows(self) -> Mapping[bytes, bytes] | None:
        """What motions have decided, if this peer has the books anyway; else None."""
        replica = self.follower.replica if self.member is None else self.member.replica
        has_them = self.member is not None or self._follows
        return replica.books.motions.rows if has_them else None

    def keep_evidence(self, write: Write, nursery: trio.Nursery) -> None:
        """Have what is found against other members written, as a file of its own each."""

        def keep(evidence: Evidence) -> None:
            raw = evidence.to_file()
            name = f"{ContentId.of(raw)}{EVIDENCE_SUFFIX}"
            nursery.start_soon(write, name, raw)

        if self.member is not None:
            self.member.on_evidence = keep

    def sources(self) -> dict[str, Callable[[], Mapping[str, Any]]]:
        """What `status` says of it, by name."""
        return {"ledger": self.statistics, "sponsor": self.faucet.statistics}

    def statistics(self) -> Mapping[str, Any]:
        """For `status`."""
        committee = self.wallet.committees.latest
        found: dict[str, Any] = {
            "network": str(self.genesis.id),
            "name": self.genesis.name,
            "members": len(committee.members),
            "tolerates": committee.tolerates,
            "member": self.wallet.key.peer in committee.index,
            # Whether it keeps the whole ledger, which a peer without a seat may do too.
            "keeps": self.member is not None,
            "staked": self.stakes.row(self.wallet.key.peer).bonded,
            # The checkpoint by which stakes are known here.
            "stakes_epoch": self.stakes.epoch,
            "stakes_problem": self.stakes.problem,
        }
        if (member := self.member) is None:
            return found
        replica = member.replica
        return found | {
            "epoch": replica.epoch,
            "epoch_s": self.genesis.epoch_s,
            "sealed": replica.seal is not None,
            "sits_out": replica.sits_out,
            "orders": len(replica.applied),
            "supply": replica.books.supply,
            "votes": member.answers.votes,
            "confirmed": member.answers.confirmed,
            "problem": replica.broken or member.problem,
        }


def pinned(store: Store) -> Genesis | None:
    """The network that this state folder belongs to, if it is one with a ledger."""
    raw = store.read(Table.LEDGER, GENESIS)
    return None if raw is None else Genesis.from_bytes(raw)


async def pin(store: Store, genesis: Genesis) -> None:
    """Remember for good which network this is; InputError if it is another already."""
    before = pinned(store)
    if before is None:
        await store.write(Table.LEDGER, GENESIS, genesis.to_bytes())
    elif before != genesis:
        raise InputError(
            f"this state folder belongs to the network {before.name!r} ({before.id.short}),"
            f" not to {genesis.name!r} ({genesis.id.short})",
            todo="give another folder with --state, or that network's genesis file",
        )


async def open_member(
    peers: Peers, store: Store, committees: Committees, nursery: trio.Nursery
) -> LedgerMember:
    """Begin or go on as a member; Corrupt if the rows are not what was signed.

    A peer that is none yet, or none any more, keeps the whole ledger all the same: it follows, and
    takes part in the epochs in which it has a seat.
    """
    genesis = committees.genesis
    begun = store.read(Table.LEDGER, BEGUN)
    if begun is None:
        begun = int(peers.environment.wall_s() * 1000).to_bytes(8, "big")
        await store.commit(as_write([*first_rows(genesis), (BEGUN, begun)]))
    found = load(genesis, peers.key, lambda prefix: scan_all(store, prefix))
    begun_wall_s = int.from_bytes(begun, "big") / 1000
    member = LedgerMember(
        peers, store, found.replica, found.end, found.signed, nursery, begun_wall_s, committees
    )
    nursery.start_soon(member.run)
    return member


async def open_ledger(
    peers: Peers, store: Store, genesis: Genesis, nursery: trio.Nursery, *, keeps: bool = False
) -> PeerLedger:
    """The wallet of this peer; if it is a member, it takes part from now on.

    `keeps`: it keeps the whole ledger though it is none, so that it can be seated.
    """
    wallet = Wallet(peers, store, genesis, peers.key)
    committees = wallet.committees
    member = None
    if keeps or peers.me in {it.key for it in genesis.members}:
        member = await open_member(peers, store, committees, nursery)
    replica = None if member is None else member.replica
    stakes = StakeTable(peers, store, genesis, replica, committees, peers.advertiser.changed)
    tip = stakes.chain.tip if replica is None else replica.tip
    committees.restore(store.read(Table.LEDGER, SEATED), tip)
    if replica is None:
        wallet.catch_up = stakes.look
    nursery.start_soon(_resume, wallet)
    nursery.start_soon(stakes.follow)

    def pinned() -> CheckpointHeader | None:
        return stakes.chain.tip if replica is None else replica.tip

    follower = LedgerFollower(peers, genesis, pinned)
    faucet = Faucet(peers, store, wallet, nursery)
    ledger = PeerLedger(genesis, wallet, member, stakes, follower, faucet, nursery)
    nursery.start_soon(ledger.accusing.run)
    if member is not None:
        nursery.start_soon(show_up, member, wallet)
    return ledger


async def _resume(wallet: Wallet) -> None:
    """Have settled what was not when this peer stopped, however long members are away."""
    while True:
        try:
            await wallet.resume()
        except BatonError as error:
            wallet.peers.note_problem("wallet", str(error))
            await trio.sleep(RESUME_AGAIN_S)
        else:
            return
