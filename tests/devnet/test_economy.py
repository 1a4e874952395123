"""A network with credits under faults: what has to hold of it, and that it is found if it does not.

Each invariant has a control: something is wrong with one number, and it is named.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.devnet import economy as economy_module
from node.devnet.economy import FORGOTTEN, GOES_ON, PAID, TWO_ORDERS
from node.devnet.economy_adversary import TwoOrders
from node.devnet.economy_plan import (
    EconomyConfig,
    Struck,
    plan_economy,
    plan_faults,
    prices_of,
)
from node.devnet.economy_watch import LOSS, ONE_END, SUPPLY, EconomyWatch, supply_of
from node.devnet.faults import parse
from node.devnet.invariants import Violations
from node.devnet.net import Devnet
from node.devnet.plan import key_of, plan_peers
from node.devnet.report import report_of
from node.devnet.virtual_time import virtual_time
from node.ledger.books import Account, Books
from node.ledger.replica import Replica
from node.paying.channels import EarningChannel, PaidChannel
from tests.devnet.running import economy, opened, ran
from tests.ledger.made import Made
from tests.ledger.test_chain_file import end_epoch
from wire.content import PeerId
from wire.kinds import Role

FAULTS = "member=0.3,partition=0.1,equivocator=0.1,nonpayer=0.2,thief=0.1"
ONE, TWO = key_of(7, 1).peer, key_of(7, 2).peer


async def test_nobody_loses_what_is_his_whoever_cheats_dies_or_is_cut_off(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, economy(FAULTS, peers=10, epoch_s=6)) as net:
        await net.run()
        report = report_of(net)
        await what_is_wrong_is_found(net, monkeypatch)
    found = report.document
    assert report.passed, report.lines()
    assert found["epochs_ended"] >= 2
    assert found["tasks_answered"] == found["tasks_accepted"] > 5
    assert 0.99 <= found["paid_by_honest_ratio_min"] <= 1
    assert found["paid_ratio_min"] <= found["paid_by_honest_ratio_min"]
    assert 0 <= found["nonpayers_owe_max_increments"] <= 1
    assert found["loss_max_increments"] <= 1
    assert found["ledger_orders"] > 5
    # Members are cut apart while an epoch ends, and it ends later.
    assert found["epoch_max_s"] > 6
    told = "\n".join(found["economy"]["told"])
    for name in ("member", "partition", "equivocator", "nonpayer", "thief"):
        assert f"{name}: " in told
        assert f"came of {name}: " in "\n".join(report.lines())
    assert "--economy --epochs 2 --epoch 6" in found["replay"]
    assert sum(peer.starts > 1 for peer in net.peers) >= 1


async def what_is_wrong_is_found(net: Devnet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: work that is not paid, deposits that nobody knows of, epochs without an end."""
    assert net.economy is not None
    assert net.violations.count == 0
    monkeypatch.setattr(economy_module, "forgotten", lambda *_: 5)

    async def said(asked: Any, tariffs: Any) -> dict[tuple[PeerId, PeerId], int]:
        # One asker is honest, and of the other, who never pays, an increment may be lost.
        return {(key_of(7, payer).peer, it): 10**9 for it in tariffs for payer in (8, 9)}

    monkeypatch.setattr(economy_module, "said_by_answers", said)
    monkeypatch.setattr(economy_module, "LATE_EPOCHS", 0.01)
    watch = net.economy.watch
    watch.plan = replace(watch.plan, config=EconomyConfig(epochs=99, epoch_s=6))
    net.around.two_orders.certified[ONE, 3, 4] = {b"a", b"b"}
    await net.economy.finish()
    found = {it.invariant for it in net.violations.found}
    assert {PAID, LOSS, FORGOTTEN, GOES_ON, TWO_ORDERS} <= found
    owed = [it.what for it in net.violations.found if it.invariant == LOSS]
    assert owed
    assert all(it.startswith("payer 9 owes ") for it in owed)
    assert not report_of(net).passed


