"""Credits in a running devnet: the faults of its members, and what must hold of it in the end."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from random import Random

import trio

from node.devnet.economy_accounts import (
    WorkerAccount,
    account_of,
    forgotten,
    said_by_answers,
    whole_ledger,
)
from node.devnet.economy_plan import (
    CUT_BEFORE,
    PRICE_MAX,
    Struck,
    honest,
    is_of_economy,
    plan_faults,
)
from node.devnet.economy_stakes import Stakes
from node.devnet.economy_watch import LOSS, EconomyWatch
from node.devnet.faults import MISBEHAVING, Fault, FaultRequest
from node.devnet.invariants import Violations
from node.devnet.load import OpenLoopLoad
from node.devnet.peer import DevPeer
from node.devnet.population import Population
from node.devnet.relay_accounts import RelayAccounts
from node.ledger.chain_file import Replayed
from wire.content import PeerId
from wire.errors import StoreError, WireError
from wire.tariff import Tariff

PAID = "every honest worker is paid what its receipts say that honest payers owe it"
PAID_RATIO_MIN = 0.99
TWO_ORDERS = "no two orders with one number are certified"
FREE_AGAIN = "who signed two orders is free in the next epoch"
HOLDS = "the ledger holds from genesis on"
GOES_ON = "every epoch ends"
FORGOTTEN = "no honest payer forgets a deposit"
# The tasks of askers that never pay are numbered from here on.
STRAYS_FIRST = 1 << 20
# After the load the last epoch may take so many times its length to end.
LATE_EPOCHS = 6


@dataclass(slots=True)
class Economy:
    """The credits of one run. `strays` are the tasks of askers that never pay."""

    watch: EconomyWatch
    population: Population
    violations: Violations
    load: OpenLoopLoad
    strays: OpenLoopLoad
    stakes: Stakes
    faults: tuple[Fault, ...] = ()
    # At the end of the run.
    ledger: Replayed | None = None
    accounts: list[WorkerAccount] = field(default_factory=list)
    deposits_forgotten: int = 0
    # None where nobody needs a relay.
    relays: RelayAccounts | None = None
    _tariffs: dict[PeerId, Tariff] = field(default_factory=dict)

    @property
    def members(self) -> list[DevPeer]:
        """The peers that keep the ledger."""
        return [self.population.peers[it] for it in self.watch.plan.members]

    def plan(self, wanted: Sequence[FaultRequest], others: Sequence[Fault]) -> tuple[Fault, ...]:
        """The faults of the economy; `others` are planned already."""
        peers = self.population.peers
        bad = {it for fault in others if fault.scope in MISBEHAVING for it in fault.peers}
        struck = Struck(
            workers=[it.number for it in peers if not it.plan.asks],
            askers=[it.number for it in peers if it.plan.asks],
            members=self.watch.plan.members,
            bad=frozenset(bad),
            whale=self.watch.plan.whale,
        )
        seed, config = self.population.seed, self.watch.plan.config
        mine = [it for it in wanted if is_of_economy(it)]
        self.faults = tuple(sorted((*others, *plan_faults(mine, seed, config, struck)), key=_at_s))
        return self.faults

    def begin(self) -> None:
        """The load begins: those that never pay have tasks of their own."""
        load = self.load
        # Epochs that ended while peers started are no part of the run.
        self.look()
        self.watch.first_epoch = self.watch.ended
        load.price_max = self.strays.price_max = PRICE_MAX
        nonpayers = self.struck_by("nonpayer")
        self.strays.askers = [it for it in load.askers if it.number in nonpayers]
        load.askers = [it for it in load.askers if it.number not in nonpayers]

    def struck_by(self, name: str) -> set[int]:
        """The peers that a fault strikes, by number."""
        return {it for fault in self.faults if fault.name == name for it in fault.peers}

    def look(self) -> None:
        """Look at all peers: once a second."""
        self.watch.look(self.population.peers)
        for peer in self.population.peers:
            paying = None if peer.node is None else peer.node.paying
            if paying is not None and paying.own.now is not None:
                self._tariffs[peer.key.peer] = paying.own.now.record

    # Faults

    async def restart(self, fault: Fault) -> None:
        """Kill members and start them again; some of them lose their disks.

        Whoever is away while an epoch ends does not know what it signed in the next, and sits that
        out: with those that do, no more are struck at once than may be bad.
        """
        random = Random(fault.seed)
        left = self.watch.plan.tolerates - self._forgetful()
        self.watch.spared += len(fault.peers) - max(0, min(left, len(fault.peers)))
        async with trio.open_nursery() as nursery:
            for number in fault.peers[: max(0, left)]:
                loses = random.random() < 0.5
                nursery.start_soon(self._restart, number, fault.for_s, loses)

    def _forgetful(self) -> int:
        """How many members are away, sit the epoch out, or may have to, for they are behind.

        One that has started counts until a quorum has told it which epoch runs: if that ends
        before, it sits the next out.
        """
        there = [
            None if it.node is None or it.node.ledger is None else it.node.ledger.member
            for it in self.members
        ]
        latest = max((it.replica.epoch for it in there if it is not None), default=0)
        return sum(
            it is None
            or it.replica.sits_out
            or not it.replica.confirmed
            or it.replica.epoch < latest
            for it in there
        )

    async def _restart(self, number: int, away_s: float, loses: bool) -> None:
        peer = self.population.peers[number]
        if peer.node is None:
            return
        self.watch.restarts += 1
        await peer.kill()
        if loses:
            self.watch.disks_lost += 1
            peer.lose_disk()
        await trio.sleep(away_s)
        await self.population.start_one(peer)

    async def near_the_end(self) -> None:
        """Wait until an epoch is nearly over at the members."""
        epoch_s = self.watch.plan.config.epoch_s
        lefts = [epoch_s * CUT_BEFORE]
        for peer in self.members:
            ledger = None if peer.node is None else peer.node.ledger
            if ledger is not None and ledger.member is not None:
                passed_s = peer.environment().wall_s() - ledger.member.begun_wall_s
                lefts.append(epoch_s * (1 - CUT_BEFORE) - passed_s)
        await trio.sleep(max(0.0, sorted(lefts)[len(lefts) // 2]))

    # The end of a run

    async def finish(self) -> None:
        """Wait for the last epoch, then draw up all accounts."""
        config, watch = self.watch.plan.config, self.watch
        self.look()
        # What was opened in the epoch that still runs is in no books before that one has ended.
        wanted = max(watch.first_epoch + config.epochs, watch.ended + 1)
        with trio.move_on_after(config.epoch_s * LATE_EPOCHS):
            while watch.ended < wanted:
                await trio.sleep(0.5)
        if watch.ended < wanted:
            self.violations.note(
                GOES_ON,
                None,
                f"{watch.ended - watch.first_epoch} of {wanted - watch.first_epoch} have ended",
            )
        await self.stakes.finish()
        try:
            self.ledger = whole_ledger(self.members)
        except (WireError, StoreError) as error:
            self.violations.note(HOLDS, None, str(error))
            return
        await self._until_known(self.ledger)
        await self.draw_up(self.ledger)
        peers = self.population.peers
        good = set(honest([it.number for it in peers], self.faults))
        bad = frozenset(it.key.peer for it in peers if it.number not in good)
        self.stakes.draw_up(self.ledger.books, bad)
        self._check_owners()
        if self.population.around.homes is not None:
            self.relays = RelayAccounts(self.violations)
            passed_s = trio.current_time() - self.population.around.started_at_s
            self.relays.draw_up(peers, good, watch.increments, passed_s)

    async def _until_known(self, ledger: Replayed) -> None:
        """Wait until honest payers have heard of all their channels: an order may be on its way."""
        peers = self.population.peers
        good = [peers[it] for it in honest([it.number for it in peers], self.faults)]
        with trio.move_on_after(self.watch.plan.config.epoch_s * LATE_EPOCHS):
            while any(forgotten(it, ledger.books) for it in good if not it.lost_stores):
                await trio.sleep(1.0)

    async def draw_up(self, ledger: Replayed) -> None:
        """What each worker did and is paid, and what each honest payer still knows of."""
        peers = self.population.peers
        asked = {**self.strays.asked, **self.load.asked}
        good = set(honest([it.number for it in peers], self.faults))
        said = await said_by_answers(asked, self._tariffs)
        payers = {peers[it].key.peer for it in good}
        self.accounts = [account_of(it, ledger, said, payers) for it in peers if not it.plan.asks]
        for account in self.accounts:
            # Who lost its disk lost its vouchers: they are signed again when it is asked again.
            if account.number in good and not peers[account.number].lost_stores:
                self._check_paid(account, payers)
        for peer in peers:
            if peer.number in good and not peer.lost_stores:
                amount = forgotten(peer, ledger.books)
                self.deposits_forgotten += amount
                if amount:
                    self.violations.note(FORGOTTEN, peer.number, f"{amount} millionths")

    def _check_paid(self, account: WorkerAccount, honest: AbstractSet[PeerId]) -> None:
        """What honest payers owe is paid; whoever does not pay gets one increment and no more."""
        watch, number = self.watch, account.number
        if account.honest_ratio < PAID_RATIO_MIN:
            paid, said = account.paid_by_honest, account.said_of_honest
            words = f"{paid} of {said} millionths ({account.honest_ratio:.2%})"
            self.violations.note(PAID, number, words)
        increment = watch.increments[self.population.peers[number].key.peer]
        for payer, (said, paid) in account.by_payer.items():
            if payer not in honest and said - paid > increment:
                words = f"payer {watch.plan.numbers.get(payer)} owes {said - paid} millionths"
                self.violations.note(LOSS, number, f"{words}, an increment is {increment}")

    def _check_owners(self) -> None:
        found = self.population.around.two_orders
        if found.doubled:
            self.violations.note(TWO_ORDERS, None, f"{found.doubled} numbers of accounts")
        for owner in found.stuck(self.watch.ended):
            self.violations.note(
                FREE_AGAIN, self.watch.plan.numbers.get(owner), "no order of it was settled since"
            )


def _at_s(fault: Fault) -> float:
    return fault.at_s
