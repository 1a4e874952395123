"""The table of stakes at one peer: whose stake is how much, by the last checkpoint that it checked.

A member has it in its books. Any other peer follows the chain of headers, fetches the rows from one
member, and believes them only if they hash to what the header says.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio

from node.ledger.committees import SEATED, Committees
from node.ledger.header_chain import HeaderChain
from node.ledger.replica import Replica
from node.ledger.sync import LedgerCalls, other_keepers
from p2p.peers import Peers
from p2p.timeouts import stretched
from store import Store, Table
from wire.amount import CREDIT
from wire.checkpoint import CheckpointHeader
from wire.content import PeerId
from wire.errors import (
    Malformed,
    Refused,
    RemoteProtocolError,
    StoreError,
    TransportError,
    WireError,
)
from wire.kinds import Role
from wire.ledger import Genesis
from wire.stake import AskStakes, StakeRow, StakeRows, table_digest

# The last header that this peer has checked.
HEADER = b"t"
# How often it is looked whether an epoch has ended: this part of one, within these bounds.
EPOCH_PART = 4
LOOK_S_MIN, LOOK_S_MAX = 1.0, 600.0
# Headers of one visit; a peer that was away for long comes back for more.
HEADERS_AT_ONCE = 256
ROWS_MAX = 1 << 20
# More than so many credits of one verifier count no more in a draw.
WEIGHT_MAX = 10_000
CALL_DEADLINE_S = 10.0
_TROUBLES = (TransportError, WireError, RemoteProtocolError, Refused, StoreError)


@dataclass(slots=True)
class StakeTable:
    """Made by `open_ledger`; `follow` has to run meanwhile at a peer that is no member."""

    peers: Peers
    store: Store
    genesis: Genesis
    # The books of a member; None at any other peer.
    replica: Replica | None
    committees: Committees
    changed: Callable[[], None] = lambda: None
    problem: str = ""
    chain: HeaderChain = field(init=False)
    _rows: Mapping[bytes, StakeRow] = field(default_factory=dict)
    # The header whose rows these are.
    _header: CheckpointHeader | None = None

    def __post_init__(self) -> None:
        raw = self.store.read(Table.LEDGER, HEADER)
        tip = None if raw is None else CheckpointHeader.from_bytes(raw)
        self.chain = HeaderChain(self.genesis, tip)

    @property
    def epoch(self) -> int | None:
        """The epoch at whose end the stakes were so; None while no checkpoint is known."""
        header = self._header if self.replica is None else self.replica.tip
        return None if header is None else header.epoch

    @property
    def rows(self) -> Mapping[bytes, StakeRow]:
        """All stakes, by their accounts."""
        return self._rows if self.replica is None else self.replica.books.stakes.rows

    def row(self, account: PeerId) -> StakeRow:
        """What an account has staked; nothing, as far as is known, if it is not in the table."""
        return self.rows.get(account) or StakeRow(account=account)

    def of_role(self, account: PeerId, role: Role) -> int:
        """What an account has staked for a role, in millionths."""
        return self.row(account).of_role(role)

    def verifier_weight(self, account: PeerId) -> int:
        """How much a verifier counts when verifiers are drawn, in credits.

        That is what it has staked for checking, and what it earned, at most as much again.
        """
        row = self.row(account)
        staked = row.of_role(Role.VERIFY)
        return min(WEIGHT_MAX, (staked + min(staked, row.worked)) // CREDIT)

    async def follow(self) -> None:
        """Look for the ends of epochs, for ever."""
        pause_s = min(LOOK_S_MAX, max(LOOK_S_MIN, self.genesis.epoch_s / EPOCH_PART))
        while True:
            before = self.row(self.peers.me)
            if self.replica is None:
                await self.look()
            if self.row(self.peers.me) != before:
                self.changed()
            await trio.sleep(pause_s)

    async def look(self) -> None:
        """Ask members, one after the other, until one tells how the last epoch ended."""
        members = [it.key for it in self.chain.committee.members]
        self.peers.environment.random.shuffle(members)
        for member in members + other_keepers(self.peers, self.chain.committee):
            try:
                await self._follow_at(member)
            except _TROUBLES as error:
                self.problem = f"the stakes are not known from {member.short}: {error}"
            else:
                self.problem = ""
                return

    async def _follow_at(self, member: PeerId) -> None:
        calls, chain = LedgerCalls(self.peers), self.chain
        for _ in range(HEADERS_AT_ONCE):
            _, checkpoint = await calls.checkpoint(member, chain.epoch)
            if checkpoint is None:
                break
            if self.committees.note(chain.accept(checkpoint)):
                await self.store.write(Table.LEDGER, SEATED, self.committees.to_bytes())
        tip = chain.tip
        if tip is None or tip == self._header:
            return
        rows = self._rows
        if table_digest(rows.values()) != tip.stake_table:
            rows = await self._fetched(member, tip)
        self._rows, self._header = rows, tip
        await self.store.write(Table.LEDGER, HEADER, tip.to_bytes())

    async def _fetched(self, member: PeerId, header: CheckpointHeader) -> Mapping[bytes, StakeRow]:
        """The rows at the end of that epoch, as a member tells them; WireError for others."""
        found: dict[bytes, StakeRow] = {}
        after: PeerId | None = None
        while header.stake_table and len(found) < ROWS_MAX:
            deadline_s = stretched(CALL_DEADLINE_S)
            async with self.peers.call(member, deadline_s=deadline_s) as call:
                await call.send(AskStakes(after=after))
                told = await call.expect(StakeRows)
            if told.epoch != header.epoch:
                raise Malformed(f"the stakes of epoch {told.epoch}, not of {header.epoch}")
            if not told.rows:
                break
            for row in told.read():
                if after is not None and row.account <= after:
                    raise Malformed("rows of stakes stand in order of their accounts")
                after = row.account
                found[after] = row
        # It is a table of all accounts, and hashing it is one pass: others have their turn first.
        await trio.lowlevel.checkpoint()
        if table_digest(found.values()) != header.stake_table:
            raise Malformed("the stakes are not those that the checkpoint says")
        return found