def test_one_seed_is_one_run_with_credits_too(tmp_path: Path) -> None:
    def logged() -> list[Any]:
        with virtual_time() as clock:
            wanted = economy("member=0.3", peers=8, epochs=1, epoch_s=5)
            net, report = trio.run(ran, tmp_path, wanted, clock=clock)
        document = report.document
        ends = [(it.at_s, it.header) for it in net.economy.watch.epochs.values()]
        packets = net.around.network.packets
        return [packets, ends, document["economy"], document["tasks_answered"]]

    assert logged() == logged()


async def test_epochs_of_the_start_do_not_count_and_no_more_members_forget_than_may_be_bad(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path, economy("member=0.3", peers=8, epochs=1, epoch_s=5)) as net:
        await trio.sleep(12)
        run = net.economy
        assert run is not None
        members = [it.node.ledger.member for it in run.members]  # type: ignore[union-attr]
        run.begin()
        assert run.watch.first_epoch == max(it.replica.epoch for it in members) >= 2  # type: ignore[union-attr]
        (fault,) = plan_faults(
            parse("member=0.3"), 7, run.watch.plan.config, Struck((), (), run.watch.plan.members)
        )
        (struck,) = fault.peers
        sitting = next(
            it for it in members if it is not None and it.peers.me != key_of(7, struck).peer
        )
        sitting.replica.sits_out = True
        await run.restart(fault)
        assert (run.watch.restarts, run.watch.spared, net.peers[struck].starts) == (0, 1, 1)
        # The control: nobody sits out any more.
        sitting.replica.sits_out = False
        await run.restart(fault)
        assert (run.watch.restarts, run.watch.spared, net.peers[struck].starts) == (1, 1, 2)


# Controls: of the invariants


def watch_of(count: int = 12) -> EconomyWatch:
    plan = plan_economy(EconomyConfig(), 7, plan_peers(count, 7))
    return EconomyWatch(plan, Violations(lambda: 0.0))


def found_by(watch: EconomyWatch) -> list[str]:
    return [it.invariant for it in watch.violations.found]


async def test_books_that_do_not_sum_up_are_found_also_if_their_own_sums_do() -> None:
    made = Made()
    end_epoch(made, (0, 1, 2))
    replica: Replica = made.replicas[0]
    watch = watch_of()
    watch.plan = replace(watch.plan, genesis=made.genesis)
    assert replica.tip is not None
    watch.see_checkpoint(0, replica.tip, replica.books)
    assert found_by(watch) == []
    owner = made.genesis.grants[0].account
    # The sum that is kept with the rows says nothing of it.
    shelf = replica.books.accounts[owner[0]]
    shelf[owner] = Account(shelf[owner].balance + 1, 0)
    assert replica.books.supply == made.genesis.supply
    assert supply_of(replica.books) == made.genesis.supply + 1
    watch.see_checkpoint(0, replica.tip, replica.books)
    assert found_by(watch) == [SUPPLY]
    watch.see_checkpoint(1, replace(replica.tip, fund=replica.tip.fund + 1), Books.of(made.genesis))
    assert found_by(watch)[1:] == [SUPPLY, ONE_END]


def paid(signed: int, charged: int, name: bytes = b"c") -> PaidChannel:
    return PaidChannel(TWO, name, 10**6, 9, b"", signed=signed, charged=charged)


def earned(highest: int, charged: int, name: bytes = b"c") -> EarningChannel:
    return EarningChannel(ONE, name, 10**6, 9, highest, b"", charged)


@pytest.mark.parametrize(
    ("payer", "payee", "is_loss"),
    [
        ((1000, 0), (1000, 0), False),
        ((1001, 0), (1001, 0), True),
        ((2000, 1500), (2000, 1500), False),
        # A payee that says it was promised more than its payer says.
        ((900, 900), (2000, 0), True),
        ((0, 0), (0, 1000), False),
        ((0, 0), (500, 1501), True),
    ],
)
def test_who_loses_more_than_one_increment_is_found(
    payer: tuple[int, int], payee: tuple[int, int], is_loss: bool
) -> None:
    watch = watch_of()
    watch.increments[TWO] = 1000
    watch.see_paying(ONE, [paid(*payer)])
    watch.see_earning(TWO, [earned(*payee)])
    watch.look(())
    assert found_by(watch) == [LOSS] * is_loss


def test_losses_in_several_channels_of_two_peers_are_added_up() -> None:
    watch = watch_of()
    watch.increments[TWO] = 1000
    watch.see_paying(ONE, [paid(600, 0, b"c"), paid(600, 100, b"d")])
    watch.look(())
    assert found_by(watch) == [LOSS]
    assert "payer 1 and payee 2: 1100 and 0" in watch.violations.found[0].what


# Plans


def test_members_work_for_others_and_only_who_works_has_prices() -> None:
    for count, members in ((8, 4), (49, 4), (50, 7), (1000, 7)):
        peers = plan_peers(count, 7)
        plan = plan_economy(EconomyConfig(), 7, peers)
        assert plan == plan_economy(EconomyConfig(), 7, peers)
        assert len(plan.members) == members
        assert plan.tolerates == (members - 1) // 3
        for it in peers:
            assert (Role.LEDGER in plan.roles_of(it)) is (it.number in plan.members)
            assert bool(prices_of(it)) is not it.asks
        assert not any(peers[it].asks for it in plan.members)


def test_faults_strike_whom_they_are_about() -> None:
    config = EconomyConfig(epochs=10, epoch_s=10)
    struck = Struck(workers=range(20), askers=range(20, 24), members=range(4), bad=frozenset({5}))
    faults = plan_faults(parse(FAULTS), 7, config, struck)
    assert faults == plan_faults(parse(FAULTS), 7, config, struck)
    by_name: dict[str, list[Any]] = {}
    for it in faults:
        by_name.setdefault(it.name, []).append(it)
    restarts = by_name["member"]
    assert [int(it.at_s // 10) for it in restarts] == list(range(10))
    assert all(len(it.peers) == 1 and it.peers[0] < 4 and 1 <= it.for_s <= 5 for it in restarts)
    (cut,) = by_name["partition"]
    # Neither part of the members is a quorum.
    assert sum(it < 4 for it in cut.peers) == 2
    assert set(by_name["nonpayer"][0].peers) <= set(range(20, 24))
    thieves, owners = set(by_name["thief"][0].peers), set(by_name["equivocator"][0].peers)
    assert not thieves & owners
    assert not {5} & (thieves | owners)
    (nonpayers,) = plan_faults(parse("nonpayer=1"), 7, config, struck)
    assert len(nonpayers.peers) == 3


def test_an_owner_is_stuck_if_nothing_of_it_is_settled_afterwards() -> None:
    found = TwoOrders()
    found.deeds[ONE] |= {2, 5}
    assert found.stuck(ended=3) == []
    assert found.stuck(ended=4) == [ONE]
    found.settled[ONE].add(2)
    assert found.stuck(ended=4) == [ONE]
    found.settled[ONE].add(3)
    assert found.stuck(ended=4) == []
    found.certified[ONE, 2, 0] = {b"a"}
    assert (found.with_one, found.doubled) == (1, 0)
    found.certified[ONE, 2, 0].add(b"b")
    assert (found.with_one, found.doubled) == (0, 1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [7, 8, 9])
async def test_so_it_is_for_longer(autojump_clock: MockClock, tmp_path: Path, seed: int) -> None:
    wanted = replace(economy(FAULTS, peers=24, epochs=6, epoch_s=10, rate=3), seed=seed)
    _, report = await ran(tmp_path, wanted)
    assert report.passed, report.lines()
